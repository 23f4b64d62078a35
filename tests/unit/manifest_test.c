#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <signal.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "manifest_fixture.h"

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	fixture_init(f);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	fixture_deinit(*state);
	free(*state);
	return 0;
}

static uint32_t must_find(struct manifest *m, const char *path)
{
	uint32_t index = UINT32_MAX;

	assert_int_equal(manifest_lookup_path(m, path, strlen(path), &index), 0);
	return index;
}

static void check_path(struct manifest *m, uint32_t index, const char *path, size_t len)
{
	cleanup_buf struct buf got = BUF_INIT;

	assert_int_equal(manifest_path(m, index, &got), 0);
	assert_int_equal(got.len, len);
	assert_memory_equal(got.data, path, len);
}

static void every_field_of_an_entry_comes_back(void **state)
{
	struct manifest_builder_entry in[] = {fixture_dir("d"), fixture_file("d/f", 12345),
		fixture_symlink("d/l", "../x"), fixture_dir("d/e"), fixture_file("z", 0)};
	struct object_id object =
		object_id_make(42, "d/f", 3, 12345, "\"etag\"", 1700000000123456789);
	struct manifest_entry e;
	struct manifest *m;

	fixture_build(*state, in, 5);
	m = fixture_open(*state);
	assert_int_equal(manifest_entry(m, 0, &e), 0);
	assert_int_equal(e.type, MANIFEST_DIR);
	assert_int_equal(e.mode, 0755);
	assert_int_equal(e.uid, 1);
	assert_int_equal(e.gid, 2);
	assert_int_equal(e.mtime_ns, 3);
	assert_int_equal(e.children, 2);
	assert_int_equal(e.subdirs, 1);
	assert_int_equal(e.name_len, 0);

	assert_int_equal(manifest_entry(m, must_find(m, "d"), &e), 0);
	assert_int_equal(e.children, 3);
	assert_int_equal(e.subdirs, 1);
	assert_string_equal(e.validator, "");
	assert_int_equal(manifest_entry(m, must_find(m, "d/e"), &e), 0);
	assert_int_equal(e.type, MANIFEST_DIR);
	assert_int_equal(e.children, 0);

	assert_int_equal(manifest_entry(m, must_find(m, "d/f"), &e), 0);
	assert_int_equal(e.type, MANIFEST_FILE);
	assert_int_equal(e.size, 12345);
	assert_int_equal(e.mode, 0444);
	assert_int_equal(e.uid, UINT32_MAX);
	assert_int_equal(e.mtime_ns, 1700000000123456789);
	assert_int_equal(e.parent, must_find(m, "d"));
	assert_int_equal(e.object.hi, object.hi);
	assert_int_equal(e.object.lo, object.lo);
	assert_string_equal(e.validator, "\"etag\"");

	assert_int_equal(manifest_entry(m, must_find(m, "d/l"), &e), 0);
	assert_int_equal(e.type, MANIFEST_SYMLINK);
	assert_int_equal(e.target_len, 4);
	assert_memory_equal(e.target, "../x", 4);
	assert_int_equal(manifest_entry(m, 6, &e), -ENOENT);
	assert_int_equal(manifest_entry(m, UINT32_MAX, &e), -ENOENT);
	manifest_unref(m);
}

static void info_sums_up_the_snapshot(void **state)
{
	struct manifest_builder_entry in[] = {fixture_dir("d"), fixture_file("d/a", BLOCK_BYTES),
		fixture_file("d/b", BLOCK_BYTES + 1), fixture_file("d/c", 0),
		fixture_symlink("l", "d")};
	const struct manifest_info *info;
	struct manifest *m;

	fixture_build(*state, in, 5);
	m = fixture_open(*state);
	info = manifest_info(m);
	assert_int_equal(info->dataset_id, 42);
	assert_int_equal(info->snapshot, 7);
	assert_int_equal(info->created_s, 1700000000);
	assert_int_equal(info->entries, 6);
	assert_int_equal(info->files, 3);
	assert_int_equal(info->dirs, 2);
	assert_int_equal(info->symlinks, 1);
	assert_int_equal(info->bytes, 2 * BLOCK_BYTES + 1);
	assert_int_equal(info->blocks, 3);
	manifest_unref(m);
}

