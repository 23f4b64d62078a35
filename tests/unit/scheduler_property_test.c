/*
 * Thousands of random problems, each solved by all twelve pairs and held against what the definitions
 * in docs/silod.md say. Where an optimum is claimed, another way of finding it is used: every integer
 * division for the greedy cache, every order of filling for the level of max-min fairness.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scheduler/allocation.h"
#include "tests/unit/scheduler_fixture.h"

#define JOBS_MAX 10
#define DATASETS_MAX 4
#define ROUNDS 6000

static uint64_t seed;

static uint64_t below(uint64_t n)
{
	return fixture_random(&seed) % n;
}

static double uniform(double low, double high)
{
	return low + (high - low) * ((double)(fixture_random(&seed) >> 11) * 0x1p-53);
}

static bool near(double a, double b)
{
	return fabs(a - b) <= 1e-6 * fmax(fabs(a), fabs(b)) + 1e-9;
}

/* ---- problems -------------------------------------------------------------------------------- */

enum { PLAIN = 0, BOUNDS = 1, PROMISES = 2, IRREGULAR = 4, EFFECTIVE = 8 };

/* Sizes in units of `unit` bytes, so that both single bytes and terabytes occur. */
static void random_dataset(struct problem_dataset *d, uint64_t unit, int kinds)
{
	d->bytes = below(20) * unit;
	if (!(kinds & BOUNDS))
		return;
	if (below(3) == 0)
		d->min_cache_bytes = below(12) * unit;
	if (below(3) == 0)
		d->max_cache_bytes = d->min_cache_bytes + below(15) * unit;
}

static void random_job(struct problem_job *j, size_t datasets, double unit, int kinds)
{
	j->dataset = below(datasets);
	j->gpus = below(8);
	j->ideal_bytes_per_s = below(12) == 0 ? 0 : uniform(0.1, 5) * unit;
	j->remaining_bytes = (uint64_t)(uniform(0, 100) * unit);
	j->arrival_s = (double)below(5);
	j->weight = below(2) ? 1 : uniform(0.2, 4);
	if (kinds & PROMISES && below(3) == 0)
		j->min_remote_bytes_per_s = uniform(0, 1) * unit;
	j->irregular = kinds & IRREGULAR && below(3) == 0;
	if (kinds & EFFECTIVE && below(2) == 0)
		j->effective_cache_bytes = (uint64_t)(uniform(0, 15) * unit);
}

static struct fixture *random_problem(int kinds)
{
	size_t jobs = below(JOBS_MAX + 1), datasets = 1 + below(DATASETS_MAX);
	uint64_t unit = below(2) ? 1000 : 1000000000000;
	struct fixture *f = fixture_new(jobs, datasets);

	for (size_t i = 0; i < datasets; i++)
		random_dataset(&f->datasets[i], unit, kinds);
	for (size_t i = 0; i < jobs; i++)
		random_job(&f->jobs[i], datasets, (double)unit, kinds);
	f->problem.gpus = below(4) == 0 ? below(10) : 1000;
	f->problem.cache_bytes = below(8) == 0 ? 0 : below(40) * unit;
	f->problem.remote_bytes_per_s = below(10) == 0 ? 0 : uniform(0.1, 12) * (double)unit;
	return f;
}

static struct allocation solve(const struct fixture *f, enum gpu_policy g, enum storage_policy s)
{
	struct allocation a;

	assert_int_equal(allocation_solve(&f->problem, g, s, &a, NULL), 0);
	return a;
}

/* ---- the model, once more -------------------------------------------------------------------- */

static double bytes_of(const struct fixture *f, size_t job)
{
	return (double)f->datasets[f->jobs[job].dataset].bytes;
}

static double need(const struct fixture *f, const struct allocation *a, size_t job)
{
	return f->jobs[job].ideal_bytes_per_s * (1 - a->jobs[job].hit_ratio);
}

/* What 1 - hit_ratio loses near a full cache. */
static double rounding(const struct fixture *f, size_t job)
{
	return 1e-12 * f->jobs[job].ideal_bytes_per_s;
}

static bool satisfied(const struct fixture *f, const struct allocation *a, size_t job)
{
	return a->jobs[job].predicted_bytes_per_s >= f->jobs[job].ideal_bytes_per_s * (1 - 1e-9);
}

