#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/buf.h"

static void appended_bytes_are_kept_and_terminated(void **state)
{
	cleanup_buf struct buf b = BUF_INIT;

	(void)state;
	for (int i = 0; i < 1000; i++)
		assert_int_equal(buf_append(&b, "ab", 2), 0);
	assert_int_equal(b.len, 2000);
	assert_int_equal(strlen(b.data), 2000);
	assert_int_equal(buf_printf(&b, "%d-%s", 7, "x"), 0);
	assert_string_equal(b.data + 2000, "7-x");
}

static void growth_past_the_bound_is_refused_and_changes_nothing(void **state)
{
	cleanup_buf struct buf b = BUF_INIT;

	(void)state;
	assert_int_equal(buf_append_str(&b, "kept"), 0);
	assert_int_equal(buf_reserve(&b, BUF_MAX_BYTES), -ENOMEM);
	assert_int_equal(buf_reserve(&b, SIZE_MAX), -ENOMEM);
	assert_string_equal(b.data, "kept");
}

static void an_empty_buf_is_taken_as_an_empty_string(void **state)
{
	struct buf b = BUF_INIT;
	char *taken = buf_take(&b);

	(void)state;
	assert_string_equal(taken, "");
	free(taken);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(appended_bytes_are_kept_and_terminated),
		cmocka_unit_test(growth_past_the_bound_is_refused_and_changes_nothing),
		cmocka_unit_test(an_empty_buf_is_taken_as_an_empty_string),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
