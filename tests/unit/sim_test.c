/*
 * The simulator against what can be worked out by hand: docs/silod.md has the sums. And the fluid
 * that it models against a simulation of single items.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scheduler/model.h"
#include "sim/bands.h"
#include "sim/simulator.h"
#include "tests/unit/scheduler_fixture.h"

#define GB 1000000000ULL

static void near(double a, double wanted, double within)
{
	if (!(fabs(a - wanted) <= within))
		fail_msg("%.6f is not %.6f +- %g", a, wanted, within);
}

static void job(struct fixture *f, size_t i, size_t dataset, double gb_per_s, double gb)
{
	f->jobs[i].dataset = dataset;
	f->jobs[i].gpus = 1;
	f->jobs[i].ideal_bytes_per_s = gb_per_s * 1e9;
	f->jobs[i].remaining_bytes = (uint64_t)(gb * 1e9);
}

static struct fixture *cluster(size_t jobs, size_t datasets, double cache_gb, double remote_gb)
{
	struct fixture *f = fixture_new(jobs, datasets);

	f->problem.gpus = 8;
	f->problem.cache_bytes = (uint64_t)(cache_gb * 1e9);
	f->problem.remote_bytes_per_s = remote_gb * 1e9;
	for (size_t i = 0; i < datasets; i++)
		f->datasets[i].bytes = 100 * GB;
	return f;
}

static struct sim_result run(const struct fixture *f, enum gpu_policy g, enum storage_policy s)
{
	struct sim_result r;

	assert_int_equal(sim_run(&f->problem, g, s, NULL, NULL, &r), 0);
	return r;
}

static void one_job_three_epochs(void **state)
{
	/* joint, lru, private, whole */
	static const double seconds[] = {800, 1077.3, 800, 1200};
	struct fixture *f = cluster(1, 1, 50, 0.25);

	(void)state;
	job(f, 0, 0, 1, 300);
	for (int g = 0; g < GPU_POLICIES; g++) {
		for (int s = 0; s < STORAGE_POLICIES; s++) {
			struct sim_result r = run(f, g, s);

			near(r.jobs[0].finish_s, seconds[s], s == STORAGE_POLICY_LRU ? 0.1 : 1e-3);
			near(r.makespan_s, seconds[s], 0.1);
			near(r.origin_bytes, seconds[s] * 0.25e9, 1e8);
			near(r.useful_gpu_s, 300, 1e-3);
			near(r.held_gpu_s, seconds[s], 0.1);
			sim_result_deinit(&r);
		}
	}
	fixture_free(f);
}

static void a_first_epoch_hits_nothing(void **state)
{
	(void)state;
	for (int s = 0; s < STORAGE_POLICIES; s++) {
		struct fixture *f = cluster(1, 1, 100, 0.25);
		struct sim_result r;

		job(f, 0, 0, 1, 100);
		r = run(f, GPU_POLICY_FIFO, s);
		near(r.jobs[0].finish_s, 400, 1e-3);
		near(r.origin_bytes, 100e9, 1);
		sim_result_deinit(&r);
		fixture_free(f);
	}
}

/* The worked case of docs/silod.md: "Three jobs". */
static struct fixture *three_jobs(void)
{
	struct fixture *f = cluster(3, 3, 120, 0.5);

	f->datasets[2].bytes = 400 * GB;
	job(f, 0, 0, 1, 300);
	job(f, 1, 1, 0.4, 200);
	job(f, 2, 2, 0.2, 100);
	return f;
}

static void three_jobs_take_what_the_documentation_says(void **state)
{
	static const struct {
		enum gpu_policy gpus;
		enum storage_policy storage;
		double finish_s[3];
	} cases[] = {
		{GPU_POLICY_FIFO, STORAGE_POLICY_JOINT, {400, 700, 825}},
		{GPU_POLICY_SJF, STORAGE_POLICY_JOINT, {400, 700, 825}},
		{GPU_POLICY_FIFO, STORAGE_POLICY_PRIVATE, {937.5, 850, 600}},
		{GPU_POLICY_FIFO, STORAGE_POLICY_WHOLE, {800, 850, 600}},
		{GPU_POLICY_MAX_MIN, STORAGE_POLICY_JOINT, {733.333, 793.75, 700}},
	};
	struct fixture *f = three_jobs();

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct sim_result r = run(f, cases[i].gpus, cases[i].storage);

		for (int k = 0; k < 3; k++)
			near(r.jobs[k].finish_s, cases[i].finish_s[k], 0.01);
		sim_result_deinit(&r);
	}
	fixture_free(f);
}

