/*
 * Who gets GPUs. FIFO and max-min fairness admit by arrival and stop at the first job that does not
 * fit; SJF by model_sjf_score, passing over what does not fit. Ties: arrival, then the order of the
 * input.
 */
#pragma once

#include "scheduler/problem.h"

/* The running jobs' indices in the policy's order (freed by the caller) and the GPUs that stay free.
 * 0 or -ENOMEM. */
int admission_solve(const struct problem *p, enum gpu_policy policy, size_t **ret_running,
	size_t *ret_count, uint64_t *ret_gpus_left);
