/*
 * A scheduling problem: what a cluster has, the datasets, and the jobs that want to run. Training
 * reads every byte of its dataset once an epoch in a new random order, so a job is described by two
 * numbers: the rate at which it consumes data when nothing waits for IO, and its dataset's size
 * (the model of "SiloD: A Co-design of Caching and Scheduling for Deep Learning Clusters", EuroSys
 * 2023; docs/silod.md has it in our words).
 *
 * Pure data: nothing here is owned, a problem borrows its arrays.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROBLEM_ITEMS_MAX 1000000   /* jobs, datasets */
#define PROBLEM_BYTES_MAX INT64_MAX /* what JSON and protobuf carry as well */
#define PROBLEM_GPUS_MAX UINT32_MAX /* so that a sum over all jobs fits */
#define PROBLEM_RATE_MAX 1e18	    /* bytes a second */
#define PROBLEM_WEIGHT_MIN 1e-6
#define PROBLEM_WEIGHT_MAX 1e6
#define PROBLEM_UNLIMITED UINT64_MAX /* of max_cache_bytes: no bound */
#define PROBLEM_ALL_EFFECTIVE UINT64_MAX

/* How GPUs are given to jobs. */
enum gpu_policy { GPU_POLICY_FIFO, GPU_POLICY_SJF, GPU_POLICY_MAX_MIN };
#define GPU_POLICIES 3

/* How cache and bandwidth are given to those that have GPUs. */
enum storage_policy {
	STORAGE_POLICY_JOINT,	/* ours: with the GPU policy's own objective */
	STORAGE_POLICY_LRU,	/* one shared LRU cache (Alluxio-like) */
	STORAGE_POLICY_PRIVATE, /* a static share for each job (CoorDL-like) */
	STORAGE_POLICY_WHOLE,	/* whole datasets only (Quiver-like) */
};
#define STORAGE_POLICIES 4

struct problem_dataset {
	uint64_t bytes;		  /* 0: empty, nothing to wait for */
	uint64_t min_cache_bytes; /* kept for it whoever runs; more than its size means all of it */
	uint64_t max_cache_bytes; /* PROBLEM_UNLIMITED, or at least the minimum */
};

struct problem_job {
	size_t dataset; /* index */
	uint64_t gpus;	/* all of them or none */
	double ideal_bytes_per_s;
	uint64_t remaining_bytes;
	double arrival_s;
	double min_remote_bytes_per_s; /* granted first, as far as it can be used */
	double weight;		       /* of max-min fairness: twice the weight, twice the share */
	bool irregular; /* does not read by epochs: ordinary LRU, apart from the rest */
	/* Of the bytes that the dataset has cached, those that can hit for this job now: an item
	 * that it read itself in this epoch cannot. PROBLEM_ALL_EFFECTIVE outside transients. */
	uint64_t effective_cache_bytes;
};

#define PROBLEM_DATASET_INIT {.max_cache_bytes = PROBLEM_UNLIMITED}
#define PROBLEM_JOB_INIT {.weight = 1, .effective_cache_bytes = PROBLEM_ALL_EFFECTIVE}

struct problem {
	uint64_t gpus;
	uint64_t cache_bytes;
	double remote_bytes_per_s; /* of all origins together */
	const struct problem_dataset *datasets;
	size_t dataset_count;
	const struct problem_job *jobs;
	size_t job_count;
};

/* What is wrong with a problem: "jobs[3].weight" is array "jobs", index 3, field "weight". All texts
 * are constants. */
struct problem_fault {
	const char *array; /* "capacity" (the index is 0), "datasets", "jobs" */
	size_t index;
	const char *field;
	const char *rule; /* "is not ...", continues a sentence that the field begins */
};

/* 0, or -EINVAL with the first fault in *ret_fault (NULL: not wanted). */
int problem_check(const struct problem *p, struct problem_fault *ret_fault);