static void two_jobs_on_one_dataset_help_each_other_at_once(void **state)
{
	struct fixture *f = cluster(2, 1, 50, 0.5);
	struct sim_result r;

	(void)state;
	job(f, 0, 0, 1, 100);
	job(f, 1, 0, 1, 100);
	/* Each has 0.25 GB/s and finds x p of what it reads there at progress p, x = 1/2:
	 * the epoch takes d (1 - x/2) / b = 300 s instead of 400. */
	r = run(f, GPU_POLICY_MAX_MIN, STORAGE_POLICY_JOINT);
	near(r.jobs[0].finish_s, 300, 1.5);
	near(r.jobs[1].finish_s, 300, 1.5);
	near(r.origin_bytes, 150e9, 1e9);
	sim_result_deinit(&r);
	fixture_free(f);
}

static void who_comes_later_finds_what_is_cached(void **state)
{
	struct fixture *f = cluster(2, 1, 100, 1);
	struct sim_result r;

	(void)state;
	/* The first has cached all of it when the second comes: no first epoch for that one. */
	job(f, 0, 0, 1, 300);
	job(f, 1, 0, 1, 100);
	f->jobs[1].arrival_s = 150;
	r = run(f, GPU_POLICY_FIFO, STORAGE_POLICY_JOINT);
	near(r.jobs[1].finish_s, 250, 1e-3);
	near(r.jobs[0].finish_s, 300, 1e-3);
	near(r.origin_bytes, 100e9, 1e3);
	sim_result_deinit(&r);
	fixture_free(f);
}

static void sjf_takes_gpus_from_longer_jobs(void **state)
{
	struct fixture *f = cluster(2, 2, 200, 10);
	struct sim_result r;

	(void)state;
	f->problem.gpus = 1;
	job(f, 0, 0, 1, 300);
	job(f, 1, 1, 1, 50);
	f->jobs[1].arrival_s = 120;
	r = run(f, GPU_POLICY_SJF, STORAGE_POLICY_JOINT);
	near(r.jobs[1].finish_s, 170, 1e-3);
	near(r.jobs[0].finish_s, 350, 1e-3);
	sim_result_deinit(&r);
	r = run(f, GPU_POLICY_FIFO, STORAGE_POLICY_JOINT);
	near(r.jobs[1].finish_s, 350, 1e-3);
	near(r.jobs[1].start_s, 300, 1e-3);
	sim_result_deinit(&r);
	fixture_free(f);
}

static void jobs_that_can_never_end_are_told(void **state)
{
	struct fixture *f = cluster(2, 2, 0, 1);
	struct sim_result r;

	(void)state;
	job(f, 0, 0, 1, 100);
	job(f, 1, 1, 1, 100);
	f->jobs[1].gpus = 9;
	assert_int_equal(sim_run(&f->problem, GPU_POLICY_FIFO, STORAGE_POLICY_LRU, NULL, NULL, &r),
		-EDEADLK);
	near(r.jobs[0].finish_s, 100, 1e-3);
	assert_true(isinf(r.jobs[1].finish_s));
	sim_result_deinit(&r);
	f->jobs[1].gpus = 1;
	f->jobs[1].weight = NAN;
	assert_int_equal(
		sim_run(&f->problem, GPU_POLICY_FIFO, STORAGE_POLICY_LRU, NULL, NULL, &r), -EINVAL);
	sim_result_deinit(&r);
	fixture_free(f);
}

