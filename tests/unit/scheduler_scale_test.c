/*
 * What an allocation costs: 10,000 jobs over 1,000 datasets in 50 ms of one core, and time that
 * grows as n log n. CPU time, best of several: the machine is shared. Sanitizers slow things down
 * by a factor of their own, so there only the growth is held.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "scheduler/allocation.h"
#include "tests/unit/scheduler_fixture.h"

#define JOBS 10000
#define DATASETS 1000
#define LIMIT_MS 50
#define GROWTH 8
/* n log n over a factor of eight is 8 * 1.33, n * n is 64; larger arrays fit no cache, and the fixed
 * point of lru takes another number of rounds. */
#define GROWTH_LIMIT 40

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static double cpu_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static double best_ms(const struct problem *p, enum gpu_policy g, enum storage_policy s, int tries)
{
	double best = 1e9;

	for (int i = 0; i < tries; i++) {
		struct allocation a;
		double started = cpu_ms(), took;

		assert_int_equal(allocation_solve(p, g, s, &a, NULL), 0);
		took = cpu_ms() - started;
		best = took < best ? took : best;
		allocation_deinit(&a);
	}
	return best;
}

/* Everybody runs, so that storage has the most to do; a third of the cache, a tenth of the
 * bandwidth that all would take. */
static struct fixture *large(size_t jobs, size_t datasets)
{
	struct fixture *f = fixture_new(jobs, datasets);
	uint64_t random = 7;
	double ideal = 0, bytes = 0;

	for (size_t i = 0; i < datasets; i++) {
		f->datasets[i].bytes = 1000000000 + fixture_random(&random) % 1000000000000;
		bytes += (double)f->datasets[i].bytes;
	}
	for (size_t i = 0; i < jobs; i++) {
		f->jobs[i].dataset = fixture_random(&random) % datasets;
		f->jobs[i].gpus = 1 + fixture_random(&random) % 8;
		f->jobs[i].ideal_bytes_per_s =
			(double)(1000000 + fixture_random(&random) % 1000000000);
		f->jobs[i].remaining_bytes = fixture_random(&random) % 1000000000000;
		f->jobs[i].arrival_s = (double)(fixture_random(&random) % 100000);
		f->problem.gpus += f->jobs[i].gpus;
		ideal += f->jobs[i].ideal_bytes_per_s;
	}
	f->problem.cache_bytes = (uint64_t)(bytes / 3);
	f->problem.remote_bytes_per_s = ideal / 10;
	return f;
}

static void ten_thousand_jobs_are_divided_in_fifty_milliseconds(void **state)
{
	struct fixture *f = large(JOBS, DATASETS);

	(void)state;
	for (int g = 0; g < GPU_POLICIES; g++) {
		for (int s = 0; s < STORAGE_POLICIES; s++) {
			double ms = best_ms(&f->problem, g, s, 5);

			print_message("%s x %s: %.2f ms\n", gpu_policy_name(g),
				storage_policy_name(s), ms);
			if (!SANITIZED)
				assert_true(ms < LIMIT_MS);
		}
	}
	fixture_free(f);
}

static void time_grows_as_n_log_n(void **state)
{
	struct fixture *small = large(JOBS / GROWTH, DATASETS / GROWTH);
	struct fixture *big = large(JOBS, DATASETS);

	(void)state;
	for (int g = 0; g < GPU_POLICIES; g++) {
		for (int s = 0; s < STORAGE_POLICIES; s++) {
			double ratio =
				best_ms(&big->problem, g, s, 3) / best_ms(&small->problem, g, s, 9);

			print_message("%s x %s: %.1f times\n", gpu_policy_name(g),
				storage_policy_name(s), ratio);
			assert_true(ratio < GROWTH_LIMIT);
		}
	}
	fixture_free(small);
	fixture_free(big);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ten_thousand_jobs_are_divided_in_fifty_milliseconds),
		cmocka_unit_test(time_grows_as_n_log_n),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