static double alone(const struct fixture *f, size_t job, size_t n)
{
	double d = bytes_of(f, job), c = (double)f->problem.cache_bytes / (double)n;
	double b = f->problem.remote_bytes_per_s / (double)n;

	return c >= d ? f->jobs[job].ideal_bytes_per_s
		      : fmin(f->jobs[job].ideal_bytes_per_s, b / (1 - c / d));
}

static double lru_hit(double x)
{
	return x >= 1 ? 1 : x + (1 - x) * log(1 - x);
}

static size_t running_count(const struct fixture *f, const struct allocation *a)
{
	size_t n = 0;

	for (size_t i = 0; i < f->problem.job_count; i++)
		n += a->jobs[i].running;
	return n;
}

/* ---- what holds for every pair --------------------------------------------------------------- */

static void check_feasible(const struct fixture *f, const struct allocation *a)
{
	uint64_t cache = a->cache_bytes_left, gpus = a->gpus_left;
	double remote = a->remote_bytes_per_s_left;

	for (size_t i = 0; i < f->problem.dataset_count; i++)
		cache += a->dataset_cache_bytes[i];
	for (size_t i = 0; i < f->problem.job_count; i++) {
		const struct allocation_job *j = &a->jobs[i];

		if (!j->running) {
			assert_true(j->remote_bytes_per_s == 0 && j->hit_ratio == 0);
			assert_true(j->predicted_bytes_per_s == 0 && j->cache_bytes == 0);
			continue;
		}
		gpus += f->jobs[i].gpus;
		remote += j->remote_bytes_per_s;
		assert_true(j->remote_bytes_per_s >= 0);
		assert_true(j->remote_bytes_per_s <= need(f, a, i) * (1 + 1e-9) + rounding(f, i));
		assert_true(j->hit_ratio >= 0 && j->hit_ratio <= 1);
	}
	assert_true(cache == f->problem.cache_bytes);
	assert_true(gpus == f->problem.gpus);
	assert_true(remote <= f->problem.remote_bytes_per_s * (1 + 1e-9));
	assert_true(near(remote, f->problem.remote_bytes_per_s));
}

/* As bandwidth, since near a full cache the quotient has no digits left. */
static void check_honest(const struct fixture *f, const struct allocation *a)
{
	for (size_t i = 0; i < f->problem.job_count; i++) {
		const struct allocation_job *j = &a->jobs[i];
		double ideal = f->jobs[i].ideal_bytes_per_s, miss = 1 - j->hit_ratio;
		double fetched = j->predicted_bytes_per_s * miss;

		if (!j->running)
			continue;
		assert_true(j->predicted_bytes_per_s <= ideal);
		assert_true(fabs(fetched - fmin(ideal * miss, j->remote_bytes_per_s)) <=
			    1e-6 * fetched + rounding(f, i));
		assert_true(miss > 0 || j->predicted_bytes_per_s == ideal);
	}
}

static void check_hits(
	const struct fixture *f, const struct allocation *a, enum storage_policy storage)
{
	for (size_t i = 0; i < f->problem.job_count; i++) {
		double d = bytes_of(f, i), c = (double)a->jobs[i].cache_bytes;
		double wanted = d > 0 ? c / d : 1;

		if (!a->jobs[i].running || f->jobs[i].irregular)
			continue;
		if (storage == STORAGE_POLICY_LRU)
			wanted = lru_hit(wanted);
		if (d > 0)
			wanted = fmin(wanted, (double)f->jobs[i].effective_cache_bytes / d);
		assert_true(near(a->jobs[i].hit_ratio, wanted));
	}
}

static void check_bounds(
	const struct fixture *f, const struct allocation *a, enum storage_policy storage)
{
	uint64_t wanted = 0;
	double promised = 0;

	for (size_t i = 0; i < f->problem.dataset_count; i++) {
		const struct problem_dataset *d = &f->datasets[i];

		assert_true(a->dataset_cache_bytes[i] <= d->max_cache_bytes);
		if (storage != STORAGE_POLICY_PRIVATE)
			assert_true(a->dataset_cache_bytes[i] <= d->bytes);
		wanted += d->min_cache_bytes;
	}
	for (size_t i = 0; i < f->problem.dataset_count; i++) {
		const struct problem_dataset *d = &f->datasets[i];
		uint64_t least = d->min_cache_bytes < d->bytes ? d->min_cache_bytes : d->bytes;

		if (wanted <= f->problem.cache_bytes)
			assert_true(a->dataset_cache_bytes[i] >= least);
	}
	for (size_t i = 0; i < f->problem.job_count; i++)
		promised += f->jobs[i].min_remote_bytes_per_s;
	for (size_t i = 0; i < f->problem.job_count; i++) {
		double least = fmin(f->jobs[i].min_remote_bytes_per_s, need(f, a, i));

		if (a->jobs[i].running && promised <= f->problem.remote_bytes_per_s)
			assert_true(a->jobs[i].remote_bytes_per_s >= least * (1 - 1e-9));
	}
}

