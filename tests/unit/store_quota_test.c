#include "store_fixture.h"

#include <pthread.h>
#include <stdatomic.h>

#define SMALL 20000u

struct walk {
	uint64_t dataset_id, next, end;
};

/* A snapshot of the objects [next, end). */
static int walk_blocks(void *arg, struct block_id *ret)
{
	struct walk *w = arg;

	if (w->next == w->end)
		return 0;
	*ret = fixture_block(w->dataset_id, w->next++, SMALL, 0).id;
	return 1;
}

static unsigned put_range(
	struct store *s, uint64_t dataset_id, uint64_t from, uint64_t to, enum store_admit admit)
{
	unsigned taken = 0;

	for (uint64_t i = from; i < to; i++) {
		struct store_block b = fixture_block(dataset_id, i, SMALL, 0);

		taken += fixture_put(s, &b, admit) == 0;
	}
	return taken;
}

static unsigned count_range(struct store *s, uint64_t dataset_id, uint64_t from, uint64_t to)
{
	unsigned there = 0;

	for (uint64_t i = from; i < to; i++) {
		struct store_block b = fixture_block(dataset_id, i, SMALL, 0);

		there += store_has(s, &b.id);
	}
	return there;
}

static void a_block_is_pinned_exactly_when_its_hash_is_under_the_threshold(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	uint64_t half = UINT64_MAX / 2, pinned = 0;

	(void)state;
	fixture_plan(s, 1, 1000 * SMALL, half);
	put_range(s, 1, 0, 1000, STORE_ADMIT_GRANT);
	for (uint64_t i = 0; i < 1000; i++) {
		struct store_block b = fixture_block(1, i, SMALL, 0);

		pinned += block_pin_hash(&b.id) < half;
	}
	assert_int_equal(fixture_stat(s, 1).pinned_bytes, pinned * SMALL);
	assert_int_equal(fixture_stat(s, 1).filler_bytes, (1000 - pinned) * SMALL);
	store_close(s);
}

static void fillers_use_what_pinned_blocks_left_and_go_when_those_come(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	uint64_t half = UINT64_MAX / 2, n = 0;
	struct store_dataset_stat st;

	(void)state;
	fixture_plan(s, 1, 100 * SMALL, half);
	/* Only unpinned ones first: they fill the grant and then are refused. */
	for (uint64_t i = 0; i < 1000; i++) {
		struct store_block b = fixture_block(1, i, SMALL, 0);

		if (block_pin_hash(&b.id) >= half) {
			int want = n < 100 ? 0 : STORE_FULL;

			assert_int_equal(store_would_take(s, &b, STORE_ADMIT_GRANT), want == 0);
			assert_int_equal(fixture_put(s, &b, STORE_ADMIT_GRANT), want);
			n++;
		}
	}
	assert_int_equal(fixture_stat(s, 1).filler_bytes, 100 * SMALL);
	n = 0;
	for (uint64_t i = 0; i < 1000 && n < 60; i++) {
		struct store_block b = fixture_block(1, i, SMALL, 0);

		if (block_pin_hash(&b.id) < half) {
			assert_int_equal(fixture_put(s, &b, STORE_ADMIT_GRANT), 0);
			st = fixture_stat(s, 1);
			assert_int_equal(st.pinned_bytes, ++n * SMALL);
			assert_int_equal(st.filler_bytes, (100 - n) * SMALL);
		}
	}
	store_close(s);
}

static void the_grant_bounds_pinned_blocks(void **state)
{
	struct store *s = fixture_open(64 * MIB);

	(void)state;
	fixture_plan(s, 1, 10 * SMALL + SMALL / 2, UINT64_MAX);
	assert_int_equal(put_range(s, 1, 0, 30, STORE_ADMIT_GRANT), 10);
	assert_int_equal(fixture_stat(s, 1).pinned_bytes, 10 * SMALL);
	store_close(s);
}

