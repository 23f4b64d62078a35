/* Blocks that are got before their reader comes. The store is a fake one. */
#include "tests/unit/worker_fetch_fixture.h"

static void wait_for_origin_bytes(struct fx *f, uint64_t bytes)
{
	for (int ms = 0; ms < 10000 && fx_origin_bytes(f) < bytes; ms++)
		usleep(1000);
	assert_int_equal(fx_origin_bytes(f), bytes);
}

static void prefetch_all(struct fx *f, const struct fx_file *file)
{
	for (uint64_t b = 0; b < block_count(file->size); b++)
		assert_int_equal(fx_prefetch(f, file, b), 0);
}

static void a_pinned_block_is_stored_before_its_reader_comes(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BIG);
	struct fx_read q = {.file = file, .block = 1, .len = BLOCK_BYTES};

	start(f, PIN_ALL, NULL);
	for (int i = 0; i < 3; i++)
		assert_int_equal(fx_prefetch(f, file, 1), 0);
	wait_for_puts(1);
	assert_int_equal(fx_read(f, &q), 0);
	assert_false(q.from_origin);
	assert_int_equal(fx_prefetch(f, file, 1), 0);
	assert_int_equal(fx_gets(f), 1);
	assert_int_equal(fx_prefetch(f, file, 3), -EINVAL);
}

static void one_that_is_not_pinned_waits_for_its_reader_in_memory(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BIG);

	start(f, PIN_NONE, NULL);
	prefetch_all(f, file);
	wait_for_origin_bytes(f, BIG);
	assert_int_equal(fx_read_file(f, file, 128 << 10, NULL), 0);
	assert_int_equal(fx_origin_bytes(f), BIG);
	assert_int_equal(fake.store->puts, 0);
}

/* All of it has been got ahead when the plan comes that pins it. */
static void bytes_that_were_got_before_a_plan_are_stored_by_it(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BIG);

	start(f, PIN_NONE, NULL);
	prefetch_all(f, file);
	wait_for_origin_bytes(f, BIG);
	fx_grant(f, UINT64_MAX, PIN_ALL);
	assert_int_equal(fx_read_file(f, file, MIB, NULL), 0);
	wait_for_puts(3);
	assert_int_equal(fx_origin_bytes(f), BIG);
}

static void one_of_an_earlier_pass_is_stored_as_its_reader_would(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BIG);
	uint64_t from_origin = 0;

	start(f, PIN_NONE, NULL);
	assert_int_equal(fx_read_file(f, file, 128 << 10, NULL), 0);
	prefetch_all(f, file);
	wait_for_puts(3);
	assert_int_equal(fx_read_file(f, file, 128 << 10, &from_origin), 0);
	assert_int_equal(from_origin, 0);
	assert_int_equal(fx_origin_bytes(f), 2 * BIG);
}

static void what_nobody_has_read_yet_is_bounded(void **state)
{
	enum { MORE = 8 };
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", FETCH_AHEAD_MAX_BYTES + MORE * BLOCK_BYTES);
	struct fx_read q = {.file = file, .offset = MIB, .len = 1};
	int64_t began_ms = clock_mono_ms();
	uint64_t again = 0;

	start(f, PIN_NONE, NULL);
	prefetch_all(f, file);
	wait_for_origin_bytes(f, FETCH_AHEAD_MAX_BYTES);
	/* All that were begun are here, and the others cost what is read of them. */
	for (; q.block < block_count(file->size); q.block++)
		assert_int_equal(fx_read(f, &q), 0);
	/* Under a sanitizer it may take so long that some are let go of before: a byte of each. */
	if (clock_mono_ms() - began_ms >= FETCH_KEEP_MS)
		again = block_count(file->size) - MORE;
	assert_in_range(fx_origin_bytes(f), FETCH_AHEAD_MAX_BYTES + MORE,
		FETCH_AHEAD_MAX_BYTES + MORE + again);
}

/* All but its last page has been read. */
static void a_block_that_was_not_a_record_is_kept_for_its_last_byte(void **state)
{
	enum { PAGE = 4096, LEN = 2 * PAGE };
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", LEN);
	struct fx_read q = {.file = file, .len = PAGE};

	start(f, PIN_ALL, NULL);
	atomic_store(&fake.put_says_full, true);
	assert_int_equal(fx_read(f, &q), 0);
	q.offset = PAGE;
	assert_int_equal(fx_read(f, &q), 0);
	assert_int_equal(fx_origin_bytes(f), LEN);
	assert_int_equal(fx_gets(f), 1);
}