/* Nothing is left of the bandwidth while somebody could use it. */
static void check_spent(const struct fixture *f, const struct allocation *a)
{
	if (a->remote_bytes_per_s_left <= 1e-9 * f->problem.remote_bytes_per_s)
		return;
	for (size_t i = 0; i < f->problem.job_count; i++)
		assert_true(!a->jobs[i].running || satisfied(f, a, i));
}

static void check_same(
	const struct fixture *f, const struct allocation *a, const struct allocation *b)
{
	for (size_t i = 0; i < f->problem.job_count; i++) {
		assert_true(a->jobs[i].running == b->jobs[i].running);
		assert_true(a->jobs[i].remote_bytes_per_s == b->jobs[i].remote_bytes_per_s);
		assert_true(a->jobs[i].predicted_bytes_per_s == b->jobs[i].predicted_bytes_per_s);
	}
	for (size_t i = 0; i < f->problem.dataset_count; i++)
		assert_true(a->dataset_cache_bytes[i] == b->dataset_cache_bytes[i]);
}

static double score(const struct fixture *f, size_t job)
{
	const struct problem *p = &f->problem;
	double d = bytes_of(f, job), c = fmin(d, (double)p->cache_bytes);
	double miss = d > 0 ? 1 - c / d : 0, ideal = f->jobs[job].ideal_bytes_per_s;
	double b = fmin(p->remote_bytes_per_s, ideal * miss);
	double perf = miss > 0 ? fmin(ideal, b / miss) : ideal;
	double sum = f->jobs[job].gpus ? (double)f->jobs[job].gpus / (double)p->gpus : 0;

	sum += c > 0 ? c / (double)p->cache_bytes : 0;
	sum += b > 0 ? b / p->remote_bytes_per_s : 0;
	if (f->jobs[job].remaining_bytes == 0)
		return 0;
	return perf > 0 ? (double)f->jobs[job].remaining_bytes / perf * sum : INFINITY;
}

static bool goes_before(const struct fixture *f, enum gpu_policy g, size_t a, size_t b)
{
	if (g == GPU_POLICY_SJF && score(f, a) != score(f, b))
		return score(f, a) < score(f, b);
	if (f->jobs[a].arrival_s != f->jobs[b].arrival_s)
		return f->jobs[a].arrival_s < f->jobs[b].arrival_s;
	return a < b;
}

/* Picks the next of all that are left, again and again. */
static void check_admission(const struct fixture *f, const struct allocation *a, enum gpu_policy g)
{
	bool seen[JOBS_MAX] = {false}, running[JOBS_MAX] = {false};
	uint64_t left = f->problem.gpus;

	for (size_t k = 0; k < f->problem.job_count; k++) {
		size_t next = SIZE_MAX;

		for (size_t i = 0; i < f->problem.job_count; i++) {
			if (!seen[i] && (next == SIZE_MAX || goes_before(f, g, i, next)))
				next = i;
		}
		seen[next] = true;
		running[next] = f->jobs[next].gpus <= left;
		if (running[next])
			left -= f->jobs[next].gpus;
		else if (g != GPU_POLICY_SJF)
			break;
	}
	for (size_t i = 0; i < f->problem.job_count; i++)
		assert_true(running[i] == a->jobs[i].running);
}

