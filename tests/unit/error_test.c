/* Texts of failures: whatever is long in them, what it is about and the cause are there. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/error.h"

#define LONG_BYTES 9000

static char long_path[LONG_BYTES + 1];

static bool begins(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

static bool ends(const char *text, const char *with)
{
	size_t len = strlen(text), end = strlen(with);

	return len >= end && strcmp(text + len - end, with) == 0;
}

static void check_cut(const char *text, size_t room, const char *want)
{
	char got[64], same[64];

	memset(got, '#', sizeof(got));
	error_cut(got, room, text, strlen(text));
	assert_string_equal(got, want);
	assert_true(got[room] == '#');
	strcpy(same, text);
	error_cut(same, room, same, strlen(same));
	assert_string_equal(same, want);
}

static void what_fits_is_left_alone(void **state)
{
	(void)state;
	check_cut("", 16, "");
	check_cut("a/b/c", 6, "a/b/c");
	check_cut("train/01/x.jpg", 15, "train/01/x.jpg");
}

static void what_does_not_loses_its_middle(void **state)
{
	(void)state;
	check_cut("train/0123456/x.jpg", 16, "trai...56/x.jpg");
	check_cut("abcdefgh", 8, "a...fgh");
	check_cut("abcdefgh", 4, "...");
}

static void sequences_of_utf8_stay_whole(void **state)
{
	(void)state;
	/* Room for 4 and 8 bytes: both would begin or end within a letter of two. */
	check_cut("a\xc3\xa4\xc3\xb6\xc3\xbc/0123456/\xc3\xa4xyz.jpg", 16, "a\xc3\xa4...xyz.jpg");
	/* What is none is cut like any other bytes, not away altogether. */
	check_cut("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", 16,
		"\x80...\x80\x80\x80\x80\x80");
}

static void a_long_path_hides_neither_the_subject_nor_the_cause(void **state)
{
	struct error err;

	(void)state;
	assert_int_equal(error_set(&err, -EIO, "read %s: HTTP 503", long_path), -EIO);
	assert_int_equal(strlen(err.text), ERROR_TEXT_BYTES - 1);
	assert_true(begins(err.text, "read ddd"));
	assert_true(ends(err.text, "ddd: HTTP 503"));
	assert_int_equal(error_set_errno(&err, -ENOENT, "open %s", long_path), -ENOENT);
	assert_true(begins(err.text, "open ddd"));
	assert_true(ends(err.text, "ddd: No such file or directory"));
}

static void prefixes_do_not_push_the_cause_out(void **state)
{
	struct error err;

	(void)state;
	error_set(&err, -EIO, "read %.300s: the cause", long_path);
	for (int i = 0; i < 10; i++)
		assert_int_equal(error_prefix(&err, -EAGAIN, "%d %.200s", i, long_path), -EAGAIN);
	assert_true(begins(err.text, "9 ddd"));
	assert_true(ends(err.text, "ddd: the cause"));
	/* One that is longer than anything can be. */
	for (int i = 0; i < 2; i++)
		error_prefix(&err, -EAGAIN, "%s%s%s", long_path, long_path, long_path);
	assert_true(begins(err.text, "ddd"));
	assert_true(ends(err.text, ": the cause"));
}

static void short_texts_are_put_together_as_they_are(void **state)
{
	struct error err;

	(void)state;
	error_set_errno(&err, -ENOENT, "open %s", "x");
	error_prefix(&err, -ENOENT, "worker %d", 7);
	assert_string_equal(err.text, "worker 7: open x: No such file or directory");
	assert_int_equal(error_set(NULL, -EIO, "nobody asks"), -EIO);
	/* A text may be made of the one before. */
	error_set(&err, -EIO, "again: %s", err.text);
	assert_string_equal(err.text, "again: worker 7: open x: No such file or directory");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_fits_is_left_alone),
		cmocka_unit_test(what_does_not_loses_its_middle),
		cmocka_unit_test(sequences_of_utf8_stay_whole),
		cmocka_unit_test(a_long_path_hides_neither_the_subject_nor_the_cause),
		cmocka_unit_test(prefixes_do_not_push_the_cause_out),
		cmocka_unit_test(short_texts_are_put_together_as_they_are),
	};

	memset(long_path, 'd', LONG_BYTES);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
