#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "manifest_fixture.h"
#include "placement/pin.h"

enum { FILES_MAX = 3000 };

static char names[FILES_MAX][16];
static struct manifest_builder_entry entries[FILES_MAX];

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	fixture_init(f);
	for (unsigned i = 0; i < FILES_MAX; i++)
		snprintf(names[i], sizeof(names[i]), "f%07u", i);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	fixture_deinit(*state);
	free(*state);
	return 0;
}

static uint64_t random_below(uint64_t n)
{
	return ((uint64_t)random() << 31 | (uint64_t)random()) % n;
}

static struct manifest *build(struct fixture *f, const uint64_t *sizes, size_t count)
{
	for (size_t i = 0; i < count; i++)
		entries[i] = fixture_file(names[i], sizes[i]);
	fixture_build(f, entries, count);
	return fixture_open(f);
}

/* Bytes pinned by `threshold`, and the lowest hash that is not: what the definition says, directly.
 */
static uint64_t pinned_by(struct manifest *m, uint64_t threshold, uint64_t *ret_lowest_out,
	uint64_t *ret_lowest_out_bytes)
{
	uint64_t pinned = 0;

	*ret_lowest_out = UINT64_MAX;
	*ret_lowest_out_bytes = 0;
	for (uint32_t i = 0; i < manifest_info(m)->entries; i++) {
		struct manifest_entry e;

		assert_int_equal(manifest_entry(m, i, &e), 0);
		for (uint64_t b = 0; e.type == MANIFEST_FILE && b < block_count(e.size); b++) {
			struct block_id id = block_id_make(&e.object, b);
			uint64_t hash = block_pin_hash(&id);

			if (pin_holds(threshold, &id)) {
				pinned += block_len(e.size, b);
			} else if (hash < *ret_lowest_out) {
				*ret_lowest_out = hash;
				*ret_lowest_out_bytes = block_len(e.size, b);
			}
		}
	}
	return pinned;
}

/* Within the budget, and one more hash would leave it: then it is the largest. */
static void check(struct manifest *m, uint64_t budget)
{
	uint64_t threshold, pinned, lowest_out, lowest_out_bytes;

	assert_int_equal(pin_threshold(m, budget, &threshold, &pinned, NULL), 0);
	assert_true(pinned <= budget);
	assert_int_equal(pinned_by(m, threshold, &lowest_out, &lowest_out_bytes), pinned);
	if (budget == 0) {
		assert_int_equal(threshold, PIN_NONE);
	} else if (threshold == PIN_ALL) {
		assert_int_equal(pinned, manifest_info(m)->bytes);
	} else {
		assert_int_equal(threshold, lowest_out);
		assert_true(pinned + lowest_out_bytes > budget);
	}
}

static void check_budgets(struct manifest *m)
{
	uint64_t all = manifest_info(m)->bytes;

	check(m, 0);
	check(m, 1);
	check(m, all);
	check(m, all + 1);
	check(m, UINT64_MAX);
	if (all > 1)
		check(m, all - 1);
	for (int i = 0; all && i < 20; i++)
		check(m, random_below(all));
}

static void random_datasets_get_the_largest_threshold_within_the_budget(void **state)
{
	static uint64_t sizes[FILES_MAX];

	srandom(3);
	for (int round = 0; round < 12; round++) {
		size_t count = 1 + random_below(FILES_MAX / (round % 3 ? 1 : 100));
		uint64_t scale = round % 2 ? 200000 : 3 * BLOCK_BYTES;
		struct manifest *m;

		for (size_t i = 0; i < count; i++)
			sizes[i] = random_below(scale);
		m = build(*state, sizes, count);
		check_budgets(m);
		manifest_unref(m);
	}
}

