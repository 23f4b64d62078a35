/*
 * A trace as a scheduling problem. A trace names neither model nor dataset, so each job is given a
 * row of the MLPerf Storage table and one of that row's datasets, by a seed:
 *
 *   f* = GPUs * the row's rate per A100,  bytes to read = f* * duration.
 *
 * In this order and with one generator: which jobs of the trace are taken (any `jobs` of those that
 * fit into the cluster, each as likely as another), then for each of them by arrival its row, by the
 * mix, and its dataset, each of the row's as likely as another.
 */
#pragma once

#include "common/error.h"
#include "scheduler/problem.h"
#include "sim/trace.h"

#define WORKLOAD_ROWS 3

struct workload_row {
	const char *name;
	double bytes_per_s; /* of one A100 */
	uint64_t dataset_bytes;
};

/* unet3d, resnet50, cosmoflow */
extern const struct workload_row workload_rows[WORKLOAD_ROWS];

struct workload_options {
	size_t jobs;	   /* at most; those of the trace that fit may be fewer */
	uint64_t gpus;	   /* of the cluster */
	uint64_t datasets; /* over all rows, by the mix, each row at least one; 0: one a job */
	double load; /* arrivals are stretched so that GPUs * duration / (cluster's GPUs * span)
			    * is this; 0: as in the trace */
	double mix[WORKLOAD_ROWS]; /* any sum */
	uint64_t seed;
};

struct workload {
	struct problem problem; /* without capacities; borrows the arrays */
	struct problem_dataset *datasets;
	struct problem_job *jobs; /* by arrival, the first at 0 */
};

/* -EINVAL when no job of the trace fits, -ENOMEM. *ret is released with workload_deinit in each
 * case. */
int workload_make(const struct trace *t, const struct workload_options *o, struct workload *ret,
	struct error *err);
void workload_deinit(struct workload *w);
