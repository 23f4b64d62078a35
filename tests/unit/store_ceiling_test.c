/*
 * A store that the plan asks for more than fits: it pins the lowest hashes only, and all of them.
 */
#include "store_fixture.h"

#include "../fault/store_memory_disk.h"
#include "placement/pin.h"
#include "store/pin_ceiling.h"

#define SMALL 20000u
#define TICK_MS 20
/* As long as a rise takes, and more. */
#define QUIET_US ((PIN_RAISE_TICKS + 10) * TICK_MS * 1000)

static int setup(void **state)
{
	fixture_tick_ms = TICK_MS;
	return fixture_setup(state);
}

static uint64_t gcd(uint64_t a, uint64_t b)
{
	return b ? gcd(b, a % b) : a;
}

/* What a worker does for a shuffled epoch: blocks that are to be pinned are fetched and stored, as
 * far as there is room. How many were not there. */
static unsigned epoch(struct store *s, uint64_t dataset_id, uint64_t blocks)
{
	uint64_t step = fixture_mix((uint64_t)rand()) % blocks;
	unsigned missing = 0;

	while (gcd(blocks, step) != 1)
		step++;
	for (uint64_t i = 0, n = 0; i < blocks; i++, n = (n + step) % blocks) {
		struct store_block b = fixture_block(dataset_id, n, SMALL, 0);

		if (store_has(s, &b.id) || !pin_holds(store_pin_ceiling(s), &b.id))
			continue;
		missing++;
		if (store_would_take(s, &b, STORE_ADMIT_GRANT))
			fixture_put(s, &b, STORE_ADMIT_GRANT);
	}
	return missing;
}

/* Epochs until all is there that is to be pinned. */
static void settle(struct store *s, uint64_t dataset_id, uint64_t blocks)
{
	int64_t deadline = clock_deadline_ms(120000);

	while (epoch(s, dataset_id, blocks) > 0) {
		assert_false(clock_passed(deadline));
		usleep(3 * TICK_MS * 1000);
	}
}

static void assert_prefix(struct store *s, uint64_t dataset_id, uint64_t blocks)
{
	for (uint64_t n = 0; n < blocks; n++) {
		struct store_block b = fixture_block(dataset_id, n, SMALL, 0);

		assert_int_equal(store_has(s, &b.id), pin_holds(store_pin_ceiling(s), &b.id));
	}
}

static void what_does_not_fit_leaves_the_lowest_hashes_pinned(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	uint64_t ceiling;

	(void)state;
	fixture_plan(s, 1, 1000 * MIB, PIN_ALL);
	assert_true(store_pin_ceiling(s) == PIN_ALL);
	settle(s, 1, 6000);
	ceiling = store_pin_ceiling(s);
	/* 117 MiB are wanted of 64. */
	assert_in_range(ceiling, PIN_ALL / 3, PIN_ALL / 100 * 55);
	assert_prefix(s, 1, 6000);
	/* And stays so: nothing is dropped, nothing fetched. */
	for (int i = 0; i < 3; i++) {
		usleep(QUIET_US);
		assert_int_equal(epoch(s, 1, 6000), 0);
		assert_true(store_pin_ceiling(s) == ceiling);
	}
	store_close(s);
}

static void the_ceiling_is_one_for_all_datasets_and_spares_those_under_it(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	uint64_t low = PIN_ALL / 100;

	(void)state;
	fixture_plan(s, 1, 1000 * MIB, PIN_ALL);
	fixture_plan(s, 2, 10 * MIB, low);
	for (uint64_t n = 0; n < 20000; n++) {
		struct store_block b = fixture_block(2, n, SMALL, 0);

		if (pin_holds(low, &b.id))
			assert_int_equal(fixture_put(s, &b, STORE_ADMIT_GRANT), 0);
	}
	settle(s, 1, 6000);
	assert_true(store_pin_ceiling(s) < PIN_ALL && store_pin_ceiling(s) > low);
	for (uint64_t n = 0; n < 20000; n++) {
		struct store_block b = fixture_block(2, n, SMALL, 0);

		assert_int_equal(store_has(s, &b.id), pin_holds(low, &b.id));
	}
	store_close(s);
}

static void it_rises_again_when_there_is_room(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	int64_t deadline = clock_deadline_ms(120000);

	(void)state;
	fixture_plan(s, 2, 1000 * MIB, PIN_ALL);
	settle(s, 2, 1500);
	fixture_plan(s, 1, 1000 * MIB, PIN_ALL);
	settle(s, 1, 2500);
	assert_true(store_pin_ceiling(s) < PIN_ALL);
	assert_prefix(s, 1, 2500);
	assert_prefix(s, 2, 1500);
	assert_int_equal(store_remove_dataset(s, 2, NULL), 0);
	while (store_pin_ceiling(s) != PIN_ALL && !clock_passed(deadline)) {
		epoch(s, 1, 2500);
		usleep(TICK_MS * 1000);
	}
	settle(s, 1, 2500);
	assert_true(store_pin_ceiling(s) == PIN_ALL);
	assert_prefix(s, 1, 2500);
	store_close(s);
}

