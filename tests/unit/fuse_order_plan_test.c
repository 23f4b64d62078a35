#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fuse/mount.h"
#include "fuse/order_plan.h"

#define FILE_BYTES 110000u
#define ROOM ((uint64_t)128 << 10) /* that a file takes of the memory */
#define WINDOW 64u		   /* files that fit */
#define PIECE ((uint64_t)ORDER_PIECE_MAX_BYTES)

struct world {
	struct order_plan plan;
	int64_t now_ms;
	uint64_t list;
};

static void begin(struct world *w, uint64_t *ret_list)
{
	assert_int_equal(order_plan_begin(&w->plan, w->now_ms, ret_list), 0);
}

static void setup(struct world *w, uint64_t memory_bytes)
{
	memset(w, 0, sizeof(*w));
	w->now_ms = 1000;
	order_plan_init(&w->plan, memory_bytes);
	begin(w, &w->list);
}

static void teardown(struct world *w)
{
	order_plan_deinit(&w->plan);
}

static void announce_range(struct world *w, uint64_t list, struct order_range range)
{
	assert_int_equal(order_plan_add(&w->plan, list, &range, 1), 0);
}

static void announce(struct world *w, uint64_t list, uint32_t index)
{
	announce_range(w, list, (struct order_range){.index = index, .len = FILE_BYTES, .ends = 1});
}

static void announce_files(struct world *w, uint32_t from, uint32_t count)
{
	for (uint32_t i = from; i < from + count; i++)
		announce(w, w->list, i);
}

static void arrive(struct world *w, struct order_piece *piece)
{
	order_plan_arrived(&w->plan, piece, true, BLOCK_FROM_FETCH);
}

/* Brings the next, which has to be there; its file. */
static uint32_t bring(struct world *w)
{
	struct order_piece *piece = order_plan_next(&w->plan);
	uint32_t index;

	assert_non_null(piece);
	index = piece->index;
	memset(piece->bytes, 1, piece->len);
	arrive(w, piece);
	return index;
}

static unsigned bring_all(struct world *w)
{
	struct order_piece *piece;
	unsigned n = 0;

	while ((piece = order_plan_next(&w->plan))) {
		arrive(w, piece);
		n++;
	}
	return n;
}

/* As a reader's request does it; whether the bytes were there. */
static bool read_range(struct world *w, uint32_t index, uint64_t offset, uint32_t len)
{
	struct order_piece *piece;

	order_plan_read(&w->plan, index, offset, len, w->now_ms);
	piece = order_plan_at(&w->plan, index, offset);
	if (!piece)
		return false;
	assert_int_equal(piece->state, ORDER_READY);
	order_plan_ref(piece);
	order_plan_used(&w->plan, piece, len);
	return true;
}

static bool read_file(struct world *w, uint32_t index)
{
	return read_range(w, index, 0, FILE_BYTES);
}

static void pieces_come_in_the_announced_order_within_the_memory(void **state)
{
	struct world w;

	(void)state;
	setup(&w, WINDOW * ROOM);
	for (uint32_t i = 0; i < 200; i++)
		announce(&w, w.list, 1000 - i);
	for (uint32_t i = 0; i < WINDOW; i++)
		assert_int_equal(bring(&w), 1000 - i);
	assert_null(order_plan_next(&w.plan));
	assert_true(read_file(&w, 1000));
	assert_int_equal(bring(&w), 1000 - WINDOW);
	assert_null(order_plan_next(&w.plan));
	assert_true(w.plan.buffers.used_bytes <= WINDOW * ROOM);
	teardown(&w);
}

static void what_was_read_is_dropped_and_all_of_it_comes_once(void **state)
{
	struct world w;

	(void)state;
	setup(&w, WINDOW * ROOM);
	announce_files(&w, 1, 1000);
	order_plan_seal(&w.plan, w.list);
	for (uint32_t i = 1; i <= 1000; i++) {
		bring_all(&w);
		assert_true(read_file(&w, i));
		assert_false(read_file(&w, i));
	}
	assert_int_equal(w.plan.tally.fetched_bytes, 1000 * (uint64_t)FILE_BYTES);
	assert_int_equal(w.plan.tally.used_bytes, 1000 * (uint64_t)FILE_BYTES);
	assert_int_equal(w.plan.tally.dropped_bytes, 0);
	order_plan_tick(&w.plan, w.now_ms);
	assert_null(order_plan_find(&w.plan, w.list));
	assert_int_equal(w.plan.buffers.kept_pages, 0);
	teardown(&w);
}

