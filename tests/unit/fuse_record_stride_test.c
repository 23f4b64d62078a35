#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fuse/record_stride.h"
#include "manifest/block.h"

#define PAGE 4096u
#define LARGE ((uint64_t)10 << 30)
#define INO 7
#define READER 1234

static int setup(void **state)
{
	struct record_stride *r = malloc(sizeof(*r));

	record_stride_init(r);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	record_stride_deinit(*state);
	free(*state);
	return 0;
}

/* As the kernel asks for bytes of which it has none: whole pages. */
static struct record_advice read_pages(
	struct record_stride *r, uint32_t reader, uint64_t offset, uint32_t len)
{
	uint64_t begin = offset / PAGE * PAGE, end = (offset + len + PAGE - 1) / PAGE * PAGE;
	struct record_advice a =
		record_stride_note(r, INO, reader, begin, (uint32_t)(end - begin), LARGE);

	record_stride_missed(r, INO, reader);
	return a;
}

/* Reads records 0 to count - 1; what is named holds one of those to come, each once, in order, all but
 * what is named until it shows that records do not lie on pages. How many were named; *ret_bytes: of so
 * many bytes. */
static unsigned read_records(struct record_stride *r, uint32_t reader, uint64_t first,
	uint64_t distance, uint32_t len, unsigned count, uint64_t *ret_bytes)
{
	unsigned next = 0, named = 0, cut = 0;

	for (unsigned i = 0; i < count; i++) {
		uint64_t at = first + i * distance;
		struct record_advice a = read_pages(r, reader, at, len);

		assert_int_equal(a.was_named, next > i);
		for (unsigned j = 0; j < a.count; j++) {
			uint64_t record;

			if (next <= i)
				next = i + 1;
			record = first + next * distance;
			assert_true(a.at[j] < record + PAGE);
			assert_true(a.at[j] + a.len + PAGE > record + len);
			cut += a.at[j] > record || a.at[j] + a.len < record + len;
			assert_true(next <= i + RECORD_AHEAD);
			next++;
			named++;
			*ret_bytes += a.len;
		}
	}
	assert_true(cut <= 2);
	return named;
}

static void records_on_pages_are_named_as_they_are(void **state)
{
	uint64_t bytes = 0;
	unsigned named = read_records(*state, READER, PAGE, 64 * PAGE, 8 * PAGE, 200, &bytes);

	assert_in_range(named, 200, 200 + RECORD_AHEAD);
	assert_int_equal(bytes, (uint64_t)named * 8 * PAGE);
}

static void records_of_odd_length_are_named_with_their_last_pages(void **state)
{
	uint64_t bytes = 0;
	unsigned named = read_records(*state, READER, 1000, 917287, 114660, 200, &bytes);

	assert_in_range(named, 200, 200 + RECORD_AHEAD);
	assert_in_range(bytes / named, 114660, 114660 + 4 * PAGE);
}

static void readers_of_one_file_do_not_disturb_each_other(void **state)
{
	struct record_stride *r = *state;
	unsigned named[4] = {0};

	for (unsigned i = 0; i < 50; i++)
		for (unsigned reader = 0; reader < 4; reader++)
			named[reader] +=
				read_pages(r, reader, (8 * i + reader) * UINT64_C(100000), 90000)
					.count;
	for (unsigned reader = 0; reader < 4; reader++)
		assert_in_range(named[reader], 40, 70);
}

/* In whatever order they come. */
static void who_together_read_all_have_whole_blocks_named(void **state)
{
	enum { READERS = 4, ROUNDS = 400, LEN = 114660 };
	struct record_stride *r = *state;
	uint64_t named[ROUNDS * READERS * (uint64_t)LEN / BLOCK_BYTES + 16] = {0};
	unsigned records = 0;

	for (unsigned i = 0; i < ROUNDS; i++)
		for (unsigned turn = 0; turn < READERS; turn++) {
			unsigned reader = (turn + i) * 7 % READERS;
			uint64_t at = (i * READERS + reader) * (uint64_t)LEN;
			struct record_advice a = read_pages(r, reader, at, LEN);

			records += a.count;
			for (uint64_t block = a.block; block < a.end; block++) {
				assert_true(block > at / BLOCK_BYTES);
				assert_true(block * BLOCK_BYTES <= at + RECORD_BLOCKS_BYTES);
				named[block]++;
			}
		}
	/* Those that were read before anything was known, and the first that had company. */
	assert_in_range(records, 0, 4 * READERS);
	for (uint64_t block = 2; block < ROUNDS * READERS * (uint64_t)LEN / BLOCK_BYTES; block++)
		assert_in_range(named[block], 1, READERS);
}