static void a_lower_threshold_drops_only_what_lies_between(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	uint64_t half = UINT64_MAX / 2, quarter = UINT64_MAX / 4;

	(void)state;
	fixture_plan(s, 1, 1000 * SMALL, half);
	for (uint64_t i = 0; i < 500; i++) {
		struct store_block b = fixture_block(1, i, SMALL, 0);

		if (block_pin_hash(&b.id) < half)
			assert_int_equal(fixture_put(s, &b, STORE_ADMIT_GRANT), 0);
	}
	fixture_plan(s, 1, 1000 * SMALL, quarter);
	for (int round = 0; round < 2; round++) {
		uint64_t bytes = 0;

		for (uint64_t i = 0; i < 500; i++) {
			struct store_block b = fixture_block(1, i, SMALL, 0);
			int under = block_pin_hash(&b.id) < quarter;

			assert_int_equal(store_has(s, &b.id), under);
			bytes += under ? SMALL : 0;
		}
		assert_int_equal(fixture_stat(s, 1).pinned_bytes, bytes);
		/* The plan and the blocks are the same after a restart. */
		store_close(s);
		s = fixture_open(64 * MIB);
	}
	store_close(s);
}

static void a_higher_threshold_pins_the_fillers_under_it(void **state)
{
	struct store *s = fixture_open(64 * MIB);

	(void)state;
	fixture_plan(s, 1, 200 * SMALL, UINT64_MAX / 4);
	put_range(s, 1, 0, 150, STORE_ADMIT_GRANT);
	fixture_plan(s, 1, 200 * SMALL, UINT64_MAX);
	assert_int_equal(fixture_stat(s, 1).pinned_bytes, 150 * SMALL);
	assert_int_equal(fixture_stat(s, 1).filler_bytes, 0);
	store_close(s);
}

struct long_scan {
	struct store *store;
	atomic_bool walking, end;
};

/* A store_live_fn that takes its time, as the one of a large manifest does. */
static int walk_slowly(void *arg, struct block_id *ret_id)
{
	struct long_scan *scan = arg;
	int64_t limit_ms = clock_deadline_ms(3000);

	(void)ret_id;
	atomic_store(&scan->walking, true);
	while (!atomic_load(&scan->end) && !clock_passed(limit_ms))
		usleep(1000);
	return 0;
}

static void *scan_slowly(void *arg)
{
	struct long_scan *scan = arg;

	store_set_dataset(scan->store, 1, 200 * SMALL, UINT64_MAX, walk_slowly, scan, NULL);
	return NULL;
}

static void a_new_dataset_gets_its_grant_while_another_is_scanned(void **state)
{
	struct long_scan scan = {.store = fixture_open(64 * MIB)};
	struct store *s = scan.store;
	pthread_t thread;
	int64_t begun_ms;

	(void)state;
	fixture_plan(s, 1, 200 * SMALL, UINT64_MAX);
	put_range(s, 1, 0, 50, STORE_ADMIT_GRANT);
	assert_int_equal(pthread_create(&thread, NULL, scan_slowly, &scan), 0);
	while (!atomic_load(&scan.walking))
		usleep(1000);
	begun_ms = clock_mono_ms();
	assert_int_equal(store_announce_dataset(s, 2, 100 * SMALL, UINT64_MAX, NULL), 0);
	put_range(s, 2, 0, 10, STORE_ADMIT_GRANT);
	assert_int_equal(fixture_stat(s, 2).pinned_bytes, 10 * SMALL);
	/* What would have to be scanned is left as it is. */
	assert_int_equal(
		store_announce_dataset(s, 2, 5 * SMALL, UINT64_MAX, NULL), STORE_HAS_BLOCKS);
	assert_true(clock_mono_ms() - begun_ms < 20000);
	atomic_store(&scan.end, true);
	pthread_join(thread, NULL);
	assert_int_equal(fixture_stat(s, 2).pinned_bytes, 10 * SMALL);
	store_close(s);
}

static void blocks_of_older_snapshots_become_elastic_and_stay_so(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	struct walk w = {.dataset_id = 1, .next = 50, .end = 150};
	struct store_dataset_stat st;

	(void)state;
	fixture_plan(s, 1, 200 * SMALL, UINT64_MAX);
	put_range(s, 1, 0, 100, STORE_ADMIT_GRANT);
	assert_int_equal(
		store_set_dataset(s, 1, 200 * SMALL, UINT64_MAX, walk_blocks, &w, NULL), 0);
	for (int round = 0; round < 2; round++) {
		st = fixture_stat(s, 1);
		assert_int_equal(st.pinned_bytes, 50 * SMALL);
		assert_int_equal(st.elastic_bytes, 50 * SMALL);
		assert_int_equal(count_range(s, 1, 0, 150), 100);
		store_close(s);
		s = fixture_open(64 * MIB);
		fixture_plan(s, 1, 200 * SMALL, UINT64_MAX);
	}
	/* Back to the snapshot before. */
	w = (struct walk){.dataset_id = 1, .next = 0, .end = 100};
	assert_int_equal(
		store_set_dataset(s, 1, 200 * SMALL, UINT64_MAX, walk_blocks, &w, NULL), 0);
	assert_int_equal(fixture_stat(s, 1).pinned_bytes, 100 * SMALL);
	store_close(s);
}

