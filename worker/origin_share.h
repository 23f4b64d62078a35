/*
 * How much of the origins' bandwidth this worker may use, and each job's part of it, as the master
 * said: checked and copied from the wire. Immutable.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"
#include "granary/v1/cluster.pb-c.h"
#include "origin/limits.h"
#include "worker/dataset.h"

#define ORIGIN_SHARE_JOBS_MAX 4096

struct origin_share_job {
	char name[DATASET_JOB_BYTES];
	double bytes_per_s;
};

struct origin_share_origin {
	char prefix[ORIGIN_PREFIX_BYTES];
	double bytes_per_s, other_bytes_per_s;
};

struct origin_share {
	bool limited; /* all origins together */
	double bytes_per_s, other_bytes_per_s;
	size_t origin_count;
	struct origin_share_origin *origins; /* by prefix */
	size_t job_count;
	struct origin_share_job jobs[]; /* by name */
};

/* NULL is no limit. -EINVAL: rates that are no numbers, negative or without end; names of jobs and
 * prefixes of origins that are empty, too long or there twice; too many of either. -ENOMEM. */
int origin_share_new(
	const Granary__V1__OriginShare *message, struct origin_share **ret, struct error *err);
void origin_share_free(struct origin_share *s); /* NULL is fine */
/* NULL: it is not listed. */
const struct origin_share_job *origin_share_find(const struct origin_share *s, const char *job);