static void a_dataset_without_entries_is_an_empty_root(void **state)
{
	struct manifest_entry e;
	struct manifest *m;
	uint32_t index;

	fixture_build(*state, NULL, 0);
	m = fixture_open(*state);
	assert_int_equal(manifest_info(m)->entries, 1);
	assert_int_equal(manifest_entry(m, 0, &e), 0);
	assert_int_equal(e.children, 0);
	assert_int_equal(manifest_lookup(m, 0, "x", 1, &index), -ENOENT);
	assert_int_equal(manifest_lookup_path(m, "", 0, &index), 0);
	assert_int_equal(index, 0);
	check_path(m, 0, "", 0);
	assert_int_equal(manifest_verify(m, NULL), 0);
	manifest_unref(m);
}

static void lookups_miss_as_a_filesystem_does(void **state)
{
	struct manifest_builder_entry in[] = {
		fixture_dir("d"), fixture_file("d/f", 1), fixture_file("d/ff", 1)};
	struct manifest *m;
	uint32_t index;

	fixture_build(*state, in, 3);
	m = fixture_open(*state);
	assert_int_equal(manifest_lookup_path(m, "d/g", 3, &index), -ENOENT);
	assert_int_equal(manifest_lookup_path(m, "d/fff", 5, &index), -ENOENT);
	assert_int_equal(manifest_lookup_path(m, "d/", 2, &index), -ENOENT);
	assert_int_equal(manifest_lookup_path(m, "d//f", 4, &index), -ENOENT);
	assert_int_equal(manifest_lookup_path(m, "/d", 2, &index), -ENOENT);
	assert_int_equal(manifest_lookup_path(m, "d/f/x", 5, &index), -ENOTDIR);
	assert_int_equal(manifest_lookup(m, 99, "x", 1, &index), -ENOENT);
	manifest_unref(m);
}

/* Bytes around '/' in names make the order of paths differ from the order of whole strings. */
static void awkward_names_are_found_and_children_are_sorted(void **state)
{
	static const char *const dirs[] = {"a", "a\x01", "a ", "a.", "a-", "a0", "\xff\xfe", "\n",
		"...", "\xc3\xa4", "A", "-"};
	enum { DIRS = sizeof(dirs) / sizeof(dirs[0]) };
	struct manifest_builder_entry in[DIRS * (DIRS + 1)];
	static char paths[DIRS][DIRS][16];
	struct manifest *m;
	size_t count = 0;

	for (size_t i = 0; i < DIRS; i++) {
		in[count++] = fixture_dir(dirs[i]);
		for (size_t j = 0; j < DIRS; j++) {
			snprintf(paths[i][j], sizeof(paths[i][j]), "%s/%s", dirs[i], dirs[j]);
			in[count++] = fixture_file(paths[i][j], 1);
		}
	}
	fixture_build(*state, in, count);
	m = fixture_open(*state);
	for (uint32_t i = 0; i < count; i++) {
		assert_int_equal(must_find(m, in[i].path), i + 1);
		check_path(m, i + 1, in[i].path, in[i].path_len);
	}
	for (size_t i = 0; i < DIRS; i++) {
		struct manifest_entry dir, a, b;

		assert_int_equal(manifest_entry(m, must_find(m, dirs[i]), &dir), 0);
		assert_int_equal(dir.children, DIRS);
		for (uint32_t c = 1; c < dir.children; c++) {
			size_t shorter;
			int order;

			assert_int_equal(manifest_entry(m, dir.first_child + c - 1, &a), 0);
			assert_int_equal(manifest_entry(m, dir.first_child + c, &b), 0);
			shorter = a.name_len < b.name_len ? a.name_len : b.name_len;
			order = memcmp(a.name, b.name, shorter);
			assert_true(order < 0 || (order == 0 && a.name_len < b.name_len));
		}
	}
	assert_int_equal(manifest_verify(m, NULL), 0);
	manifest_unref(m);
}

static void the_deepest_and_longest_path_is_kept(void **state)
{
	static char path[4096];
	struct manifest_builder_entry in[255];
	static char paths[255][512];
	struct manifest *m;

	/* 254 directories and a file: 255 levels. */
	for (size_t i = 0; i < 255; i++) {
		memset(paths[i], 'x', 2 * i + 1);
		for (size_t s = 1; s < 2 * i + 1; s += 2)
			paths[i][s] = '/';
		in[i] = i < 254 ? fixture_dir(paths[i]) : fixture_file(paths[i], 5);
	}
	fixture_build(*state, in, 255);
	m = fixture_open(*state);
	check_path(m, must_find(m, paths[254]), paths[254], strlen(paths[254]));
	assert_int_equal(manifest_verify(m, NULL), 0);
	manifest_unref(m);

	/* 15 names of 255 bytes and one that ends at byte 4,095. */
	memset(path, 'y', 4095);
	for (size_t s = 255; s < 4095; s += 256)
		path[s] = '/';
	for (size_t i = 0; i < 16; i++) {
		size_t len = i < 15 ? 255 + i * 256 : 4095;

		in[i] = i < 15 ? fixture_dir(path) : fixture_file(path, 5);
		in[i].path_len = len;
	}
	fixture_build(*state, in, 16);
	m = fixture_open(*state);
	check_path(m, must_find(m, path), path, 4095);
	manifest_unref(m);
}

