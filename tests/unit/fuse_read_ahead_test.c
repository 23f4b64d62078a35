#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fuse/read_ahead.h"
#include "manifest/block.h"

#define KIB ((uint32_t)1 << 10)
#define MIB ((uint32_t)1 << 20)
#define LARGE ((uint64_t)10 << 30)

static int setup(void **state)
{
	struct read_ahead *r = malloc(sizeof(*r));

	read_ahead_init(r);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	read_ahead_deinit(*state);
	free(*state);
	return 0;
}

static uint32_t bytes_ahead(
	struct read_ahead *r, uint64_t ino, uint64_t offset, uint32_t len, uint64_t size)
{
	return read_ahead_note(r, ino, offset, len, size, 0).bytes;
}

static void a_stream_gets_as_much_again_as_it_has_read(void **state)
{
	uint64_t offset = 0;

	assert_int_equal(bytes_ahead(*state, 5, 0, 128 * KIB, LARGE), 0);
	for (uint32_t i = 1; i < 20; i++) {
		offset += 128 * KIB;
		assert_int_equal(bytes_ahead(*state, 5, offset, 128 * KIB, LARGE), i * 128 * KIB);
	}
}

static void it_is_bounded_by_the_limit_and_by_the_file(void **state)
{
	uint64_t size = 40 * (uint64_t)MIB + 123;
	uint32_t ahead = 0;

	for (uint64_t offset = 0; offset + MIB <= size; offset += MIB) {
		ahead = bytes_ahead(*state, 5, offset, MIB, size);
		assert_true(ahead <= READ_AHEAD_MAX_BYTES);
		assert_true(offset + MIB + ahead <= size);
	}
	assert_int_equal(ahead, 123);
}

static void a_random_reader_gets_none(void **state)
{
	srand(7);
	for (int i = 0; i < 1000; i++) {
		uint64_t offset = ((uint64_t)rand() << 10) % LARGE / 4096 * 4096;

		assert_int_equal(bytes_ahead(*state, 5, offset, 114 * KIB, LARGE), 0);
	}
}

static void a_jump_ends_the_stream(void **state)
{
	read_ahead_note(*state, 5, 0, 64 * KIB, LARGE, 0);
	assert_int_not_equal(bytes_ahead(*state, 5, 64 * KIB, 64 * KIB, LARGE), 0);
	assert_int_equal(bytes_ahead(*state, 5, 500 * (uint64_t)MIB, 64 * KIB, LARGE), 0);
}

static void four_readers_of_one_file_are_told_apart(void **state)
{
	for (uint32_t step = 0; step < 10; step++) {
		for (uint64_t reader = 0; reader < 4; reader++) {
			uint64_t offset = reader * (1 << 30) + step * (uint64_t)(64 * KIB);
			uint32_t ahead = bytes_ahead(*state, 5, offset, 64 * KIB, LARGE);

			assert_int_equal(ahead, step * 64 * KIB);
		}
	}
}

static void large_requests_may_arrive_swapped(void **state)
{
	read_ahead_note(*state, 5, 0, MIB, LARGE, 0);
	assert_int_not_equal(bytes_ahead(*state, 5, 2 * MIB, MIB, LARGE), 0);
	assert_int_not_equal(bytes_ahead(*state, 5, MIB, MIB, LARGE), 0);
	assert_int_equal(bytes_ahead(*state, 5, 3 * MIB, MIB, LARGE), 3 * MIB);
}

/* From `first` to the end, `ramp` times as far ahead as was read. */
static void expect_blocks_named_once(struct read_ahead *r, uint64_t first, uint64_t ramp)
{
	const uint64_t size = 100 * BLOCK_BYTES + 1;
	uint64_t named = 0, bytes_read = 0;

	for (uint64_t offset = first; offset < size; offset += MIB) {
		uint32_t len = size - offset < MIB ? (uint32_t)(size - offset) : MIB;
		struct read_ahead_advice a = read_ahead_note(r, 5, offset, len, size, 0);

		bytes_read = offset + len;
		if (a.block == a.end)
			continue;
		/* Behind the block that is read, without a gap or a second time. */
		assert_true(a.block * BLOCK_BYTES >= bytes_read);
		assert_true(a.block == named || a.block == block_count(bytes_read));
		assert_true(a.end > a.block && a.end >= named);
		assert_true(a.end == block_count(size) ||
			    a.end * BLOCK_BYTES <= bytes_read + ramp * (bytes_read - first));
		assert_true(
			a.end * BLOCK_BYTES <= bytes_read + READ_AHEAD_WINDOW_BYTES + BLOCK_BYTES);
		named = a.end;
	}
	assert_int_equal(named, block_count(size));
}

static void whole_blocks_are_named_once_as_far_as_was_read(void **state)
{
	expect_blocks_named_once(*state, 9 * BLOCK_BYTES + MIB, 1);
}

