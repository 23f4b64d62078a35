#include "master/allocate.h"

#include <errno.h>
#include <stdlib.h>

#include "common/cleanup.h"

#define OTHERS_SHARE 0.01
#define FLOOR_SHARE 0.01
#define UNLIMITED_BYTES_PER_S 1e15
#define UNKNOWN_BYTES_PER_S 1e9

struct scratch {
	struct problem problem;
	struct problem_dataset *datasets;
	struct problem_job *jobs;
	struct plan_item *rest;	   /* items that no job reads and no quota holds */
	bool *regular, *irregular; /* whether an item has such a job */
};

static void scratch_deinit(struct scratch *s)
{
	free(s->datasets);
	free(s->jobs);
	free(s->rest);
	free(s->regular);
	free(s->irregular);
}

static int scratch_init(struct scratch *s, size_t items, size_t jobs)
{
	s->datasets = calloc(items + 1, sizeof(*s->datasets));
	s->jobs = calloc(jobs + 1, sizeof(*s->jobs));
	s->rest = calloc(items + 1, sizeof(*s->rest));
	s->regular = calloc(items + 1, sizeof(*s->regular));
	s->irregular = calloc(items + 1, sizeof(*s->irregular));
	return s->datasets && s->jobs && s->rest && s->regular && s->irregular ? 0 : -ENOMEM;
}

/* ---- the problem ----------------------------------------------------------------------------- */

static double most(double a, double b)
{
	return a > b ? a : b;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* What stands for an f* that nobody knows. */
static double assumed_ideal(
	const struct allocate_job *jobs, size_t count, const struct allocate_cluster *c)
{
	double largest = 0;

	for (size_t i = 0; i < count; i++)
		largest = most(largest, jobs[i].ideal_bytes_per_s);
	if (largest > 0)
		return largest;
	return c->origin_limited ? c->origin_bytes_per_s / (double)count : UNKNOWN_BYTES_PER_S;
}

static void share_with_others(struct allocate_cluster *c, size_t jobs)
{
	double part = jobs ? (double)c->others / (double)(c->others + jobs) : 1;

	c->other_bytes_per_s =
		c->origin_limited ? c->origin_bytes_per_s * most(part, OTHERS_SHARE) : 0;
}

static void put_datasets(struct scratch *s, const struct plan_item *items, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct problem_dataset *d = &s->datasets[i];

		*d = (struct problem_dataset)PROBLEM_DATASET_INIT;
		d->bytes = least(plan_charged_bytes(&items[i]), PROBLEM_BYTES_MAX);
		if (items[i].quota_limited)
			d->min_cache_bytes = d->max_cache_bytes =
				least(plan_charged_quota(&items[i]), PROBLEM_BYTES_MAX);
	}
}

/* Pins end a little below what is granted: a cache that is all but filled is filled. An LRU is what
 * its formula says, once the first epoch is over. */
static uint64_t effective(
	const struct plan_item *item, const struct allocate_job *j, enum storage_policy storage)
{
	uint64_t filled = item->granted_bytes - item->granted_bytes / 50;

	if (storage == STORAGE_POLICY_LRU)
		return j->effective_bytes > 0 ? PROBLEM_ALL_EFFECTIVE : 0;
	if (item->granted_bytes > 0 && j->effective_bytes >= filled)
		return PROBLEM_ALL_EFFECTIVE;
	return plan_charged_part(item, j->effective_bytes);
}

static void put_jobs(struct scratch *s, const struct plan_item *items,
	const struct allocate_job *jobs, size_t count, const struct allocate_cluster *c)
{
	double assumed = assumed_ideal(jobs, count, c);
	double floor = c->origin_limited ? FLOOR_SHARE * s->problem.remote_bytes_per_s : 0;

	for (size_t i = 0; i < count; i++) {
		const struct allocate_job *from = &jobs[i];
		struct problem_job *j = &s->jobs[i];

		*j = (struct problem_job)PROBLEM_JOB_INIT;
		j->dataset = from->item;
		j->gpus = from->gpus;
		j->ideal_bytes_per_s =
			from->ideal_bytes_per_s > 0 ? from->ideal_bytes_per_s : assumed;
		j->remaining_bytes = from->remaining_bytes;
		j->effective_cache_bytes = effective(&items[from->item], from, c->storage);
		j->arrival_s = (double)from->id;
		j->min_remote_bytes_per_s =
			most(from->min_remote_bytes_per_s, floor / (double)count);
		j->weight = from->weight;
		j->irregular = from->irregular;
		s->problem.gpus += from->gpus;
		s->regular[from->item] |= !from->irregular;
		s->irregular[from->item] |= from->irregular;
	}
}

