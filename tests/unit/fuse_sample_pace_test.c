/* From re-reads of a sample to the rate at which a job reads, and could. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fuse/readers.h"
#include "fuse/sample_pace.h"

#define READ_BYTES 1e5 /* that one read of the sample stands for */
#define TICK_MS 1000
#define WINDOW_S (SAMPLE_WINDOW_MS / 1000)

/* A job as a mount sees it, one second after the other. */
struct job {
	struct sample_pace pace;
	struct sample_reading seen;
	int64_t now_ms;
	unsigned ended;
};

static void tick(struct job *j, unsigned reads, double waits)
{
	j->now_ms += TICK_MS;
	j->seen.reads += reads;
	j->seen.bytes += reads * READ_BYTES;
	j->seen.waited_ms += waits * TICK_MS * j->seen.readers;
	if (reads > 0)
		j->seen.seen_ms = j->now_ms;
	j->ended += sample_pace_tick(&j->pace, &j->seen);
}

static void run(struct job *j, unsigned seconds, unsigned reads, double waits)
{
	for (unsigned i = 0; i < seconds; i++)
		tick(j, reads, waits);
}

static struct sample_estimate estimate(const struct job *j)
{
	struct sample_estimate e;

	sample_pace_estimate(&j->pace, &e);
	return e;
}

static void assert_rate(const struct job *j, double reads_per_s)
{
	double rate = estimate(j).ideal_bytes_per_s / READ_BYTES;

	if (fabs(rate / reads_per_s - 1) > 0.01)
		fail_msg("%g reads a second, not %g", rate, reads_per_s);
}

static void a_job_that_waits_little_shows_its_ideal_rate(void **state)
{
	struct job j = {.seen.readers = 4};

	(void)state;
	run(&j, WINDOW_S, 20, 0.01);
	assert_int_equal(estimate(&j).windows, 0);
	assert_true(estimate(&j).ideal_bytes_per_s == 0);
	run(&j, 1, 20, 0.01);
	assert_int_equal(estimate(&j).windows, 1);
	assert_rate(&j, 20);
	assert_true(fabs(estimate(&j).error - 1 / sqrt(20 * WINDOW_S)) < 1e-3);
	run(&j, 3 * WINDOW_S, 20, 0.01);
	assert_int_equal(estimate(&j).windows, 4);
	assert_true(estimate(&j).error < 0.05);
}

static void a_job_that_waits_shows_nothing(void **state)
{
	struct job j = {.seen.readers = 1};

	(void)state;
	run(&j, 4 * WINDOW_S + 1, 20, 0.3);
	assert_int_equal(estimate(&j).windows, 4);
	assert_true(estimate(&j).ideal_bytes_per_s == 0);
	run(&j, WINDOW_S, 25, 0.05);
	assert_rate(&j, 25);
}

/* Sixteen readers that wait a twentieth of their time each wait most of it together. */
static void waits_are_shares_of_each_readers_time(void **state)
{
	struct job j = {.seen.readers = 16};

	(void)state;
	run(&j, WINDOW_S + 1, 20, 0.05);
	assert_rate(&j, 20);
	j = (struct job){.seen.readers = 16};
	run(&j, WINDOW_S + 1, 20, 0.11);
	assert_true(estimate(&j).ideal_bytes_per_s == 0);
}

static void silence_changes_nothing(void **state)
{
	struct job j = {.seen.readers = 1};

	(void)state;
	run(&j, 4 * WINDOW_S + 1, 20, 0);
	run(&j, 3600, 0, 0);
	assert_rate(&j, 20);
	run(&j, 1, 20, 0);
	assert_int_equal(estimate(&j).windows, 5);
	assert_rate(&j, 20);
	run(&j, WINDOW_S / 2, 20, 0);
	run(&j, 4 * WINDOW_S, 0, 0);
	run(&j, 2 * WINDOW_S, 20, 0);
	assert_rate(&j, 20);
}