static void every_byte_is_read_and_nothing_beyond_the_capacity(void **state)
{
	uint64_t seed = 3;

	(void)state;
	for (int round = 0; round < 60; round++) {
		struct fixture *f = cluster(12, 4, (double)(fixture_random(&seed) % 300),
			0.1 + (double)(fixture_random(&seed) % 20) / 10);
		double least = 0;

		for (size_t i = 0; i < 12; i++) {
			job(f, i, fixture_random(&seed) % 4,
				0.1 + (double)(fixture_random(&seed) % 100) / 50,
				(double)(1 + fixture_random(&seed) % 400));
			f->jobs[i].gpus = 1 + fixture_random(&seed) % 4;
			f->jobs[i].arrival_s = (double)(fixture_random(&seed) % 500);
			least += (double)(f->jobs[i].gpus * f->jobs[i].remaining_bytes) /
				 f->jobs[i].ideal_bytes_per_s;
		}
		for (int pair = 0; pair < GPU_POLICIES * STORAGE_POLICIES; pair++) {
			struct sim_result r =
				run(f, pair / STORAGE_POLICIES, pair % STORAGE_POLICIES);

			/* Useful time is what was read at f*, whatever it had to wait for. */
			near(r.useful_gpu_s, least, 1e-6 * least);
			assert_true(r.held_gpu_s >= least * (1 - 1e-9));
			assert_true(r.origin_bytes <=
				    f->problem.remote_bytes_per_s * r.makespan_s * (1 + 1e-9));
			assert_true(r.window_useful_gpu_s <= r.useful_gpu_s * (1 + 1e-9));
			for (size_t i = 0; i < 12; i++) {
				const struct problem_job *j = &f->jobs[i];

				assert_true(r.jobs[i].finish_s - r.jobs[i].start_s >=
					    (double)j->remaining_bytes / j->ideal_bytes_per_s *
						    (1 - 1e-9));
				assert_true(r.jobs[i].start_s >= j->arrival_s - 1e-6);
			}
			sim_result_deinit(&r);
		}
		fixture_free(f);
	}
}

/* ---- LRU ------------------------------------------------------------------------------------- */

/* The last `room` different items that were read, as a ring of what was read when. */
static double measured_lru_hit(size_t items, size_t room, uint64_t seed)
{
	size_t *order = calloc(items, sizeof(*order)), hits = 0, reads = 0;
	size_t *newer = calloc(items + 1, sizeof(size_t)),
	       *older = calloc(items + 1, sizeof(size_t));
	bool *cached = calloc(items, sizeof(bool));
	size_t held = 0, head = items;

	assert_true(order && newer && older && cached);
	/* A list through all cached items, the newest after `head`, the oldest before it. */
	newer[head] = older[head] = head;
	for (size_t i = 0; i < items; i++)
		order[i] = i;
	for (int epoch = 0; epoch < 12; epoch++) {
		for (size_t i = items; i > 1; i--) {
			size_t k = fixture_random(&seed) % i, swapped = order[i - 1];

			order[i - 1] = order[k];
			order[k] = swapped;
		}
		for (size_t i = 0; i < items; i++) {
			size_t item = order[i], oldest;

			reads += epoch >= 2;
			hits += epoch >= 2 && cached[item];
			if (cached[item]) {
				newer[older[item]] = newer[item];
				older[newer[item]] = older[item];
			} else if (held == room) {
				oldest = newer[head];
				newer[head] = newer[oldest];
				older[newer[head]] = head;
				cached[oldest] = false;
			} else {
				held++;
			}
			cached[item] = true;
			older[item] = older[head];
			newer[item] = head;
			newer[older[head]] = item;
			older[head] = item;
		}
	}
	free(order);
	free(newer);
	free(older);
	free(cached);
	return (double)hits / (double)reads;
}

static void an_lru_cache_of_items_hits_as_the_formula_says(void **state)
{
	static const size_t percents[] = {25, 50, 75, 90};

	(void)state;
	for (size_t i = 0; i < 4; i++)
		near(measured_lru_hit(20000, 200 * percents[i], i),
			1 - model_lru_miss((double)percents[i], 100), 0.01);
}

/* The simulator's own: of two epochs the second hits, and what is left is fetched. */
static void simulated_hits_are_the_analytic_ones(void **state)
{
	(void)state;
	for (int percent = 0; percent <= 100; percent += 10) {
		struct fixture *f = cluster(1, 1, percent, 0.1);
		double x = percent / 100.0;
		struct sim_result r;

		job(f, 0, 0, 1, 200);
		r = run(f, GPU_POLICY_FIFO, STORAGE_POLICY_JOINT);
		near(2 - r.origin_bytes / 100e9, x, 1e-6);
		sim_result_deinit(&r);
		r = run(f, GPU_POLICY_FIFO, STORAGE_POLICY_LRU);
		near(2 - r.origin_bytes / 100e9, 1 - model_lru_miss(x, 1), 1e-6);
		sim_result_deinit(&r);
		fixture_free(f);
	}
}

