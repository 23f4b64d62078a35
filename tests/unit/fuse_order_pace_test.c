#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fuse/order_pace.h"

#define MOST 80u
#define BYTES 110000u
#define LATENCY_MS 20.0

/* An origin that takes LATENCY_MS for a get, and gives `gets_per_s` at most. */
struct world {
	struct order_pace pace;
	double gets_per_s, now_ms;
};

static void setup(struct world *w, double gets_per_s)
{
	*w = (struct world){.gets_per_s = gets_per_s, .now_ms = 1000};
	order_pace_init(&w->pace, MOST);
}

static double rate(const struct world *w)
{
	double by_latency = w->pace.limit / LATENCY_MS * 1000;

	return by_latency < w->gets_per_s ? by_latency : w->gets_per_s;
}

static void run(struct world *w, double seconds)
{
	double end_ms = w->now_ms + seconds * 1000;

	while (w->now_ms < end_ms) {
		w->now_ms += 1000 / rate(w);
		order_pace_done(&w->pace, BYTES, (int64_t)w->now_ms);
	}
}

static void a_far_origin_gets_many(void **state)
{
	struct world w;

	(void)state;
	setup(&w, 100000);
	run(&w, 3);
	assert_int_equal(w.pace.limit, MOST);
}

static void a_slow_one_gets_few(void **state)
{
	struct world w;

	(void)state;
	setup(&w, 500);
	run(&w, 60);
	assert_in_range(w.pace.limit, ORDER_PACE_LEAST, 20);
	assert_true(rate(&w) >= 450);
}

static void it_follows_an_origin_that_changes(void **state)
{
	struct world w;

	(void)state;
	setup(&w, 500);
	run(&w, 30);
	w.gets_per_s = 3000;
	run(&w, 60);
	assert_true(rate(&w) >= 2400);
	w.gets_per_s = 600;
	run(&w, 120);
	assert_true(w.pace.limit <= 40);
	assert_true(rate(&w) >= 500);
}

static void failures_lower_it_to_a_floor(void **state)
{
	struct world w;

	(void)state;
	setup(&w, 100000);
	run(&w, 3);
	order_pace_failed(&w.pace);
	assert_int_equal(w.pace.limit, MOST / 2);
	for (int i = 0; i < 10; i++)
		order_pace_failed(&w.pace);
	assert_int_equal(w.pace.limit, ORDER_PACE_LEAST);
	run(&w, 60);
	assert_true(w.pace.limit >= 20);
}

static void a_round_without_enough_work_judges_nothing(void **state)
{
	struct world w;

	(void)state;
	setup(&w, 100000);
	for (int i = 0; i < 1000; i++) {
		w.now_ms += 50;
		order_pace_short(&w.pace);
		order_pace_done(&w.pace, BYTES, (int64_t)w.now_ms);
	}
	assert_int_equal(w.pace.limit, ORDER_PACE_FIRST);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_far_origin_gets_many),
		cmocka_unit_test(a_slow_one_gets_few),
		cmocka_unit_test(it_follows_an_origin_that_changes),
		cmocka_unit_test(failures_lower_it_to_a_floor),
		cmocka_unit_test(a_round_without_enough_work_judges_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