static void a_budget_equal_to_a_prefix_is_used_to_the_byte(void **state)
{
	static uint64_t sizes[1000];
	struct manifest *m;

	for (size_t i = 0; i < 1000; i++)
		sizes[i] = 100 + i;
	m = build(*state, sizes, 1000);
	for (uint64_t t = 1; t < 64; t++) {
		uint64_t lowest, bytes, threshold, pinned;
		uint64_t budget = pinned_by(m, t << 58, &lowest, &bytes);

		assert_int_equal(pin_threshold(m, budget, &threshold, &pinned, NULL), 0);
		assert_int_equal(pinned, budget);
		assert_int_equal(threshold, lowest);
		/* One byte short: the highest block that was in is out. */
		assert_int_equal(pin_threshold(m, budget - 1, &threshold, &pinned, NULL), 0);
		assert_true(pinned < budget && threshold < t << 58);
	}
	manifest_unref(m);
}

static void datasets_without_bytes_have_nothing_to_leave_out(void **state)
{
	static const uint64_t empty[3];
	struct manifest *m = build(*state, NULL, 0);
	uint64_t threshold, pinned;

	assert_int_equal(pin_threshold(m, 5, &threshold, &pinned, NULL), 0);
	assert_int_equal(threshold, PIN_ALL);
	assert_int_equal(pinned, 0);
	check_budgets(m);
	manifest_unref(m);
	m = build(*state, empty, 3);
	check_budgets(m);
	manifest_unref(m);
}

static void one_giant_file_is_divided_by_blocks(void **state)
{
	uint64_t size = 2000 * BLOCK_BYTES + 17;
	struct manifest *m = build(*state, &size, 1);
	uint64_t threshold, pinned;

	check_budgets(m);
	assert_int_equal(pin_threshold(m, size / 2, &threshold, &pinned, NULL), 0);
	assert_true(pinned > size / 2 - BLOCK_BYTES);
	manifest_unref(m);
}

static void more_blocks_than_are_sorted_at_once_are_narrowed_down(void **state)
{
	/* 2 million blocks: the slices of the histogram matter. */
	uint64_t size = (uint64_t)2000000 * BLOCK_BYTES;
	struct manifest *m = build(*state, &size, 1);
	uint64_t threshold, pinned;

	assert_int_equal(pin_threshold(m, size / 3, &threshold, &pinned, NULL), 0);
	assert_true(pinned <= size / 3 && pinned > size / 3 - BLOCK_BYTES);
	/* Uniform: a third of the bytes takes a third of the range. */
	assert_true(
		threshold / (double)UINT64_MAX > 0.332 && threshold / (double)UINT64_MAX < 0.335);
	manifest_unref(m);
}

static void a_block_larger_than_the_budget_stops_there(void **state)
{
	static uint64_t sizes[] = {BLOCK_BYTES, BLOCK_BYTES, BLOCK_BYTES};
	struct manifest *m = build(*state, sizes, 3);

	check(m, 1);
	check(m, BLOCK_BYTES - 1);
	check(m, BLOCK_BYTES);
	check(m, 2 * BLOCK_BYTES - 1);
	manifest_unref(m);
}

static void a_larger_quota_only_adds(void **state)
{
	static uint64_t sizes[500];
	uint64_t before = 0, threshold, pinned;
	struct manifest *m;

	for (size_t i = 0; i < 500; i++)
		sizes[i] = 1000 + i;
	m = build(*state, sizes, 500);
	for (uint64_t budget = 0; budget <= manifest_info(m)->bytes; budget += 5000) {
		assert_int_equal(pin_threshold(m, budget, &threshold, &pinned, NULL), 0);
		assert_true(threshold >= before);
		before = threshold;
	}
	manifest_unref(m);
}

#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(random_datasets_get_the_largest_threshold_within_the_budget),
		T(a_budget_equal_to_a_prefix_is_used_to_the_byte),
		T(datasets_without_bytes_have_nothing_to_leave_out),
		T(one_giant_file_is_divided_by_blocks),
		T(more_blocks_than_are_sorted_at_once_are_narrowed_down),
		T(a_block_larger_than_the_budget_stops_there),
		T(a_larger_quota_only_adds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
