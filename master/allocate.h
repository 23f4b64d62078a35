/*
 * What datasets and jobs get when there are jobs: the scheduler's allocation (scheduler/allocation.h)
 * over what the master knows, in the bytes that grants are counted in. Pure.
 *
 *  - All jobs run: Granary advises about GPUs and never queues.
 *  - A quota is the user's bound, least and most: it is kept whoever runs.
 *  - What no job can use goes to the datasets without job and quota, as without jobs (plan.h).
 *  - Of limited origins, readers without a job keep a part as large as a job's for each of their
 *    mounts, 1 % when there are none; each job has a floor of 1 % of an equal share.
 *  - A single origin may have a limit of its own, within that of all if there is one. The scheduler
 *    knows one bandwidth. Where it gives the jobs of an origin more than that has, they share it by
 *    their weights, each what it was given at most, with the cache that they got; the others are
 *    solved again with what is left (allocate_limits.h). Where all together are not limited, only
 *    jobs of limited origins need cache in order to be fast: they are solved first.
 *  - A job whose f* is unknown counts with the largest known one, or with its equal share of the
 *    origins, or with 1 GB/s.
 */
#pragma once

#include "common/error.h"
#include "master/plan.h"
#include "scheduler/allocation.h"

struct allocate_job {
	uint64_t id; /* the caller's; smaller ones arrived earlier */
	size_t item; /* index of its dataset's */
	uint64_t gpus, remaining_bytes;
	uint64_t effective_bytes; /* cached, and not read by it in this epoch */
	double ideal_bytes_per_s; /* 0: unknown */
	double weight, min_remote_bytes_per_s;
	bool irregular;
	/* out */
	uint64_t cache_bytes; /* of objects */
	double remote_bytes_per_s, hit_ratio, predicted_bytes_per_s;
};

/* Of single origins, those that one prefix covers; plan_item.limit. */
struct allocate_limit {
	double bytes_per_s;
	size_t others; /* mounts without a job of what comes from there */
	/* out */
	size_t jobs;
	double bytes_per_s_left;
	double other_bytes_per_s;
};

struct allocate_cluster {
	uint64_t capacity_bytes;
	bool origin_limited; /* all origins together */
	double origin_bytes_per_s;
	struct allocate_limit *limits;
	size_t limit_count;
	enum gpu_policy policy;
	enum storage_policy storage;
	size_t others; /* mounts without a job */
	/* out */
	uint64_t cache_bytes_left;
	double origin_bytes_per_s_left;
	double other_bytes_per_s; /* what readers without a job may count on, of origins without a
				   * limit of their own */
};

/* Fills granted_bytes and elastic of the items, and what is "out". -ENOMEM; -EINVAL for what the
 * scheduler refuses, which is a fault of ours. */
int allocate(struct plan_item *items, size_t item_count, struct allocate_job *jobs,
	size_t job_count, struct allocate_cluster *c, struct error *err);
