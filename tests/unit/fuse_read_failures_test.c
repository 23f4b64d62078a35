#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fuse/read_failures.h"
#include "manifest/block.h"

#define NOW_MS ((int64_t)1000000)
#define SLOW_MS (NOW_MS - 60000)

static int setup(void **state)
{
	struct read_failures *f = malloc(sizeof(*f));

	read_failures_init(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	read_failures_deinit(*state);
	free(*state);
	return 0;
}

static void a_slow_failure_fails_its_block_for_a_moment(void **state)
{
	read_failures_note(*state, 7, BLOCK_BYTES + 5, SLOW_MS, NOW_MS);
	assert_true(read_failures_recent(*state, 7, BLOCK_BYTES, NOW_MS));
	assert_true(read_failures_recent(
		*state, 7, 2 * BLOCK_BYTES - 1, NOW_MS + READ_FAILURES_MS - 1));
	assert_false(read_failures_recent(*state, 7, BLOCK_BYTES, NOW_MS + READ_FAILURES_MS));
}

static void other_blocks_and_files_are_tried(void **state)
{
	read_failures_note(*state, 7, BLOCK_BYTES, SLOW_MS, NOW_MS);
	assert_false(read_failures_recent(*state, 7, 0, NOW_MS));
	assert_false(read_failures_recent(*state, 7, 2 * BLOCK_BYTES, NOW_MS));
	for (uint64_t ino = 0; ino < 10000; ino++) {
		if (ino != 7)
			assert_false(read_failures_recent(*state, ino, BLOCK_BYTES, NOW_MS));
	}
}

static void a_quick_failure_is_not_remembered(void **state)
{
	read_failures_note(*state, 7, 0, NOW_MS - READ_FAILURES_SLOW_MS + 1, NOW_MS);
	assert_false(read_failures_recent(*state, 7, 0, NOW_MS));
}

static void many_failures_take_no_more_room(void **state)
{
	for (uint64_t ino = 1; ino <= 100000; ino++) {
		read_failures_note(*state, ino, 0, SLOW_MS, NOW_MS);
		assert_true(read_failures_recent(*state, ino, 0, NOW_MS));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_slow_failure_fails_its_block_for_a_moment, setup, teardown),
		cmocka_unit_test_setup_teardown(other_blocks_and_files_are_tried, setup, teardown),
		cmocka_unit_test_setup_teardown(a_quick_failure_is_not_remembered, setup, teardown),
		cmocka_unit_test_setup_teardown(many_failures_take_no_more_room, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
