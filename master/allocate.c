#include "master/allocate.h"

#include <errno.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "master/allocate_limits.h"
#include "scheduler/model.h"

#define FLOOR_SHARE 0.01
#define MORE_THAN_LIMIT (1 + 1e-9)
#define UNLIMITED_BYTES_PER_S 1e15
#define UNKNOWN_BYTES_PER_S 1e9

struct scratch {
	/* What is to be solved in this round, and whose jobs those of the problem are. */
	struct problem problem;
	struct problem_dataset *datasets;
	struct problem_job *round_jobs;
	size_t *round_index;
	bool limited_only; /* jobs of limited origins */

	/* By all jobs and items. */
	struct problem_job *jobs;
	struct allocation_job *shares;
	bool *settled;			       /* jobs whose origin has no more */
	uint64_t *cache_bytes, *charged_bytes; /* as the store has it, and as it is charged */
	bool *regular, *irregular;	       /* whether an item has such a job */

	struct allocate_part *parts;
	struct plan_item *rest; /* items that no job reads and no quota holds */
};

static void scratch_deinit(struct scratch *s)
{
	free(s->datasets);
	free(s->round_jobs);
	free(s->round_index);
	free(s->jobs);
	free(s->shares);
	free(s->settled);
	free(s->cache_bytes);
	free(s->charged_bytes);
	free(s->regular);
	free(s->irregular);
	free(s->parts);
	free(s->rest);
}

