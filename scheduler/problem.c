#include "scheduler/problem.h"

#include <errno.h>
#include <math.h>

#define RATE_RULE "is not a rate between 0 and 1e18 bytes/s"
#define BYTES_RULE "is larger than 2^63 - 1 bytes"
#define GPUS_RULE "is more than 2^32 - 1"

static int refuse(struct problem_fault *ret, const char *array, size_t index, const char *field,
	const char *rule)
{
	if (ret)
		*ret = (struct problem_fault){array, index, field, rule};
	return -EINVAL;
}

/* Also false for NaN. */
static bool rate_allowed(double rate)
{
	return rate >= 0 && rate <= PROBLEM_RATE_MAX;
}

static int check_capacity(const struct problem *p, struct problem_fault *ret)
{
	if (p->gpus > PROBLEM_GPUS_MAX)
		return refuse(ret, "capacity", 0, "gpus", GPUS_RULE);
	if (p->cache_bytes > PROBLEM_BYTES_MAX)
		return refuse(ret, "capacity", 0, "cache_bytes", BYTES_RULE);
	if (!rate_allowed(p->remote_bytes_per_s))
		return refuse(ret, "capacity", 0, "remote_bytes_per_s", RATE_RULE);
	if (p->dataset_count > PROBLEM_ITEMS_MAX)
		return refuse(ret, "datasets", 0, "count", "is over 1,000,000");
	if (p->job_count > PROBLEM_ITEMS_MAX)
		return refuse(ret, "jobs", 0, "count", "is over 1,000,000");
	return 0;
}

static int check_dataset(const struct problem_dataset *d, size_t i, struct problem_fault *ret)
{
	if (d->bytes > PROBLEM_BYTES_MAX)
		return refuse(ret, "datasets", i, "bytes", BYTES_RULE);
	if (d->min_cache_bytes > PROBLEM_BYTES_MAX)
		return refuse(ret, "datasets", i, "min_cache_bytes", BYTES_RULE);
	if (d->max_cache_bytes != PROBLEM_UNLIMITED && d->max_cache_bytes > PROBLEM_BYTES_MAX)
		return refuse(ret, "datasets", i, "max_cache_bytes", BYTES_RULE);
	if (d->max_cache_bytes < d->min_cache_bytes)
		return refuse(ret, "datasets", i, "max_cache_bytes", "is below min_cache_bytes");
	return 0;
}

static int check_job(
	const struct problem *p, const struct problem_job *j, size_t i, struct problem_fault *ret)
{
	if (j->dataset >= p->dataset_count)
		return refuse(ret, "jobs", i, "dataset", "is not one of the datasets");
	if (j->gpus > PROBLEM_GPUS_MAX)
		return refuse(ret, "jobs", i, "gpus", GPUS_RULE);
	if (!rate_allowed(j->ideal_bytes_per_s))
		return refuse(ret, "jobs", i, "ideal_bytes_per_s", RATE_RULE);
	if (j->remaining_bytes > PROBLEM_BYTES_MAX)
		return refuse(ret, "jobs", i, "remaining_bytes", BYTES_RULE);
	if (!isfinite(j->arrival_s))
		return refuse(ret, "jobs", i, "arrival_s", "is not a finite number of seconds");
	if (!rate_allowed(j->min_remote_bytes_per_s))
		return refuse(ret, "jobs", i, "min_remote_bytes_per_s", RATE_RULE);
	if (!(j->weight >= PROBLEM_WEIGHT_MIN && j->weight <= PROBLEM_WEIGHT_MAX))
		return refuse(ret, "jobs", i, "weight", "is not between 1e-6 and 1e6");
	if (j->effective_cache_bytes != PROBLEM_ALL_EFFECTIVE &&
		j->effective_cache_bytes > PROBLEM_BYTES_MAX)
		return refuse(ret, "jobs", i, "effective_cache_bytes", BYTES_RULE);
	return 0;
}

int problem_check(const struct problem *p, struct problem_fault *ret_fault)
{
	int r = check_capacity(p, ret_fault);

	for (size_t i = 0; r == 0 && i < p->dataset_count; i++)
		r = check_dataset(&p->datasets[i], i, ret_fault);
	for (size_t i = 0; r == 0 && i < p->job_count; i++)
		r = check_job(p, &p->jobs[i], i, ret_fault);
	return r;
}
