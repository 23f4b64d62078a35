/*
 * The part of an allocation that is about limits of single origins (allocate.h). Pure.
 */
#pragma once

#include "master/allocate.h"

/* What readers without a job keep: of each limit as of all together, a part as large as a job's for
 * each of their mounts, 1 % when there are none. Returns what of all origins together is kept from
 * jobs; 0 when all together are not limited. */
double allocate_others(const struct plan_item *items, const struct allocate_job *jobs,
	size_t job_count, struct allocate_cluster *c);

/* One that shares a limit. */
struct allocate_part {
	size_t job; /* the caller's */
	double want, least, weight;
	double got;
};
/* Max-min by weight: as much to each as it wants at most, what is its least first, and all of
 * bytes_per_s where they want it. Where the least of all is more, each has that part of it. */
void allocate_parts(struct allocate_part *parts, size_t count, double bytes_per_s);