static void every_allocation_is_feasible_honest_and_spends_its_bandwidth(void **state)
{
	(void)state;
	seed = 1;
	for (int round = 0; round < ROUNDS; round++) {
		struct fixture *f = random_problem((int)below(16));

		for (int pair = 0; pair < GPU_POLICIES * STORAGE_POLICIES; pair++) {
			enum gpu_policy g = pair / STORAGE_POLICIES;
			enum storage_policy s = pair % STORAGE_POLICIES;
			struct allocation a = solve(f, g, s), again = solve(f, g, s);

			check_feasible(f, &a);
			check_honest(f, &a);
			check_hits(f, &a, s);
			check_bounds(f, &a, s);
			check_spent(f, &a);
			check_admission(f, &a, g);
			check_same(f, &a, &again);
			allocation_deinit(&a);
			allocation_deinit(&again);
		}
		fixture_free(f);
	}
}

/* ---- joint with FIFO and SJF ----------------------------------------------------------------- */

/* The least bandwidth at f* over every division of the cache into whole units. */
static double least_need(const double *worth, const uint64_t *low, const uint64_t *high,
	const uint64_t *bytes, size_t count, uint64_t units)
{
	double best = INFINITY;

	if (count == 0)
		return 0;
	for (uint64_t c = low[0]; c <= high[0] && c <= units; c++) {
		double rest =
			least_need(worth + 1, low + 1, high + 1, bytes + 1, count - 1, units - c);

		best = fmin(best, worth[0] * (double)(bytes[0] - c) + rest);
	}
	return best;
}

static void joint_cache_needs_the_least_bandwidth(void **state)
{
	(void)state;
	seed = 2;
	for (int round = 0; round < ROUNDS; round++) {
		struct fixture *f = random_problem(round % 2 ? BOUNDS : PLAIN);
		uint64_t low[DATASETS_MAX], high[DATASETS_MAX], bytes[DATASETS_MAX], least = 0;
		double worth[DATASETS_MAX] = {0}, total = 0;
		uint64_t capacity = below(24);
		struct allocation a;

		f->problem.cache_bytes = capacity;
		for (size_t i = 0; i < f->problem.dataset_count; i++) {
			struct problem_dataset *d = &f->datasets[i];

			*d = (struct problem_dataset)PROBLEM_DATASET_INIT;
			random_dataset(d, 1, round % 2 ? BOUNDS : PLAIN);
			d->bytes %= 9;
			bytes[i] = d->bytes;
			high[i] = d->max_cache_bytes < d->bytes ? d->max_cache_bytes : d->bytes;
			low[i] = d->min_cache_bytes < high[i] ? d->min_cache_bytes : high[i];
			least += low[i];
		}
		a = solve(f, (int)below(2), STORAGE_POLICY_JOINT);
		for (size_t i = 0; i < f->problem.job_count; i++) {
			double d = bytes_of(f, i);

			if (!a.jobs[i].running || d == 0)
				continue;
			worth[f->jobs[i].dataset] += f->jobs[i].ideal_bytes_per_s / d;
			total += need(f, &a, i);
		}
		if (least <= capacity)
			assert_true(near(total, least_need(worth, low, high, bytes,
							f->problem.dataset_count, capacity)));
		allocation_deinit(&a);
		fixture_free(f);
	}
}

static void joint_bandwidth_follows_the_order_of_the_policy(void **state)
{
	(void)state;
	seed = 3;
	for (int round = 0; round < ROUNDS; round++) {
		struct fixture *f = random_problem(EFFECTIVE);
		enum gpu_policy g = below(2) ? GPU_POLICY_FIFO : GPU_POLICY_SJF;
		struct allocation a = solve(f, g, STORAGE_POLICY_JOINT);

		/* Whoever lacks something, nobody after him has anything. */
		for (size_t i = 0; i < f->problem.job_count; i++) {
			if (!a.jobs[i].running || satisfied(f, &a, i))
				continue;
			for (size_t k = 0; k < f->problem.job_count; k++)
				if (a.jobs[k].running && k != i && goes_before(f, g, i, k))
					assert_true(a.jobs[k].remote_bytes_per_s <=
						    1e-9 * f->problem.remote_bytes_per_s);
		}
		allocation_deinit(&a);
		fixture_free(f);
	}
}

/* ---- joint with max-min fairness ------------------------------------------------------------- */

/* Each vertex of the divisions of the cache is what some order of filling leaves, and the bandwidth
 * that given rates need is least at one of them. */
