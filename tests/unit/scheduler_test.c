/* Allocations small enough to be worked out by hand, and what is refused. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scheduler/allocation.h"
#include "scheduler/model.h"
#include "tests/unit/scheduler_fixture.h"

#define GB 1000000000ULL

static void near(double a, double wanted)
{
	assert_true(fabs(a - wanted) <= 1e-6 * fabs(wanted) + 1e-9);
}

static struct allocation solve(const struct fixture *f, enum gpu_policy g, enum storage_policy s)
{
	struct allocation a;

	assert_int_equal(allocation_solve(&f->problem, g, s, &a, NULL), 0);
	return a;
}

static void job(struct fixture *f, size_t i, size_t dataset, double gb_per_s)
{
	f->jobs[i].dataset = dataset;
	f->jobs[i].gpus = 1;
	f->jobs[i].ideal_bytes_per_s = gb_per_s * 1e9;
	f->jobs[i].remaining_bytes = 300 * GB;
	f->jobs[i].arrival_s = (double)i;
}

static struct fixture *cluster(size_t jobs, size_t datasets, uint64_t cache_gb, double remote_gb)
{
	struct fixture *f = fixture_new(jobs, datasets);

	f->problem.gpus = 8;
	f->problem.cache_bytes = cache_gb * GB;
	f->problem.remote_bytes_per_s = remote_gb * 1e9;
	for (size_t i = 0; i < datasets; i++)
		f->datasets[i].bytes = 100 * GB;
	for (size_t i = 0; i < jobs; i++)
		job(f, i, i < datasets ? i : datasets - 1, 1);
	return f;
}

static void one_job_runs_at_bandwidth_over_its_miss_ratio(void **state)
{
	static const double hits[] = {0.5, 0.5 + 0.5 * -0.69314718055994531, 0.5, 0};
	struct fixture *f = cluster(1, 1, 50, 0.25);

	(void)state;
	for (int s = 0; s < STORAGE_POLICIES; s++) {
		struct allocation a = solve(f, GPU_POLICY_FIFO, s);

		near(a.jobs[0].hit_ratio, hits[s]);
		near(a.jobs[0].predicted_bytes_per_s, 0.25e9 / (1 - hits[s]));
		near(a.jobs[0].remote_bytes_per_s, 0.25e9);
		assert_int_equal(a.cache_bytes_left, s == STORAGE_POLICY_WHOLE ? 50 * GB : 0);
		assert_int_equal(a.gpus_left, 7);
		allocation_deinit(&a);
	}
	fixture_free(f);
}

static void jobs_on_one_dataset_share_a_cache_that_is_charged_once(void **state)
{
	struct fixture *f = cluster(3, 2, 100, 4);
	struct allocation a;

	(void)state;
	/* Two slower jobs on dataset 1 are worth more than a faster one on dataset 0. */
	job(f, 0, 0, 1.5);
	a = solve(f, GPU_POLICY_FIFO, STORAGE_POLICY_JOINT);
	assert_int_equal(a.dataset_cache_bytes[1], 100 * GB);
	assert_int_equal(a.dataset_cache_bytes[0], 0);
	assert_int_equal(a.cache_bytes_left, 0);
	near(a.jobs[1].hit_ratio, 1);
	near(a.jobs[2].hit_ratio, 1);
	near(a.remote_bytes_per_s_left, 2.5e9);
	allocation_deinit(&a);
	a = solve(f, GPU_POLICY_FIFO, STORAGE_POLICY_PRIVATE);
	/* A third for each job; dataset 1 has two copies. */
	assert_int_equal(a.jobs[1].cache_bytes, 100 * GB / 3);
	assert_int_equal(a.dataset_cache_bytes[1], 2 * (100 * GB / 3));
	allocation_deinit(&a);
	fixture_free(f);
}

