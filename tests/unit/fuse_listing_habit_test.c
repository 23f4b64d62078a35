#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fuse/listing_habit.h"

static void look_up(struct listing_habits *h, pid_t pid, unsigned times)
{
	while (times-- > 0)
		listing_habit_looked_up(h, pid);
}

static void the_first_piece_of_a_process_has_attributes(void **state)
{
	struct listing_habits h = {0};

	(void)state;
	assert_true(listing_habit_wants_attributes(&h, 7, true));
	assert_false(listing_habit_wants_attributes(&h, 7, false));
	listing_habit_listed(&h, 7, 0); /* its end */
	assert_true(listing_habit_wants_attributes(&h, 7, true));
	assert_false(listing_habit_wants_attributes(&h, 7, false));
	listing_habit_listed(&h, 7, 1000);
	assert_false(listing_habit_wants_attributes(&h, 7, true));
}

static void who_looks_at_what_was_listed_gets_it_with_the_next(void **state)
{
	struct listing_habits h = {0};

	(void)state;
	listing_habit_listed(&h, 7, 1000);
	look_up(&h, 7, 249);
	assert_false(listing_habit_wants_attributes(&h, 7, true));
	look_up(&h, 7, 1);
	assert_true(listing_habit_wants_attributes(&h, 7, true));
	assert_true(listing_habit_wants_attributes(&h, 7, false));
}

static void processes_have_habits_of_their_own(void **state)
{
	struct listing_habits h = {0};

	(void)state;
	listing_habit_listed(&h, 7, 100);
	listing_habit_listed(&h, 8, 100);
	look_up(&h, 8, 100);
	look_up(&h, 9, 100); /* who has listed nothing has none */
	assert_false(listing_habit_wants_attributes(&h, 7, true));
	assert_true(listing_habit_wants_attributes(&h, 8, true));
	/* Of the same slot: the newer one counts. */
	listing_habit_listed(&h, 8 + LISTING_HABITS, 100);
	assert_false(listing_habit_wants_attributes(&h, 8 + LISTING_HABITS, true));
	assert_true(listing_habit_wants_attributes(&h, 8, true));
	assert_false(listing_habit_wants_attributes(&h, 8, false));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_piece_of_a_process_has_attributes),
		cmocka_unit_test(who_looks_at_what_was_listed_gets_it_with_the_next),
		cmocka_unit_test(processes_have_habits_of_their_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
