#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "master/filter.h"

/* One include pattern, one path. */
static bool matches(const char *pattern, const char *path)
{
	char *include[] = {(char *)pattern};
	struct error err = ERROR_INIT;
	struct filter *f;
	bool keeps;

	if (filter_new(include, 1, NULL, 0, &f, &err) < 0)
		fail_msg("%s", err.text);
	keeps = filter_keeps(f, path, strlen(path));
	filter_free(f);
	return keeps;
}

static void a_star_stays_within_a_component(void **state)
{
	(void)state;
	assert_true(matches("train/*.jpg", "train/cat.jpg"));
	assert_false(matches("train/*.jpg", "train/cats/cat.jpg"));
	assert_false(matches("train/*.jpg", "test/cat.jpg"));
	assert_false(matches("train/*.jpg", "old/train/cat.jpg"));
	assert_true(matches("*/x", "a/x"));
	assert_false(matches("*/x", "a/b/x"));
	assert_true(matches("[ab]?/x", "ac/x"));
	assert_false(matches("[ab]?/x", "cc/x"));
}

static void two_stars_cross_components(void **state)
{
	(void)state;
	assert_true(matches("a/**/x", "a/x"));
	assert_true(matches("a/**/x", "a/b/x"));
	assert_true(matches("a/**/x", "a/b/c/x"));
	assert_false(matches("a/**/x", "b/a/x"));
	assert_true(matches("**/x", "x"));
	assert_true(matches("**/x", "a/b/x"));
	assert_true(matches("a/**", "a/b/c"));
	assert_false(matches("a/**", "a"));
	assert_true(matches("**/a/*/c", "a/a/a/b/c"));
	assert_true(matches("**", "anything/at/all"));
}

static void a_pattern_without_a_slash_matches_names_anywhere(void **state)
{
	(void)state;
	assert_true(matches("*.jpg", "cat.jpg"));
	assert_true(matches("*.jpg", "a/b/cat.jpg"));
	assert_false(matches("*.jpg", "cat.jpgs"));
	assert_true(matches("tmp", "a/tmp/x"));
	assert_true(matches("*", ".hidden"));
}

static void a_slash_in_front_anchors(void **state)
{
	(void)state;
	assert_true(matches("/tmp", "tmp/x"));
	assert_false(matches("/tmp", "a/tmp"));
}

static void a_slash_behind_matches_directories_only(void **state)
{
	(void)state;
	assert_true(matches("tmp/", "tmp/x"));
	assert_true(matches("tmp/", "a/tmp/x"));
	assert_false(matches("tmp/", "tmp"));
	assert_false(matches("tmp/", "a/tmp"));
	assert_true(matches("a/tmp/", "a/tmp/b/c"));
}

static void a_directory_that_matches_takes_what_is_below(void **state)
{
	(void)state;
	assert_true(matches("train", "train/a/b"));
	assert_true(matches("a/b", "a/b/c/d"));
	assert_false(matches("a/b", "a/bc"));
}

static void exclude_wins_over_include(void **state)
{
	const char *include[] = {"train/", "*.txt"}, *exclude[] = {"*.tmp", "/train/old/"};
	struct error err = ERROR_INIT;
	struct filter *f;

	(void)state;
	assert_int_equal(filter_new((char **)include, 2, (char **)exclude, 2, &f, &err), 0);
	assert_true(filter_keeps(f, "train/a", 7));
	assert_true(filter_keeps(f, "x/a.txt", 7));
	assert_false(filter_keeps(f, "train/a.tmp", 11));
	assert_false(filter_keeps(f, "train/old/a", 11));
	assert_false(filter_keeps(f, "test/a", 6));
	filter_free(f);
}

static void names_are_bytes(void **state)
{
	(void)state;
	assert_true(matches("*.bin", "a\xff\n.bin"));
	assert_true(matches("?", "\xff"));
}

static void patterns_that_make_no_sense_are_refused(void **state)
{
	static const char *const bad[] = {"", "/", "a//b", "//a", "a//"};
	char many_text[] = "x", *many[FILTER_PATTERNS_MAX + 1];
	struct error err;
	struct filter *f = NULL;
	char *longest = calloc(1, FILTER_PATTERN_MAX_BYTES + 2);

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char *include[] = {(char *)bad[i]};

		err.text[0] = '\0';
		assert_int_equal(filter_new(include, 1, NULL, 0, &f, &err), -EINVAL);
		assert_true(err.text[0] != '\0');
	}
	memset(longest, 'a', FILTER_PATTERN_MAX_BYTES + 1);
	assert_int_equal(filter_new(NULL, 0, &longest, 1, &f, &err), -EINVAL);
	free(longest);
	for (size_t i = 0; i <= FILTER_PATTERNS_MAX; i++)
		many[i] = many_text;
	assert_int_equal(filter_new(many, FILTER_PATTERNS_MAX + 1, NULL, 0, &f, &err), -EINVAL);
	assert_null(f);
}

static void a_path_of_every_length_and_depth_is_judged(void **state)
{
	char *deep = calloc(1, 4200);

	(void)state;
	for (size_t i = 0; i < 255; i++)
		strcat(deep, i ? "/d" : "d");
	assert_true(matches("d/**/d", deep));
	assert_false(matches("**/e", deep));
	memset(deep, 'x', 4095);
	deep[4095] = '\0';
	assert_true(matches("x*", deep));
	free(deep);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_star_stays_within_a_component),
		cmocka_unit_test(two_stars_cross_components),
		cmocka_unit_test(a_pattern_without_a_slash_matches_names_anywhere),
		cmocka_unit_test(a_slash_in_front_anchors),
		cmocka_unit_test(a_slash_behind_matches_directories_only),
		cmocka_unit_test(a_directory_that_matches_takes_what_is_below),
		cmocka_unit_test(exclude_wins_over_include),
		cmocka_unit_test(names_are_bytes),
		cmocka_unit_test(patterns_that_make_no_sense_are_refused),
		cmocka_unit_test(a_path_of_every_length_and_depth_is_judged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
