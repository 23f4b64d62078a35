#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fuse/file_sequence.h"

static int setup(void **state)
{
	struct file_sequence *s = malloc(sizeof(*s));

	file_sequence_init(s);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	file_sequence_deinit(*state);
	free(*state);
	return 0;
}

/* Reads `count` files and checks that those behind are named once, in order; how many were named. */
static uint32_t read_files(
	struct file_sequence *s, uint32_t first, uint32_t step, uint32_t count, uint32_t *next)
{
	uint32_t named = 0;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t index = first + i * step;
		struct file_sequence_advice a = file_sequence_note(s, 0, index, true);

		if (a.count == 0)
			continue;
		assert_int_equal(a.step, step);
		assert_true(a.first > index);
		if (*next)
			assert_int_equal(a.first, *next);
		*next = a.first + a.count * step;
		assert_true(*next <= index + (FILE_SEQUENCE_AHEAD + 1) * step);
		named += a.count;
	}
	return named;
}

static void files_in_order_are_named_ahead(void **state)
{
	uint32_t next = 0;

	assert_int_equal(read_files(*state, 100, 1, FILE_SEQUENCE_FEW, &next), 0);
	assert_in_range(read_files(*state, 100 + FILE_SEQUENCE_FEW, 1, 200, &next), 190, 240);
	assert_int_equal(next, 100 + FILE_SEQUENCE_FEW + 200 + FILE_SEQUENCE_AHEAD);
}

static void so_are_every_second_and_readers_beside_each_other(void **state)
{
	uint32_t next[3] = {0}, named[3] = {0};

	for (uint32_t i = 0; i < 100; i++)
		for (uint32_t r = 0; r < 3; r++)
			named[r] += read_files(
				*state, 1000 * (r + 1) + i * (r + 1), r + 1, 1, &next[r]);
	for (int r = 0; r < 3; r++)
		assert_true(named[r] >= 90);
}

static void random_files_are_not(void **state)
{
	unsigned seed = 1, named = 0;

	for (int i = 0; i < 20000; i++)
		named +=
			file_sequence_note(*state, 0, (uint32_t)(rand_r(&seed) % 5000), true).count;
	assert_true(named < 200); /* 1 % */
}

static void what_is_in_the_store_is_not_named_for_long(void **state)
{
	unsigned named = 0;

	for (uint32_t i = 0; i < 1000; i++)
		named += file_sequence_note(*state, 0, i, false).count;
	assert_int_equal(named, 0);
	named += file_sequence_note(*state, 0, 1000, true).count;
	assert_int_equal(named, FILE_SEQUENCE_AHEAD);
	for (uint32_t i = 1001; i < 2000; i++)
		named += file_sequence_note(*state, 0, i, false).count;
	assert_in_range(named, FILE_SEQUENCE_CREDIT, FILE_SEQUENCE_CREDIT + FILE_SEQUENCE_AHEAD);
}

static void another_snapshot_and_the_last_number_are_no_way_on(void **state)
{
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(file_sequence_note(*state, i, 10 + i, true).count, 0);
	for (uint32_t i = UINT32_MAX - 20; i < UINT32_MAX; i++)
		assert_int_equal(file_sequence_note(*state, 0, i, true).count, 0);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(files_in_order_are_named_ahead),
		TEST(so_are_every_second_and_readers_beside_each_other),
		TEST(random_files_are_not),
		TEST(what_is_in_the_store_is_not_named_for_long),
		TEST(another_snapshot_and_the_last_number_are_no_way_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
