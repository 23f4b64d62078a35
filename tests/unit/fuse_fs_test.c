#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fuse/fs.h"
#include "fuse/node_id.h"
#include "tests/unit/manifest_fixture.h"

#define MIB ((uint64_t)1 << 20)

static struct block_source no_source;

static void make_fs(struct fs *fs, struct manifest *m)
{
	struct fs_options opts = {.dataset = "d", .origin = "mem://d", .uid = 77, .gid = 88};
	struct error err = ERROR_INIT;

	assert_int_equal(fs_init(fs, &opts, m, &no_source, &err), 0);
}

static void drop_fs(struct fs *fs)
{
	fs_stop(fs);
	fs_deinit(fs);
}

static struct manifest *build_one(struct fixture *f, uint64_t size, int64_t mtime_ns)
{
	struct manifest_builder_entry entries[] = {
		fixture_dir("dir"),
		fixture_dir("dir/sub"),
		fixture_file("dir/file", size),
		fixture_symlink("link", "dir/file"),
	};

	entries[2].mtime_ns = mtime_ns;
	fixture_build(f, entries, 4);
	return fixture_open(f);
}

static void stat_of(struct fs *fs, const char *path, struct stat *ret)
{
	struct fs_node node = FS_NODE_INIT, other = FS_NODE_INIT;
	uint32_t index;

	assert_int_equal(fs_node_get(fs, NODE_ROOT, &node), 0);
	assert_int_equal(manifest_lookup_path(node.manifest, path, strlen(path), &index), 0);
	assert_int_equal(fs_node_at(&node, index, &other), 0);
	fs_node_stat(fs, &other, ret);
	fs_node_put(&other);
	fs_node_put(&node);
}

static void entries_look_as_a_local_file_would(void **state)
{
	struct fixture f;
	struct manifest *m;
	struct stat st;
	struct fs fs;

	(void)state;
	fixture_init(&f);
	m = build_one(&f, 1000, -1);
	make_fs(&fs, m);
	stat_of(&fs, "dir/file", &st);
	assert_int_equal(st.st_mode, S_IFREG | 0444);
	assert_int_equal(st.st_size, 1000);
	assert_int_equal(st.st_blocks, 2);
	assert_int_equal(st.st_nlink, 1);
	assert_int_equal(st.st_uid, 77);
	assert_int_equal(st.st_gid, 88);
	assert_int_equal(st.st_mtim.tv_sec, -1);
	assert_int_equal(st.st_mtim.tv_nsec, 999999999);
	stat_of(&fs, "dir", &st);
	assert_int_equal(st.st_mode, S_IFDIR | 0555);
	assert_int_equal(st.st_nlink, 3);
	stat_of(&fs, "link", &st);
	assert_int_equal(st.st_mode, S_IFLNK | 0777);
	assert_int_equal(st.st_size, strlen("dir/file"));
	drop_fs(&fs);
	manifest_unref(m);
	fixture_deinit(&f);
}

static void the_block_size_is_a_power_of_two_that_suits_the_file(void **state)
{
	static const struct {
		uint64_t size, blksize;
	} cases[] = {{0, 4096}, {4096, 4096}, {4097, 8192}, {110000, 131072}, {4 * MIB, 131072},
		{4 * MIB + 1, 4096}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct fixture f;
		struct manifest *m;
		struct stat st;
		struct fs fs;

		fixture_init(&f);
		m = build_one(&f, cases[i].size, 0);
		make_fs(&fs, m);
		stat_of(&fs, "dir/file", &st);
		assert_int_equal(st.st_blksize, cases[i].blksize);
		drop_fs(&fs);
		manifest_unref(m);
		fixture_deinit(&f);
	}
}

static void the_mode_follows_from_the_mean_file(void **state)
{
	static const struct {
		uint64_t size;
		enum mount_mode mode;
	} cases[] = {{0, MOUNT_MODE_NO_OPEN}, {4 * MIB, MOUNT_MODE_NO_OPEN},
		{4 * MIB + 1, MOUNT_MODE_OPEN}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct fixture f;
		struct manifest *m;
		struct fs fs;

		fixture_init(&f);
		m = build_one(&f, cases[i].size, 0);
		make_fs(&fs, m);
		assert_int_equal(atomic_load(&fs.mode), cases[i].mode);
		drop_fs(&fs);
		manifest_unref(m);
		fixture_deinit(&f);
	}
}

static void nodes_of_older_snapshots_are_kept_for_a_while_and_then_refused(void **state)
{
	struct fs_node node = FS_NODE_INIT;
	struct fixture f;
	struct manifest *first, *later;
	uint64_t ino;
	struct fs fs;

	(void)state;
	fixture_init(&f);
	first = build_one(&f, 1, 0);
	later = build_one(&f, 2, 0);
	make_fs(&fs, first);
	ino = node_id_make(0, 3);
	for (int i = 1; i < SNAPSHOT_SLOTS; i++) {
		assert_int_equal(snapshot_slots_show(&fs.slots, later), 0);
		assert_int_equal(fs_node_get(&fs, ino, &node), 0);
		assert_ptr_equal(node.manifest, first);
		assert_int_equal(fs_node_ino(&node), ino);
		fs_node_put(&node);
	}
	assert_int_equal(snapshot_slots_show(&fs.slots, later), 0);
	assert_int_equal(fs_node_get(&fs, ino, &node), -ESTALE);
	assert_null(node.manifest);
	assert_int_equal(fs_node_get(&fs, NODE_ROOT, &node), 0);
	assert_ptr_equal(node.manifest, later);
	assert_int_equal(node.slot, SNAPSHOT_SLOTS);
	fs_node_put(&node);
	drop_fs(&fs);
	manifest_unref(first);
	manifest_unref(later);
	fixture_deinit(&f);
}

static void what_is_no_node_is_refused(void **state)
{
	static const uint64_t none[] = {0, 6, 1000, (uint64_t)1 << 32 | 2, UINT64_MAX};
	struct fs_node node = FS_NODE_INIT;
	struct fixture f;
	struct manifest *m;
	struct fs fs;

	(void)state;
	fixture_init(&f);
	m = build_one(&f, 1, 0);
	make_fs(&fs, m);
	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
		assert_int_equal(fs_node_get(&fs, none[i], &node), -ESTALE);
	drop_fs(&fs);
	manifest_unref(m);
	fixture_deinit(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(entries_look_as_a_local_file_would),
		cmocka_unit_test(the_block_size_is_a_power_of_two_that_suits_the_file),
		cmocka_unit_test(the_mode_follows_from_the_mean_file),
		cmocka_unit_test(nodes_of_older_snapshots_are_kept_for_a_while_and_then_refused),
		cmocka_unit_test(what_is_no_node_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
