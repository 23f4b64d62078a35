/*
 * Who gets bytes from origins: jobs, the limited origins that they get them from, and the flows of
 * the queue before those (fair_queue.h), one for each job at each limited origin and one for each at
 * all others. Only for origin_queue.c.
 *
 * A limited origin is that of a prefix of the share. It has the pace of its gets (origin/window.h)
 * and the group of its flows. One that the share names no more has no limit, and is kept as long as
 * it is in use; so is a flow.
 *
 * Weights of flows: a job has what it was granted. Jobs that were granted nothing, and those the
 * master did not name, share what is for others, by their number, at a limited origin and at all that
 * are not. No flow has less than ORIGIN_FLOOR of its limit by the number of flows that wait.
 *
 * Threading: the caller's lock.
 */
#pragma once

#include <uthash.h>

#include "worker/fair_queue.h"
#include "worker/origin_share.h"
#include "origin/window.h"

#define ORIGIN_FLOOR 0.01
#define ORIGIN_JOBS_MAX 1024 /* counted apart, beside those of the share */

struct origin_flow {
	struct fair_flow fair;
	struct origin_job *job;
	struct limited_origin *origin; /* NULL: all without a limit of their own */
	unsigned open;		       /* turns */
	double weight_before;	       /* while a share is applied */
	struct origin_flow *prev, *next;
};

struct origin_job {
	char name[DATASET_JOB_BYTES];
	double granted_bytes_per_s; /* 0: a part of what others share */
	unsigned open;		    /* turns */
	uint64_t origin_bytes, waited_us, queued_bytes;
	uint64_t reported_bytes;
	bool used;
	struct origin_flow elsewhere;	/* at all origins without a limit of their own */
	struct origin_flow *flows;	/* at limited ones */
	struct origin_job *prev, *next; /* the last used first */
	UT_hash_handle hh;
};

struct limited_origin {
	char prefix[ORIGIN_PREFIX_BYTES];
	bool listed; /* in the share */
	double other_bytes_per_s;
	struct origin_window window;
	struct fair_group group;
	int64_t look_ns; /* while the group is blocked: when to look again */
	uint64_t origin_bytes, queued_bytes;
	struct origin_flow nameless; /* of no job, and of those that have no place */
	struct limited_origin *prev, *next;
};

struct origin_jobs {
	struct origin_share *share; /* the cluster's */
	double part; /* of it, that is this worker's; granted and other are of that */
	struct limited_origin *origins;
	unsigned generation; /* of the origins that are listed */
	struct origin_job *by_name;
	struct origin_job *by_use;
	struct origin_job nameless; /* no job, and those that have no place; not in by_name */
};

int origin_jobs_init(struct origin_jobs *js);	 /* without a limit; -ENOMEM */
void origin_jobs_deinit(struct origin_jobs *js); /* no turn is open */

struct origin_job *origin_jobs_find(const struct origin_jobs *js, const char *name);
/* The job of that name, as a reader said it, made when it is new; the nameless one when it is "" or
 * there is no room. */
struct origin_job *origin_jobs_use(struct origin_jobs *js, const char *name);
/* Where the bytes of a URL (NULL: of no limited origin) go for a job; when memory is out, the
 * nameless one's there. */
struct origin_flow *origin_jobs_flow(struct origin_jobs *js, struct origin_job *j, const char *url);

double origin_flow_weight(const struct origin_jobs *js, const struct fair_queue *q,
	double total_bytes_per_s, const struct origin_flow *f);

/* Of the share, another part from now on. */
void origin_jobs_set_part(struct origin_jobs *js, double part);
/* From now on; takes the share and gives the one before, which the caller frees, through *share.
 * -ENOMEM: everything is as before. */
int origin_jobs_apply(struct origin_jobs *js, struct origin_share **share);
/* Forgets flows and origins that nobody uses or lists. */
void origin_jobs_prune(struct origin_jobs *js);
/* Calls fn for every flow. */
void origin_jobs_each_flow(
	struct origin_jobs *js, void (*fn)(void *arg, struct origin_flow *f), void *arg);
