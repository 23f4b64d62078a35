#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "manifest/manifest_builder.h"

static enum manifest_path_flaw check(const char *path)
{
	return manifest_path_check(path, strlen(path));
}

static int compare(const char *a, const char *b)
{
	return manifest_path_compare(a, strlen(a), b, strlen(b));
}

static void names_of_any_bytes_are_fine(void **state)
{
	(void)state;
	assert_int_equal(check("a"), MANIFEST_PATH_OK);
	assert_int_equal(check("a/b c/\n\t"), MANIFEST_PATH_OK);
	assert_int_equal(check("\xff\xfe/\x01"), MANIFEST_PATH_OK);
	assert_int_equal(check(".../..a/.b/c..d/-"), MANIFEST_PATH_OK);
	assert_int_equal(check("\\/*?"), MANIFEST_PATH_OK);
}

static void flaws_are_named(void **state)
{
	(void)state;
	assert_int_equal(check(""), MANIFEST_PATH_EMPTY);
	assert_int_equal(check("a//b"), MANIFEST_PATH_EMPTY);
	assert_int_equal(check("a/"), MANIFEST_PATH_EMPTY);
	assert_int_equal(check("/a"), MANIFEST_PATH_ABSOLUTE);
	assert_int_equal(check("/"), MANIFEST_PATH_ABSOLUTE);
	assert_int_equal(check("."), MANIFEST_PATH_DOTS);
	assert_int_equal(check(".."), MANIFEST_PATH_DOTS);
	assert_int_equal(check("a/../b"), MANIFEST_PATH_DOTS);
	assert_int_equal(check("a/."), MANIFEST_PATH_DOTS);
	assert_int_equal(manifest_path_check("a\0b", 3), MANIFEST_PATH_NUL);
	for (int f = MANIFEST_PATH_OK; f <= MANIFEST_PATH_DEEP; f++)
		assert_string_not_equal(
			manifest_path_flaw_text((enum manifest_path_flaw)f), "unknown");
}

static void bounds_of_length_and_depth_are_exact(void **state)
{
	static char path[5000];

	(void)state;
	memset(path, 'x', sizeof(path));
	assert_int_equal(manifest_path_check(path, 255), MANIFEST_PATH_OK);
	assert_int_equal(manifest_path_check(path, 256), MANIFEST_PATH_LONG);
	for (size_t s = 255; s < sizeof(path); s += 256)
		path[s] = '/';
	assert_int_equal(manifest_path_check(path, 4095), MANIFEST_PATH_OK);
	path[4095] = 'x';
	assert_int_equal(manifest_path_check(path, 4096), MANIFEST_PATH_LONG);
	memset(path, 'x', sizeof(path));
	for (size_t s = 1; s < sizeof(path); s += 2)
		path[s] = '/';
	assert_int_equal(manifest_path_check(path, 2 * 255 - 1), MANIFEST_PATH_OK);
	assert_int_equal(manifest_path_check(path, 2 * 256 - 1), MANIFEST_PATH_DEEP);
}

static void the_order_is_depth_then_bytes_with_slash_lowest(void **state)
{
	static const char *const sorted[] = {"a", "a\x01", "a b", "b", "\x7f", "\x80", "\xff",
		"a/b", "a/b\x01", "a/c", "a\x01/a", "a b/a", "b/a", "\xff/a", "a/b/a", "a/b\x01/a",
		"a/c/a", "b/a/a"};
	size_t count = sizeof(sorted) / sizeof(sorted[0]);

	(void)state;
	for (size_t i = 0; i < count; i++) {
		for (size_t j = 0; j < count; j++) {
			int order = compare(sorted[i], sorted[j]);

			assert_int_equal((order > 0) - (order < 0), (i > j) - (i < j));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_of_any_bytes_are_fine),
		cmocka_unit_test(flaws_are_named),
		cmocka_unit_test(bounds_of_length_and_depth_are_exact),
		cmocka_unit_test(the_order_is_depth_then_bytes_with_slash_lowest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
