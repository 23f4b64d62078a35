#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fuse/brought_ahead.h"
#include "manifest/block.h"

static struct brought_ahead b;

static int setup(void **state)
{
	(void)state;
	b = (struct brought_ahead){0};
	return 0;
}

static void a_small_file_counts_once(void **state)
{
	(void)state;
	brought_ahead_note(&b, 7, 0);
	assert_false(brought_ahead_read(&b, 8, 0, 1000, 1000));
	assert_true(brought_ahead_has(&b, 7, 0));
	assert_false(brought_ahead_has(&b, 7, 1));
	assert_true(brought_ahead_read(&b, 7, 0, 1000, 1000));
	assert_false(brought_ahead_read(&b, 7, 0, 1000, 1000));
}

static void a_block_counts_until_its_last_byte_is_read(void **state)
{
	uint64_t size = BLOCK_BYTES + 5000;

	(void)state;
	brought_ahead_note(&b, 7, 0);
	brought_ahead_note(&b, 7, 1);
	assert_true(brought_ahead_read(&b, 7, 0, 1 << 20, size));
	assert_true(brought_ahead_read(&b, 7, BLOCK_BYTES - (1 << 20), 1 << 20, size));
	assert_false(brought_ahead_read(&b, 7, 0, 1 << 20, size));
	assert_true(brought_ahead_read(&b, 7, BLOCK_BYTES, 4000, size));
	assert_true(brought_ahead_read(&b, 7, BLOCK_BYTES + 4000, 1000, size));
	assert_false(brought_ahead_read(&b, 7, BLOCK_BYTES, 5000, size));
}

static void what_was_stored_is_forgotten(void **state)
{
	(void)state;
	brought_ahead_note(&b, 7, 3);
	brought_ahead_forget(&b, 7, 4);
	assert_true(brought_ahead_read(&b, 7, 3 * BLOCK_BYTES, 1, UINT64_MAX / 2));
	brought_ahead_forget(&b, 7, 3);
	assert_false(brought_ahead_read(&b, 7, 3 * BLOCK_BYTES, 1, UINT64_MAX / 2));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_small_file_counts_once, setup),
		cmocka_unit_test_setup(a_block_counts_until_its_last_byte_is_read, setup),
		cmocka_unit_test_setup(what_was_stored_is_forgotten, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