static void who_begins_with_the_file_has_more_of_it_named(void **state)
{
	struct read_ahead_advice a;

	read_ahead_note(*state, 6, 0, MIB, LARGE, 0);
	a = read_ahead_note(*state, 6, MIB, MIB, LARGE, 0);
	assert_int_equal(a.block, 1);
	assert_int_equal(a.end, 2);
	a = read_ahead_note(*state, 6, 2 * MIB, MIB, LARGE, 0);
	assert_int_equal(a.block, 2);
	assert_int_equal(a.end, (3 + 2 * READ_AHEAD_RAMP) * MIB / BLOCK_BYTES);
	expect_blocks_named_once(*state, 0, READ_AHEAD_RAMP);
}

/* The blocks that are named with the first read of a file; it is read on, `part` of it. */
static uint64_t named_at_once(struct read_ahead *r, uint64_t ino, uint64_t part)
{
	const uint64_t size = 6 * BLOCK_BYTES;
	struct read_ahead_advice first = read_ahead_note(r, ino, 0, MIB, size, 0);

	for (uint64_t offset = MIB; offset < part; offset += MIB)
		read_ahead_note(r, ino, offset, MIB, size, 0);
	return first.end - first.block;
}

static void where_files_are_read_whole_the_next_one_is_begun_at_once(void **state)
{
	const uint64_t whole = 6 * BLOCK_BYTES;
	uint64_t ino = 10;

	assert_int_equal(named_at_once(*state, ino++, whole), 0);
	assert_int_equal(named_at_once(*state, ino++, whole), 0);
	assert_int_equal(named_at_once(*state, ino++, whole), 5);
	/* Another kind of reader comes, of heads. */
	for (int i = 0; i < 3; i++)
		named_at_once(*state, ino++, 2 * MIB);
	assert_int_equal(named_at_once(*state, ino++, whole), 5);
	assert_int_equal(named_at_once(*state, ino++, 2 * MIB), 5);
	for (int i = 0; i < 4; i++)
		named_at_once(*state, ino++, 2 * MIB);
	assert_int_equal(named_at_once(*state, ino++, whole), 0);
}

/* How far ahead blocks are named at the end of 1 GiB, of which each MiB took `ns_of` its number. */
static uint64_t window_after(
	struct read_ahead *r, uint64_t ino, bool waits, int64_t (*ns_of)(uint64_t mib))
{
	uint64_t end = 0;
	int64_t now_ns = 1;

	for (uint64_t mib = 0; mib < 1024; mib++) {
		struct read_ahead_advice a = read_ahead_note(r, ino, mib * MIB, MIB, LARGE, now_ns);

		if (waits)
			read_ahead_waits(r, ino, mib * MIB, MIB);
		now_ns += ns_of(mib);
		end = a.end > end ? a.end : end;
	}
	return end * BLOCK_BYTES - (uint64_t)1024 * MIB;
}

static int64_t steady(uint64_t mib)
{
	(void)mib;
	return 1000000;
}

static int64_t faster(uint64_t mib)
{
	return 64000000 / (int64_t)(mib + 1);
}

static void the_window_grows_while_that_brings_more(void **state)
{
	uint64_t enough = window_after(*state, 5, false, faster);
	uint64_t vain = window_after(*state, 6, true, steady);
	uint64_t rewarded = window_after(*state, 7, true, faster);

	assert_in_range(enough, READ_AHEAD_WINDOW_BYTES - BLOCK_BYTES, READ_AHEAD_WINDOW_BYTES);
	assert_in_range(
		vain, 2 * READ_AHEAD_WINDOW_BYTES - BLOCK_BYTES, 2 * READ_AHEAD_WINDOW_BYTES);
	assert_in_range(
		rewarded, READ_AHEAD_WINDOW_MAX_BYTES - BLOCK_BYTES, READ_AHEAD_WINDOW_MAX_BYTES);
}

static void a_random_reader_has_no_block_named(void **state)
{
	srand(7);
	for (int i = 0; i < 1000; i++) {
		uint64_t offset = ((uint64_t)rand() << 10) % LARGE / 4096 * 4096;
		struct read_ahead_advice a =
			read_ahead_note(*state, 5, offset, 114 * KIB, LARGE, 0);

		assert_int_equal(a.block, a.end);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_stream_gets_as_much_again_as_it_has_read, setup, teardown),
		cmocka_unit_test_setup_teardown(
			it_is_bounded_by_the_limit_and_by_the_file, setup, teardown),
		cmocka_unit_test_setup_teardown(a_random_reader_gets_none, setup, teardown),
		cmocka_unit_test_setup_teardown(a_jump_ends_the_stream, setup, teardown),
		cmocka_unit_test_setup_teardown(
			four_readers_of_one_file_are_told_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(large_requests_may_arrive_swapped, setup, teardown),
		cmocka_unit_test_setup_teardown(
			whole_blocks_are_named_once_as_far_as_was_read, setup, teardown),
		cmocka_unit_test_setup_teardown(
			who_begins_with_the_file_has_more_of_it_named, setup, teardown),
		cmocka_unit_test_setup_teardown(
			where_files_are_read_whole_the_next_one_is_begun_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(
			the_window_grows_while_that_brings_more, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_random_reader_has_no_block_named, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