/* ---- what the builder refuses ------------------------------------------------------------------
 */

static struct manifest_builder *new_builder(struct fixture *f)
{
	struct manifest_builder *b;

	assert_int_equal(manifest_builder_new(f->dir, 42, 7, 0, &fixture_root, &b, NULL), 0);
	return b;
}

static int add_file(struct manifest_builder *b, const char *path)
{
	struct manifest_builder_entry e = fixture_file(path, 1);
	struct error err = ERROR_INIT;
	int r = manifest_builder_add(b, &e, &err);

	assert_true(r == 0 || err.text[0] != '\0');
	return r;
}

static int add_dir(struct manifest_builder *b, const char *path)
{
	struct manifest_builder_entry e = fixture_dir(path);

	return manifest_builder_add(b, &e, NULL);
}

static void what_the_builder_refuses_leaves_the_rest_intact(void **state)
{
	struct fixture *f = *state;
	struct manifest_builder *b = new_builder(f);
	char digest[MANIFEST_DIGEST_TEXT_BYTES];
	struct manifest_entry root;
	struct manifest *m;

	assert_int_equal(add_dir(b, "b"), 0);
	assert_int_equal(add_file(b, "b"), -EINVAL);
	assert_int_equal(add_file(b, "a"), -EINVAL);
	assert_int_equal(add_file(b, "a/x/y"), -EINVAL);
	assert_int_equal(add_file(b, "c"), 0);
	assert_int_equal(add_dir(b, "d"), 0);
	assert_int_equal(add_file(b, "a/x"), -EINVAL);
	assert_int_equal(add_file(b, "b/x"), 0);
	assert_int_equal(add_file(b, "c/x"), -EINVAL);
	assert_int_equal(add_file(b, "b/y"), -EINVAL);
	assert_int_equal(add_file(b, "d/x"), 0);
	assert_int_equal(add_file(b, "d"), -EINVAL);
	assert_int_equal(add_file(b, "d/y"), 0);
	assert_int_equal(add_file(b, "e/x"), -EINVAL);
	assert_int_equal(add_file(b, "d/../x"), -EINVAL);
	assert_int_equal(manifest_builder_finish(b, digest, NULL), 0);
	manifest_builder_free(b);
	snprintf(f->path, sizeof(f->path), "%s/%s.manifest", f->dir, digest);
	m = fixture_open(f);
	assert_int_equal(manifest_info(m)->entries, 7);
	assert_int_equal(manifest_entry(m, 0, &root), 0);
	assert_int_equal(root.children, 3);
	assert_int_equal(root.subdirs, 2);
	check_path(m, must_find(m, "b/x"), "b/x", 3);
	check_path(m, must_find(m, "d/y"), "d/y", 3);
	assert_int_equal(manifest_verify(m, NULL), 0);
	manifest_unref(m);
}

static void impossible_entries_are_refused(void **state)
{
	struct manifest_builder *b = new_builder(*state);
	struct manifest_builder_entry e = fixture_file("a", ((uint64_t)1 << 50) + 1);
	static char longest[4097];

	memset(longest, 'v', 4096);
	assert_int_equal(manifest_builder_add(b, &e, NULL), -EINVAL);
	e = fixture_file("a", 1);
	e.validator = longest;
	assert_int_equal(manifest_builder_add(b, &e, NULL), -EINVAL);
	e = fixture_symlink("a", "");
	assert_int_equal(manifest_builder_add(b, &e, NULL), -EINVAL);
	e = fixture_symlink("a", "x");
	e.target = "x\0y";
	e.target_len = 3;
	assert_int_equal(manifest_builder_add(b, &e, NULL), -EINVAL);
	e = fixture_file("a", 1);
	e.type = (enum manifest_entry_type)3;
	assert_int_equal(manifest_builder_add(b, &e, NULL), -EINVAL);
	for (unsigned i = 0; i < 8192; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%04u", i);
		e = fixture_file(name, ((uint64_t)1 << 50) - (i == 0));
		assert_int_equal(manifest_builder_add(b, &e, NULL), 0);
	}
	assert_int_equal(add_file(b, "g"), -EINVAL); /* past 2^63 bytes in all */
	manifest_builder_free(b);
}

