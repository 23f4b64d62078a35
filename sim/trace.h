/*
 * Jobs over time: when each came, how long it ran, on how many GPUs. From a file in the columns of
 * Microsoft's Philly trace as published with the Sia artifact, or made up to look like it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define TRACE_JOBS_MAX 1000000

struct trace_job {
	double arrival_s; /* since the epoch of its own */
	double duration_s;
	uint64_t gpus;
};

struct trace {
	struct trace_job *jobs; /* in no order */
	size_t count, room;
};

/* A CSV file whose first line names at least the columns timestamp (2017-10-09 07:01:55), duration
 * (seconds) and num_gpus. -ENOENT and the like, -EINVAL with the line, -ENOMEM. *ret is released
 * with trace_deinit in each case. */
int trace_read(const char *path, struct trace *ret, struct error *err);

/* Poisson arrivals; log-normal durations with the median and mean of the Philly trace (1,144 s and
 * 13,136 s), its numbers of GPUs in its proportions. */
int trace_generate(size_t jobs, uint64_t seed, struct trace *ret, struct error *err);
void trace_deinit(struct trace *t);
