/* What a holder may be using at most, through lost messages, silence and masters that come anew. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "master/origin_hold.h"

#define T0 ((int64_t)1000000)

static void in_use(const struct origin_hold *h, int64_t now_ms, double wanted)
{
	if (origin_hold_in_use(h, now_ms) != wanted)
		fail_msg("%g instead of %g", origin_hold_in_use(h, now_ms), wanted);
}

static void what_is_given_is_in_use_from_then_on(void **state)
{
	struct origin_hold h = {.most = 0};

	(void)state;
	in_use(&h, T0, 0);
	origin_hold_heard(&h, 0, 0, T0);
	origin_hold_give(&h, 0.5, 0.25);
	in_use(&h, T0, 0.5);
	/* The reply was lost, as far as it says; it has had time to use what it has now. */
	origin_hold_heard(&h, 0, 0, T0 + 1000);
	in_use(&h, T0 + 1000, 0.5);
	origin_hold_give(&h, 0.5, 0.25);
	origin_hold_heard(&h, 0.5, 0.25, T0 + 2000);
	in_use(&h, T0 + 3000, 0.5);
}

static void silence_leaves_the_base_and_then_nothing(void **state)
{
	struct origin_hold h = {.most = 0};

	(void)state;
	origin_hold_heard(&h, 0, 0, T0);
	origin_hold_give(&h, 0.5, 0.25);
	in_use(&h, T0 + ORIGIN_LEASE_MS + ORIGIN_SETTLE_MS, 0.5);
	in_use(&h, T0 + ORIGIN_LEASE_MS + ORIGIN_SETTLE_MS + 1, 0.25);
	in_use(&h, T0 + ORIGIN_BASE_MS + ORIGIN_SETTLE_MS, 0.25);
	in_use(&h, T0 + ORIGIN_BASE_MS + ORIGIN_SETTLE_MS + 1, 0);
	/* It comes back with the base that it has. */
	origin_hold_heard(&h, 0.25, 0.25, T0 + 20000);
	in_use(&h, T0 + 20000, 0.25);
}

static void less_is_free_once_it_has_settled(void **state)
{
	struct origin_hold h = {.most = 0};

	(void)state;
	origin_hold_heard(&h, 0, 0, T0);
	origin_hold_give(&h, 1, 1);
	origin_hold_heard(&h, 1, 1, T0 + 1000);
	origin_hold_give(&h, 0.5, 0.25);
	in_use(&h, T0 + 1000, 1);
	origin_hold_heard(&h, 1, 1, T0 + 2000); /* the reply was lost */
	origin_hold_give(&h, 0.5, 0.25);
	origin_hold_heard(&h, 0.5, 0.25, T0 + 3000);
	origin_hold_give(&h, 0.5, 0.25);
	in_use(&h, T0 + 3000, 1);
	origin_hold_heard(&h, 0.5, 0.25, T0 + 4000);
	in_use(&h, T0 + 4000, 1);
	origin_hold_heard(&h, 0.5, 0.25, T0 + 3000 + ORIGIN_SETTLE_MS);
	in_use(&h, T0 + 3000 + ORIGIN_SETTLE_MS, 0.5);
	in_use(&h, T0 + 13000 + ORIGIN_SETTLE_MS, 0.25);
}

static void more_that_comes_while_less_settles_is_in_use(void **state)
{
	struct origin_hold h = {.most = 0};

	(void)state;
	origin_hold_heard(&h, 1, 0.5, T0);
	origin_hold_heard(&h, 0.25, 0.125, T0 + 1000);
	origin_hold_give(&h, 0.75, 0.5);
	origin_hold_heard(&h, 0.75, 0.5, T0 + 2000);
	origin_hold_heard(&h, 0.75, 0.5, T0 + 3000);
	in_use(&h, T0 + 3000, 0.75);
}

static void a_new_master_takes_a_holder_at_its_word(void **state)
{
	struct origin_hold h = {.most = 0};

	(void)state;
	origin_hold_heard(&h, 0.4, 0.2, T0);
	in_use(&h, T0, 0.4);
	in_use(&h, T0 + 10000, 0.2);
	/* Or at that of the one before it. */
	h = (struct origin_hold){.most = 0.6, .base = 0.3, .heard_ms = T0};
	in_use(&h, T0 + 1000, 0.6);
	origin_hold_heard(&h, 0.7, 0.35, T0 + 1000);
	in_use(&h, T0 + 1000, 0.7);
}

static void nonsense_is_nothing(void **state)
{
	struct origin_hold h = {.most = 0};

	(void)state;
	origin_hold_heard(&h, -1, 0.0 / 0.0, T0);
	in_use(&h, T0, 0);
	origin_hold_heard(&h, 1.0 / 0.0, -5, T0);
	in_use(&h, T0, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_given_is_in_use_from_then_on),
		cmocka_unit_test(silence_leaves_the_base_and_then_nothing),
		cmocka_unit_test(less_is_free_once_it_has_settled),
		cmocka_unit_test(more_that_comes_while_less_settles_is_in_use),
		cmocka_unit_test(a_new_master_takes_a_holder_at_its_word),
		cmocka_unit_test(nonsense_is_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