static void what_the_kernel_adds_to_the_first_one_is_not_named(void **state)
{
	for (unsigned i = 0; i < 50; i++) {
		struct record_advice a =
			read_pages(*state, READER, i * 256 * PAGE, i ? 28 * PAGE : 64 * PAGE);

		if (a.count > 0)
			assert_int_equal(a.len, 28 * PAGE);
	}
}

static void a_record_may_come_in_several_requests(void **state)
{
	struct record_stride *r = *state;
	unsigned named = 0;

	for (unsigned i = 0; i < 20; i++) {
		uint64_t at = i * ((uint64_t)16 << 20);
		struct record_advice first = read_pages(r, READER, at, 1 << 20);
		struct record_advice second = read_pages(r, READER, at + (1 << 20), 1 << 20);

		named += first.count;
		assert_int_equal(second.count, 0);
		assert_int_equal(first.was_named, second.was_named);
		if (i > 10) {
			assert_true(first.was_named);
			assert_int_equal(first.named_at, at);
			assert_int_equal(second.named_at, at);
		}
		if (first.count > 0)
			assert_int_equal(first.len, 2 << 20);
	}
	assert_in_range(named, 15, 25);
}

static void who_reads_in_sequence_or_at_random_has_none(void **state)
{
	struct record_stride *r = *state;

	for (uint64_t i = 0; i < 1000; i++) {
		assert_int_equal(read_pages(r, 1, i * 32 * PAGE, 32 * PAGE).count, 0);
		assert_int_equal(read_pages(r, 2, i * 7919 % 1000 * 64 * PAGE, 8 * PAGE).count, 0);
		assert_int_equal(read_pages(r, 3, (1000 - i) * 64 * PAGE, 8 * PAGE).count, 0);
	}
}

/* Records that nearly touch are better read in sequence. */
static void small_gaps_are_none(void **state)
{
	uint64_t bytes = 0;

	assert_int_equal(read_records(*state, READER, 0, 9 * PAGE + 100, 8 * PAGE, 50, &bytes), 0);
}

static void what_is_stored_is_not_named(void **state)
{
	struct record_stride *r = *state;
	unsigned named = 0;

	for (uint64_t i = 0; i < 50; i++)
		named += record_stride_note(r, INO, READER, i * 64 * PAGE, PAGE, LARGE).count;
	assert_int_equal(named, 0);
	record_stride_missed(r, INO, READER);
	for (uint64_t i = 50; i < 50 + 2 * RECORD_CREDIT; i++)
		named += record_stride_note(r, INO, READER, i * 64 * PAGE, PAGE, LARGE).count;
	assert_in_range(named, RECORD_CREDIT - 1, RECORD_CREDIT + RECORD_AHEAD);
}

static void nothing_behind_the_end_is_named(void **state)
{
	const uint64_t size = 40 * 64 * PAGE + 100;
	unsigned named = 0;

	for (uint64_t i = 0; i <= 40; i++) {
		struct record_advice a =
			record_stride_note(*state, INO, READER, i * 64 * PAGE, 2 * PAGE, size);

		record_stride_missed(*state, INO, READER);
		for (unsigned j = 0; j < a.count; j++)
			assert_true(a.at[j] < size);
		named += a.count;
	}
	assert_in_range(named, 35, 40);
}

static void large_records_are_few(void **state)
{
	struct record_stride *r = *state;

	for (uint64_t i = 0; i < 60; i++)
		assert_true(read_pages(r, 1, i << 24, 1 << 20).count <= RECORD_AHEAD);
	for (uint64_t i = 0; i < 60; i++) {
		struct record_advice a = {0};

		for (uint64_t part = 0; part < 9; part++)
			a = read_pages(r, 2, (i << 24) + (part << 20), 1 << 20);
		assert_int_equal(a.count, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(records_on_pages_are_named_as_they_are),
		TEST(records_of_odd_length_are_named_with_their_last_pages),
		TEST(readers_of_one_file_do_not_disturb_each_other),
		TEST(who_together_read_all_have_whole_blocks_named),
		TEST(what_the_kernel_adds_to_the_first_one_is_not_named),
		TEST(a_record_may_come_in_several_requests),
		TEST(who_reads_in_sequence_or_at_random_has_none),
		TEST(small_gaps_are_none),
		TEST(what_is_stored_is_not_named),
		TEST(nothing_behind_the_end_is_named),
		TEST(large_records_are_few),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
