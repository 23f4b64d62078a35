#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fuse/preload_plan.h"

#define FILES 8192u
#define BYTES UINT64_C(100000)
#define UNLIMITED UINT64_MAX

/* A dataset of files of one size, and a reader of it. */
struct world {
	struct preload_plan plan;
	uint32_t order[FILES];
	uint8_t reads[FILES], pushes[FILES]; /* in this epoch */
	int64_t now_ms;
};

static void world_init(struct world *w, uint64_t window_bytes)
{
	memset(w, 0, sizeof(*w));
	w->now_ms = 1000;
	srand(11);
	assert_int_equal(preload_plan_init(&w->plan, FILES, window_bytes), 0);
	for (uint32_t i = 0; i < FILES; i++)
		w->order[i] = i;
}

static void shuffle(struct world *w)
{
	for (uint32_t i = FILES; i > 1; i--) {
		uint32_t j = (uint32_t)rand() % i, swapped = w->order[i - 1];

		w->order[i - 1] = w->order[j];
		w->order[j] = swapped;
	}
	memset(w->reads, 0, sizeof(w->reads));
	memset(w->pushes, 0, sizeof(w->pushes));
}

static void read_one(struct world *w, uint32_t index)
{
	w->reads[index]++;
	preload_plan_read(&w->plan, index, BYTES, w->now_ms);
}

/* At most `most`; how many there were. */
static uint32_t push_some(struct world *w, uint32_t most)
{
	uint32_t index, n = 0;

	while (n < most && preload_plan_next(&w->plan, &index)) {
		assert_true(index < FILES);
		w->pushes[index]++;
		preload_plan_pushed(&w->plan, BYTES);
		n++;
	}
	return n;
}

/* An epoch in random order: what was pushed makes no request. `per_read` pushes for each read. */
static uint32_t epoch(struct world *w, uint32_t files, uint32_t per_read)
{
	uint32_t pushed = 0;

	shuffle(w);
	for (uint32_t i = 0; i < files; i++) {
		w->now_ms++;
		if (w->pushes[w->order[i]])
			continue;
		read_one(w, w->order[i]);
		pushed += push_some(w, per_read);
	}
	return pushed;
}

static void an_epoch_is_preloaded_for_the_most_part(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, UNLIMITED);
	assert_in_range(epoch(&w, FILES, 3), FILES / 2, FILES);
	preload_plan_deinit(&w.plan);
}

static void nothing_is_handed_out_that_was_read_or_handed_out(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, UNLIMITED);
	for (int n = 0; n < 4; n++) {
		epoch(&w, FILES, 3);
		/* Also what is read before the pass is known to be another one. */
		for (uint32_t i = 0; i < FILES; i++)
			assert_int_equal(w.reads[i] + w.pushes[i], 1);
	}
	preload_plan_deinit(&w.plan);
}

static void every_further_epoch_is_another_pass(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, UNLIMITED);
	epoch(&w, FILES, 3);
	for (int n = 0; n < 5; n++)
		assert_in_range(epoch(&w, FILES, 3), FILES / 2, FILES);
	preload_plan_deinit(&w.plan);
}

static void a_reader_of_one_file_sets_nothing_off(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, UNLIMITED);
	read_one(&w, 17);
	assert_int_equal(push_some(&w, FILES), 0);
	for (uint32_t chunk = 1; chunk < FILES / PRELOAD_CHUNK; chunk++)
		read_one(&w, chunk * PRELOAD_CHUNK);
	assert_int_equal(push_some(&w, FILES), 0);
	preload_plan_deinit(&w.plan);
}

static void at_most_four_times_as_much_is_handed_out_as_was_read(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, UNLIMITED);
	for (uint32_t i = 0; i < 10; i++)
		read_one(&w, i * 3);
	assert_int_equal(push_some(&w, FILES), 40);
	preload_plan_deinit(&w.plan);
}

static void only_neighbours_of_what_was_read_are_handed_out(void **state)
{
	struct world w;
	uint32_t index;

	(void)state;
	world_init(&w, UNLIMITED);
	for (uint32_t i = 0; i < 500; i++)
		read_one(&w, 2 * PRELOAD_CHUNK + (uint32_t)rand() % (2 * PRELOAD_CHUNK));
	while (preload_plan_next(&w.plan, &index)) {
		assert_in_range(index, 2 * PRELOAD_CHUNK, 4 * PRELOAD_CHUNK - 1);
		preload_plan_pushed(&w.plan, 1);
	}
	preload_plan_deinit(&w.plan);
}