static void an_unfinished_manifest_leaves_nothing(void **state)
{
	struct fixture f;
	struct manifest_builder *b;

	(void)state;
	fixture_init(&f);
	b = new_builder(&f);
	assert_int_equal(add_file(b, "a"), 0);
	manifest_builder_free(b);
	assert_int_equal(fixture_deinit(&f), 0);
}

static void leftovers_of_dead_builders_are_removed_and_living_ones_are_not(void **state)
{
	struct fixture f;
	struct manifest_builder *living, *b;
	char digest[MANIFEST_DIGEST_TEXT_BYTES], left[FIXTURE_PATH_BYTES + 32];
	FILE *file;

	(void)state;
	fixture_init(&f);
	snprintf(left, sizeof(left), "%s/.manifest-abcdef", f.dir);
	file = fopen(left, "w");
	assert_non_null(file);
	fclose(file);
	living = new_builder(&f);
	assert_int_equal(access(left, F_OK), -1);
	b = new_builder(&f);
	assert_int_equal(add_file(living, "a"), 0);
	assert_int_equal(manifest_builder_finish(living, digest, NULL), 0);
	manifest_builder_free(living);
	manifest_builder_free(b);
	assert_int_equal(fixture_deinit(&f), 1);
}

/* A limit on the size of files stands for every way in which a write can fail. */
static void a_full_disk_fails_the_build_and_leaves_nothing(void **state)
{
	struct rlimit before, small = {.rlim_cur = 1 << 20};
	struct error err = ERROR_INIT;
	char digest[MANIFEST_DIGEST_TEXT_BYTES], name[16];
	struct manifest_builder *b;
	struct fixture f;
	int r = 0;

	(void)state;
	fixture_init(&f);
	b = new_builder(&f);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	small.rlim_max = before.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	for (unsigned i = 0; r == 0 && i < 100000; i++) {
		struct manifest_builder_entry e = fixture_file(name, 1);

		e.path_len = (size_t)snprintf(name, sizeof(name), "f%06u", i);
		r = manifest_builder_add(b, &e, &err);
	}
	assert_int_equal(r, -EFBIG);
	assert_true(err.text[0] != '\0');
	assert_int_equal(add_file(b, "g"), -EFBIG);
	assert_int_equal(manifest_builder_finish(b, digest, &err), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	manifest_builder_free(b);
	assert_int_equal(fixture_deinit(&f), 0);
}

static void a_directory_that_is_not_there_is_a_clear_error(void **state)
{
	struct error err = ERROR_INIT;
	struct manifest_builder *b;

	(void)state;
	assert_int_equal(
		manifest_builder_new("/nonexistent/x", 1, 1, 0, &fixture_root, &b, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/nonexistent/x"));
}

static void equal_entries_make_equal_files_readable_by_the_owner_only(void **state)
{
	struct manifest_builder_entry in[] = {fixture_dir("d"), fixture_file("d/f", 1)};
	struct fixture *f = *state;
	char first[sizeof(f->path)];
	struct stat st;

	fixture_build(f, in, 2);
	strcpy(first, f->path);
	fixture_build(f, in, 2);
	assert_string_equal(first, f->path);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	in[1].size++;
	fixture_build(f, in, 2);
	assert_string_not_equal(first, f->path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			every_field_of_an_entry_comes_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(info_sums_up_the_snapshot, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_dataset_without_entries_is_an_empty_root, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			lookups_miss_as_a_filesystem_does, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			awkward_names_are_found_and_children_are_sorted, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			the_deepest_and_longest_path_is_kept, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			what_the_builder_refuses_leaves_the_rest_intact, set_up, tear_down),
		cmocka_unit_test_setup_teardown(impossible_entries_are_refused, set_up, tear_down),
		cmocka_unit_test(an_unfinished_manifest_leaves_nothing),
		cmocka_unit_test(leftovers_of_dead_builders_are_removed_and_living_ones_are_not),
		cmocka_unit_test(a_full_disk_fails_the_build_and_leaves_nothing),
		cmocka_unit_test(a_directory_that_is_not_there_is_a_clear_error),
		cmocka_unit_test_setup_teardown(
			equal_entries_make_equal_files_readable_by_the_owner_only, set_up,
			tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
