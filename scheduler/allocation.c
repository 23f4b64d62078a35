/*
 * Admits, then divides. Irregular jobs are apart: their partition is an n-th of cache and bandwidth
 * for each of them at most, and gets back what the regular jobs leave; within it cache is one LRU
 * and bandwidth is fair. A byte that is pinned for regular jobs hits for everybody, so that an
 * irregular job sees the rest of its dataset only.
 */
#include "scheduler/allocation.h"

#include <errno.h>
#include <stdlib.h>

#include "scheduler/admission.h"
#include "scheduler/bandwidth.h"
#include "scheduler/level.h"
#include "scheduler/model.h"
#include "scheduler/partition.h"

typedef void bandwidth_fn(struct partition *p);

struct solver {
	const struct problem *p;
	cache_divide_fn *divide;
	bandwidth_fn *spend;
	bool copies; /* private storage: what one job has pinned is nobody else's */
	size_t *running;
	size_t count;
	struct partition regular, irregular;
};

const char *gpu_policy_name(enum gpu_policy policy)
{
	static const char *const names[] = {"fifo", "sjf", "max-min"};

	return policy < GPU_POLICIES ? names[policy] : NULL;
}

const char *storage_policy_name(enum storage_policy policy)
{
	static const char *const names[] = {"joint", "lru", "private", "whole"};

	return policy < STORAGE_POLICIES ? names[policy] : NULL;
}

static void choose(struct solver *s, enum gpu_policy gpus, enum storage_policy storage)
{
	bool max_min = gpus == GPU_POLICY_MAX_MIN;

	s->spend = bandwidth_fair;
	s->copies = storage == STORAGE_POLICY_PRIVATE;
	switch (storage) {
	case STORAGE_POLICY_JOINT:
		s->divide = max_min ? cache_level_divide : cache_greedy_divide;
		s->spend = max_min ? bandwidth_by_pace : bandwidth_in_order;
		break;
	case STORAGE_POLICY_LRU:
		s->divide = cache_lru_divide;
		break;
	case STORAGE_POLICY_PRIVATE:
		s->divide = cache_private_divide;
		break;
	case STORAGE_POLICY_WHOLE:
		s->divide = cache_whole_divide;
		break;
	}
}