static void what_the_reader_got_himself_is_not_brought(void **state)
{
	struct world w;

	(void)state;
	setup(&w, WINDOW * ROOM);
	announce_files(&w, 1, 3);
	assert_int_equal(bring(&w), 1);
	assert_false(read_file(&w, 2));
	assert_int_equal(bring(&w), 3);
	teardown(&w);
}

static void readers_a_few_hundred_apart_skip_nothing(void **state)
{
	enum { PROCESSES = 8, BATCH = 128, FILES = 16 * PROCESSES * BATCH };
	unsigned had = 0;
	struct world w;

	(void)state;
	setup(&w, 2048 * ROOM);
	announce_files(&w, 1, FILES);
	/* Each process reads a batch of its own; they take turns. */
	for (uint32_t group = 0; group < FILES; group += PROCESSES * BATCH) {
		for (uint32_t i = 0; i < BATCH; i++) {
			for (uint32_t p = 0; p < PROCESSES; p++) {
				bring_all(&w);
				had += read_file(&w, 1 + group + p * BATCH + i);
			}
		}
	}
	assert_int_equal(had, FILES);
	assert_int_equal(w.plan.tally.dropped_bytes, 0);
	teardown(&w);
}

static void what_the_reader_skips_does_not_clog(void **state)
{
	unsigned had = 0;
	struct world w;

	(void)state;
	setup(&w, 512 * ROOM);
	announce_files(&w, 1, 20000);
	for (uint32_t i = 1; i < 20000; i++) {
		if (i % 4 == 0)
			continue;
		/* As the threads do, which are woken only then. */
		if (order_plan_has_next(&w.plan))
			bring_all(&w);
		had += read_file(&w, i);
	}
	assert_true(had > 14000);
	assert_true(w.plan.buffers.used_bytes <= 512 * ROOM);
	teardown(&w);
}

static void a_step_lets_go_of_what_lies_behind_it(void **state)
{
	struct world w;

	(void)state;
	setup(&w, WINDOW * ROOM);
	announce_files(&w, 1, 200);
	assert_int_equal(bring_all(&w), WINDOW);
	assert_int_equal(order_plan_step(&w.plan, w.list, 1, 10, w.now_ms), 0);
	assert_int_equal(bring_all(&w), 10);
	assert_false(read_file(&w, 10));
	assert_true(read_file(&w, 11));
	assert_int_equal(order_plan_step(&w.plan, 77, 1, 1, w.now_ms), -ENOENT);
	/* One that starts in the middle. */
	order_plan_drop(&w.plan, w.list);
	begin(&w, &w.list);
	assert_int_equal(order_plan_step(&w.plan, w.list, 0, 150, w.now_ms), 0);
	announce_files(&w, 1, 200);
	assert_int_equal(bring(&w), 151);
	teardown(&w);
}

static void what_is_not_asked_for_of_us_is_not_brought_until_it_is(void **state)
{
	struct world w;
	uint64_t before;

	(void)state;
	setup(&w, WINDOW * ROOM);
	announce_files(&w, 1, 3000);
	/* The kernel answers: nothing but steps is seen. */
	for (uint32_t i = 0; i < 1000; i++) {
		bring_all(&w);
		order_plan_step(&w.plan, w.list, i, i, w.now_ms);
	}
	assert_true(w.plan.tally.fetched_bytes <= 2 * WINDOW * (uint64_t)FILE_BYTES);
	before = w.plan.tally.fetched_bytes;
	/* Its page cache was dropped: requests come again. */
	for (uint32_t i = 1000; i < 2000; i++) {
		if (order_plan_has_next(&w.plan))
			bring_all(&w);
		read_file(&w, i + 1);
		order_plan_step(&w.plan, w.list, i, i, w.now_ms);
	}
	assert_true(w.plan.tally.fetched_bytes - before >= 900 * (uint64_t)FILE_BYTES);
	teardown(&w);
}

static void a_doubt_ends_with_a_list_longer_than_what_is_known_of_it(void **state)
{
	uint64_t before;
	struct world w;

	(void)state;
	setup(&w, WINDOW * ROOM);
	announce_files(&w, 1, 3 * ORDER_PIECES_MAX);
	for (uint32_t i = 0; i < 2 * ORDER_PIECES_MAX; i++) {
		if (order_plan_has_next(&w.plan))
			bring_all(&w);
		order_plan_step(&w.plan, w.list, i, i, w.now_ms);
	}
	before = w.plan.tally.fetched_bytes;
	for (uint32_t i = 2 * ORDER_PIECES_MAX; i < 3 * ORDER_PIECES_MAX; i++) {
		if (order_plan_has_next(&w.plan))
			bring_all(&w);
		read_file(&w, i + 1);
	}
	assert_true(w.plan.tally.fetched_bytes - before >=
		    (ORDER_PIECES_MAX - 200) * (uint64_t)FILE_BYTES);
	teardown(&w);
}