static void max_min_raises_all_to_one_multiple_of_their_own_share(void **state)
{
	struct fixture *f = cluster(2, 2, 100, 1);
	struct allocation a;

	(void)state;
	f->datasets[1].bytes = 400 * GB;
	job(f, 1, 1, 10);
	job(f, 0, 0, 10);
	a = solve(f, GPU_POLICY_MAX_MIN, STORAGE_POLICY_JOINT);
	/* Alone: 50 GB and 0.5 GB/s each, so 1 GB/s and 4/7 GB/s. The cache saves most on dataset 0,
	 * which is cached whole: its job needs no bandwidth and runs at f*, the other has it all. */
	near(a.jobs[0].equal_bytes_per_s, 1e9);
	near(a.jobs[1].equal_bytes_per_s, 4e9 / 7);
	near(a.jobs[0].predicted_bytes_per_s, 10e9);
	near(a.jobs[1].predicted_bytes_per_s, 1e9);
	allocation_deinit(&a);
	/* With half of that cache none is whole: both reach one multiple, and the bandwidth is
	 * spent. */
	f->problem.cache_bytes = 50 * GB;
	a = solve(f, GPU_POLICY_MAX_MIN, STORAGE_POLICY_JOINT);
	near(a.jobs[0].equal_bytes_per_s, 0.5e9 / 0.75);
	near(a.jobs[1].equal_bytes_per_s, 0.5e9 / 0.9375);
	near(a.jobs[0].predicted_bytes_per_s / a.jobs[0].equal_bytes_per_s,
		a.jobs[1].predicted_bytes_per_s / a.jobs[1].equal_bytes_per_s);
	near(a.jobs[0].predicted_bytes_per_s * 0.5 + a.jobs[1].predicted_bytes_per_s, 1e9);
	allocation_deinit(&a);
	/* Twice the weight, twice the multiple. */
	f->jobs[1].weight = 2;
	a = solve(f, GPU_POLICY_MAX_MIN, STORAGE_POLICY_JOINT);
	near(2 * a.jobs[0].predicted_bytes_per_s / a.jobs[0].equal_bytes_per_s,
		a.jobs[1].predicted_bytes_per_s / a.jobs[1].equal_bytes_per_s);
	allocation_deinit(&a);
	fixture_free(f);
}

static void sjf_passes_over_what_does_not_fit_and_fifo_waits_for_it(void **state)
{
	struct fixture *f = cluster(3, 3, 0, 10);
	struct allocation a;

	(void)state;
	f->jobs[0].gpus = 6;
	f->jobs[1].gpus = 4;
	f->jobs[2].gpus = 2;
	a = solve(f, GPU_POLICY_FIFO, STORAGE_POLICY_JOINT);
	assert_true(a.jobs[0].running && !a.jobs[1].running && !a.jobs[2].running);
	allocation_deinit(&a);
	f->jobs[0].remaining_bytes = 1;
	a = solve(f, GPU_POLICY_SJF, STORAGE_POLICY_JOINT);
	assert_true(a.jobs[0].running && !a.jobs[1].running && a.jobs[2].running);
	allocation_deinit(&a);
	fixture_free(f);
}

static void what_is_not_effective_yet_is_fetched(void **state)
{
	struct fixture *f = cluster(2, 2, 200, 1);
	struct allocation a;

	(void)state;
	/* In its first epoch: cached as it reads, but nothing of it hits before the next. */
	f->jobs[0].effective_cache_bytes = 0;
	f->jobs[1].effective_cache_bytes = 60 * GB;
	a = solve(f, GPU_POLICY_MAX_MIN, STORAGE_POLICY_JOINT);
	assert_int_equal(a.dataset_cache_bytes[0], 100 * GB);
	near(a.jobs[0].hit_ratio, 0);
	near(a.jobs[1].hit_ratio, 0.6);
	near(a.jobs[0].remote_bytes_per_s + a.jobs[1].remote_bytes_per_s, 1e9);
	near(a.jobs[0].predicted_bytes_per_s, a.jobs[1].predicted_bytes_per_s);
	allocation_deinit(&a);
	fixture_free(f);
}

static void irregular_jobs_have_a_partition_and_profit_from_what_is_pinned(void **state)
{
	struct fixture *f = cluster(2, 2, 100, 1);
	struct allocation a;

	(void)state;
	f->jobs[1].irregular = true;
	a = solve(f, GPU_POLICY_FIFO, STORAGE_POLICY_JOINT);
	/* Half of everything each; the irregular half is an LRU cache. */
	assert_int_equal(a.dataset_cache_bytes[0], 50 * GB);
	assert_int_equal(a.dataset_cache_bytes[1], 50 * GB);
	near(a.jobs[0].hit_ratio, 0.5);
	near(a.jobs[1].hit_ratio, 1 - 0.5 * (1 - log(0.5)));
	near(a.remote_bytes_per_s_left, 0);
	allocation_deinit(&a);
	/* On one dataset the pinned half hits for both, and the rest is the irregular job's. */
	f->jobs[1].dataset = 0;
	a = solve(f, GPU_POLICY_FIFO, STORAGE_POLICY_JOINT);
	assert_int_equal(a.dataset_cache_bytes[0], 100 * GB);
	near(a.jobs[1].hit_ratio, 1);
	allocation_deinit(&a);
	fixture_free(f);
}