static uint64_t least_of(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static void partition_add(struct solver *s, struct partition *part, size_t job)
{
	const struct problem_job *j = &s->p->jobs[job];
	double bytes = (double)s->p->datasets[j->dataset].bytes;

	part->demands[part->demand_count++] = (struct demand){
		.job = job,
		.dataset = j->dataset,
		.gpus = j->gpus,
		.ideal = j->ideal_bytes_per_s,
		.least_remote = j->min_remote_bytes_per_s,
		.pace = j->weight * model_perf_equal(s->p, j, s->count),
		.least_miss = model_uniform_miss((double)j->effective_cache_bytes, bytes),
	};
}

static int partition_init(struct partition *part, size_t jobs, size_t datasets)
{
	part->demands = calloc(jobs + 1, sizeof(*part->demands));
	part->asking = calloc(jobs + 1, sizeof(*part->asking));
	part->shares = calloc(datasets + 1, sizeof(*part->shares));
	part->share_count = datasets;
	return part->demands && part->asking && part->shares ? 0 : -ENOMEM;
}

/* A dataset's least cache is kept in the partition of its jobs: in the regular one unless only
 * irregular jobs read it. */
static void share_datasets(struct solver *s)
{
	for (size_t i = 0; i < s->p->dataset_count; i++) {
		const struct problem_dataset *d = &s->p->datasets[i];
		uint64_t most = least_of(d->bytes, d->max_cache_bytes);
		struct share share = {.bytes = d->bytes, .most = most, .limit = d->max_cache_bytes};

		s->irregular.shares[i] = share;
		share.least = least_of(d->min_cache_bytes, most);
		s->regular.shares[i] = share;
	}
	for (size_t i = 0; i < s->irregular.demand_count; i++) {
		size_t dataset = s->irregular.demands[i].dataset;

		s->irregular.shares[dataset].least = s->regular.shares[dataset].least;
	}
	for (size_t i = 0; i < s->regular.demand_count; i++)
		s->irregular.shares[s->regular.demands[i].dataset].least = 0;
	for (size_t i = 0; i < s->p->dataset_count; i++)
		s->regular.shares[i].least -= s->irregular.shares[i].least;
}

static void partition_deinit(struct partition *part)
{
	free(part->demands);
	free(part->asking);
	free(part->shares);
}

static int solver_init(struct solver *s, const struct problem *p, enum gpu_policy gpus,
	enum storage_policy storage, uint64_t *ret_gpus_left)
{
	int r;

	*s = (struct solver){.p = p};
	choose(s, gpus, storage);
	r = admission_solve(p, gpus, &s->running, &s->count, ret_gpus_left);
	if (r == 0)
		r = partition_init(&s->regular, s->count, p->dataset_count);
	if (r == 0)
		r = partition_init(&s->irregular, s->count, p->dataset_count);
	if (r < 0)
		return r;
	for (size_t i = 0; i < s->count; i++) {
		bool irregular = p->jobs[s->running[i]].irregular;

		partition_add(s, irregular ? &s->irregular : &s->regular, s->running[i]);
	}
	share_datasets(s);
	return 0;
}

static void solver_deinit(struct solver *s)
{
	free(s->running);
	partition_deinit(&s->regular);
	partition_deinit(&s->irregular);
}

static void give(struct partition *part, uint64_t cache_bytes, double remote)
{
	part->cache_bytes = cache_bytes;
	part->remote = level_most(remote, 0);
}

static uint64_t least_cache(const struct partition *part)
{
	uint64_t least = 0;

	/* Saturates: bounds may promise more than there is. */
	for (size_t i = 0; i < part->share_count; i++) {
		least += part->shares[i].least;
		if (least > PROBLEM_BYTES_MAX)
			return PROBLEM_BYTES_MAX;
	}
	return least;
}

static double least_remote(const struct partition *part)
{
	double least = 0;

	for (size_t i = 0; i < part->demand_count; i++)
		least += level_least(part->demands[i].least_remote, part->demands[i].ideal);
	return least;
}

/* What the irregular may need once the regular have chosen their cache: it is promised, and their
 * own cache may move. What they do not use in the end goes back. */
static double remote_kept(const struct solver *s)
{
	double kept = 0;

	for (size_t i = 0; i < s->irregular.demand_count; i++) {
		const struct demand *d = &s->irregular.demands[i];

		kept += level_most(d->remote, level_least(d->least_remote, d->ideal));
	}
	return level_least(kept, s->p->remote_bytes_per_s - least_remote(&s->regular));
}

/* An n-th of everything for each irregular job, or what their bounds ask for, as long as it leaves
 * what the bounds of the regular ask for. */
static void give_share(struct solver *s)
{
	uint64_t cache = s->p->cache_bytes, kept = least_of(cache, least_cache(&s->regular));
	double remote = s->p->remote_bytes_per_s;
	uint64_t n = s->irregular.demand_count, least = least_cache(&s->irregular);
	uint64_t share = (uint64_t)((unsigned __int128)cache * n / s->count);
	double part = remote * (double)n / (double)s->count;

	share = share > least ? share : least;
	part = level_most(part, least_remote(&s->irregular));
	give(&s->irregular, least_of(share, cache - kept),
		level_least(part, remote - least_remote(&s->regular)));
}

static int solve_irregular(struct solver *s)
{
	int r = cache_lru_divide(&s->irregular);

	if (r == 0)
		bandwidth_fair(&s->irregular);
	return r;
}

/* What an irregular job sees of a dataset: what is not pinned for others. The most that a dataset
 * may have bounds all of its copies together. */
static void hide_pinned(struct solver *s)
{
	for (size_t i = 0; i < s->irregular.share_count; i++) {
		struct share *share = &s->irregular.shares[i];
		uint64_t pinned = s->regular.shares[i].granted;

		if (!s->copies)
			share->bytes -= pinned;
		if (share->limit != PROBLEM_UNLIMITED)
			share->limit -= pinned;
		share->most = least_of(share->most, least_of(share->limit, share->bytes));
		share->least = least_of(share->least, share->most);
	}
	for (size_t i = 0; i < s->irregular.demand_count && !s->copies; i++) {
		struct demand *d = &s->irregular.demands[i];
		const struct share *pinned = &s->regular.shares[d->dataset];

		d->ideal *= model_uniform_miss((double)pinned->granted, (double)pinned->bytes);
	}
}

static void show_pinned(struct solver *s)
{
	for (size_t i = 0; i < s->irregular.demand_count; i++) {
		struct demand *d = &s->irregular.demands[i];
		const struct share *pinned = &s->regular.shares[d->dataset];

		d->ideal = s->p->jobs[d->job].ideal_bytes_per_s;
		if (!s->copies)
			d->miss *=
				model_uniform_miss((double)pinned->granted, (double)pinned->bytes);
	}
}

static int solve_regular(struct solver *s)
{
	int r = s->divide(&s->regular);

	if (r == 0)
		s->spend(&s->regular);
	return r;
}

/* First the irregular within their share, to know what they need at least of it; then the regular
 * with the rest; then the irregular with all that these leave, and bandwidth that is left over
 * all the same goes to the regular. */
static int solve_partitions(struct solver *s)
{
	uint64_t cache = s->p->cache_bytes;
	double remote = s->p->remote_bytes_per_s;
	int r;

	give_share(s);
	r = solve_irregular(s);
	if (r < 0)
		return r;
	give(&s->regular, cache - partition_cache_used(&s->irregular), remote - remote_kept(s));
	r = solve_regular(s);
	if (r < 0)
		return r;
	hide_pinned(s);
	give(&s->irregular, cache - partition_cache_used(&s->regular),
		remote - partition_remote_used(&s->regular));
	r = solve_irregular(s);
	show_pinned(s);
	if (r == 0) {
		s->regular.remote = level_most(remote - partition_remote_used(&s->irregular), 0);
		s->spend(&s->regular);
	}
	return r;
}

static int solve(struct solver *s)
{
	if (s->irregular.demand_count > 0)
		return solve_partitions(s);
	give(&s->regular, s->p->cache_bytes, s->p->remote_bytes_per_s);
	return solve_regular(s);
}

static void report(const struct solver *s, const struct partition *part, struct allocation *ret)
{
	for (size_t i = 0; i < part->share_count; i++) {
		ret->dataset_cache_bytes[i] += part->shares[i].granted;
		ret->cache_bytes_left -= part->shares[i].granted;
	}
	for (size_t i = 0; i < part->demand_count; i++) {
		const struct demand *d = &part->demands[i];
		const struct problem_job *j = &s->p->jobs[d->job];

		ret->jobs[d->job] = (struct allocation_job){
			.running = true,
			.cache_bytes = d->cache_bytes,
			.remote_bytes_per_s = d->remote,
			.predicted_bytes_per_s = model_perf(d->ideal, d->remote, d->miss),
			.hit_ratio = 1 - d->miss,
			.equal_bytes_per_s = model_perf_equal(s->p, j, s->count),
		};
		ret->remote_bytes_per_s_left -= d->remote;
	}
}

/* A sum of many rates ends within rounding of the capacity, on either side. */
static double rounded_left(double left, double capacity)
{
	return left > 1e-12 * capacity ? left : 0;
}

static int allocation_init(struct allocation *a, const struct problem *p)
{
	*a = (struct allocation){
		.jobs = calloc(p->job_count + 1, sizeof(*a->jobs)),
		.dataset_cache_bytes = calloc(p->dataset_count + 1, sizeof(uint64_t)),
		.cache_bytes_left = p->cache_bytes,
		.remote_bytes_per_s_left = p->remote_bytes_per_s,
	};
	return a->jobs && a->dataset_cache_bytes ? 0 : -ENOMEM;
}

int allocation_solve(const struct problem *p, enum gpu_policy gpus, enum storage_policy storage,
	struct allocation *ret, struct problem_fault *ret_fault)
{
	struct allocation a;
	struct solver s = {0};
	int r = problem_check(p, ret_fault);

	if (r < 0)
		return r;
	r = allocation_init(&a, p);
	if (r == 0)
		r = solver_init(&s, p, gpus, storage, &a.gpus_left);
	if (r == 0)
		r = solve(&s);
	if (r < 0) {
		solver_deinit(&s);
		allocation_deinit(&a);
		return r;
	}
	report(&s, &s.regular, &a);
	report(&s, &s.irregular, &a);
	a.remote_bytes_per_s_left = rounded_left(a.remote_bytes_per_s_left, p->remote_bytes_per_s);
	solver_deinit(&s);
	*ret = a;
	return 0;
}

void allocation_deinit(struct allocation *a)
{
	free(a->jobs);
	free(a->dataset_cache_bytes);
	*a = (struct allocation){0};
}
