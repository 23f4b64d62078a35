#include "sim/summary.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double rank(const double *sorted, size_t count, double share)
{
	size_t i = (size_t)ceil(share * (double)count);

	return count ? sorted[i ? i - 1 : 0] : 0;
}

int sim_summarize(const struct problem *p, const struct sim_result *r, struct sim_summary *ret)
{
	double *jcts = calloc(p->job_count + 1, sizeof(*jcts)), sum = 0;

	if (!jcts)
		return -ENOMEM;
	for (size_t i = 0; i < p->job_count; i++) {
		jcts[i] = r->jobs[i].finish_s - p->jobs[i].arrival_s;
		sum += jcts[i];
	}
	qsort(jcts, p->job_count, sizeof(*jcts), ascending);
	*ret = (struct sim_summary){
		.average_jct_s = p->job_count ? sum / (double)p->job_count : 0,
		.p50_jct_s = rank(jcts, p->job_count, 0.5),
		.p90_jct_s = rank(jcts, p->job_count, 0.9),
		.p99_jct_s = rank(jcts, p->job_count, 0.99),
		.makespan_s = r->makespan_s,
		.fairness = r->fairness,
		.mean_share = r->mean_share,
		.origin_bytes = r->origin_bytes,
		.cache_filled = r->granted_byte_s > 0 ? r->filled_byte_s / r->granted_byte_s : -1,
	};
	if (p->gpus > 0 && r->window_s > 0)
		ret->gpu_utilization = r->window_useful_gpu_s / ((double)p->gpus * r->window_s);
	if (r->held_gpu_s > 0)
		ret->gpu_efficiency = r->useful_gpu_s / r->held_gpu_s;
	free(jcts);
	return 0;
}
