/*
 * The nth operation on the disk or the index fails, for every n that the run has: with EIO or
 * ENOSPC, once or from then on. Nothing may crash or hang, no wrong byte may be served, reads of
 * what is there go on, and on a disk that works again the store opens and has what was synced
 * before.
 */
#include "../unit/store_fixture.h"

#include "common/log.h"
#include "store_memory_disk.h"

#define SMALL_BLOCKS 10u
#define LARGE_BYTES (2 * BLOCK_BYTES + 999)

static int try_open(struct mem_disk *m, struct store **ret)
{
	struct store_options opts = {.dir = "/mem",
		.capacity_bytes = 64 * MIB,
		.disk = &m->disk,
		.commit_interval_ms = 2};
	struct error err = ERROR_INIT;
	int r = store_open(&opts, ret, &err);

	if (r < 0)
		assert_true(err.text[0] != '\0');
	return r;
}

static struct store_block block_of(uint64_t dataset, uint64_t n)
{
	if (n >= SMALL_BLOCKS)
		return fixture_block(dataset, 100, LARGE_BYTES, n - SMALL_BLOCKS);
	return fixture_block(dataset, n, 3000 + (uint32_t)n * 7001, 0);
}
#define BLOCKS (SMALL_BLOCKS + 3)

static void read_all(struct store *s)
{
	for (uint64_t dataset = 1; dataset <= 2; dataset++) {
		for (uint64_t n = 0; n < BLOCKS; n++) {
			struct store_block b = block_of(dataset, n);

			fixture_read(s, &b);
		}
	}
}

static void put_all(struct store *s, uint64_t dataset)
{
	for (uint64_t n = 0; n < BLOCKS; n++) {
		struct store_block b = block_of(dataset, n);
		int r = fixture_put(s, &b, STORE_ADMIT_GRANT);

		assert_true(r == 0 || r == STORE_FULL || r == STORE_EXISTS);
	}
}

/* Whether the disk failed or not, this goes through; says whether dataset 2 was synced. */
static bool run(struct mem_disk *m)
{
	struct store *s;
	bool synced;
	char text[128];

	if (try_open(m, &s) < 0)
		return false;
	store_set_dataset(s, 1, 30 * MIB, UINT64_MAX, NULL, NULL, NULL);
	store_set_dataset(s, 2, 20 * MIB, UINT64_MAX, NULL, NULL, NULL);
	put_all(s, 1);
	store_sync(s, NULL);
	read_all(s);
	store_set_dataset(s, 1, 15 * MIB, UINT64_MAX / 2, NULL, NULL, NULL);
	store_remove_dataset(s, 1, NULL);
	put_all(s, 2);
	synced = store_sync(s, NULL) == 0;
	if (!synced) {
		store_degraded(s, text);
		assert_true(text[0] != '\0');
	}
	read_all(s);
	/* What failed before the sync was refused or dropped: what is there now was synced. */
	for (uint64_t n = 0; synced && n < BLOCKS; n++) {
		struct store_block b = block_of(2, n);

		synced = store_has(s, &b.id);
	}
	store_close(s);
	return synced;
}

static void check_after(struct mem_disk *m, bool synced)
{
	struct store *s = NULL;

	assert_int_equal(try_open(m, &s), 0);
	read_all(s);
	for (uint64_t n = 0; n < BLOCKS; n++) {
		struct store_block b = block_of(2, n);

		if (synced)
			assert_int_equal(fixture_read(s, &b), 0);
	}
	/* It works again. */
	store_set_dataset(s, 2, 20 * MIB, UINT64_MAX, NULL, NULL, NULL);
	put_all(s, 2);
	for (uint64_t n = 0; n < BLOCKS; n++) {
		struct store_block b = block_of(2, n);

		assert_int_equal(fixture_read(s, &b), 0);
	}
	assert_int_equal(store_sync(s, NULL), 0);
	store_close(s);
}

/* TSan makes large buffers slow. */
#ifdef __SANITIZE_THREAD__
#define STEP 17
#else
#define STEP 3
#endif

static void fail_each(int code, bool on)
{
	int step = getenv("GRANARY_TEST_LARGE") ? 1 : STEP;
	unsigned long failed = 1;
	long n;

	log_set_level(LOG_ERROR - 1); /* thousands of expected errors */
	for (n = 0; failed; n += step) {
		struct mem_disk *m = mem_disk_new();
		bool synced;

		m->fail_in = n;
		m->fail_on = on;
		m->fail_code = code;
		synced = run(m);
		failed = m->failed;
		m->fail_in = -1;
		check_after(m, synced);
		mem_disk_free(m);
	}
	log_set_level(LOG_INFO);
	print_message("each %dth of %ld operations failed in turn\n", step, n);
}

static void one_failed_operation_costs_at_most_some_blocks(void **state)
{
	(void)state;
	fail_each(-EIO, false);
}

static void one_full_disk_costs_at_most_some_blocks(void **state)
{
	(void)state;
	fail_each(-ENOSPC, false);
}

static void a_disk_that_fails_from_some_operation_on_is_survived(void **state)
{
	(void)state;
	fail_each(-EIO, true);
}

static void under_the_free_space_floor_nothing_is_stored_and_everything_is_read(void **state)
{
	struct mem_disk *m = mem_disk_new();
	struct store_options opts = {.dir = "/mem",
		.capacity_bytes = 64 * MIB,
		.free_floor_bytes = 1000 * MIB,
		.disk = &m->disk};
	struct store_block b = block_of(1, 0), c = block_of(1, 5);
	struct store *s = NULL;
	char text[128];

	(void)state;
	log_set_level(LOG_ERROR);
	m->free_bytes = 1010 * MIB;
	assert_int_equal(store_open(&opts, &s, NULL), 0);
	fixture_plan(s, 1, 20 * MIB, UINT64_MAX);
	assert_int_equal(fixture_put(s, &b, STORE_ADMIT_GRANT), 0);
	store_degraded(s, text);
	assert_string_equal(text, "");
	pthread_mutex_lock(&m->mu);
	m->free_bytes = 999 * MIB;
	pthread_mutex_unlock(&m->mu);
	usleep(120000);
	assert_false(store_would_take(s, &c, STORE_ADMIT_GRANT));
	assert_int_equal(fixture_put(s, &c, STORE_ADMIT_GRANT), STORE_FULL);
	store_degraded(s, text);
	assert_non_null(strstr(text, "floor"));
	assert_int_equal(fixture_read(s, &b), 0);
	pthread_mutex_lock(&m->mu);
	m->free_bytes = 1010 * MIB;
	pthread_mutex_unlock(&m->mu);
	usleep(120000);
	assert_int_equal(fixture_put(s, &c, STORE_ADMIT_GRANT), 0);
	store_close(s);
	mem_disk_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_failed_operation_costs_at_most_some_blocks),
		cmocka_unit_test(one_full_disk_costs_at_most_some_blocks),
		cmocka_unit_test(a_disk_that_fails_from_some_operation_on_is_survived),
		cmocka_unit_test(
			under_the_free_space_floor_nothing_is_stored_and_everything_is_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
