/*
 * The scheduler: a problem in, an allocation out. GPUs by one policy, cache and origin bandwidth by
 * another; twelve pairs, defined in docs/silod.md so that another implementation gets the same
 * numbers.
 *
 * What holds for every allocation:
 *  - GPUs, cache and bandwidth granted never exceed the capacity, nor what the one who got them can
 *    use; what nobody can use is reported as left.
 *  - predicted_bytes_per_s = min(f*, remote / (1 - hit_ratio)).
 *  - A dataset's cache is charged once, however many jobs read it (private: once a copy).
 *  - The same problem gives the same allocation.
 *
 * Bytes are whole and rounded down, rates are right to 1e-6 of their value. The time grows as
 * n log n with jobs and datasets. No IO, no threads, no globals.
 *
 * Errors: -EINVAL with the fault named, -ENOMEM.
 */
#pragma once

#include "scheduler/problem.h"

struct allocation_job {
	bool running;	      /* else everything below is 0 */
	uint64_t cache_bytes; /* its dataset's; of private storage its own copy */
	double remote_bytes_per_s;
	double predicted_bytes_per_s;
	double hit_ratio;
	/* What it would reach with an n-th of cache and bandwidth, for max-min fairness and for
	 * measuring it: the regular steady state. */
	double equal_bytes_per_s;
};

struct allocation {
	struct allocation_job *jobs; /* as in the problem */
	uint64_t *dataset_cache_bytes;
	uint64_t gpus_left, cache_bytes_left;
	double remote_bytes_per_s_left;
};

/* Fills *ret, which allocation_deinit releases. */
int allocation_solve(const struct problem *p, enum gpu_policy gpus, enum storage_policy storage,
	struct allocation *ret, struct problem_fault *ret_fault);
void allocation_deinit(struct allocation *a);

/* "fifo", "joint", ...; NULL past the end. */
const char *gpu_policy_name(enum gpu_policy policy);
const char *storage_policy_name(enum storage_policy policy);
