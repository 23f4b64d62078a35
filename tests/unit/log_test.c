/* The log of a daemon: bounded whatever is logged, private, and on one line an event. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define LOG_SUBSYSTEM "test"
#include "common/log.h"

#define LINE_BYTES 1500
#define LINES_OF_A_FILE (LOG_FILE_BYTES / LINE_BYTES)

static char dir[] = "/tmp/granary-log-XXXXXX", path[64];

static uint64_t size_of(const char *suffix)
{
	char name[80];
	struct stat st;

	snprintf(name, sizeof(name), "%s%s", path, suffix);
	if (stat(name, &st) < 0)
		return 0;
	assert_int_equal(st.st_mode & 0777, 0600);
	return (uint64_t)st.st_size;
}

static int first_number(const char *suffix)
{
	char name[80], line[LINE_BYTES * 2];
	const char *at;
	FILE *f;

	snprintf(name, sizeof(name), "%s%s", path, suffix);
	f = fopen(name, "r");
	assert_non_null(f);
	assert_non_null(fgets(line, sizeof(line), f));
	fclose(f);
	at = strstr(line, "number ");
	assert_non_null(at);
	return atoi(at + strlen("number "));
}

static void write_lines(int from, int count)
{
	static char filler[LINE_BYTES];

	memset(filler, 'x', sizeof(filler) - 1);
	for (int i = from; i < from + count; i++)
		log_info("number %d %s", i, filler);
}

static void a_file_is_rotated_and_old_ones_go(void **state)
{
	static const char *const kept[] = {"", ".1", ".2", ".3", ".4"};
	int newest = INT32_MAX;

	(void)state;
	assert_int_equal(log_to_file(path, NULL), 0);
	write_lines(0, LINES_OF_A_FILE * 7);
	for (int i = 0; i <= LOG_FILE_KEEP; i++) {
		assert_in_range(size_of(kept[i]), 1, LOG_FILE_BYTES);
		/* Each one is older than the one before. */
		assert_true(first_number(kept[i]) < newest);
		newest = first_number(kept[i]);
	}
	assert_true(newest > 0);
	assert_int_equal(size_of(".5"), 0);
	assert_int_equal(size_of(".new"), 0);
}

static void a_restart_goes_on_in_the_same_file(void **state)
{
	uint64_t before = size_of(""), after;
	int first = first_number("");

	(void)state;
	assert_int_equal(log_to_file(path, NULL), 0);
	write_lines(1000000, 1);
	after = size_of("");
	assert_true(after > before);
	assert_int_equal(first_number(""), first);
	/* What is there counts. */
	write_lines(1000001, LINES_OF_A_FILE);
	assert_in_range(size_of(""), 1, LOG_FILE_BYTES);
	assert_int_equal(first_number(".1"), first);
}

static void a_file_that_cannot_be_rotated_is_bounded_too(void **state)
{
	char obstacle[80];

	(void)state;
	snprintf(obstacle, sizeof(obstacle), "%s.new", path);
	assert_int_equal(mkdir(obstacle, 0700), 0);
	write_lines(2000000, LINES_OF_A_FILE * 2);
	assert_in_range(size_of(""), 1, LOG_FILE_BYTES);
	rmdir(obstacle);
}

static void an_event_is_one_line(void **state)
{
	char line[200], name[80];
	FILE *f;

	(void)state;
	snprintf(name, sizeof(name), "%s-lines", path);
	assert_int_equal(log_to_file(name, NULL), 0);
	log_warn("a name with \n and \x1b[31m");
	log_debug("not at this level");
	f = fopen(name, "r");
	assert_non_null(f);
	assert_non_null(fgets(line, sizeof(line), f));
	assert_non_null(strstr(line, "Z warn test: a name with \\x0a and \\x1b[31m\n"));
	assert_null(fgets(line, sizeof(line), f));
	fclose(f);
	unlink(name);
}

static void a_place_that_is_none_is_refused(void **state)
{
	struct error err = ERROR_INIT;

	(void)state;
	assert_true(log_to_file("/no/such/directory/log", &err) < 0);
	assert_non_null(strstr(err.text, "/no/such/directory/log"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_file_is_rotated_and_old_ones_go),
		cmocka_unit_test(a_restart_goes_on_in_the_same_file),
		cmocka_unit_test(a_file_that_cannot_be_rotated_is_bounded_too),
		cmocka_unit_test(an_event_is_one_line),
		cmocka_unit_test(a_place_that_is_none_is_refused),
	};
	int failed;

	if (!mkdtemp(dir))
		return 1;
	snprintf(path, sizeof(path), "%s/log", dir);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	for (int i = 0; i <= LOG_FILE_KEEP; i++) {
		char name[80];

		snprintf(name, sizeof(name), i ? "%s.%d" : "%s", path, i);
		unlink(name);
	}
	rmdir(dir);
	return failed;
}
