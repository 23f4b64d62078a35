/*
 * A simulation in a few numbers. JCT is job completion time: from arrival to end.
 */
#pragma once

#include "sim/simulator.h"

struct sim_summary {
	double average_jct_s;
	double p50_jct_s, p90_jct_s, p99_jct_s; /* nearest rank */
	double makespan_s;
	double gpu_utilization; /* of GPUs * window, the share that computed as if at f* */
	double gpu_efficiency;	/* the same of the time that jobs had their GPUs */
	double fairness;	/* struct sim_result */
	double mean_share;
	double origin_bytes;
	double cache_filled; /* of what was granted; negative: LRU, of which it is not known */
};

/* 0 or -ENOMEM. */
int sim_summarize(const struct problem *p, const struct sim_result *r, struct sim_summary *ret);