static void fillers_of_any_dataset_go_before_a_pinned_block_is_refused(void **state)
{
	struct store *s = fixture_open(64 * MIB);

	(void)state;
	fixture_plan(s, 2, 1000 * MIB, PIN_NONE);
	for (uint64_t n = 0; n < 4000; n++) {
		struct store_block b = fixture_block(2, n, SMALL, 0);

		fixture_put(s, &b, STORE_ADMIT_GRANT);
	}
	assert_true(fixture_stat(s, 2).filler_bytes > 40 * MIB);
	fixture_plan(s, 1, 1000 * MIB, PIN_ALL);
	for (uint64_t n = 0; n < 2500; n++) {
		struct store_block b = fixture_block(1, n, SMALL, 0);

		assert_int_equal(fixture_put(s, &b, STORE_ADMIT_GRANT), 0);
	}
	usleep(10 * TICK_MS * 1000);
	assert_true(store_pin_ceiling(s) == PIN_ALL);
	assert_int_equal(fixture_stat(s, 1).pinned_bytes, 2500 * SMALL);
	store_close(s);
}

static void a_smaller_capacity_lowers_it_at_once(void **state)
{
	struct store *s = fixture_open(128 * MIB);

	(void)state;
	fixture_plan(s, 1, 1000 * MIB, PIN_ALL);
	settle(s, 1, 4000);
	store_close(s);
	s = fixture_open(64 * MIB);
	assert_true(store_pin_ceiling(s) < PIN_ALL);
	assert_prefix(s, 1, 4000);
	store_close(s);
}

/* ---- a disk that others use, too ------------------------------------------------------------- */

#define DISK_BYTES (200 * MIB)
#define FLOOR_BYTES (50 * MIB)

static _Atomic uint64_t others_bytes;
static atomic_bool free_fails;

static int free_bytes(void *ctx, const char *path, uint64_t *ret)
{
	MEM_ENTER(ctx);
	uint64_t used = atomic_load(&others_bytes);
	struct mem_file *f, *next;

	(void)path;
	if (atomic_load(&free_fails))
		return -EIO;
	HASH_ITER (hh, m->files, f, next)
		used += mem_allocated(f);
	*ret = used < DISK_BYTES ? DISK_BYTES - used : 0;
	return 0;
}

static uint64_t free_now(struct mem_disk *m)
{
	uint64_t free = 0;

	free_bytes(m, "", &free);
	return free;
}

static struct store *open_on(struct mem_disk *m)
{
	struct store_options opts = {.dir = "/mem",
		.capacity_bytes = 128 * MIB,
		.free_floor_bytes = FLOOR_BYTES,
		.disk = &m->disk,
		.commit_interval_ms = 20,
		.tick_ms = TICK_MS};
	struct error err = ERROR_INIT;
	struct store *s = NULL;

	m->disk.free_bytes = free_bytes;
	assert_int_equal(store_open(&opts, &s, &err), 0);
	return s;
}

static void what_others_take_of_the_disk_is_given_back_and_taken_again(void **state)
{
	struct mem_disk *m = mem_disk_new();
	struct store *s = open_on(m);
	int64_t deadline = clock_deadline_ms(120000);
	uint64_t ceiling;

	(void)state;
	fixture_plan(s, 1, 1000 * MIB, PIN_ALL);
	settle(s, 1, 3000);
	assert_true(store_pin_ceiling(s) == PIN_ALL);
	atomic_store(&others_bytes, 120 * MIB);
	assert_true(free_now(m) < FLOOR_BYTES);
	EVENTUALLY(free_now(m) >= FLOOR_BYTES);
	settle(s, 1, 3000);
	ceiling = store_pin_ceiling(s);
	assert_in_range(ceiling, PIN_ALL / 10, PIN_ALL / 100 * 55);
	assert_prefix(s, 1, 3000);
	usleep(QUIET_US);
	assert_true(store_pin_ceiling(s) == ceiling);
	assert_int_equal(epoch(s, 1, 3000), 0);
	atomic_store(&others_bytes, 0);
	while (store_pin_ceiling(s) != PIN_ALL && !clock_passed(deadline)) {
		epoch(s, 1, 3000);
		usleep(TICK_MS * 1000);
	}
	settle(s, 1, 3000);
	assert_prefix(s, 1, 3000);
	assert_true(store_pin_ceiling(s) == PIN_ALL);
	store_close(s);
	mem_disk_free(m);
}

static void a_disk_that_does_not_say_what_is_free_costs_nothing(void **state)
{
	struct mem_disk *m = mem_disk_new();
	struct store *s = open_on(m);

	(void)state;
	fixture_plan(s, 1, 1000 * MIB, PIN_ALL);
	settle(s, 1, 3000);
	atomic_store(&free_fails, true);
	usleep(QUIET_US);
	epoch(s, 1, 3000);
	usleep(QUIET_US);
	atomic_store(&free_fails, false);
	assert_true(store_pin_ceiling(s) == PIN_ALL);
	assert_int_equal(fixture_stat(s, 1).pinned_bytes, 3000 * SMALL);
	store_close(s);
	mem_disk_free(m);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		TEST(what_does_not_fit_leaves_the_lowest_hashes_pinned),
		TEST(the_ceiling_is_one_for_all_datasets_and_spares_those_under_it),
		TEST(it_rises_again_when_there_is_room),
		TEST(fillers_of_any_dataset_go_before_a_pinned_block_is_refused),
		TEST(a_smaller_capacity_lowers_it_at_once),
		TEST(what_others_take_of_the_disk_is_given_back_and_taken_again),
		TEST(a_disk_that_does_not_say_what_is_free_costs_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