static double need_in_order(const struct fixture *f, const double *rates, const size_t *order)
{
	uint64_t cache[DATASETS_MAX], left = f->problem.cache_bytes;
	double total = 0;

	for (size_t i = 0; i < f->problem.dataset_count; i++) {
		const struct problem_dataset *d = &f->datasets[i];
		uint64_t most = d->max_cache_bytes < d->bytes ? d->max_cache_bytes : d->bytes;
		uint64_t least = d->min_cache_bytes < most ? d->min_cache_bytes : most;

		cache[i] = least < left ? least : left;
		left -= cache[i];
	}
	for (size_t i = 0; i < f->problem.dataset_count; i++) {
		const struct problem_dataset *d = &f->datasets[order[i]];
		uint64_t most = d->max_cache_bytes < d->bytes ? d->max_cache_bytes : d->bytes;
		uint64_t room = most > cache[order[i]] ? most - cache[order[i]] : 0;
		uint64_t more = room < left ? room : left;

		cache[order[i]] += more;
		left -= more;
	}
	for (size_t i = 0; i < f->problem.job_count; i++) {
		double d = bytes_of(f, i);

		if (d > 0)
			total += rates[i] * (d - (double)cache[f->jobs[i].dataset]) / d;
	}
	return total;
}

static double need_of_rates(const struct fixture *f, const double *rates, size_t *order, size_t at)
{
	size_t count = f->problem.dataset_count;
	double best = INFINITY;

	if (at == count)
		return need_in_order(f, rates, order);
	for (size_t i = at; i < count; i++) {
		size_t swapped = order[at];

		order[at] = order[i];
		order[i] = swapped;
		best = fmin(best, need_of_rates(f, rates, order, at + 1));
		order[i] = order[at];
		order[at] = swapped;
	}
	return best;
}

static double remote_needed(const struct fixture *f, const double *rates)
{
	size_t order[DATASETS_MAX] = {0, 1, 2, 3};

	return need_of_rates(f, rates, order, 0);
}

static void rates_at(const struct fixture *f, const struct allocation *a, double level, double *ret)
{
	size_t n = running_count(f, a);

	for (size_t i = 0; i < f->problem.job_count; i++)
		ret[i] = a->jobs[i].running ? fmin(f->jobs[i].ideal_bytes_per_s,
						      level * f->jobs[i].weight * alone(f, i, n))
					    : 0;
}

static double bisected_level(const struct fixture *f, const struct allocation *a)
{
	double low = 0, high = 1e7, rates[JOBS_MAX];

	for (int i = 0; i < 90; i++) {
		double level = low + (high - low) / 2;

		rates_at(f, a, level, rates);
		if (remote_needed(f, rates) <= f->problem.remote_bytes_per_s)
			low = level;
		else
			high = level;
	}
	return low;
}

/* The least share of what each would have alone; INFINITY when nobody would have anything. */
static double least_level(const struct fixture *f, const struct allocation *a)
{
	size_t n = running_count(f, a);
	double least = INFINITY;

	for (size_t i = 0; i < f->problem.job_count; i++) {
		double own = a->jobs[i].running ? f->jobs[i].weight * alone(f, i, n) : 0;

		if (own > 0)
			least = fmin(least, a->jobs[i].predicted_bytes_per_s / own);
	}
	return least;
}

static void check_no_job_can_be_raised(const struct fixture *f, const struct allocation *a)
{
	double rates[JOBS_MAX];

	for (size_t i = 0; i < f->problem.job_count; i++)
		rates[i] = a->jobs[i].predicted_bytes_per_s;
	for (size_t i = 0; i < f->problem.job_count; i++) {
		double was = rates[i];

		if (!a->jobs[i].running || satisfied(f, a, i))
			continue;
		rates[i] = fmin(
			f->jobs[i].ideal_bytes_per_s, was + 1e-3 * f->jobs[i].ideal_bytes_per_s);
		assert_true(remote_needed(f, rates) > f->problem.remote_bytes_per_s * (1 + 1e-9));
		rates[i] = was;
	}
}

