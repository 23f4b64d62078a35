#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
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

/* The definition, name by name: a path of the same depth comes first if its first different name
 * does. */
static int compare_by_names(const char *a, const char *b)
{
	while (*a && *b) {
		size_t a_len = strcspn(a, "/"), b_len = strcspn(b, "/");
		int order = memcmp(a, b, a_len < b_len ? a_len : b_len);

		if (order != 0 || a_len != b_len)
			return order != 0 ? order : a_len < b_len ? -1 : 1;
		a += a_len + (a[a_len] == '/');
		b += b_len + (b[b_len] == '/');
	}
	return 0;
}

static void random_path(char *path, size_t levels)
{
	static const char bytes[] = "a\x01\xff.";

	for (size_t l = 0; l < levels; l++) {
		if (l > 0)
			*path++ = '/';
		for (size_t n = 1 + (size_t)random() % 12; n > 0; n--)
			*path++ = bytes[random() % (random() % 8 ? 1 : 4)];
	}
	*path = '\0';
}

static void random_paths_compare_as_their_names_do(void **state)
{
	(void)state;
	srandom(7);
	for (int i = 0; i < 100000; i++) {
		size_t levels = 1 + (size_t)random() % 4;
		char a[128], b[128];
		int order, want;

		random_path(a, levels);
		random_path(b, levels);
		order = compare(a, b);
		want = compare_by_names(a, b);
		assert_int_equal((order > 0) - (order < 0), (want > 0) - (want < 0));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_of_any_bytes_are_fine),
		cmocka_unit_test(flaws_are_named),
		cmocka_unit_test(bounds_of_length_and_depth_are_exact),
		cmocka_unit_test(the_order_is_depth_then_bytes_with_slash_lowest),
		cmocka_unit_test(random_paths_compare_as_their_names_do),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
