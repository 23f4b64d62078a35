#include "store_fixture.h"

#include <errno.h>
#include <sys/ioctl.h>

#include <linux/fs.h>

static const uint32_t sizes[] = {1, 7, 8, 4055, 4056, 4057, 4096, 65535, 65536, 65537, 110000,
	131072, 1000003, 4194303, 4194304};
#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

static void blocks_of_all_sizes_read_back_before_and_after_a_restart(void **state)
{
	struct store *s = fixture_open(256 * MIB);

	(void)state;
	fixture_plan(s, 1, 200 * MIB, UINT64_MAX);
	for (size_t i = 0; i < SIZES; i++) {
		struct store_block b = fixture_block(1, i, sizes[i], 0);

		assert_int_equal(fixture_read(s, &b), STORE_MISS);
		assert_int_equal(fixture_put(s, &b, STORE_ADMIT_GRANT), 0);
		assert_int_equal(fixture_put(s, &b, STORE_ADMIT_GRANT), STORE_EXISTS);
		assert_true(store_has(s, &b.id));
		assert_int_equal(fixture_read(s, &b), 0);
	}
	store_close(s);
	s = fixture_open(256 * MIB);
	for (size_t i = 0; i < SIZES; i++) {
		struct store_block b = fixture_block(1, i, sizes[i], 0);

		assert_int_equal(fixture_read(s, &b), 0);
	}
	store_close(s);
}

static void any_range_of_a_block_reads_back(void **state)
{
	struct store *s = fixture_open(256 * MIB);
	struct store_block small = fixture_block(1, 1, 1000003, 0);
	struct store_block large = fixture_block(1, 2, 3 * BLOCK_BYTES + 12345, 2);

	(void)state;
	fixture_plan(s, 1, 200 * MIB, UINT64_MAX);
	assert_int_equal(fixture_put(s, &small, STORE_ADMIT_GRANT), 0);
	assert_int_equal(fixture_put(s, &large, STORE_ADMIT_GRANT), 0);
	srand(1);
	for (int i = 0; i < 400; i++) {
		const struct store_block *b = i % 2 ? &small : &large;
		uint32_t offset = (uint32_t)rand() % b->len;
		uint32_t len = 1 + (uint32_t)rand() % (b->len - offset);

		if (i % 3 == 0)
			offset = offset / 65536 * 65536;
		if (i % 5 == 0)
			len = len < 4096 ? len : 4096;
		assert_int_equal(fixture_read_range(s, b, offset, len), 0);
	}
	store_close(s);
}

static void ranges_beyond_the_block_are_a_miss(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	struct store_block b = fixture_block(1, 1, 1000, 0);
	char data[2000];

	(void)state;
	fixture_plan(s, 1, MIB, UINT64_MAX);
	assert_int_equal(fixture_put(s, &b, STORE_ADMIT_GRANT), 0);
	assert_int_equal(store_read(s, &b, 0, 1001, data, NULL), STORE_MISS);
	assert_int_equal(store_read(s, &b, 1000, 1, data, NULL), STORE_MISS);
	assert_int_equal(store_read(s, &b, UINT32_MAX, 2, data, NULL), STORE_MISS);
	assert_int_equal(store_read(s, &b, 0, 0, data, NULL), STORE_MISS);
	store_close(s);
}

static void blocks_that_do_not_fit_their_object_are_refused(void **state)
{
	struct store *s = fixture_open(64 * MIB);
	struct store_block b = fixture_block(1, 1, 1000, 0);
	char data[2000] = "";

	(void)state;
	b.len = 999;
	assert_int_equal(store_put(s, &b, STORE_ADMIT_ELASTIC, data, NULL), -EINVAL);
	b.len = 1000;
	b.index = 1;
	assert_int_equal(store_put(s, &b, STORE_ADMIT_ELASTIC, data, NULL), -EINVAL);
	b.object_bytes = 0;
	b.index = 0;
	b.len = 0;
	assert_int_equal(store_put(s, &b, STORE_ADMIT_ELASTIC, data, NULL), -EINVAL);
	store_close(s);
}

static void a_large_object_reads_back_block_by_block(void **state)
{
	struct store *s = fixture_open(256 * MIB);
	uint64_t bytes = 9 * BLOCK_BYTES + 777;

	(void)state;
	fixture_plan(s, 1, 200 * MIB, UINT64_MAX);
	for (int round = 0; round < 2; round++) {
		for (uint64_t i = 0; i < block_count(bytes); i++) {
			struct store_block b = fixture_block(1, 5, bytes, (i * 7) % 10);

			if (round == 0 && i != 3)
				assert_int_equal(fixture_put(s, &b, STORE_ADMIT_GRANT), 0);
			if (i == 3)
				assert_int_equal(fixture_read(s, &b), STORE_MISS);
			else
				assert_int_equal(fixture_read(s, &b), 0);
		}
		store_close(s);
		s = fixture_open(256 * MIB);
	}
	store_close(s);
}

static void the_store_keeps_its_id_and_refuses_a_second_owner(void **state)
{
	struct store_options opts = {.dir = fixture_dir, .capacity_bytes = 64 * MIB};
	struct store *s = fixture_open(64 * MIB), *second;
	struct error err = ERROR_INIT;
	uint64_t id = store_id(s);

	(void)state;
	assert_int_not_equal(id, 0);
	assert_int_equal(store_open(&opts, &second, &err), -EBUSY);
	assert_non_null(strstr(err.text, fixture_dir));
	store_close(s);
	s = fixture_open(64 * MIB);
	assert_int_equal(store_id(s), id);
	store_close(s);
	opts.capacity_bytes = 63 * MIB;
	assert_int_equal(store_open(&opts, &second, &err), -ENOSPC);
}

static int flags_of_first_segment(void)
{
	char path[sizeof(fixture_dir) + 300];
	struct dirent *e;
	int flags, fd;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/segments", fixture_dir);
	dir = opendir(path);
	assert_non_null(dir);
	while ((e = readdir(dir)) && e->d_name[0] == '.')
		;
	assert_non_null(e);
	snprintf(path, sizeof(path), "%s/segments/%s", fixture_dir, e->d_name);
	closedir(dir);
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0)
		flags = 0;
	close(fd);
	return flags;
}

static bool can_leave_it_out(void)
{
	char path[sizeof(fixture_dir) + 300];
	int flags = FS_NOATIME_FL, fd;
	bool can;

	snprintf(path, sizeof(path), "%s/trial", fixture_dir);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	assert_true(fd >= 0);
	can = ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0;
	close(fd);
	return can;
}

/* A read that the kernel passes through would look at it. */
static void files_keep_no_access_time(void **state)
{
	struct store_block b = fixture_block(1, 1, 1000, 0);
	struct store *s = fixture_open(64 * MIB);
	int flags;

	(void)state;
	fixture_plan(s, 1, MIB, UINT64_MAX);
	assert_int_equal(fixture_put(s, &b, STORE_ADMIT_GRANT), 0);
	flags = flags_of_first_segment();
	store_close(s);
	if (!can_leave_it_out()) {
		print_message("this file system keeps access times of all files\n");
		skip();
	}
	assert_true(flags & FS_NOATIME_FL);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		TEST(blocks_of_all_sizes_read_back_before_and_after_a_restart),
		TEST(any_range_of_a_block_reads_back),
		TEST(ranges_beyond_the_block_are_a_miss),
		TEST(blocks_that_do_not_fit_their_object_are_refused),
		TEST(a_large_object_reads_back_block_by_block),
		TEST(the_store_keeps_its_id_and_refuses_a_second_owner),
		TEST(files_keep_no_access_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