static void bounds_come_first(void **state)
{
	struct fixture *f = cluster(2, 2, 100, 1);
	struct allocation a;

	(void)state;
	f->jobs[0].ideal_bytes_per_s = 9e9;
	f->datasets[0].max_cache_bytes = 30 * GB;
	f->datasets[1].min_cache_bytes = 80 * GB;
	f->jobs[1].min_remote_bytes_per_s = 0.15e9;
	a = solve(f, GPU_POLICY_FIFO, STORAGE_POLICY_JOINT);
	assert_int_equal(a.dataset_cache_bytes[1], 80 * GB);
	assert_int_equal(a.dataset_cache_bytes[0], 20 * GB);
	near(a.jobs[1].remote_bytes_per_s, 0.15e9);
	near(a.jobs[0].remote_bytes_per_s, 0.85e9);
	allocation_deinit(&a);
	fixture_free(f);
}

/* Promised bandwidth makes a rate that depends on the cache: A runs at 1 / (1 - 1/2) = 2, which
 * leaves B so little that the rest of the cache is D's, who runs at 0.5 / (1 - 1/2) = 1. Counted
 * without cache (1 and 0.5) B would seem to run at 1.2 and take it from him. */
static void cache_follows_the_rates_that_promises_make(void **state)
{
	struct fixture *f = cluster(3, 3, 100, 1.6);
	struct allocation a;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		job(f, i, i, 10);
		f->datasets[i].max_cache_bytes = 50 * GB;
	}
	f->jobs[0].weight = f->jobs[1].weight = PROBLEM_WEIGHT_MIN;
	f->jobs[0].min_remote_bytes_per_s = 1e9;
	f->jobs[1].min_remote_bytes_per_s = 0.5e9;
	a = solve(f, GPU_POLICY_MAX_MIN, STORAGE_POLICY_JOINT);
	assert_int_equal(a.dataset_cache_bytes[0], 50 * GB);
	assert_int_equal(a.dataset_cache_bytes[1], 50 * GB);
	near(a.jobs[0].predicted_bytes_per_s, 2e9);
	near(a.jobs[1].predicted_bytes_per_s, 1e9);
	near(a.jobs[2].predicted_bytes_per_s, 0.1e9);
	allocation_deinit(&a);
	fixture_free(f);
}

static void degenerate_problems_are_solved(void **state)
{
	(void)state;
	for (int pair = 0; pair < GPU_POLICIES * STORAGE_POLICIES; pair++) {
		struct fixture *none = cluster(0, 0, 100, 1), *f = cluster(4, 4, 0, 0);
		struct allocation a = solve(none, pair / STORAGE_POLICIES, pair % STORAGE_POLICIES);

		assert_int_equal(a.cache_bytes_left, 100 * GB);
		near(a.remote_bytes_per_s_left, 1e9);
		allocation_deinit(&a);
		/* No cache and no bandwidth: only an empty dataset does not wait. */
		f->datasets[0].bytes = 0;
		f->jobs[1].ideal_bytes_per_s = 0;
		f->jobs[2].ideal_bytes_per_s = PROBLEM_RATE_MAX;
		f->jobs[2].remaining_bytes = PROBLEM_BYTES_MAX;
		f->datasets[2].bytes = PROBLEM_BYTES_MAX;
		a = solve(f, pair / STORAGE_POLICIES, pair % STORAGE_POLICIES);
		near(a.jobs[0].predicted_bytes_per_s, 1e9);
		near(a.jobs[0].hit_ratio, 1);
		for (int i = 1; i < 4; i++) {
			assert_true(a.jobs[i].running);
			near(a.jobs[i].predicted_bytes_per_s, 0);
		}
		allocation_deinit(&a);
		/* One giant, whom everything is too small for. */
		f->problem.cache_bytes = PROBLEM_BYTES_MAX;
		f->problem.remote_bytes_per_s = 5e-324;
		a = solve(f, pair / STORAGE_POLICIES, pair % STORAGE_POLICIES);
		for (int i = 0; i < 4; i++)
			assert_true(isfinite(a.jobs[i].predicted_bytes_per_s));
		allocation_deinit(&a);
		fixture_free(none);
		fixture_free(f);
	}
}

static void without_bandwidth_only_whole_datasets_run(void **state)
{
	struct fixture *f = cluster(3, 3, 150, 0);
	struct allocation a;

	(void)state;
	f->datasets[2].bytes = 40 * GB;
	a = solve(f, GPU_POLICY_MAX_MIN, STORAGE_POLICY_JOINT);
	near(a.jobs[2].predicted_bytes_per_s, 1e9);
	near(a.jobs[0].predicted_bytes_per_s, 1e9);
	near(a.jobs[1].predicted_bytes_per_s, 0);
	assert_int_equal(a.cache_bytes_left, 10 * GB);
	allocation_deinit(&a);
	fixture_free(f);
}