static int scratch_init(struct scratch *s, size_t items, size_t jobs)
{
	s->datasets = calloc(items + 1, sizeof(*s->datasets));
	s->round_jobs = calloc(jobs + 1, sizeof(*s->round_jobs));
	s->round_index = calloc(jobs + 1, sizeof(*s->round_index));
	s->jobs = calloc(jobs + 1, sizeof(*s->jobs));
	s->shares = calloc(jobs + 1, sizeof(*s->shares));
	s->settled = calloc(jobs + 1, sizeof(*s->settled));
	s->cache_bytes = calloc(items + 1, sizeof(*s->cache_bytes));
	s->charged_bytes = calloc(items + 1, sizeof(*s->charged_bytes));
	s->regular = calloc(items + 1, sizeof(*s->regular));
	s->irregular = calloc(items + 1, sizeof(*s->irregular));
	s->parts = calloc(jobs + 1, sizeof(*s->parts));
	s->rest = calloc(items + 1, sizeof(*s->rest));
	return s->datasets && s->round_jobs && s->round_index && s->jobs && s->shares &&
			       s->settled && s->cache_bytes && s->charged_bytes && s->regular &&
			       s->irregular && s->parts && s->rest
		       ? 0
		       : -ENOMEM;
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

/* What the jobs of a limit share. */
static double for_jobs(const struct allocate_limit *limit)
{
	return limit->bytes_per_s - limit->other_bytes_per_s;
}

static double floor_of(const struct scratch *s, const struct allocate_limit *limit, size_t jobs,
	const struct allocate_cluster *c)
{
	if (c->origin_limited)
		return FLOOR_SHARE * s->problem.remote_bytes_per_s / (double)jobs;
	return limit ? FLOOR_SHARE * for_jobs(limit) / (double)limit->jobs : 0;
}

static void put_jobs(struct scratch *s, const struct plan_item *items,
	const struct allocate_job *jobs, size_t count, const struct allocate_cluster *c)
{
	double assumed = assumed_ideal(jobs, count, c);

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
		j->min_remote_bytes_per_s = most(from->min_remote_bytes_per_s,
			floor_of(s, items[from->item].limit, count, c));
		j->weight = from->weight;
		j->irregular = from->irregular;
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

static int take_cache(
	struct scratch *s, struct plan_item *items, size_t count, const struct allocate_cluster *c)
{
	bool lru = c->storage == STORAGE_POLICY_LRU;

	for (size_t i = 0; i < count; i++) {
		bool pinned = items[i].quota_limited || (s->regular[i] && !lru);

		items[i].elastic = s->irregular[i] || (lru && !items[i].quota_limited);
		items[i].granted_bytes =
			pinned ? plan_uncharged_bytes(&items[i], s->cache_bytes[i]) : 0;
		if (items[i].quota_limited && items[i].granted_bytes > items[i].quota_bytes)
			items[i].granted_bytes = items[i].quota_bytes;
	}
	return lru ? 0 : grant_rest(s, items, count, c->cache_bytes_left);
}

static void take_jobs(const struct scratch *s, struct allocate_job *jobs, size_t count,
	const struct plan_item *items)
{
	for (size_t i = 0; i < count; i++) {
		const struct allocation_job *from = &s->shares[i];

		jobs[i].cache_bytes = plan_uncharged_bytes(&items[jobs[i].item], from->cache_bytes);
		jobs[i].remote_bytes_per_s = from->remote_bytes_per_s;
		jobs[i].hit_ratio = from->hit_ratio;
		jobs[i].predicted_bytes_per_s = from->predicted_bytes_per_s;
	}
}

static void take_limits(const struct plan_item *items, const struct allocate_job *jobs,
	size_t count, struct allocate_cluster *c)
{
	for (size_t i = 0; i < c->limit_count; i++)
		c->limits[i].bytes_per_s_left =
			c->limits[i].bytes_per_s - c->limits[i].other_bytes_per_s;
	for (size_t i = 0; i < count; i++)
		if (items[jobs[i].item].limit)
			items[jobs[i].item].limit->bytes_per_s_left -= jobs[i].remote_bytes_per_s;
	for (size_t i = 0; i < c->limit_count; i++)
		c->limits[i].bytes_per_s_left = most(c->limits[i].bytes_per_s_left, 0);
}

/* ---- one round -------------------------------------------------------------------------------- */

/* Of private copies the store has one: the largest. */
static uint64_t dataset_cache(const struct scratch *s, const struct allocation *a,
	enum storage_policy storage, size_t item)
{
	uint64_t largest = 0;

	if (storage != STORAGE_POLICY_PRIVATE || !s->regular[item])
		return a->dataset_cache_bytes[item];
	for (size_t i = 0; i < s->problem.job_count; i++)
		if (s->round_jobs[i].dataset == item && a->jobs[i].cache_bytes > largest)
			largest = a->jobs[i].cache_bytes;
	return largest;
}

static void put_round(struct scratch *s, const struct plan_item *items, size_t count)
{
	s->problem.job_count = 0;
	s->problem.gpus = 0;
	for (size_t i = 0; i < count; i++) {
		if (s->settled[i] || (s->limited_only && !items[s->jobs[i].dataset].limit))
			continue;
		s->round_index[s->problem.job_count] = i;
		s->round_jobs[s->problem.job_count++] = s->jobs[i];
		s->problem.gpus += s->jobs[i].gpus;
	}
}

/* Datasets of settled jobs are empty ones in the problem, and have what they have. */
static void take_round(struct scratch *s, const struct allocation *a, struct allocate_cluster *c)
{
	for (size_t i = 0; i < s->problem.dataset_count; i++) {
		if (s->datasets[i].bytes == 0)
			continue;
		s->cache_bytes[i] = dataset_cache(s, a, c->storage, i);
		s->charged_bytes[i] = a->dataset_cache_bytes[i];
	}
	for (size_t i = 0; i < s->problem.job_count; i++)
		s->shares[s->round_index[i]] = a->jobs[i];
	c->cache_bytes_left = a->cache_bytes_left;
	c->origin_bytes_per_s_left = c->origin_limited ? a->remote_bytes_per_s_left : 0;
}

/* ---- limits of single origins ----------------------------------------------------------------- */

/* Those jobs of the round that share the limit; returns their number, and what they were given. */
static size_t put_parts(struct scratch *s, const struct allocate_job *jobs,
	const struct plan_item *items, const struct allocate_limit *limit,
	enum storage_policy storage, double *ret_sum)
{
	double floor = FLOOR_SHARE * for_jobs(limit) / (double)limit->jobs;
	size_t n = 0;

	*ret_sum = 0;
	for (size_t i = 0; i < s->problem.job_count; i++) {
		size_t job = s->round_index[i];

		if (items[jobs[job].item].limit != limit)
			continue;
		/* As workers hold them to it: equal, but where cache and bandwidth are joint. */
		s->parts[n] = (struct allocate_part){.job = job,
			.want = s->shares[job].remote_bytes_per_s,
			.least = most(jobs[job].min_remote_bytes_per_s, floor),
			.weight = storage == STORAGE_POLICY_JOINT ? jobs[job].weight : 1};
		*ret_sum += s->parts[n++].want;
	}
	return n;
}

static void settle_job(struct scratch *s, const struct allocate_part *p)
{
	struct allocation_job *share = &s->shares[p->job];

	s->settled[p->job] = true;
	share->remote_bytes_per_s = p->got;
	share->predicted_bytes_per_s =
		model_perf(s->jobs[p->job].ideal_bytes_per_s, p->got, 1 - share->hit_ratio);
	s->problem.remote_bytes_per_s = most(s->problem.remote_bytes_per_s - p->got, 0);
}

/* What jobs of the limit read keeps the cache that it has. */
static void settle_datasets(
	struct scratch *s, const struct plan_item *items, const struct allocate_limit *limit)
{
	for (size_t i = 0; i < s->problem.dataset_count; i++) {
		if (items[i].limit != limit || !(s->regular[i] || s->irregular[i]))
			continue;
		s->problem.cache_bytes -= least(s->problem.cache_bytes, s->charged_bytes[i]);
		s->datasets[i] = (struct problem_dataset){.bytes = 0};
	}
}

/* Has the jobs of the limit share it, when they were given more than it has or `all` are to be
 * settled. True when there were any: the rest is to be solved again. */
static bool settle(struct scratch *s, const struct allocate_job *jobs,
	const struct plan_item *items, const struct allocate_limit *limit,
	enum storage_policy storage, bool all)
{
	double given;
	size_t n = put_parts(s, jobs, items, limit, storage, &given);

	if (n == 0 || (!all && given <= for_jobs(limit) * MORE_THAN_LIMIT))
		return false;
	allocate_parts(s->parts, n, for_jobs(limit));
	for (size_t i = 0; i < n; i++)
		settle_job(s, &s->parts[i]);
	settle_datasets(s, items, limit);
	return true;
}

/* 1: another round is due. */
static int solve_round(struct scratch *s, const struct plan_item *items,
	const struct allocate_job *jobs, size_t job_count, struct allocate_cluster *c,
	struct error *err)
{
	CLEANUP(allocation_deinit) struct allocation a = {0};
	struct problem_fault fault = {0};
	bool again = false;
	int r;

	put_round(s, items, job_count);
	r = allocation_solve(&s->problem, c->policy, c->storage, &a, &fault);
	if (r == -EINVAL)
		return error_set(
			err, r, "%s[%zu].%s %s", fault.array, fault.index, fault.field, fault.rule);
	if (r < 0)
		return error_set(err, r, "out of memory");
	take_round(s, &a, c);
	for (size_t i = 0; i < c->limit_count; i++)
		again |= settle(s, jobs, items, &c->limits[i], c->storage, false);
	return again;
}

/* Each round but the last settles the jobs of a limit. */
static int solve_rounds(struct scratch *s, const struct plan_item *items,
	const struct allocate_job *jobs, size_t job_count, struct allocate_cluster *c,
	struct error *err)
{
	int r;

	do
		r = solve_round(s, items, jobs, job_count, c, err);
	while (r > 0);
	return r;
}

static int solve_limited(struct scratch *s, const struct plan_item *items,
	const struct allocate_job *jobs, size_t job_count, struct allocate_cluster *c,
	struct error *err)
{
	int r;

	s->limited_only = true;
	s->problem.remote_bytes_per_s = 0;
	for (size_t i = 0; i < c->limit_count; i++)
		s->problem.remote_bytes_per_s += for_jobs(&c->limits[i]);
	r = solve_rounds(s, items, jobs, job_count, c, err);
	for (size_t i = 0; r == 0 && i < c->limit_count; i++)
		settle(s, jobs, items, &c->limits[i], c->storage, true);
	s->limited_only = false;
	s->problem.remote_bytes_per_s = UNLIMITED_BYTES_PER_S;
	return r;
}

static int solve(struct scratch *s, struct plan_item *items, size_t item_count,
	struct allocate_job *jobs, size_t job_count, struct allocate_cluster *c, struct error *err)
{
	int r = 0;

	if (!c->origin_limited && c->limit_count > 0)
		r = solve_limited(s, items, jobs, job_count, c, err);
	if (r == 0)
		r = solve_rounds(s, items, jobs, job_count, c, err);
	if (r < 0)
		return r;
	take_jobs(s, jobs, job_count, items);
	take_limits(items, jobs, job_count, c);
	r = take_cache(s, items, item_count, c);
	return r < 0 ? error_set(err, r, "out of memory") : 0;
}

int allocate(struct plan_item *items, size_t item_count, struct allocate_job *jobs,
	size_t job_count, struct allocate_cluster *c, struct error *err)
{
	struct scratch s = {0};
	int r = scratch_init(&s, item_count, job_count);
	double kept;

	if (r == 0) {
		kept = allocate_others(items, jobs, job_count, c);
		s.problem = (struct problem){
			.cache_bytes = plan_usable_bytes(c->capacity_bytes),
			.remote_bytes_per_s = c->origin_limited ? c->origin_bytes_per_s - kept
								: UNLIMITED_BYTES_PER_S,
			.datasets = s.datasets,
			.dataset_count = item_count,
			.jobs = s.round_jobs,
		};
		put_datasets(&s, items, item_count);
		put_jobs(&s, items, jobs, job_count, c);
		r = solve(&s, items, item_count, jobs, job_count, c, err);
	} else {
		error_set(err, r, "out of memory");
	}
	scratch_deinit(&s);
	return r;
}
