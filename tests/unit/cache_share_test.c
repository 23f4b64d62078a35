#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scheduler/cache_share.h"

#define NONE CACHE_SHARE_UNLIMITED

static void quotas_are_granted_first_and_in_full(void **state)
{
	struct cache_share s[] = {
		{.dataset_bytes = 1000, .quota_bytes = NONE, .mounted = true},
		{.dataset_bytes = 1000, .quota_bytes = 600},
		{.dataset_bytes = 100, .quota_bytes = 200, .mounted = true},
	};

	(void)state;
	assert_int_equal(cache_share_solve(s, 3, 1000), 0);
	assert_int_equal(s[0].granted_bytes, 300);
	assert_int_equal(s[1].granted_bytes, 600);
	assert_int_equal(s[2].granted_bytes, 100);
}

static void quotas_past_the_capacity_are_cut_in_order(void **state)
{
	struct cache_share s[] = {
		{.dataset_bytes = 1000, .quota_bytes = 700},
		{.dataset_bytes = 1000, .quota_bytes = 700},
		{.dataset_bytes = 1000, .quota_bytes = 700},
		{.dataset_bytes = 1000, .quota_bytes = NONE, .mounted = true},
	};

	(void)state;
	assert_int_equal(cache_share_solve(s, 4, 1000), 0);
	assert_int_equal(s[0].granted_bytes, 700);
	assert_int_equal(s[1].granted_bytes, 300);
	assert_int_equal(s[2].granted_bytes, 0);
	assert_int_equal(s[3].granted_bytes, 0);
}

static void the_smallest_is_satisfied_first_and_the_rest_is_even(void **state)
{
	struct cache_share s[] = {
		{.dataset_bytes = 5000, .quota_bytes = NONE, .mounted = true},
		{.dataset_bytes = 100, .quota_bytes = NONE, .mounted = true},
		{.dataset_bytes = 9000, .quota_bytes = NONE, .mounted = true},
	};

	(void)state;
	assert_int_equal(cache_share_solve(s, 3, 1101), 0);
	assert_int_equal(s[1].granted_bytes, 100);
	assert_int_equal(s[0].granted_bytes, 501);
	assert_int_equal(s[2].granted_bytes, 500);
}

static void the_unmounted_get_what_the_mounted_leave(void **state)
{
	struct cache_share s[] = {
		{.dataset_bytes = 800, .quota_bytes = NONE},
		{.dataset_bytes = 300, .quota_bytes = NONE, .mounted = true},
		{.dataset_bytes = 50, .quota_bytes = NONE},
	};

	(void)state;
	assert_int_equal(cache_share_solve(s, 3, 400), 0);
	assert_int_equal(s[0].granted_bytes, 50);
	assert_int_equal(s[1].granted_bytes, 300);
	assert_int_equal(s[2].granted_bytes, 50);
	assert_int_equal(cache_share_solve(s, 3, 2000), 850);
	assert_int_equal(cache_share_solve(s, 0, 2000), 2000);
}

static void sizes_whose_sum_overflows_are_shared_all_the_same(void **state)
{
	struct cache_share s[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		s[i] = (struct cache_share){
			.dataset_bytes = UINT64_MAX, .quota_bytes = NONE, .mounted = true};
	assert_int_equal(cache_share_solve(s, 4, UINT64_MAX), 0);
	for (int i = 0; i < 4; i++)
		assert_true(s[i].granted_bytes >= UINT64_MAX / 4);
}

static uint64_t bound_of(const struct cache_share *s)
{
	return s->quota_bytes < s->dataset_bytes ? s->quota_bytes : s->dataset_bytes;
}

static uint64_t random_below(uint64_t n)
{
	return ((uint64_t)random() << 31 | (uint64_t)random()) % n;
}

static void check_properties(const struct cache_share *s, size_t count, uint64_t capacity,
	uint64_t left, uint64_t quotas)
{
	uint64_t granted = 0;

	for (size_t i = 0; i < count; i++) {
		assert_true(s[i].granted_bytes <= bound_of(&s[i]));
		granted += s[i].granted_bytes;
		/* Nothing is left while anyone could use it. */
		assert_true(left == 0 || s[i].granted_bytes == bound_of(&s[i]));
		if (s[i].quota_bytes != NONE) {
			assert_true(quotas > capacity || s[i].granted_bytes == bound_of(&s[i]));
			continue;
		}
		for (size_t j = 0; j < count; j++) {
			bool wants = s[i].granted_bytes < s[i].dataset_bytes;

			if (s[j].quota_bytes != NONE || !wants)
				continue;
			/* Max-min: who is not satisfied has no less than any equal, but for the
			 * byte that does not divide. */
			if (s[i].mounted == s[j].mounted)
				assert_true(s[j].granted_bytes <= s[i].granted_bytes + 1);
			else if (s[i].mounted)
				assert_int_equal(s[j].granted_bytes, 0);
		}
	}
	assert_int_equal(granted + left, capacity);
}

static void random_cases_keep_every_property(void **state)
{
	(void)state;
	srandom(1);
	for (int round = 0; round < 20000; round++) {
		size_t count = 1 + random_below(8);
		uint64_t scale = round % 2 ? 100 : (uint64_t)1 << 40;
		uint64_t capacity = random_below(4 * scale), quotas = 0;
		struct cache_share s[8];

		for (size_t i = 0; i < count; i++) {
			s[i] = (struct cache_share){
				.dataset_bytes = random_below(scale),
				.quota_bytes = random() % 2 ? NONE : random_below(scale),
				.mounted = random() % 2,
				.granted_bytes = random_below(scale),
			};
			if (s[i].quota_bytes != NONE)
				quotas += bound_of(&s[i]);
		}
		check_properties(s, count, capacity, cache_share_solve(s, count, capacity), quotas);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(quotas_are_granted_first_and_in_full),
		cmocka_unit_test(quotas_past_the_capacity_are_cut_in_order),
		cmocka_unit_test(the_smallest_is_satisfied_first_and_the_rest_is_even),
		cmocka_unit_test(the_unmounted_get_what_the_mounted_leave),
		cmocka_unit_test(sizes_whose_sum_overflows_are_shared_all_the_same),
		cmocka_unit_test(random_cases_keep_every_property),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
