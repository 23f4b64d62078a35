/* The time of a read, divided among what it waited for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fuse/read_waits.h"

#define MS INT64_C(1000000)

static int64_t sum(const struct read_waits *w)
{
	int64_t ns = 0;

	for (int i = 0; i < READ_WAIT_COUNT; i++)
		ns += w->ns[i];
	return ns;
}

static void what_nobody_else_caused_is_the_sources(void **state)
{
	struct read_waits w = {0};

	(void)state;
	read_waits_add(&w, 100 * MS, 60, 30, READ_WAIT_ORIGIN);
	assert_int_equal(w.ns[READ_WAIT_SHARE], 60 * MS);
	assert_int_equal(w.ns[READ_WAIT_PEER], 30 * MS);
	assert_int_equal(w.ns[READ_WAIT_ORIGIN], 10 * MS);
	read_waits_add(&w, 5 * MS, 0, 0, READ_WAIT_DISK);
	assert_int_equal(w.ns[READ_WAIT_DISK], 5 * MS);
	assert_int_equal(sum(&w), 105 * MS);
}

/* Two clocks never agree. */
static void it_is_never_more_than_the_time_that_it_took(void **state)
{
	struct read_waits w = {0};

	(void)state;
	read_waits_add(&w, 50 * MS, 70, 30, READ_WAIT_ORIGIN);
	assert_int_equal(w.ns[READ_WAIT_SHARE], 50 * MS);
	assert_int_equal(sum(&w), 50 * MS);
	read_waits_add(&w, 50 * MS, 30, 70, READ_WAIT_ORIGIN);
	assert_int_equal(w.ns[READ_WAIT_PEER], 20 * MS);
	assert_int_equal(sum(&w), 100 * MS);
	read_waits_add(&w, -1, -5, -5, READ_WAIT_DISK);
	assert_int_equal(sum(&w), 100 * MS);
}

static void every_cause_has_a_name(void **state)
{
	(void)state;
	for (int i = 0; i < READ_WAIT_COUNT; i++)
		assert_non_null(read_wait_name(i));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_nobody_else_caused_is_the_sources),
		cmocka_unit_test(it_is_never_more_than_the_time_that_it_took),
		cmocka_unit_test(every_cause_has_a_name),
	};

	return cmocka_run_group_tests_name("read_waits", tests, NULL, NULL);
}
