/* Who may get the next bytes from origins, and when: by a clock of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/fair_queue.h"
#include "origin/window.h"

#define NS_PER_MS ((int64_t)1000000)
#define NS_PER_S ((int64_t)1000000000)
#define MIB ((uint32_t)1 << 20)
#define BEGUN_MAX 4096
#define SENT_MAX 200000

/* ---- the window ------------------------------------------------------------------------------- */

struct sim_get {
	struct origin_pass pass;
	int64_t sent_ns, end_ns; /* 0: over */
};

struct sim {
	struct origin_window window;
	struct sim_get gets[BEGUN_MAX];
	struct {
		int64_t ns;
		uint64_t bytes;
	} sent[SENT_MAX];
	size_t sent_count;
	unsigned seed;
	unsigned delay_min_ms, delay_max_ms;
	uint64_t bytes;
};

static int by_time(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

/* The most bytes that were sent in any second. */
static uint64_t most_in_a_second(struct sim *s)
{
	uint64_t most = 0, sum = 0;
	size_t from = 0;

	qsort(s->sent, s->sent_count, sizeof(s->sent[0]), by_time);
	for (size_t i = 0; i < s->sent_count; i++) {
		sum += s->sent[i].bytes;
		while (s->sent[i].ns - s->sent[from].ns >= NS_PER_S)
			sum -= s->sent[from++].bytes;
		if (sum > most)
			most = sum;
	}
	return most;
}

static void begin_get(struct sim *s, struct sim_get *g, uint32_t bytes, int64_t now_ns)
{
	unsigned spread = s->delay_max_ms - s->delay_min_ms + 1;
	int64_t delay_ms = s->delay_min_ms + rand_r(&s->seed) % spread;

	origin_window_begin(&s->window, &g->pass, bytes, now_ns);
	/* Where between begin and end the bytes leave is the origin's affair. */
	g->end_ns = now_ns + delay_ms * NS_PER_MS + 1;
	g->sent_ns = now_ns + (g->end_ns - now_ns) * (rand_r(&s->seed) % 101) / 100;
	assert_true(s->sent_count < SENT_MAX);
	s->sent[s->sent_count].ns = g->sent_ns;
	s->sent[s->sent_count++].bytes = bytes;
	s->bytes += bytes;
}

static void end_gets(struct sim *s, int64_t now_ns)
{
	for (size_t i = 0; i < BEGUN_MAX; i++) {
		struct sim_get *g = &s->gets[i];

		if (g->end_ns == 0 || g->end_ns > now_ns)
			continue;
		origin_window_end(&s->window, &g->pass, g->pass.bytes, now_ns);
		g->end_ns = 0;
	}
}

static struct sim_get *free_get(struct sim *s)
{
	for (size_t i = 0; i < BEGUN_MAX; i++)
		if (s->gets[i].end_ns == 0)
			return &s->gets[i];
	fail_msg("too many gets at once");
	return NULL;
}

/* Always somebody who wants `want` bytes; looks every tick, sometimes later than it should. */
static void run(
	struct sim *s, uint32_t want, unsigned late_max_ms, int64_t from_ns, int64_t until_ns)
{
	for (int64_t now_ns = from_ns; now_ns < until_ns;) {
		uint32_t piece = origin_window_piece(&s->window);

		end_gets(s, now_ns);
		if (piece > want)
			piece = want;
		while (origin_window_wait_ns(&s->window, piece, now_ns) == 0)
			begin_get(s, free_get(s), piece, now_ns);
		now_ns += NS_PER_MS;
		if (late_max_ms > 0 && rand_r(&s->seed) % 50 == 0)
			now_ns += rand_r(&s->seed) % late_max_ms * NS_PER_MS;
	}
}

static void no_second_has_more_than_the_limit_whatever_the_origin_does(void **state)
{
	static const double limits[] = {4096, 50e3, 1e6, 2.5e6, 10e6, 125e6, 2e9};
	static const unsigned delays[][2] = {{0, 0}, {1, 3}, {0, 60}, {100, 100}, {0, 900}};
	struct sim *s;

	(void)state;
	for (size_t l = 0; l < sizeof(limits) / sizeof(limits[0]); l++) {
		for (size_t d = 0; d < sizeof(delays) / sizeof(delays[0]); d++) {
			s = calloc(1, sizeof(*s));
			s->seed = (unsigned)(l * 31 + d + 1);
			s->delay_min_ms = delays[d][0];
			s->delay_max_ms = delays[d][1];
			/* However much of its pace may be caught up. */
			s->window.credit_ns = (int64_t)(d % 3) * 100 * NS_PER_MS;
			origin_window_set(&s->window, limits[l]);
			run(s, 4 * MIB, 40, NS_PER_S, 9 * NS_PER_S);
			if ((double)most_in_a_second(s) > 1.02 * limits[l])
				fail_msg("%.0f: %llu bytes in a second", limits[l],
					(unsigned long long)most_in_a_second(s));
			free(s);
		}
	}
}

static void a_fast_origin_gives_all_of_the_limit(void **state)
{
	static const double limits[] = {50e3, 1e6, 2.5e6, 10e6, 125e6, 2e9};
	struct sim *s;

	(void)state;
	for (size_t l = 0; l < sizeof(limits) / sizeof(limits[0]); l++) {
		s = calloc(1, sizeof(*s));
		s->seed = 7;
		s->delay_min_ms = 1;
		s->delay_max_ms = 5;
		origin_window_set(&s->window, limits[l]);
		run(s, 4 * MIB, 0, NS_PER_S, 11 * NS_PER_S);
		if ((double)s->bytes < 0.97 * 10 * limits[l])
			fail_msg("%.0f: %llu bytes in ten seconds", limits[l],
				(unsigned long long)s->bytes);
		free(s);
	}
}

/* As an origin whose gets wait for the limit of all, too: 60 ms of every 120. */
static void one_that_is_held_up_by_others_has_all_of_its_limit_with_credit(void **state)
{
	struct sim *s = calloc(1, sizeof(*s));

	(void)state;
	s->seed = 5;
	s->delay_min_ms = s->delay_max_ms = 2;
	s->window.credit_ns = 100 * NS_PER_MS;
	origin_window_set(&s->window, 0.5e6);
	for (int64_t at_ns = NS_PER_S; at_ns < 11 * NS_PER_S; at_ns += 120 * NS_PER_MS)
		run(s, MIB, 0, at_ns, at_ns + 60 * NS_PER_MS);
	assert_true(s->bytes > 0.95 * 10 * 0.5e6);
	assert_true((double)most_in_a_second(s) <= 1.02 * 0.5e6);
	free(s);
}

static void gets_that_hang_leave_room_for_others(void **state)
{
	struct sim *s = calloc(1, sizeof(*s));
	uint64_t before;

	(void)state;
	origin_window_set(&s->window, 10e6);
	s->delay_min_ms = s->delay_max_ms = 3600000;
	run(s, MIB, 0, NS_PER_S, 2 * NS_PER_S);
	before = s->bytes;
	assert_true(before > 5000000);
	s->delay_min_ms = s->delay_max_ms = 1;
	run(s, MIB, 0, 4 * NS_PER_S, 6 * NS_PER_S);
	assert_true(s->bytes - before > 15000000);
	free(s);
}

static void bytes_that_came_twice_are_paid_before_the_next_get(void **state)
{
	struct origin_window *w = calloc(1, sizeof(*w));
	struct origin_pass pass;
	int64_t now_ns = NS_PER_S;

	(void)state;
	origin_window_set(w, 1e6);
	origin_window_begin(w, &pass, 10000, now_ns);
	origin_window_end(w, &pass, 510000, now_ns + 1);
	assert_true(origin_window_wait_ns(w, 1000, now_ns + 490 * NS_PER_MS) > 0);
	assert_int_equal(origin_window_wait_ns(w, 1000, now_ns + 511 * NS_PER_MS), 0);
	/* Half of the second is used up. */
	assert_true(origin_window_wait_ns(w, 600000, now_ns + 511 * NS_PER_MS) > 0);
	/* A get that brought nothing is given back. */
	origin_window_begin(w, &pass, 400000, now_ns + 511 * NS_PER_MS);
	origin_window_end(w, &pass, 0, now_ns + 512 * NS_PER_MS);
	assert_int_equal(origin_window_wait_ns(w, 400000, now_ns + 513 * NS_PER_MS), 0);
	free(w);
}

static void what_ran_without_a_limit_is_no_debt(void **state)
{
	struct origin_window *w = calloc(1, sizeof(*w));
	struct origin_pass pass;
	int64_t now_ns = NS_PER_S;

	(void)state;
	origin_window_begin(w, &pass, 400 * MIB, now_ns);
	origin_window_set(w, 1e6);
	/* Under way it may be counted by the origin in the second to come. */
	assert_true(origin_window_wait_ns(w, 1000, now_ns + 1) > 0);
	assert_int_equal(origin_window_wait_ns(w, 1000, now_ns + 1001 * NS_PER_MS), 0);
	origin_window_end(w, &pass, 400 * MIB, now_ns + 1100 * NS_PER_MS);
	assert_int_equal(origin_window_wait_ns(w, 1000, now_ns + 2200 * NS_PER_MS), 0);
	free(w);
}

/* ---- the fair queue ---------------------------------------------------------------------------- */

#define PIECE 1000

struct job {
	struct fair_flow flow;
	struct fair_turn turns[64];
	double weight;
	uint64_t served;
};

static struct fair_turn *add(
	struct fair_queue *q, struct job *j, size_t i, enum fair_class class, uint32_t hold_bytes)
{
	j->turns[i] = (struct fair_turn){.flow = &j->flow, .hold_bytes = hold_bytes};
	fair_queue_add(q, &j->turns[i], class);
	return &j->turns[i];
}

/* Serves one; the job goes on wanting. */
static struct job *serve(struct fair_queue *q)
{
	struct fair_turn *t = fair_queue_next(q);
	struct job *j;

	if (!t)
		return NULL;
	j = (struct job *)((char *)t->flow - offsetof(struct job, flow));
	fair_queue_take(q, t);
	fair_queue_charge(&j->flow, t->class, PIECE / j->weight);
	j->served += PIECE;
	fair_queue_add(q, t, t->class);
	return j;
}

static void backlogged_jobs_share_by_weight(void **state)
{
	struct fair_queue q = {.flow_max_bytes = UINT64_MAX, .held_max_bytes = UINT64_MAX};
	struct job a = {.weight = 3}, b = {.weight = 1};

	(void)state;
	for (size_t i = 0; i < 5; i++) {
		add(&q, &a, i, FAIR_URGENT, 0);
		add(&q, &b, i, FAIR_URGENT, 0);
	}
	for (int i = 0; i < 4000; i++)
		serve(&q);
	assert_in_range(a.served / PIECE, 2990, 3010);
}

static void a_job_that_was_idle_has_its_share_at_once_and_no_more(void **state)
{
	struct fair_queue q = {.flow_max_bytes = UINT64_MAX, .held_max_bytes = UINT64_MAX};
	struct job a = {.weight = 30000}, b = {.weight = 10000};
	unsigned first = 0;

	(void)state;
	add(&q, &a, 0, FAIR_URGENT, 0);
	for (int i = 0; i < 10000; i++)
		assert_ptr_equal(serve(&q), &a);
	add(&q, &b, 0, FAIR_URGENT, 0);
	a.served = 0;
	for (int i = 0; i < 4; i++)
		first += serve(&q) == &b;
	assert_true(first > 0);
	for (int i = 0; i < 396; i++)
		serve(&q);
	/* A quarter, and at most the FAIR_LAG_S that it may be behind. */
	assert_in_range(b.served / PIECE, 98, 102);
}

static void a_job_that_grows_need_not_pay_in_its_old_coin(void **state)
{
	struct fair_queue q = {.flow_max_bytes = UINT64_MAX, .held_max_bytes = UINT64_MAX};
	struct job a = {.weight = 10000}, b = {.weight = 1};

	(void)state;
	add(&q, &a, 0, FAIR_URGENT, 0);
	add(&q, &b, 0, FAIR_URGENT, 0);
	for (int i = 0; i < 100; i++)
		serve(&q);
	/* One piece put it 1000 virtual seconds ahead. */
	assert_true(b.flow.start_s[FAIR_URGENT] > 900);
	fair_queue_reweigh(&q, &b.flow, 10000);
	b.weight = 10000;
	b.served = 0;
	for (int i = 0; i < 100; i++)
		serve(&q);
	assert_in_range(b.served / PIECE, 45, 55);
}

static void who_waits_goes_before_what_nobody_waits_for(void **state)
{
	struct fair_queue q = {.flow_max_bytes = UINT64_MAX, .held_max_bytes = UINT64_MAX};
	struct job a = {.weight = 1}, b = {.weight = 1000};
	struct fair_turn *t;

	(void)state;
	add(&q, &b, 0, FAIR_IDLE, 0);
	t = add(&q, &a, 0, FAIR_URGENT, 0);
	for (int i = 0; i < 100; i++)
		assert_ptr_equal(serve(&q), &a);
	fair_queue_remove(&q, t);
	assert_ptr_equal(serve(&q), &b);
}

static void what_holds_memory_is_finished_first(void **state)
{
	struct fair_queue q = {.flow_max_bytes = 8 * MIB, .held_max_bytes = UINT64_MAX};
	struct job a = {.weight = 1000}, b = {.weight = 1};

	(void)state;
	for (size_t i = 0; i < 10; i++)
		add(&q, &a, i, FAIR_URGENT, 4 * MIB);
	add(&q, &b, 0, FAIR_URGENT, MIB);
	serve(&q);
	for (int i = 0; i < 50; i++)
		serve(&q);
	assert_true(a.turns[0].begun);
	assert_false(a.turns[1].begun);
}

static void a_job_that_holds_its_part_of_the_memory_begins_no_more_while_others_wait(void **state)
{
	struct fair_queue q = {.flow_max_bytes = 8 * MIB, .held_max_bytes = UINT64_MAX};
	struct job a = {.weight = 1000}, b = {.weight = 1};
	struct fair_turn *last;

	(void)state;
	for (size_t i = 0; i < 4; i++)
		add(&q, &a, i, FAIR_URGENT, 4 * MIB);
	for (size_t i = 0; i < 2; i++)
		fair_queue_take(&q, &a.turns[i]); /* under way */
	add(&q, &b, 0, FAIR_URGENT, MIB);
	for (int i = 0; i < 20; i++)
		assert_ptr_equal(serve(&q), &b);
	/* One is finished. */
	fair_queue_end(&q, &a.turns[0]);
	assert_ptr_equal(serve(&q), &a);
	last = &b.turns[0];
	fair_queue_remove(&q, last);
	/* Alone it may have more. */
	fair_queue_take(&q, &a.turns[2]);
	assert_ptr_equal(serve(&q), &a);
}

static void with_the_memory_taken_only_what_holds_some_goes(void **state)
{
	struct fair_queue q = {.flow_max_bytes = UINT64_MAX, .held_max_bytes = 8 * MIB};
	struct job a = {.weight = 1}, b = {.weight = 1000};

	(void)state;
	for (size_t i = 0; i < 2; i++)
		add(&q, &a, i, FAIR_URGENT, 4 * MIB);
	serve(&q);
	fair_queue_take(&q, &a.turns[1]); /* under way */
	/* Nobody waits for it any more, and many wait for others. */
	fair_queue_remove(&q, &a.turns[0]);
	fair_queue_add(&q, &a.turns[0], FAIR_IDLE);
	for (size_t i = 0; i < 20; i++)
		add(&q, &b, i, FAIR_URGENT, 4 * MIB);
	for (int i = 0; i < 10; i++)
		assert_ptr_equal(serve(&q), &a);
	fair_queue_remove(&q, &a.turns[0]);
	assert_null(serve(&q));
	fair_queue_end(&q, &a.turns[0]);
	assert_ptr_equal(serve(&q), &b);
}

static void a_group_that_is_held_up_holds_up_nobody_else_and_stays_fair_in_itself(void **state)
{
	struct fair_queue q = {.flow_max_bytes = UINT64_MAX, .held_max_bytes = UINT64_MAX};
	struct fair_group group = {.blocked = true};
	struct job a = {.weight = 3000, .flow.group = &group},
		   b = {.weight = 1000, .flow.group = &group}, c = {.weight = 1000};

	(void)state;
	add(&q, &a, 0, FAIR_URGENT, 0);
	add(&q, &b, 0, FAIR_URGENT, 0);
	add(&q, &c, 0, FAIR_URGENT, 0);
	/* It may go at every tenth turn only: its flows fall ever further behind the other. */
	for (int i = 0; i < 40000; i++) {
		group.blocked = i % 10 != 0;
		serve(&q);
	}
	assert_in_range(c.served / PIECE, 35990, 36010);
	assert_in_range(a.served / PIECE, 2990, 3010);
	assert_in_range(b.served / PIECE, 990, 1010);
	/* Let go it has no claim to what it missed. */
	group.blocked = false;
	a.served = b.served = c.served = 0;
	for (int i = 0; i < 5000; i++)
		serve(&q);
	assert_in_range(a.served / PIECE, 2700, 3400);
	assert_in_range(c.served / PIECE, 800, 1010);
	group.blocked = true;
	fair_queue_remove(&q, &c.turns[0]);
	assert_null(serve(&q));
}

/* Begins all that may go, and keeps them under way. */
static unsigned begin_all(struct fair_queue *q)
{
	struct fair_turn *t;
	unsigned n = 0;

	for (; (t = fair_queue_next(q)); n++)
		fair_queue_take(q, t);
	return n;
}

static void groups_leave_memory_for_the_rest_and_for_each_other(void **state)
{
	struct fair_queue q = {.flow_max_bytes = UINT64_MAX, .held_max_bytes = 32 * MIB};
	struct fair_group groups[2] = {{.blocked = false}, {.blocked = false}};
	struct job a = {.weight = 1, .flow.group = &groups[0]},
		   b = {.weight = 1, .flow.group = &groups[1]}, c = {.weight = 1};

	(void)state;
	for (size_t i = 0; i < 10; i++)
		add(&q, &a, i, FAIR_URGENT, 4 * MIB);
	assert_int_equal(begin_all(&q), 4);
	for (size_t i = 0; i < 10; i++)
		add(&q, &b, i, FAIR_URGENT, 4 * MIB);
	assert_int_equal(begin_all(&q), 2);
	for (size_t i = 0; i < 10; i++)
		add(&q, &c, i, FAIR_URGENT, 4 * MIB);
	assert_int_equal(begin_all(&q), 2);
	/* What another group gives back is its own again. */
	fair_queue_end(&q, &a.turns[0]);
	fair_queue_end(&q, &a.turns[1]);
	assert_int_equal(begin_all(&q), 2);
	assert_int_equal(c.flow.held_bytes, 16 * MIB);
	for (size_t i = 0; i < 10; i++) {
		if (a.turns[i].queued)
			fair_queue_remove(&q, &a.turns[i]);
		fair_queue_end(&q, &a.turns[i]);
	}
	assert_int_equal(begin_all(&q), 2);
	assert_int_equal(q.busy_groups, 1);
}

static void many_jobs_share_alike(void **state)
{
	static struct job jobs[500];
	struct fair_queue q = {.flow_max_bytes = UINT64_MAX, .held_max_bytes = UINT64_MAX};

	(void)state;
	for (size_t i = 0; i < 500; i++) {
		jobs[i].weight = 1 + (double)(i % 5);
		add(&q, &jobs[i], 0, FAIR_URGENT, 0);
	}
	for (int i = 0; i < 500 * 300; i++)
		serve(&q);
	for (size_t i = 0; i < 500; i++) {
		double share = (double)jobs[i].served / PIECE / (100 * jobs[i].weight);

		assert_true(share > 0.95 && share < 1.05);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_second_has_more_than_the_limit_whatever_the_origin_does),
		cmocka_unit_test(a_fast_origin_gives_all_of_the_limit),
		cmocka_unit_test(one_that_is_held_up_by_others_has_all_of_its_limit_with_credit),
		cmocka_unit_test(gets_that_hang_leave_room_for_others),
		cmocka_unit_test(bytes_that_came_twice_are_paid_before_the_next_get),
		cmocka_unit_test(what_ran_without_a_limit_is_no_debt),
		cmocka_unit_test(backlogged_jobs_share_by_weight),
		cmocka_unit_test(a_job_that_was_idle_has_its_share_at_once_and_no_more),
		cmocka_unit_test(a_job_that_grows_need_not_pay_in_its_old_coin),
		cmocka_unit_test(who_waits_goes_before_what_nobody_waits_for),
		cmocka_unit_test(what_holds_memory_is_finished_first),
		cmocka_unit_test(
			a_job_that_holds_its_part_of_the_memory_begins_no_more_while_others_wait),
		cmocka_unit_test(with_the_memory_taken_only_what_holds_some_goes),
		cmocka_unit_test(
			a_group_that_is_held_up_holds_up_nobody_else_and_stays_fair_in_itself),
		cmocka_unit_test(groups_leave_memory_for_the_rest_and_for_each_other),
		cmocka_unit_test(many_jobs_share_alike),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