static void refuse(const struct fixture *f, const char *array, size_t index, const char *field)
{
	struct problem_fault fault = {0};
	struct allocation a;

	assert_int_equal(
		allocation_solve(&f->problem, GPU_POLICY_FIFO, STORAGE_POLICY_JOINT, &a, &fault),
		-EINVAL);
	assert_string_equal(fault.array, array);
	assert_int_equal(fault.index, index);
	assert_string_equal(fault.field, field);
	assert_non_null(fault.rule);
}

#define REFUSE(assignment, array, index, field)          \
	do {                                             \
		struct fixture *f = cluster(2, 2, 1, 1); \
                                                         \
		assignment;                              \
		refuse(f, array, index, field);          \
		fixture_free(f);                         \
	} while (0)

static void nonsense_is_refused_with_its_field(void **state)
{
	(void)state;
	REFUSE(f->problem.gpus = 1ULL << 33, "capacity", 0, "gpus");
	REFUSE(f->problem.cache_bytes = UINT64_MAX, "capacity", 0, "cache_bytes");
	REFUSE(f->problem.remote_bytes_per_s = NAN, "capacity", 0, "remote_bytes_per_s");
	REFUSE(f->problem.remote_bytes_per_s = -1, "capacity", 0, "remote_bytes_per_s");
	REFUSE(f->datasets[1].bytes = UINT64_MAX, "datasets", 1, "bytes");
	REFUSE(f->datasets[1].min_cache_bytes = UINT64_MAX - 1, "datasets", 1, "min_cache_bytes");
	REFUSE(f->datasets[0].max_cache_bytes = UINT64_MAX - 1, "datasets", 0, "max_cache_bytes");
	REFUSE((f->datasets[0].min_cache_bytes = 2, f->datasets[0].max_cache_bytes = 1), "datasets",
		0, "max_cache_bytes");
	REFUSE(f->jobs[1].dataset = 2, "jobs", 1, "dataset");
	REFUSE(f->jobs[1].gpus = UINT64_MAX, "jobs", 1, "gpus");
	REFUSE(f->jobs[1].ideal_bytes_per_s = INFINITY, "jobs", 1, "ideal_bytes_per_s");
	REFUSE(f->jobs[1].ideal_bytes_per_s = -0.5, "jobs", 1, "ideal_bytes_per_s");
	REFUSE(f->jobs[0].remaining_bytes = 1ULL << 63, "jobs", 0, "remaining_bytes");
	REFUSE(f->jobs[0].arrival_s = NAN, "jobs", 0, "arrival_s");
	REFUSE(f->jobs[0].min_remote_bytes_per_s = -1, "jobs", 0, "min_remote_bytes_per_s");
	REFUSE(f->jobs[0].weight = 0, "jobs", 0, "weight");
	REFUSE(f->jobs[0].weight = NAN, "jobs", 0, "weight");
	REFUSE(f->jobs[0].effective_cache_bytes = 1ULL << 63, "jobs", 0, "effective_cache_bytes");
}

static void the_model_is_right_at_its_ends(void **state)
{
	(void)state;
	near(model_uniform_miss(0, 0), 0);
	near(model_uniform_miss(100, 100), 0);
	near(model_uniform_miss(25, 100), 0.75);
	near(model_lru_miss(0, 100), 1);
	near(model_lru_miss(100, 100), 0);
	/* silod.md: x=.25 -> .034, .5 -> .153, .75 -> .403, .9 -> .67 */
	assert_true(fabs(1 - model_lru_miss(25, 100) - 0.034) < 0.0005);
	assert_true(fabs(1 - model_lru_miss(50, 100) - 0.153) < 0.0005);
	assert_true(fabs(1 - model_lru_miss(75, 100) - 0.403) < 0.0005);
	assert_true(fabs(1 - model_lru_miss(90, 100) - 0.67) < 0.0005);
	near(model_perf(5, 0, 0), 5);
	near(model_perf(5, 1, 0.5), 2);
	near(model_perf(5, 100, 0.5), 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_job_runs_at_bandwidth_over_its_miss_ratio),
		cmocka_unit_test(jobs_on_one_dataset_share_a_cache_that_is_charged_once),
		cmocka_unit_test(max_min_raises_all_to_one_multiple_of_their_own_share),
		cmocka_unit_test(sjf_passes_over_what_does_not_fit_and_fifo_waits_for_it),
		cmocka_unit_test(what_is_not_effective_yet_is_fetched),
		cmocka_unit_test(irregular_jobs_have_a_partition_and_profit_from_what_is_pinned),
		cmocka_unit_test(bounds_come_first),
		cmocka_unit_test(cache_follows_the_rates_that_promises_make),
		cmocka_unit_test(degenerate_problems_are_solved),
		cmocka_unit_test(without_bandwidth_only_whole_datasets_run),
		cmocka_unit_test(nonsense_is_refused_with_its_field),
		cmocka_unit_test(the_model_is_right_at_its_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