static void max_min_reaches_the_level_that_bisection_finds(void **state)
{
	(void)state;
	seed = 4;
	for (int round = 0; round < ROUNDS / 3; round++) {
		struct fixture *f = random_problem(round % 2 ? BOUNDS : PLAIN);
		struct allocation a = solve(f, GPU_POLICY_MAX_MIN, STORAGE_POLICY_JOINT);
		double level = bisected_level(f, &a), wanted = INFINITY, rates[JOBS_MAX];
		size_t n = running_count(f, &a);

		rates_at(f, &a, level, rates);
		for (size_t i = 0; i < f->problem.job_count; i++) {
			double own = a.jobs[i].running ? f->jobs[i].weight * alone(f, i, n) : 0;

			if (own > 0)
				wanted = fmin(wanted, rates[i] / own);
		}
		if (isfinite(wanted))
			assert_true(near(least_level(f, &a), wanted));
		allocation_deinit(&a);
		fixture_free(f);
	}
}

static void in_max_min_no_job_can_be_raised_while_the_others_keep_their_rates(void **state)
{
	(void)state;
	seed = 5;
	for (int round = 0; round < ROUNDS; round++) {
		struct fixture *f = random_problem(round % 2 ? BOUNDS : PLAIN);
		struct allocation a = solve(f, GPU_POLICY_MAX_MIN, STORAGE_POLICY_JOINT);

		check_no_job_can_be_raised(f, &a);
		allocation_deinit(&a);
		fixture_free(f);
	}
}

static void promised_bandwidth_does_not_cost_the_others_more_than_itself(void **state)
{
	(void)state;
	seed = 6;
	for (int round = 0; round < ROUNDS; round++) {
		struct fixture *f = random_problem(PROMISES);
		struct allocation a = solve(f, GPU_POLICY_MAX_MIN, STORAGE_POLICY_JOINT);
		double promised = 0;

		for (size_t i = 0; i < f->problem.job_count; i++)
			promised += f->jobs[i].min_remote_bytes_per_s;
		if (promised <= f->problem.remote_bytes_per_s)
			check_no_job_can_be_raised(f, &a);
		allocation_deinit(&a);
		fixture_free(f);
	}
}

/* Weights undo what more cache or bandwidth does to perf_equal. False: none is large enough. */
static bool keep_paces(struct fixture *f, const struct problem *before)
{
	struct fixture was = *f;
	size_t n = f->problem.job_count;

	was.problem = *before;
	for (size_t i = 0; i < n; i++) {
		if (alone(f, i, n) > 0)
			f->jobs[i].weight *= alone(&was, i, n) / alone(f, i, n);
		if (f->jobs[i].weight < PROBLEM_WEIGHT_MIN)
			return false;
	}
	return true;
}

static void the_level_does_not_fall_with_more_cache_or_bandwidth(void **state)
{
	int compared = 0;

	(void)state;
	seed = 7;
	for (int round = 0; round < ROUNDS; round++) {
		struct fixture *f = random_problem(PLAIN);
		struct problem before;
		struct allocation a, b;

		f->problem.gpus = 1000;
		f->problem.remote_bytes_per_s += 1;
		before = f->problem;
		a = solve(f, GPU_POLICY_MAX_MIN, STORAGE_POLICY_JOINT);
		if (round % 2)
			f->problem.cache_bytes += f->problem.cache_bytes / (1 + below(20)) + 1;
		else
			f->problem.remote_bytes_per_s *= uniform(1, 2);
		if (keep_paces(f, &before)) {
			b = solve(f, GPU_POLICY_MAX_MIN, STORAGE_POLICY_JOINT);
			if (isfinite(least_level(f, &a)))
				assert_true(least_level(f, &b) >= least_level(f, &a) * (1 - 1e-6));
			allocation_deinit(&b);
			compared++;
		}
		allocation_deinit(&a);
		fixture_free(f);
	}
	assert_true(compared > ROUNDS / 2);
}

/* ---- the baselines --------------------------------------------------------------------------- */

/* Max-min fair: nobody who lacks something has less than anybody else. */
static void check_fair(const struct fixture *f, const struct allocation *a)
{
	for (size_t i = 0; i < f->problem.job_count; i++) {
		double mine = a->jobs[i].remote_bytes_per_s;

		if (!a->jobs[i].running || satisfied(f, a, i))
			continue;
		for (size_t k = 0; k < f->problem.job_count; k++)
			assert_true(a->jobs[k].remote_bytes_per_s <= mine * (1 + 1e-6) + 1e-6);
	}
}