static void a_put_under_the_quota_makes_an_elastic_copy_part_of_it(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	struct store_block b = fixture_block(1, 1, SMALL, 0);

	(void)state;
	fixture_plan(s, 1, 200 * SMALL, UINT64_MAX);
	assert_int_equal(fixture_put(s, &b, STORE_ADMIT_ELASTIC), 0);
	assert_int_equal(fixture_stat(s, 1).elastic_bytes, SMALL);
	assert_int_equal(fixture_put(s, &b, STORE_ADMIT_GRANT), STORE_EXISTS);
	assert_int_equal(fixture_stat(s, 1).pinned_bytes, SMALL);
	assert_int_equal(fixture_stat(s, 1).elastic_bytes, 0);
	store_close(s);
}

static void elastic_blocks_go_least_recently_read_first_and_pinned_ones_never(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	unsigned hot;

	(void)state;
	fixture_plan(s, 1, 500 * SMALL, UINT64_MAX);
	assert_int_equal(put_range(s, 1, 0, 500, STORE_ADMIT_GRANT), 500);
	put_range(s, 2, 0, 100, STORE_ADMIT_ELASTIC);
	for (uint64_t i = 100; i < 6000; i++) {
		struct store_block b = fixture_block(2, i, SMALL, 0);

		assert_int_equal(fixture_put(s, &b, STORE_ADMIT_ELASTIC), 0);
		if (i % 50 == 0) {
			for (uint64_t k = 0; k < 100; k++) {
				b = fixture_block(2, k, SMALL, 0);
				store_touch(s, &b.id);
			}
		}
	}
	hot = count_range(s, 2, 0, 100);
	assert_int_equal(hot, 100);
	assert_int_equal(count_range(s, 1, 0, 500), 500);
	assert_int_equal(count_range(s, 2, 100, 1000), 0);
	assert_true(count_range(s, 2, 5500, 6000) == 500);
	store_close(s);
}

static void a_dataset_kept_as_an_lru_cache_has_the_last_read_of_what_fits(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	struct error err = ERROR_INIT;
	unsigned hot;

	(void)state;
	/* What is left of another one goes before it. */
	fixture_plan(s, 1, 500 * SMALL, UINT64_MAX);
	assert_int_equal(put_range(s, 1, 0, 500, STORE_ADMIT_GRANT), 500);
	fixture_plan(s, 1, 0, 0);
	assert_int_equal(store_set_elastic(s, 2, true, &err), 0);
	fixture_plan(s, 2, 0, 0);
	put_range(s, 2, 0, 100, STORE_ADMIT_LRU);
	for (uint64_t i = 100; i < 6000; i++) {
		struct store_block b = fixture_block(2, i, SMALL, 0);

		assert_int_equal(fixture_put(s, &b, STORE_ADMIT_LRU), 0);
		for (uint64_t k = 0; i % 50 == 0 && k < 100; k++) {
			b = fixture_block(2, k, SMALL, 0);
			store_touch(s, &b.id);
		}
		/* A plan that changes nothing for them leaves their order alone. */
		if (i == 5990)
			fixture_plan(s, 2, 1, 0);
	}
	hot = count_range(s, 2, 0, 100);
	assert_int_equal(hot, 100);
	assert_int_equal(count_range(s, 1, 0, 500), 0);
	assert_int_equal(count_range(s, 2, 100, 1000), 0);
	assert_int_equal(count_range(s, 2, 5500, 6000), 500);
	assert_int_equal(fixture_stat(s, 2).filler_bytes, 0);
	store_close(s);
}