static void a_prefetched_block_that_the_store_does_not_take_is_not_lost(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BIG);

	start(f, PIN_ALL, NULL);
	atomic_store(&fake.put_says_full, true);
	for (int pass = 1; pass < 40; pass++) {
		prefetch_all(f, file);
		assert_int_equal(fx_read_file(f, file, MIB, NULL), 0);
		assert_int_equal(fx_origin_bytes(f), (uint64_t)pass * BIG);
	}
}

enum { RECORD = 114688 };

static void a_record_is_got_alone_and_once(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BIG);
	struct fx_read q = {.file = file, .block = 1, .offset = MIB, .len = RECORD};

	start(f, PIN_NONE, NULL);
	for (int i = 0; i < 3; i++)
		assert_int_equal(fx_prefetch_part(f, file, 1, MIB, RECORD), 0);
	wait_for_origin_bytes(f, RECORD);
	assert_int_equal(fx_read(f, &q), 0);
	assert_true(q.from_origin);
	assert_int_equal(fx_origin_bytes(f), RECORD);
	assert_int_equal(fx_gets(f), 1);
	assert_int_equal(fake.store->puts, 0);
	assert_int_equal(fx_prefetch_part(f, file, 1, BLOCK_BYTES, 1), -EINVAL);
	assert_int_equal(fx_prefetch_part(f, file, 1, MIB, BLOCK_BYTES), -EINVAL);
}

/* Else what was asked for to be sure would soon be all that may be brought ahead. */
static void a_record_is_let_go_of_without_the_pages_at_its_ends(void **state)
{
	enum { PAGE = 4096, LEN = 3 * MIB, COUNT = 2 * FETCH_AHEAD_MAX_BYTES / LEN };
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", COUNT * BLOCK_BYTES);
	struct fx_read q = {.file = file, .offset = MIB / 2, .len = LEN};

	start(f, PIN_NONE, NULL);
	for (; q.block < COUNT; q.block++) {
		assert_int_equal(
			fx_prefetch_part(f, file, q.block, q.offset - PAGE, LEN + 2 * PAGE), 0);
		assert_int_equal(fx_read(f, &q), 0);
	}
	assert_int_equal(fx_origin_bytes(f), (uint64_t)COUNT * (LEN + 2 * PAGE));
}

static void records_beside_each_other_share_what_both_name(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BIG);

	start(f, PIN_NONE, NULL);
	assert_int_equal(fx_prefetch_part(f, file, 1, MIB, RECORD), 0);
	assert_int_equal(fx_prefetch_part(f, file, 1, MIB + 2 * RECORD, RECORD), 0);
	assert_int_equal(fx_prefetch_part(f, file, 1, MIB + RECORD / 2, 2 * RECORD), 0);
	wait_for_origin_bytes(f, 3 * RECORD);
	assert_int_equal(fx_gets(f), 3);
}

static void a_record_of_a_pinned_block_brings_all_of_it(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BIG);

	start(f, PIN_ALL, NULL);
	assert_int_equal(fx_prefetch_part(f, file, 1, MIB, RECORD), 0);
	wait_for_puts(1);
	assert_int_equal(fx_origin_bytes(f), BLOCK_BYTES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_pinned_block_is_stored_before_its_reader_comes),
		TEST(one_that_is_not_pinned_waits_for_its_reader_in_memory),
		TEST(bytes_that_were_got_before_a_plan_are_stored_by_it),
		TEST(one_of_an_earlier_pass_is_stored_as_its_reader_would),
		TEST(what_nobody_has_read_yet_is_bounded),
		TEST(a_prefetched_block_that_the_store_does_not_take_is_not_lost),
		TEST(a_block_that_was_not_a_record_is_kept_for_its_last_byte),
		TEST(a_record_is_got_alone_and_once),
		TEST(a_record_is_let_go_of_without_the_pages_at_its_ends),
		TEST(records_beside_each_other_share_what_both_name),
		TEST(a_record_of_a_pinned_block_brings_all_of_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