/* ---- the fluid against items ----------------------------------------------------------------- */

#define ITEMS 40000
#define THRESHOLDS 4

/* Two readers over items with hashes 0, 1, ... of which those below a threshold are pinned. */
struct items {
	bool cached[ITEMS];
	size_t order[2][ITEMS], at[2], hits[2], reads[2];
	uint64_t seed;
};

static void shuffle(struct items *t, int reader)
{
	for (size_t i = 0; i < ITEMS; i++)
		t->order[reader][i] = i;
	for (size_t i = ITEMS; i > 1; i--) {
		size_t k = fixture_random(&t->seed) % i, swapped = t->order[reader][i - 1];

		t->order[reader][i - 1] = t->order[reader][k];
		t->order[reader][k] = swapped;
	}
	t->at[reader] = 0;
}

static void read_items(struct items *t, int reader, size_t count, size_t threshold)
{
	for (size_t i = 0; i < count; i++) {
		size_t item = t->order[reader][t->at[reader]++];

		t->reads[reader]++;
		t->hits[reader] += t->cached[item];
		t->cached[item] = t->cached[item] || item < threshold;
		if (t->at[reader] == ITEMS)
			shuffle(t, reader);
	}
}

static void set_threshold(struct items *t, struct bands *b, size_t threshold)
{
	for (size_t i = threshold; i < ITEMS; i++)
		t->cached[i] = false;
	bands_resize(b, (double)threshold);
}

static double read_fluid(struct bands *b, struct bands_reader *r, double bytes)
{
	double hit = bands_hit(b, r) * bytes;

	bands_read(b, r, bytes);
	if (!(r->unread > 0.5))
		bands_wrap(b, r);
	return hit;
}

/* A reader of 200 items a step and one of 80, and a new quota every 70 steps, which is a third of an
 * epoch of the one and less of the other. */
static void the_fluid_follows_single_items_through_changes_of_the_quota(void **state)
{
	static const size_t thresholds[THRESHOLDS] = {12000, 30000, 18000, 40000};
	static const size_t speeds[2] = {200, 80};
	struct items *t = calloc(1, sizeof(*t));
	struct bands_reader readers[2] = {{.unread = ITEMS}, {.unread = ITEMS}};
	double sums[2] = {0, 0};
	struct bands b;

	(void)state;
	assert_non_null(t);
	bands_init(&b, ITEMS);
	for (int i = 0; i < 2; i++) {
		shuffle(t, i);
		assert_int_equal(bands_join(&b, &readers[i]), 0);
	}
	for (size_t step = 0; step < 70 * 5 * THRESHOLDS; step++) {
		size_t threshold = thresholds[step / 70 % THRESHOLDS];

		if (step % 70 == 0)
			set_threshold(t, &b, threshold);
		for (int i = 0; i < 2; i++) {
			size_t before = t->hits[i];
			double hits = read_fluid(&b, &readers[i], (double)speeds[i]);
			double n = (double)speeds[i];

			read_items(t, i, speeds[i], threshold);
			/* Five standard deviations of so many draws at most. */
			near((double)(t->hits[i] - before) / n, hits / n, 2.5 / sqrt(n));
			sums[i] += hits;
		}
	}
	for (int i = 0; i < 2; i++)
		near((double)t->hits[i] / (double)t->reads[i], sums[i] / (double)t->reads[i],
			0.005);
	bands_deinit(&b);
	free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_job_three_epochs),
		cmocka_unit_test(a_first_epoch_hits_nothing),
		cmocka_unit_test(three_jobs_take_what_the_documentation_says),
		cmocka_unit_test(two_jobs_on_one_dataset_help_each_other_at_once),
		cmocka_unit_test(who_comes_later_finds_what_is_cached),
		cmocka_unit_test(sjf_takes_gpus_from_longer_jobs),
		cmocka_unit_test(jobs_that_can_never_end_are_told),
		cmocka_unit_test(every_byte_is_read_and_nothing_beyond_the_capacity),
		cmocka_unit_test(an_lru_cache_of_items_hits_as_the_formula_says),
		cmocka_unit_test(simulated_hits_are_the_analytic_ones),
		cmocka_unit_test(the_fluid_follows_single_items_through_changes_of_the_quota),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