static void an_entry_with_nothing_to_read_still_counts(void **state)
{
	struct order_range nothing = {.index = ORDER_NOTHING, .ends = 1};
	struct world w;

	(void)state;
	setup(&w, WINDOW * ROOM);
	announce_range(&w, w.list, nothing);
	announce_files(&w, 1, 2);
	assert_int_equal(bring_all(&w), 2);
	order_plan_step(&w.plan, w.list, 0, 2, w.now_ms);
	assert_false(read_file(&w, 1));
	assert_true(read_file(&w, 2));
	teardown(&w);
}

static void a_large_file_comes_in_pieces_and_is_read_across_them(void **state)
{
	struct order_range range = {.index = 5, .len = 3 * PIECE + 10, .ends = 1};
	struct world w;

	(void)state;
	setup(&w, 16 * PIECE);
	announce_range(&w, w.list, range);
	assert_int_equal(bring_all(&w), 4);
	assert_int_equal(order_plan_gap(&w.plan, 5, PIECE / 2, PIECE), PIECE);
	assert_true(read_range(&w, 5, 0, PIECE / 2));
	assert_true(read_range(&w, 5, PIECE / 2, PIECE / 2));
	assert_null(order_plan_at(&w.plan, 5, 0));
	assert_true(read_range(&w, 5, 3 * PIECE, 10));
	assert_int_equal(w.plan.piece_count, 2);
	teardown(&w);
}

static void records_that_share_a_page_are_told_apart(void **state)
{
	struct order_range range = {.index = 5, .len = 65536, .offset = 65536, .ends = 1};
	struct world w;

	(void)state;
	setup(&w, 16 * PIECE);
	announce_range(&w, w.list, range);
	range.offset = 2 * 65536 - 4096;
	announce_range(&w, w.list, range);
	/* The first is read before it is brought; that says nothing of its neighbour. */
	assert_false(read_range(&w, 5, 65536, 65536));
	assert_int_equal(bring_all(&w), 1);
	assert_true(read_range(&w, 5, 2 * 65536, 61440));
	teardown(&w);
}

static void of_two_places_of_a_file_the_first_is_read_first(void **state)
{
	struct world w;

	(void)state;
	setup(&w, WINDOW * ROOM);
	announce_files(&w, 1, 40);
	announce_files(&w, 1, 40);
	for (uint32_t i = 1; i <= 40; i++) {
		assert_int_equal(bring(&w), i);
		assert_true(read_file(&w, i));
	}
	for (uint32_t i = 1; i <= 40; i++) {
		assert_int_equal(bring(&w), i);
		assert_true(read_file(&w, i));
	}
	teardown(&w);
}

static void what_is_held_is_not_brought_twice(void **state)
{
	struct world w;

	(void)state;
	setup(&w, WINDOW * ROOM);
	announce(&w, w.list, 1);
	announce(&w, w.list, 1);
	announce(&w, w.list, 2);
	assert_int_equal(bring(&w), 1);
	assert_int_equal(bring(&w), 2);
	teardown(&w);
}

static void lists_share_memory_and_turns(void **state)
{
	unsigned of_other = 0;
	struct world w;
	uint64_t other;

	(void)state;
	setup(&w, WINDOW * ROOM);
	begin(&w, &other);
	announce_files(&w, 1, 500);
	for (uint32_t i = 1001; i <= 1500; i++)
		announce(&w, other, i);
	for (unsigned i = 0; i < WINDOW; i++)
		of_other += bring(&w) > 1000;
	assert_null(order_plan_next(&w.plan));
	assert_int_equal(of_other, WINDOW / 2);
	order_plan_drop(&w.plan, other);
	assert_int_equal(bring_all(&w), WINDOW / 2);
	teardown(&w);
}