static void what_waits_unused_stays_within_the_window(void **state)
{
	uint32_t window = 200, unused = 0;
	struct world w;

	(void)state;
	world_init(&w, window * BYTES);
	shuffle(&w);
	for (uint32_t i = 0; i < FILES; i++) {
		if (w.pushes[w.order[i]]) {
			unused--;
			continue;
		}
		read_one(&w, w.order[i]);
		unused += push_some(&w, 4);
		/* The sample is one of sixteen, and small at first. */
		assert_in_range(unused, 0, window * 2);
	}
	preload_plan_deinit(&w.plan);
}

static void passes_that_are_not_worth_it_end_in_rest(void **state)
{
	struct world w;
	uint32_t pushed[12];

	(void)state;
	world_init(&w, UNLIMITED);
	/* A tenth of the dataset again and again: nine of ten that are handed out stay unused. */
	for (int n = 0; n < 12; n++) {
		pushed[n] = epoch(&w, FILES / 10, 4);
		w.now_ms += PRELOAD_IDLE_MS;
	}
	assert_in_range(pushed[0], FILES / 4, FILES);
	for (int n = 3; n < 10; n++)
		assert_int_equal(pushed[n], 0);
	preload_plan_deinit(&w.plan);
}

static void after_rest_it_is_tried_again(void **state)
{
	struct world w;
	uint32_t pushed = 0;

	(void)state;
	world_init(&w, UNLIMITED);
	for (int n = 0; n < 4; n++) {
		epoch(&w, FILES / 10, 4);
		w.now_ms += PRELOAD_IDLE_MS;
	}
	for (int n = 0; n < 12; n++)
		pushed = epoch(&w, FILES, 3);
	assert_in_range(pushed, FILES / 2, FILES);
	preload_plan_deinit(&w.plan);
}

static void what_came_from_elsewhere_is_not_handed_out_afterwards(void **state)
{
	struct world w;
	uint32_t index;

	(void)state;
	world_init(&w, UNLIMITED);
	for (uint32_t i = 0; i < 128; i++)
		preload_plan_read(&w.plan, i * 2, 0, w.now_ms);
	assert_false(preload_plan_next(&w.plan, &index)); /* nothing was in the store */
	read_one(&w, 1);
	while (preload_plan_next(&w.plan, &index)) {
		assert_int_equal(index % 2, 1);
		preload_plan_pushed(&w.plan, BYTES);
	}
	assert_int_equal(w.plan.pushed_bytes, 4 * BYTES);
	preload_plan_deinit(&w.plan);
}

static void a_file_that_was_left_may_still_be_read(void **state)
{
	struct world w;
	uint32_t index;

	(void)state;
	world_init(&w, UNLIMITED);
	for (uint32_t i = 0; i < 20; i++)
		read_one(&w, i * 2);
	while (preload_plan_next(&w.plan, &index))
		preload_plan_left(&w.plan, index);
	/* None of these was seen: they belong to the same pass. */
	for (uint32_t i = 0; i < 64; i++)
		read_one(&w, 41 + i);
	assert_int_equal(w.plan.again, 0);
	assert_int_equal(w.plan.pushed_bytes, 0);
	preload_plan_deinit(&w.plan);
}

static void indices_out_of_range_and_too_many_entries_are_refused(void **state)
{
	struct preload_plan p;
	uint32_t index;

	(void)state;
	assert_int_equal(preload_plan_init(&p, (uint64_t)PRELOAD_ENTRIES_MAX + 1, 1), -E2BIG);
	assert_int_equal(preload_plan_init(&p, 3, UNLIMITED), 0);
	preload_plan_read(&p, 3, BYTES, 1);
	preload_plan_read(&p, UINT32_MAX, BYTES, 1);
	assert_false(preload_plan_next(&p, &index));
	preload_plan_deinit(&p);
	preload_plan_read(&p, 0, BYTES, 1);
	assert_false(preload_plan_next(&p, &index));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_epoch_is_preloaded_for_the_most_part),
		cmocka_unit_test(nothing_is_handed_out_that_was_read_or_handed_out),
		cmocka_unit_test(every_further_epoch_is_another_pass),
		cmocka_unit_test(a_reader_of_one_file_sets_nothing_off),
		cmocka_unit_test(at_most_four_times_as_much_is_handed_out_as_was_read),
		cmocka_unit_test(only_neighbours_of_what_was_read_are_handed_out),
		cmocka_unit_test(what_waits_unused_stays_within_the_window),
		cmocka_unit_test(passes_that_are_not_worth_it_end_in_rest),
		cmocka_unit_test(after_rest_it_is_tried_again),
		cmocka_unit_test(what_came_from_elsewhere_is_not_handed_out_afterwards),
		cmocka_unit_test(a_file_that_was_left_may_still_be_read),
		cmocka_unit_test(indices_out_of_range_and_too_many_entries_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