static void bursts_count_with_the_gaps_between(void **state)
{
	struct job j = {.seen.readers = 1};

	(void)state;
	for (int i = 0; i < 8; i++) {
		run(&j, 5, 240, 0);
		run(&j, 55, 0, 0);
	}
	assert_rate(&j, 20);
}

static void few_reads_take_longer(void **state)
{
	struct job j = {.seen.readers = 1};

	(void)state;
	tick(&j, 1, 0);
	for (int i = 0; i < SAMPLE_LEAST - 1; i++) {
		run(&j, 9, 0, 0);
		tick(&j, 1, 0);
	}
	assert_int_equal(estimate(&j).windows, 0);
	run(&j, 9, 0, 0);
	tick(&j, 1, 0);
	assert_int_equal(estimate(&j).windows, 1);
	assert_rate(&j, 0.1);
	assert_true(fabs(estimate(&j).error - 0.25) < 1e-6);
}

static void a_rate_that_has_changed_is_followed(void **state)
{
	struct job j = {.seen.readers = 1};

	(void)state;
	run(&j, WINDOW_S * SAMPLE_WINDOWS + 1, 20, 0);
	run(&j, WINDOW_S * SAMPLE_WINDOWS / 2, 40, 0);
	assert_rate(&j, 40);
	run(&j, WINDOW_S * SAMPLE_WINDOWS, 10, 0);
	assert_rate(&j, 10);
}

/* It could have become faster since, and nothing would show it. */
static void held_back_for_long_it_is_unknown_again(void **state)
{
	struct job j = {.seen.readers = 1};

	(void)state;
	run(&j, 2 * WINDOW_S + 1, 20, 0);
	run(&j, WINDOW_S * (SAMPLE_WINDOWS - 1), 15, 0.5);
	assert_rate(&j, 20);
	run(&j, WINDOW_S, 15, 0.5);
	assert_true(estimate(&j).ideal_bytes_per_s == 0);
	assert_int_equal(estimate(&j).windows, SAMPLE_WINDOWS);
}

static void what_the_kernel_read_by_itself_makes_a_window_void(void **state)
{
	struct job j = {.seen.readers = 1};

	(void)state;
	run(&j, WINDOW_S / 2, 20, 0);
	j.seen.blind = true;
	run(&j, 100, 20, 0);
	assert_int_equal(estimate(&j).windows, 0);
	j.seen.blind = false;
	run(&j, WINDOW_S, 20, 0);
	assert_rate(&j, 20);
}

/* ---- readers --------------------------------------------------------------------------------- */

static void those_who_stay_are_counted(void **state)
{
	static struct readers r;

	(void)state;
	memset(&r, 0, sizeof(r));
	assert_int_equal(readers_count(&r, 30000), 1);
	for (int64_t ms = 0; ms <= 30000; ms += 100) {
		for (int32_t thread = 1000; thread < 1008; thread++)
			readers_note(&r, thread, 1000, ms);
		/* One thread for each read. */
		readers_note(&r, (int32_t)(2000 + ms), 1000, ms);
	}
	assert_int_equal(readers_count(&r, 30000), 8);
	assert_int_equal(atomic_load(&r.waited_ns), 301 * 9 * 1000);
	readers_forget(&r);
	assert_int_equal(readers_count(&r, 30000), 1);
	assert_int_equal(atomic_load(&r.waited_ns), 301 * 9 * 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_job_that_waits_little_shows_its_ideal_rate),
		cmocka_unit_test(a_job_that_waits_shows_nothing),
		cmocka_unit_test(waits_are_shares_of_each_readers_time),
		cmocka_unit_test(silence_changes_nothing),
		cmocka_unit_test(bursts_count_with_the_gaps_between),
		cmocka_unit_test(few_reads_take_longer),
		cmocka_unit_test(a_rate_that_has_changed_is_followed),
		cmocka_unit_test(held_back_for_long_it_is_unknown_again),
		cmocka_unit_test(what_the_kernel_read_by_itself_makes_a_window_void),
		cmocka_unit_test(those_who_stay_are_counted),
	};

	return cmocka_run_group_tests_name("sample_pace", tests, NULL, NULL);
}