static void what_an_lru_dataset_has_is_pinned_when_the_plan_says_so(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	struct error err = ERROR_INIT;

	(void)state;
	assert_int_equal(store_set_elastic(s, 1, true, &err), 0);
	fixture_plan(s, 1, 0, 0);
	put_range(s, 1, 0, 100, STORE_ADMIT_LRU);
	fixture_plan(s, 1, 1000 * SMALL, UINT64_MAX);
	assert_int_equal(fixture_stat(s, 1).pinned_bytes, 100 * SMALL);
	/* Nothing is dropped on the way back. */
	fixture_plan(s, 1, 1000 * SMALL, 0);
	assert_int_equal(fixture_stat(s, 1).pinned_bytes, 0);
	assert_int_equal(fixture_stat(s, 1).elastic_bytes, 100 * SMALL);
	/* As one of the usual kind it fills its grant. */
	assert_int_equal(store_set_elastic(s, 1, false, &err), 0);
	fixture_plan(s, 1, 1000 * SMALL, 0);
	assert_int_equal(fixture_stat(s, 1).filler_bytes, 100 * SMALL);
	store_close(s);
}

static void a_pinned_block_takes_the_room_of_elastic_ones(void **state)
{
	struct store *s = fixture_open(64 * MIB);

	(void)state;
	put_range(s, 2, 0, 4000, STORE_ADMIT_ELASTIC);
	fixture_plan(s, 1, 40 * MIB, UINT64_MAX);
	assert_int_equal(put_range(s, 1, 0, 1500, STORE_ADMIT_GRANT), 1500);
	assert_int_equal(count_range(s, 1, 0, 1500), 1500);
	store_close(s);
}

static void a_full_store_refuses_and_evicts_nothing_pinned(void **state)
{
	struct store_block b = fixture_block(1, 9999, SMALL, 0);
	struct store *s;
	unsigned taken;

	(void)state;
	/* Before the ceiling falls, which makes room after a second. */
	fixture_tick_ms = 3600 * 1000;
	s = fixture_open(64 * MIB);
	fixture_tick_ms = 0;
	fixture_plan(s, 1, 100 * MIB, UINT64_MAX);
	taken = put_range(s, 1, 0, 3500, STORE_ADMIT_GRANT);
	assert_true(taken > 2000 && taken < 3500);
	assert_false(store_would_take(s, &b, STORE_ADMIT_GRANT));
	assert_int_equal(fixture_put(s, &b, STORE_ADMIT_ELASTIC), STORE_FULL);
	assert_int_equal(count_range(s, 1, 0, 3500), taken);
	store_close(s);
}

static void a_dataset_without_a_grant_keeps_its_bytes_until_another_needs_them(void **state)
{
	struct store *s = fixture_open(64 * MIB);

	(void)state;
	fixture_plan(s, 1, 50 * MIB, UINT64_MAX);
	assert_int_equal(put_range(s, 1, 0, 2000, STORE_ADMIT_GRANT), 2000);
	fixture_plan(s, 1, 0, 0);
	assert_int_equal(count_range(s, 1, 0, 2000), 2000);
	assert_int_equal(fixture_stat(s, 1).pinned_bytes, 0);
	assert_int_equal(fixture_stat(s, 1).elastic_bytes, 2000 * SMALL);
	fixture_plan(s, 2, 30 * MIB, UINT64_MAX);
	assert_int_equal(put_range(s, 2, 0, 1200, STORE_ADMIT_GRANT), 1200);
	assert_int_equal(count_range(s, 2, 0, 1200), 1200);
	/* Mounted again: what is left is pinned again. */
	fixture_plan(s, 1, 50 * MIB, UINT64_MAX);
	assert_int_equal(
		fixture_stat(s, 1).pinned_bytes, (uint64_t)count_range(s, 1, 0, 2000) * SMALL);
	assert_true(fixture_stat(s, 1).pinned_bytes > 20 * MIB);
	store_close(s);
}