/* ---- the answer ------------------------------------------------------------------------------ */

/* Datasets that no job reads, without a quota: they share what is left. */
static int grant_rest(struct scratch *s, struct plan_item *items, size_t count, uint64_t left)
{
	size_t n = 0;
	int r;

	for (size_t i = 0; i < count; i++)
		if (!s->regular[i] && !s->irregular[i] && !items[i].quota_limited)
			s->rest[n++] = items[i];
	r = plan_grant_charged(s->rest, n, left);
	n = 0;
	for (size_t i = 0; r == 0 && i < count; i++)
		if (!s->regular[i] && !s->irregular[i] && !items[i].quota_limited)
			items[i].granted_bytes = s->rest[n++].granted_bytes;
	return r;
}

/* Of private copies the store has one: the largest. */
static uint64_t dataset_cache(const struct scratch *s, const struct allocation *a,
	enum storage_policy storage, size_t item)
{
	uint64_t largest = 0;

	if (storage != STORAGE_POLICY_PRIVATE || !s->regular[item])
		return a->dataset_cache_bytes[item];
	for (size_t i = 0; i < s->problem.job_count; i++)
		if (s->jobs[i].dataset == item && a->jobs[i].cache_bytes > largest)
			largest = a->jobs[i].cache_bytes;
	return largest;
}

static int take_cache(struct scratch *s, const struct allocation *a, struct plan_item *items,
	size_t count, const struct allocate_cluster *c)
{
	bool lru = c->storage == STORAGE_POLICY_LRU;

	for (size_t i = 0; i < count; i++) {
		bool pinned = items[i].quota_limited || (s->regular[i] && !lru);

		items[i].elastic = s->irregular[i] || (lru && !items[i].quota_limited);
		items[i].granted_bytes =
			pinned ? plan_uncharged_bytes(&items[i], dataset_cache(s, a, c->storage, i))
			       : 0;
		if (items[i].quota_limited && items[i].granted_bytes > items[i].quota_bytes)
			items[i].granted_bytes = items[i].quota_bytes;
	}
	return lru ? 0 : grant_rest(s, items, count, a->cache_bytes_left);
}

static void take_jobs(struct allocate_job *jobs, size_t count, const struct allocation *a,
	const struct plan_item *items)
{
	for (size_t i = 0; i < count; i++) {
		const struct allocation_job *from = &a->jobs[i];

		jobs[i].cache_bytes = plan_uncharged_bytes(&items[jobs[i].item], from->cache_bytes);
		jobs[i].remote_bytes_per_s = from->remote_bytes_per_s;
		jobs[i].hit_ratio = from->hit_ratio;
		jobs[i].predicted_bytes_per_s = from->predicted_bytes_per_s;
	}
}

static int solve(struct scratch *s, struct plan_item *items, size_t item_count,
	struct allocate_job *jobs, struct allocate_cluster *c, struct error *err)
{
	CLEANUP(allocation_deinit) struct allocation a = {0};
	struct problem_fault fault = {0};
	int r = allocation_solve(&s->problem, c->policy, c->storage, &a, &fault);

	if (r == -EINVAL)
		return error_set(
			err, r, "%s[%zu].%s %s", fault.array, fault.index, fault.field, fault.rule);
	if (r < 0)
		return error_set(err, r, "out of memory");
	c->cache_bytes_left = a.cache_bytes_left;
	c->origin_bytes_per_s_left = c->origin_limited ? a.remote_bytes_per_s_left : 0;
	take_jobs(jobs, s->problem.job_count, &a, items);
	r = take_cache(s, &a, items, item_count, c);
	return r < 0 ? error_set(err, r, "out of memory") : 0;
}

int allocate(struct plan_item *items, size_t item_count, struct allocate_job *jobs,
	size_t job_count, struct allocate_cluster *c, struct error *err)
{
	struct scratch s = {0};
	int r = scratch_init(&s, item_count, job_count);

	if (r == 0) {
		share_with_others(c, job_count);
		s.problem = (struct problem){
			.cache_bytes = plan_usable_bytes(c->capacity_bytes),
			.remote_bytes_per_s = c->origin_limited
						      ? c->origin_bytes_per_s - c->other_bytes_per_s
						      : UNLIMITED_BYTES_PER_S,
			.datasets = s.datasets,
			.dataset_count = item_count,
			.jobs = s.jobs,
			.job_count = job_count,
		};
		put_datasets(&s, items, item_count);
		put_jobs(&s, items, jobs, job_count, c);
		r = solve(&s, items, item_count, jobs, c, err);
	} else {
		error_set(err, r, "out of memory");
	}
	scratch_deinit(&s);
	return r;
}
