/*
 * A cluster over time, from event to event: jobs arrive, are given GPUs, cache and bandwidth by the
 * scheduler, read epoch after epoch, and leave. The allocation is solved again when a job arrives or
 * ends, when an epoch's end changes what can hit, and when hits have drifted. Between events every
 * rate is constant; where jobs share a dataset that is being cached, steps are short enough that no
 * hit ratio changes by more than half a percent.
 *
 * Uniform caches (joint, private, whole) follow sim/bands.h. Of LRU the steady state is known: a
 * first epoch hits nothing of its own, and of what others have read by then the same share as
 * they would; from the second epoch on the formula holds. Without a running job a dataset keeps
 * only what the user's bounds set aside.
 *
 * SJF is preemptive: whoever scores lower takes the GPUs, and the other goes on later where it was.
 * Moving costs nothing. Deterministic, no IO.
 */
#pragma once

#include "scheduler/problem.h"

struct sim_job_result {
	double start_s, finish_s; /* start: the first time that it had GPUs */
	double origin_bytes;
};

struct sim_result {
	struct sim_job_result *jobs;
	double makespan_s;   /* first arrival to last end */
	double useful_gpu_s; /* GPUs times the share of time that they would have computed at f* */
	double held_gpu_s;   /* GPUs times the time that jobs had them */
	double origin_bytes;
	/* What depends on how many jobs there are is taken until the last arrival: after it the
	 * cluster only empties, and the longest job alone may take longer than all before. Where
	 * all arrive at once it is taken to the end. */
	double window_s;
	double window_useful_gpu_s;
	double fairness;   /* the least of rate / rate with an equal share, mean over busy time */
	double mean_share; /* the mean over the jobs instead of the least */
	double busy_s;	   /* time with jobs running */
	/* Cache that was granted and that was filled, bytes times window; 0 of LRU. */
	double granted_byte_s, filled_byte_s;
	uint64_t solved; /* how often the scheduler was asked */
};

/* Called now and then; may be NULL. */
typedef void sim_progress_fn(void *arg, size_t finished_jobs);

/* remaining_bytes of the problem's jobs is what they read in all. 0, -ENOMEM, -EINVAL (a fault of
 * the problem), or -EDEADLK: what is left of the jobs can never end; ret->jobs of these have an
 * infinite finish_s. *ret is released with sim_result_deinit in each case. */
int sim_run(const struct problem *p, enum gpu_policy gpus, enum storage_policy storage,
	sim_progress_fn *progress, void *arg, struct sim_result *ret);
void sim_result_deinit(struct sim_result *r);
