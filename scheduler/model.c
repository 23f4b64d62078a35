#include "scheduler/model.h"

#include <math.h>

double model_uniform_miss(double cached_bytes, double dataset_bytes)
{
	if (cached_bytes >= dataset_bytes)
		return 0;
	return (dataset_bytes - cached_bytes) / dataset_bytes;
}

double model_lru_miss(double cached_bytes, double dataset_bytes)
{
	double miss = model_uniform_miss(cached_bytes, dataset_bytes);

	return miss > 0 ? miss * (1 - log(miss)) : 0;
}

double model_perf(double ideal_bytes_per_s, double remote_bytes_per_s, double miss)
{
	return miss > 0 ? fmin(ideal_bytes_per_s, remote_bytes_per_s / miss) : ideal_bytes_per_s;
}

double model_remote_need(double ideal_bytes_per_s, double miss)
{
	return ideal_bytes_per_s * miss;
}

double model_perf_equal(const struct problem *p, const struct problem_job *j, size_t n)
{
	double cache = (double)p->cache_bytes / (double)n;
	double miss = model_uniform_miss(cache, (double)p->datasets[j->dataset].bytes);

	return model_perf(j->ideal_bytes_per_s, p->remote_bytes_per_s / (double)n, miss);
}

static double share_of(double taken, double capacity)
{
	return taken > 0 ? taken / capacity : 0;
}

double model_sjf_score(const struct problem *p, const struct problem_job *j)
{
	double dataset = (double)p->datasets[j->dataset].bytes, capacity = (double)p->cache_bytes;
	double cache = fmin(dataset, capacity), miss = model_uniform_miss(cache, dataset);
	double remote = fmin(p->remote_bytes_per_s, model_remote_need(j->ideal_bytes_per_s, miss));
	double perf = model_perf(j->ideal_bytes_per_s, remote, miss);

	if (j->remaining_bytes == 0)
		return 0;
	if (!(perf > 0))
		return INFINITY;
	return (double)j->remaining_bytes / perf *
	       (share_of((double)j->gpus, (double)p->gpus) + share_of(cache, capacity) +
		       share_of(remote, p->remote_bytes_per_s));
}
