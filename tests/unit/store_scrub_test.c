#include "store_fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "common/log.h"
#include "store/store_private.h"

#define SMALL 20000u
#define LARGE (3 * BLOCK_BYTES - 777)
#define BLOCKS 53u /* the last three of one large object */

static struct store_block block_of(uint64_t n)
{
	if (n >= BLOCKS - 3)
		return fixture_block(1, 1000, LARGE, n - (BLOCKS - 3));
	return fixture_block(1, n, SMALL + (uint32_t)n * 1000, 0);
}

static const struct block_id *id_of(uint64_t n)
{
	static struct store_block b;

	b = block_of(n);
	return &b.id;
}

static struct store *open_scrubbed(uint64_t bytes_per_s)
{
	fixture_scrub_bytes_per_s = bytes_per_s;
	return fixture_open(128 * MIB);
}

static void fill(void)
{
	struct store *s = open_scrubbed(0);

	fixture_plan(s, 1, 100 * MIB, UINT64_MAX);
	for (uint64_t n = 0; n < BLOCKS; n++) {
		struct store_block b = block_of(n);

		assert_int_equal(fixture_put(s, &b, STORE_ADMIT_GRANT), 0);
	}
	store_close(s);
}

static struct store_stat stat_of(struct store *s)
{
	struct store_stat st;

	store_stat(s, &st);
	return st;
}

static scrub_place scrubbed_to(struct store *s)
{
	mutex_guard(&s->mu);
	return s->scrub.at;
}

static unsigned there(struct store *s)
{
	unsigned count = 0;

	for (uint64_t n = 0; n < BLOCKS; n++) {
		struct store_block b = block_of(n);

		count += store_has(s, &b.id);
	}
	return count;
}

static void flip(const char *folder, const char *name, uint64_t at)
{
	char path[600];
	unsigned char byte;
	int fd;

	snprintf(path, sizeof(path), "%s/%s/%s", fixture_dir, folder, name);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
	byte ^= 4;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
	close(fd);
}

/* Of the block, at byte `at` of its slot. */
static void flip_block(struct store *s, const struct store_block *b, uint32_t at)
{
	struct directory_entry e;
	char name[32];

	assert_true(directory_lookup(s->directory, &b->id, &e));
	snprintf(name, sizeof(name), "%u", e.file);
	flip(e.flags & FLAG_SPARSE ? "files" : "segments", name,
		(uint64_t)e.page * STORE_PAGE_BYTES + at);
}

static void sound_blocks_stay_and_all_are_read(void **state)
{
	uint64_t bytes = 0;
	struct store *s;

	(void)state;
	fill();
	for (uint64_t n = 0; n < BLOCKS; n++)
		bytes += block_of(n).len;
	s = open_scrubbed(1000 * MIB);
	EVENTUALLY(stat_of(s).scrub_passes > 0);
	assert_true(stat_of(s).scrubbed_bytes >= bytes);
	assert_int_equal(stat_of(s).scrub_damaged_blocks, 0);
	assert_int_equal(there(s), BLOCKS);
	store_close(s);
}

static void damage_is_found_without_a_reader(void **state)
{
	struct store_block bytes = block_of(3), trailer = block_of(7), large = block_of(BLOCKS - 1);
	struct directory_entry e;
	struct store *s;
	char name[32];

	(void)state;
	fill();
	s = open_scrubbed(0);
	flip_block(s, &bytes, bytes.len - 1);
	flip_block(s, &trailer, checks_offset(trailer.len) + 33);
	flip_block(s, &large, 2 * 65536 + 5);
	/* In the sidecar: the checks of the first block of the object. */
	assert_true(directory_lookup(s->directory, id_of(BLOCKS - 3), &e));
	snprintf(name, sizeof(name), "%u.sum", e.file);
	flip("files", name, 50);
	store_close(s);
	log_set_level(LOG_ERROR - 1);
	s = open_scrubbed(1000 * MIB);
	EVENTUALLY(stat_of(s).scrub_passes > 0);
	log_set_level(LOG_INFO);
	assert_int_equal(stat_of(s).scrub_damaged_blocks, 4);
	assert_int_equal(fixture_stat(s, 1).corrupt_blocks, 4);
	assert_false(store_has(s, &bytes.id));
	assert_false(store_has(s, &trailer.id));
	assert_false(store_has(s, &large.id));
	assert_false(store_has(s, id_of(BLOCKS - 3)));
	assert_int_equal(there(s), BLOCKS - 4);
	/* Fetched again, it is as good as ever. */
	assert_int_equal(fixture_put(s, &bytes, STORE_ADMIT_GRANT), 0);
	assert_int_equal(fixture_put(s, &large, STORE_ADMIT_GRANT), 0);
	assert_int_equal(fixture_read(s, &bytes), 0);
	assert_int_equal(fixture_read(s, &large), 0);
	store_close(s);
}

