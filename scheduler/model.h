/*
 * The model of a training job: what it reads at which rate with so much cache and bandwidth. Rates
 * are bytes a second; hit and miss ratios are of bytes, 0 to 1, and add to 1. The miss ratio is what
 * is passed around, since near a full cache 1 - hit has no digits left.
 */
#pragma once

#include <stdint.h>

#include "scheduler/problem.h"

/* Of a uniform cache: 1 - c/d; 0 for an empty dataset, which has nothing to miss. */
double model_uniform_miss(double cached_bytes, double dataset_bytes);

/* Of an LRU cache of the share x = c/d under a new permutation each epoch, in the steady state:
 * the hit ratio is x + (1-x) ln(1-x), so this is (1-x)(1 - ln(1-x)). */
double model_lru_miss(double cached_bytes, double dataset_bytes);

/* SiloDPerf: min(f*, b / miss); without misses f*. */
double model_perf(double ideal_bytes_per_s, double remote_bytes_per_s, double miss);

/* The bandwidth that keeps a job at f*: f* * miss. */
double model_remote_need(double ideal_bytes_per_s, double miss);

/* The rate of a job that owns one n-th of cache (for its dataset alone) and of bandwidth. */
double model_perf_equal(const struct problem *p, const struct problem_job *j, size_t n);

/* Shortest job first over several resources: remaining / perf * sum of (allocated / capacity), each
 * job with its own GPUs, c = min(d, C) and b = min(B, f*(1-c/d)). A job that cannot progress has an
 * infinite score, one with nothing left has 0; of a resource that there is none of it takes none. */
double model_sjf_score(const struct problem *p, const struct problem_job *j);
