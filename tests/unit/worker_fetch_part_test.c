/* A small part of a pinned block, and the rest behind it. The store is a fake one. */
#include "tests/unit/worker_fetch_fixture.h"

static void a_small_part_comes_before_the_rest_of_its_block(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BIG);
	struct fx_read q = {.file = file, .block = 1, .offset = 3 * MIB + 7, .len = 100000};
	struct fx_read before = {.file = file, .block = 1, .offset = MIB, .len = MIB};
	int64_t began_ms = clock_mono_ms(), part_ms;

	start(f, PIN_ALL, NULL);
	/* The first get is short, the others take their time. */
	mem_store_add_fault(f->mem,
		&(struct mem_fault){.kind = MEM_DELAY, .ops = MEM_GET, .skip = 1, .ms = 1000});
	assert_int_equal(fx_read(f, &q), 0);
	part_ms = clock_mono_ms() - began_ms;
	assert_int_equal(fx_read(f, &before), 0);
	assert_true(part_ms < 1000);
	assert_true(clock_mono_ms() - began_ms >= 2000);
	wait_for_puts(1);
	assert_int_equal(fx_gets(f), 3);
	assert_int_equal(fx_origin_bytes(f), BLOCK_BYTES);
}

/* Parts of as many blocks as may be begun, each of a file of its own; then readers of all the
 * rests, most of which wait for their turn. */
static void a_rest_that_somebody_waits_for_is_not_left_to_its_turn(void **state)
{
	enum { BLOCKS = FILL_QUEUE_MOST };
	struct fx *f = *state;
	struct reader readers[BLOCKS];
	char name[16];

	for (int i = 0; i < BLOCKS; i++) {
		snprintf(name, sizeof(name), "%02d", i);
		readers[i].q = (struct fx_read){
			.file = fx_add(f, name, BLOCK_BYTES), .offset = 2 * MIB, .len = MIB};
		/* Its first get is short, the others take their time. */
		mem_store_add_fault(f->mem, &(struct mem_fault){.kind = MEM_DELAY,
						    .ops = MEM_GET,
						    .path = name,
						    .skip = 1,
						    .ms = 2000});
	}
	start(f, PIN_ALL, NULL);
	for (int i = 0; i < BLOCKS; i++)
		assert_int_equal(fx_read(f, &readers[i].q), 0);
	/* A get counts until a moment after its reader has its last byte. */
	assert_in_range(mem_store_counts(f->mem).gets_at_once_max, 1, FILL_QUEUE_AT_ONCE + 2);
	for (int i = 0; i < BLOCKS; i++) {
		readers[i].q.offset = MIB;
		reader_start(&readers[i], f);
	}
	for (int i = 0; i < BLOCKS; i++) {
		pthread_join(readers[i].thread, NULL);
		assert_int_equal(readers[i].result, 0);
	}
	assert_true(mem_store_counts(f->mem).gets_at_once_max > 2 * FILL_QUEUE_AT_ONCE);
	wait_for_puts(BLOCKS);
	assert_int_equal(fx_origin_bytes(f), BLOCKS * BLOCK_BYTES);
}

static void more_parts_than_may_be_begun_come_with_their_blocks(void **state)
{
	enum { BLOCKS = FILL_QUEUE_MOST + 4 };
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BLOCKS * BLOCK_BYTES);
	struct reader readers[BLOCKS];

	start(f, PIN_ALL, NULL);
	mem_store_add_fault(
		f->mem, &(struct mem_fault){.kind = MEM_DELAY, .ops = MEM_GET, .ms = 300});
	for (uint64_t i = 0; i < BLOCKS; i++) {
		readers[i].q =
			(struct fx_read){.file = file, .block = i, .offset = MIB, .len = 100000};
		reader_start(&readers[i], f);
	}
	for (int i = 0; i < BLOCKS; i++) {
		pthread_join(readers[i].thread, NULL);
		assert_int_equal(readers[i].result, 0);
	}
	wait_for_puts(BLOCKS);
	assert_int_equal(fx_gets(f), 3 * FILL_QUEUE_MOST + 4);
	assert_int_equal(fx_origin_bytes(f), file->size);
}

static void a_part_that_fails_leaves_the_block_to_the_next_reader(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BIG);
	struct fx_read q = {.file = file, .offset = MIB, .len = 4096};

	start(f, PIN_ALL, NULL);
	mem_store_add_fault(
		f->mem, &(struct mem_fault){.kind = MEM_FAIL_FATAL, .ops = MEM_GET, .count = 1});
	assert_int_not_equal(fx_read(f, &q), 0);
	assert_int_equal(fx_read(f, &q), 0);
	wait_for_puts(1);
}

/* Each get costs all that is before it, so only the first one finds that out. */
static void an_origin_without_ranges_sends_blocks_whole(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BIG);
	struct fx_read q = {.file = file, .offset = MIB, .len = 4096};

	start(f, PIN_ALL, NULL);
	mem_store_set_undivided(f->mem);
	for (; q.block < 3; q.block++) {
		assert_int_equal(fx_read(f, &q), 0);
		wait_for_puts((unsigned)q.block + 1);
	}
	assert_int_equal(fx_gets(f), 3 + 1 + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_small_part_comes_before_the_rest_of_its_block),
		TEST(a_rest_that_somebody_waits_for_is_not_left_to_its_turn),
		TEST(more_parts_than_may_be_begun_come_with_their_blocks),
		TEST(a_part_that_fails_leaves_the_block_to_the_next_reader),
		TEST(an_origin_without_ranges_sends_blocks_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