static void a_file_that_vanished_or_was_cut_costs_its_blocks(void **state)
{
	char path[600];
	struct directory_entry e;
	struct store *s;

	(void)state;
	fill();
	log_set_level(LOG_ERROR - 1);
	s = open_scrubbed(1000 * MIB);
	assert_true(directory_lookup(s->directory, id_of(BLOCKS - 1), &e));
	snprintf(path, sizeof(path), "%s/files/%u", fixture_dir, e.file);
	assert_int_equal(unlink(path), 0);
	assert_true(directory_lookup(s->directory, id_of(0), &e));
	snprintf(path, sizeof(path), "%s/segments/%u", fixture_dir, e.file);
	assert_int_equal(truncate(path, 4096), 0);
	EVENTUALLY(there(s) < BLOCKS - 10 && !store_has(s, id_of(BLOCKS - 1)));
	log_set_level(LOG_INFO);
	store_close(s);
}

static void the_rate_bounds_it_and_off_is_off(void **state)
{
	struct store *s;

	(void)state;
	fill();
	/* One block is read on credit, the next one would be hours later. */
	s = open_scrubbed(1);
	EVENTUALLY(stat_of(s).scrubbed_bytes > 0);
	usleep(300000);
	assert_true(stat_of(s).scrubbed_bytes <= BLOCK_BYTES);
	assert_int_equal(stat_of(s).scrub_bytes_per_s, 1);
	store_close(s);
	s = open_scrubbed(0);
	usleep(300000);
	assert_int_equal(stat_of(s).scrubbed_bytes, 0);
	assert_int_equal(stat_of(s).scrub_bytes_per_s, 0);
	store_close(s);
	s = open_scrubbed(STORE_SCRUB_WEEKLY);
	assert_in_range(stat_of(s).scrub_bytes_per_s, 1, 100);
	store_close(s);
}

static void a_restart_goes_on_where_it_was(void **state)
{
	scrub_place at = 0;

	(void)state;
	fill();
	for (int i = 0; i < 8; i++) {
		struct store *s = open_scrubbed(1);

		assert_true(scrubbed_to(s) >= at);
		EVENTUALLY(scrubbed_to(s) > at);
		at = scrubbed_to(s);
		store_close(s);
	}
}

/* Pages of the store's files that are in the page cache. */
static size_t resident_pages(const char *path)
{
	int fd = open(path, O_RDONLY);
	unsigned char pages[65536];
	size_t count = 0, bytes;
	struct stat st;
	void *at;

	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	bytes = (size_t)st.st_size;
	assert_true(bytes > 0 && bytes / 4096 < sizeof(pages));
	at = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(at, MAP_FAILED);
	assert_int_equal(mincore(at, bytes, pages), 0);
	for (size_t i = 0; i < (bytes + 4095) / 4096; i++)
		count += pages[i] & 1;
	munmap(at, bytes);
	close(fd);
	return count;
}

static void the_page_cache_is_left_to_readers(void **state)
{
	char path[600];
	struct directory_entry e;
	struct store *s;
	int fd;

	(void)state;
	fill();
	s = open_scrubbed(0);
	assert_true(directory_lookup(s->directory, id_of(BLOCKS - 1), &e));
	store_close(s);
	snprintf(path, sizeof(path), "%s/files/%u", fixture_dir, e.file);
	fd = open(path, O_RDONLY | O_DIRECT);
	if (fd < 0) {
		print_message("no direct IO on this file system\n");
		skip();
	}
	assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	close(fd);
	if (resident_pages(path) > 0)
		skip();
	s = open_scrubbed(1000 * MIB);
	EVENTUALLY(stat_of(s).scrub_passes > 0);
	assert_int_equal(resident_pages(path), 0);
	store_close(s);
}

static void *churn(void *arg)
{
	struct store *s = arg;

	for (int round = 0; round < 15; round++) {
		for (uint64_t n = 0; n < 40; n++) {
			struct store_block b = fixture_block(2, n, 300000, 0),
					   c = fixture_block(2, 100 + n % 4, 2 * BLOCK_BYTES, 1);

			assert_true(fixture_put(s, &b, STORE_ADMIT_GRANT) >= 0);
			assert_true(fixture_put(s, &c, STORE_ADMIT_GRANT) >= 0);
		}
		assert_int_equal(store_remove_dataset(s, 2, NULL), 0);
		fixture_plan(s, 2, 60 * MIB, UINT64_MAX);
	}
	return NULL;
}

/* Files that are emptied while it reads them go, and nothing sound is taken for damaged. */
static void blocks_that_come_and_go_meanwhile_are_not_mistaken(void **state)
{
	struct store *s = open_scrubbed(100000 * MIB);
	pthread_t thread;

	(void)state;
	fixture_plan(s, 2, 60 * MIB, UINT64_MAX);
	assert_int_equal(pthread_create(&thread, NULL, churn, s), 0);
	pthread_join(thread, NULL);
	assert_int_equal(store_remove_dataset(s, 2, NULL), 0);
	assert_int_equal(stat_of(s).scrub_damaged_blocks, 0);
	EVENTUALLY(fixture_du() < 4 * MIB);
	store_close(s);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		TEST(sound_blocks_stay_and_all_are_read),
		TEST(damage_is_found_without_a_reader),
		TEST(a_file_that_vanished_or_was_cut_costs_its_blocks),
		TEST(the_rate_bounds_it_and_off_is_off),
		TEST(a_restart_goes_on_where_it_was),
		TEST(the_page_cache_is_left_to_readers),
		TEST(blocks_that_come_and_go_meanwhile_are_not_mistaken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
