/*
 * Problems for the tests of scheduler/ and sim/: arrays that belong to the problem, and random
 * numbers that are the same everywhere (splitmix64).
 */
#pragma once

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

#include "scheduler/problem.h"

struct fixture {
	struct problem problem;
	struct problem_dataset *datasets;
	struct problem_job *jobs;
};

static inline uint64_t fixture_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static inline struct fixture *fixture_new(size_t jobs, size_t datasets)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert(f);
	f->datasets = calloc(datasets + 1, sizeof(*f->datasets));
	f->jobs = calloc(jobs + 1, sizeof(*f->jobs));
	assert(f->datasets && f->jobs);
	for (size_t i = 0; i < datasets; i++)
		f->datasets[i] = (struct problem_dataset)PROBLEM_DATASET_INIT;
	for (size_t i = 0; i < jobs; i++)
		f->jobs[i] = (struct problem_job)PROBLEM_JOB_INIT;
	f->problem = (struct problem){
		.datasets = f->datasets,
		.dataset_count = datasets,
		.jobs = f->jobs,
		.job_count = jobs,
	};
	return f;
}

static inline void fixture_free(struct fixture *f)
{
	free(f->datasets);
	free(f->jobs);
	free(f);
}