/* Uncapped datasets hold the same for each byte that is read of them, and capped ones no more. */
static void check_lru(const struct fixture *f, const struct allocation *a)
{
	double rates[DATASETS_MAX] = {0}, level = 0;

	for (size_t i = 0; i < f->problem.job_count; i++)
		rates[f->jobs[i].dataset] += a->jobs[i].predicted_bytes_per_s;
	for (size_t i = 0; i < f->problem.dataset_count; i++) {
		if (rates[i] > 0)
			level = fmax(level, (double)a->dataset_cache_bytes[i] / rates[i]);
	}
	for (size_t i = 0; i < f->problem.dataset_count; i++) {
		double held = (double)a->dataset_cache_bytes[i];

		if (held < (double)f->datasets[i].bytes)
			assert_true(fabs(held - level * rates[i]) <= 1.5 + 1e-5 * held);
	}
	if (a->cache_bytes_left > DATASETS_MAX)
		for (size_t i = 0; i < f->problem.dataset_count; i++)
			assert_true(rates[i] <= 1e-9 * f->problem.remote_bytes_per_s ||
				    a->dataset_cache_bytes[i] + 1 >= f->datasets[i].bytes);
}

static void check_private(const struct fixture *f, const struct allocation *a)
{
	uint64_t gpus = f->problem.gpus - a->gpus_left;

	for (size_t i = 0; i < f->problem.job_count; i++) {
		uint64_t bytes = f->datasets[f->jobs[i].dataset].bytes, share;

		if (!a->jobs[i].running || gpus == 0 || f->jobs[i].ideal_bytes_per_s == 0)
			continue;
		share = f->problem.cache_bytes * f->jobs[i].gpus / gpus;
		assert_true(a->jobs[i].cache_bytes == (share < bytes ? share : bytes));
	}
}

static void check_whole(const struct fixture *f, const struct allocation *a)
{
	uint64_t left = f->problem.cache_bytes;
	bool taken[DATASETS_MAX] = {false};
	double worth[DATASETS_MAX] = {0};

	for (size_t i = 0; i < f->problem.job_count; i++) {
		if (a->jobs[i].running && bytes_of(f, i) > 0)
			worth[f->jobs[i].dataset] += f->jobs[i].ideal_bytes_per_s / bytes_of(f, i);
	}
	for (;;) {
		size_t best = SIZE_MAX;

		for (size_t i = 0; i < f->problem.dataset_count; i++) {
			if (!taken[i] && worth[i] > 0 &&
				(best == SIZE_MAX || worth[i] > worth[best]))
				best = i;
		}
		if (best == SIZE_MAX || f->datasets[best].bytes > left)
			break;
		taken[best] = true;
		left -= f->datasets[best].bytes;
	}
	for (size_t i = 0; i < f->problem.dataset_count; i++)
		assert_true(a->dataset_cache_bytes[i] == (taken[i] ? f->datasets[i].bytes : 0));
}

static void baselines_are_what_they_are_defined_as(void **state)
{
	(void)state;
	seed = 8;
	for (int round = 0; round < ROUNDS; round++) {
		struct fixture *f = random_problem(PLAIN);
		struct allocation a = solve(f, (int)below(3), STORAGE_POLICY_LRU);

		check_fair(f, &a);
		/* Near a full cache one byte of a few thousand changes the rates. */
		if (f->problem.cache_bytes > 1000000)
			check_lru(f, &a);
		allocation_deinit(&a);
		if (f->problem.cache_bytes < 1000000) {
			a = solve(f, (int)below(3), STORAGE_POLICY_PRIVATE);
			check_fair(f, &a);
			check_private(f, &a);
			allocation_deinit(&a);
		}
		a = solve(f, (int)below(3), STORAGE_POLICY_WHOLE);
		check_fair(f, &a);
		check_whole(f, &a);
		allocation_deinit(&a);
		fixture_free(f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_allocation_is_feasible_honest_and_spends_its_bandwidth),
		cmocka_unit_test(joint_cache_needs_the_least_bandwidth),
		cmocka_unit_test(joint_bandwidth_follows_the_order_of_the_policy),
		cmocka_unit_test(max_min_reaches_the_level_that_bisection_finds),
		cmocka_unit_test(in_max_min_no_job_can_be_raised_while_the_others_keep_their_rates),
		cmocka_unit_test(promised_bandwidth_does_not_cost_the_others_more_than_itself),
		cmocka_unit_test(the_level_does_not_fall_with_more_cache_or_bandwidth),
		cmocka_unit_test(baselines_are_what_they_are_defined_as),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
