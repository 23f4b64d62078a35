/* From what loaders tell of their steps to the rate at which they would read if nothing waited. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fuse/loader_pace.h"

#define SAMPLE_BYTES 1000.0

/* Steps of 10 samples that compute 20 ms and wait 30. */
static struct loader_report after(uint64_t steps)
{
	return (struct loader_report){.steps = steps,
		.samples = 10 * steps,
		.waited_us = 30000 * steps,
		.computed_us = 20000 * steps,
		.workers = 4};
}

static void say(struct loader_pace *p, unsigned number, uint64_t steps, int64_t now_ms)
{
	struct loader_report report = after(steps);

	assert_int_equal(loader_pace_report(p, number, &report, now_ms), 0);
}

static struct loader_pace_stat stat_at(struct loader_pace *p, int64_t now_ms)
{
	struct loader_pace_stat st;

	loader_pace_stat(p, SAMPLE_BYTES, now_ms, &st);
	return st;
}

static void what_it_computed_counts_not_what_it_waited(void **state)
{
	struct loader_pace p;
	struct loader_pace_stat st;

	(void)state;
	loader_pace_init(&p);
	assert_int_equal(stat_at(&p, 0).loaders, 0);
	say(&p, 5, 10, 0);
	assert_int_equal(stat_at(&p, 0).loaders, 0); /* one report says nothing of a rate */
	say(&p, 5, 30, 1000);
	st = stat_at(&p, 1000);
	assert_int_equal(st.loaders, 1);
	assert_int_equal(st.workers, 4);
	assert_true(fabs(st.ideal_bytes_per_s - 500e3) < 1);
	assert_true(fabs(st.wait_ratio - 0.6) < 1e-9);
	/* Two of them read twice as fast. */
	say(&p, 6, 10, 0);
	say(&p, 6, 30, 1000);
	assert_true(fabs(stat_at(&p, 1000).ideal_bytes_per_s - 1e6) < 1);
	loader_pace_forget(&p, 5);
	assert_int_equal(stat_at(&p, 1000).loaders, 1);
	loader_pace_deinit(&p);
}

static void known_bytes_count_as_they_are(void **state)
{
	struct loader_report report = after(10);
	struct loader_pace p;

	(void)state;
	loader_pace_init(&p);
	report.bytes = 1;
	assert_int_equal(loader_pace_report(&p, 0, &report, 0), 0);
	report = after(20);
	report.bytes = 800001;
	assert_int_equal(loader_pace_report(&p, 0, &report, 10), 0);
	assert_true(fabs(stat_at(&p, 10).ideal_bytes_per_s - 4e6) < 1);
	loader_pace_deinit(&p);
}

static void the_last_minute_counts(void **state)
{
	struct loader_report report;
	struct loader_pace p;
	int64_t now_ms = 0;

	(void)state;
	loader_pace_init(&p);
	for (uint64_t steps = 10; steps < 1000; steps += 10, now_ms += 1000)
		say(&p, 0, steps, now_ms);
	/* From here on it computes twice as long. */
	report = after(990);
	for (int i = 0; i < 100; i++, now_ms += 1000) {
		report.steps += 10;
		report.samples += 100;
		report.computed_us += 400000;
		assert_int_equal(loader_pace_report(&p, 0, &report, now_ms), 0);
	}
	assert_true(fabs(stat_at(&p, now_ms).ideal_bytes_per_s - 250e3) < 1);
	assert_int_equal(stat_at(&p, now_ms + LOADER_SILENT_MS + 1).loaders, 0);
	loader_pace_deinit(&p);
}

static void first_steps_are_left_out_and_nonsense_is_refused(void **state)
{
	struct loader_report report = after(1);
	struct loader_pace p;

	(void)state;
	loader_pace_init(&p);
	report.computed_us = 60000000; /* it compiled its model */
	assert_int_equal(loader_pace_report(&p, 0, &report, 0), 0);
	report = after(10);
	report.computed_us += 60000000;
	assert_int_equal(loader_pace_report(&p, 0, &report, 0), 0);
	report = after(30);
	report.computed_us += 60000000;
	assert_int_equal(loader_pace_report(&p, 0, &report, 1000), 0);
	assert_true(fabs(stat_at(&p, 1000).ideal_bytes_per_s - 500e3) < 1);
	report.samples--;
	assert_int_equal(loader_pace_report(&p, 0, &report, 1000), -EPROTO);
	loader_pace_deinit(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_it_computed_counts_not_what_it_waited),
		cmocka_unit_test(known_bytes_count_as_they_are),
		cmocka_unit_test(the_last_minute_counts),
		cmocka_unit_test(first_steps_are_left_out_and_nonsense_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