static void a_removed_dataset_leaves_nothing(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	uint64_t before, after = 0;

	(void)state;
	assert_int_equal(store_sync(s, NULL), 0);
	before = fixture_du();
	fixture_plan(s, 1, 50 * MIB, UINT64_MAX);
	put_range(s, 1, 0, 1000, STORE_ADMIT_GRANT);
	for (uint64_t i = 0; i < 3; i++) {
		struct store_block b = fixture_block(1, 7777, 3 * BLOCK_BYTES, i);

		assert_int_equal(fixture_put(s, &b, STORE_ADMIT_GRANT), 0);
	}
	assert_int_equal(store_sync(s, NULL), 0);
	assert_true(fixture_du() > before + 30 * MIB);
	assert_int_equal(store_remove_dataset(s, 1, NULL), 0);
	assert_int_equal(count_range(s, 1, 0, 1000), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(store_sync(s, NULL), 0);
	after = fixture_du();
	assert_true(after < before + MIB);
	store_close(s);
}

static void a_smaller_capacity_at_the_next_start_is_kept_to(void **state)
{
	struct store *s = fixture_open(128 * MIB);
	unsigned left;

	(void)state;
	fixture_plan(s, 1, 100 * MIB, UINT64_MAX);
	assert_int_equal(put_range(s, 1, 0, 4000, STORE_ADMIT_GRANT), 4000);
	store_close(s);
	s = fixture_open(64 * MIB);
	left = count_range(s, 1, 0, 4000);
	assert_true(left > 2000 && left < 3500);
	assert_true(fixture_du() <= 64 * MIB);
	store_close(s);
}

/* Everything at once, on a small disk: du is looked at again and again. */
static void the_folder_never_takes_more_than_the_capacity(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	uint64_t worst = 0, du;

	(void)state;
	srand(7);
	for (int i = 0; i < 12000; i++) {
		uint64_t dataset = 1 + (uint64_t)rand() % 4;
		uint32_t size =
			rand() % 10 ? 1 + (uint32_t)rand() % 60000 : (uint32_t)rand() % 6000000 + 1;
		uint64_t n = (uint64_t)rand() % 3000;
		struct store_block b = fixture_block(
			dataset, n * 7000000 + size, size, (uint64_t)rand() % block_count(size));
		int r = fixture_put(s, &b, dataset == 4 ? STORE_ADMIT_ELASTIC : STORE_ADMIT_GRANT);

		assert_true(r >= 0);
		if (r == 0)
			assert_int_equal(fixture_read(s, &b), 0);
		if (i % 2000 == 0) {
			fixture_plan(s, 1, (uint64_t)rand() % (30 * MIB), UINT64_MAX);
			fixture_plan(s, 2, (uint64_t)rand() % (20 * MIB), UINT64_MAX / 2);
			fixture_plan(s, 3, (uint64_t)rand() % (20 * MIB), UINT64_MAX / 100);
		}
		if (i % 100 == 0) {
			du = fixture_du();
			worst = du > worst ? du : worst;
			assert_true(du <= 64 * MIB);
		}
	}
	print_message("most used: %.1f of 64 MiB\n", (double)worst / (double)MIB);
	assert_true(worst > 50 * MIB);
	store_close(s);
}

/* The index is what grows then: its share has to be in the charge too. */
static void many_tiny_blocks_stay_within_the_capacity(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	struct store_stat st;

	(void)state;
	for (uint64_t i = 0; i < 60000; i++) {
		struct store_block b = fixture_block(1, i, 1 + (uint32_t)i % 100, 0);

		assert_int_equal(fixture_put(s, &b, STORE_ADMIT_ELASTIC), 0);
		if (i % 5000 == 0)
			assert_true(fixture_du() <= 64 * MIB);
	}
	store_stat(s, &st);
	assert_true(st.blocks > 12000);
	assert_true(st.charged_bytes <= 64 * MIB);
	assert_true(fixture_du() <= 64 * MIB);
	store_close(s);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_block_is_pinned_exactly_when_its_hash_is_under_the_threshold),
		TEST(fillers_use_what_pinned_blocks_left_and_go_when_those_come),
		TEST(the_grant_bounds_pinned_blocks),
		TEST(a_lower_threshold_drops_only_what_lies_between),
		TEST(a_higher_threshold_pins_the_fillers_under_it),
		TEST(a_new_dataset_gets_its_grant_while_another_is_scanned),
		TEST(blocks_of_older_snapshots_become_elastic_and_stay_so),
		TEST(a_put_under_the_quota_makes_an_elastic_copy_part_of_it),
		TEST(elastic_blocks_go_least_recently_read_first_and_pinned_ones_never),
		TEST(a_dataset_kept_as_an_lru_cache_has_the_last_read_of_what_fits),
		TEST(what_an_lru_dataset_has_is_pinned_when_the_plan_says_so),
		TEST(a_pinned_block_takes_the_room_of_elastic_ones),
		TEST(a_full_store_refuses_and_evicts_nothing_pinned),
		TEST(a_dataset_without_a_grant_keeps_its_bytes_until_another_needs_them),
		TEST(a_removed_dataset_leaves_nothing),
		TEST(a_smaller_capacity_at_the_next_start_is_kept_to),
		TEST(the_folder_never_takes_more_than_the_capacity),
		TEST(many_tiny_blocks_stay_within_the_capacity),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