static void a_failed_piece_goes_and_those_in_flight_outlive_their_list(void **state)
{
	struct order_piece *failed, *late, *read;
	struct world w;

	(void)state;
	setup(&w, WINDOW * ROOM);
	announce_files(&w, 1, 3);
	failed = order_plan_next(&w.plan);
	order_plan_arrived(&w.plan, failed, false, BLOCK_FROM_FETCH);
	assert_null(order_plan_at(&w.plan, 1, 0));
	assert_int_equal(bring(&w), 2);
	read = order_plan_at(&w.plan, 2, 0);
	order_plan_ref(read);
	late = order_plan_next(&w.plan);
	order_plan_drop(&w.plan, w.list);
	assert_int_equal(w.plan.buffers.used_bytes, 2 * ROOM);
	order_plan_used(&w.plan, read, FILE_BYTES);
	arrive(&w, late);
	assert_int_equal(w.plan.buffers.used_bytes, 0);
	assert_int_equal(order_plan_add(&w.plan, w.list, NULL, 0), -ENOENT);
	teardown(&w);
}

static void a_list_without_a_reader_rests_and_is_forgotten(void **state)
{
	struct world w;

	(void)state;
	setup(&w, WINDOW * ROOM);
	announce_files(&w, 1, 100);
	order_plan_seal(&w.plan, w.list);
	assert_int_equal(bring_all(&w), WINDOW);
	w.now_ms += ORDER_REST_MS;
	order_plan_tick(&w.plan, w.now_ms);
	assert_int_equal(w.plan.buffers.used_bytes, 0);
	assert_null(order_plan_next(&w.plan));
	/* He shows up. */
	assert_false(read_file(&w, 1));
	assert_int_equal(bring(&w), 2);
	w.now_ms += ORDER_FORGET_MS;
	order_plan_tick(&w.plan, w.now_ms);
	assert_null(order_plan_find(&w.plan, w.list));
	assert_true(order_plan_empty(&w.plan));
	teardown(&w);
}

static void what_waits_is_bounded(void **state)
{
	struct order_range *many = calloc(ORDER_CHUNK_RANGES, sizeof(*many));
	struct world w;
	uint64_t other, added = 0;

	(void)state;
	setup(&w, WINDOW * ROOM);
	begin(&w, &other);
	for (unsigned i = 0; i < ORDER_CHUNK_RANGES; i++)
		many[i] = (struct order_range){.index = i, .len = 1, .ends = 1};
	while (order_plan_add(&w.plan, w.list, many, ORDER_CHUNK_RANGES) == 0)
		added += ORDER_CHUNK_RANGES;
	assert_true(added >= ORDER_RANGES_MAX && w.plan.waiting <= ORDER_RANGES_MAX);
	/* The first does not shut the second out. */
	assert_int_equal(order_plan_add(&w.plan, other, many, ORDER_CHUNK_RANGES), 0);
	while (order_plan_add(&w.plan, other, many, ORDER_CHUNK_RANGES) == 0)
		;
	assert_true(w.plan.waiting <= ORDER_RANGES_MAX + ORDER_RANGES_LEAST);
	order_plan_step(&w.plan, w.list, 1, 100000, w.now_ms);
	assert_true(w.plan.piece_count <= ORDER_PIECES_MAX);
	assert_int_equal(order_plan_add(&w.plan, w.list, many, 1), 0);
	for (unsigned i = 0; i < ORDER_LISTS_MAX - 2; i++)
		begin(&w, &other);
	assert_int_equal(order_plan_begin(&w.plan, 1, &other), -EBUSY);
	teardown(&w);
	free(many);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_come_in_the_announced_order_within_the_memory),
		cmocka_unit_test(what_was_read_is_dropped_and_all_of_it_comes_once),
		cmocka_unit_test(what_the_reader_got_himself_is_not_brought),
		cmocka_unit_test(readers_a_few_hundred_apart_skip_nothing),
		cmocka_unit_test(what_the_reader_skips_does_not_clog),
		cmocka_unit_test(a_step_lets_go_of_what_lies_behind_it),
		cmocka_unit_test(what_is_not_asked_for_of_us_is_not_brought_until_it_is),
		cmocka_unit_test(a_doubt_ends_with_a_list_longer_than_what_is_known_of_it),
		cmocka_unit_test(an_entry_with_nothing_to_read_still_counts),
		cmocka_unit_test(a_large_file_comes_in_pieces_and_is_read_across_them),
		cmocka_unit_test(records_that_share_a_page_are_told_apart),
		cmocka_unit_test(of_two_places_of_a_file_the_first_is_read_first),
		cmocka_unit_test(what_is_held_is_not_brought_twice),
		cmocka_unit_test(lists_share_memory_and_turns),
		cmocka_unit_test(a_failed_piece_goes_and_those_in_flight_outlive_their_list),
		cmocka_unit_test(a_list_without_a_reader_rests_and_is_forgotten),
		cmocka_unit_test(what_waits_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
