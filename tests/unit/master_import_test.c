/* Imports of listings that a test writes down, without a server. */
#include <errno.h>
#include <dirent.h>
#include <ftw.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "master/import.h"
#include "origin/origin_mem.h"

struct fixture {
	char dir[64], manifest_dir[128], db_dir[128];
	struct namespace_db *db;
	struct mem_store *store;
	struct origin *origin;
	struct filter *filter;
	struct import_report *report;
	struct import_progress progress;
	struct manifest_info info;
	struct manifest *manifest; /* of the last import */
	atomic_bool cancel;
	struct error err;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct origin_options *options = origin_options_new();

	assert_non_null(f);
	strcpy(f->dir, "/tmp/import-test-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->manifest_dir, sizeof(f->manifest_dir), "%s/manifests", f->dir);
	snprintf(f->db_dir, sizeof(f->db_dir), "%s/db", f->dir);
	assert_int_equal(mkdir(f->manifest_dir, 0700), 0);
	assert_int_equal(namespace_db_open(f->db_dir, &f->db, &f->err), 0);
	f->store = mem_store_new("import");
	assert_int_equal(origin_open("mem://import", options, &f->origin, &f->err), 0);
	origin_options_free(options);
	assert_int_equal(filter_new(NULL, 0, NULL, 0, &f->filter, &f->err), 0);
	*state = f;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	manifest_unref(f->manifest);
	import_report_free(f->report);
	filter_free(f->filter);
	origin_free(f->origin);
	mem_store_free(f->store);
	namespace_db_close(f->db);
	nftw(f->dir, remove_one, 32, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static int run_list(struct fixture *f, import_list_fn *list, struct manifest *previous)
{
	struct import_job job = {
		.db = f->db,
		.origin = f->origin,
		.list = list,
		.filter = f->filter,
		.manifest_dir = f->manifest_dir,
		.dataset_id = 17,
		.snapshot = previous ? manifest_info(previous)->snapshot + 1 : 1,
		.created_s = 1000,
		.dirs_mtime_ns = 1234567890,
		.previous = previous,
		.deadline_ms = clock_deadline_ms(600000),
		.cancel = &f->cancel,
		.progress = &f->progress,
	};
	char path[256];
	int r;

	import_report_free(f->report);
	f->report = import_report_new();
	r = import_run(&job, f->report, &f->info, &f->err);
	if (r == 0) {
		f->manifest = manifest_unref(f->manifest);
		snprintf(path, sizeof(path), "%s/%s.manifest", f->manifest_dir, f->info.digest);
		assert_int_equal(manifest_open(path, &f->manifest, &f->err), 0);
		if (manifest_verify(f->manifest, &f->err) < 0)
			fail_msg("%s", f->err.text);
	}
	return r;
}

static void run(struct fixture *f)
{
	if (run_list(f, NULL, NULL) < 0)
		fail_msg("%s", f->err.text);
}

static void set_filter(struct fixture *f, const char *include, const char *exclude)
{
	filter_free(f->filter);
	assert_int_equal(filter_new((char **)&include, include != NULL, (char **)&exclude,
				 exclude != NULL, &f->filter, &f->err),
		0);
}

/* NULL: there is no such path. */
static const struct manifest_entry *entry(struct fixture *f, const char *path)
{
	static struct manifest_entry e;
	uint32_t index;

	if (manifest_lookup_path(f->manifest, path, strlen(path), &index) < 0)
		return NULL;
	assert_int_equal(manifest_entry(f->manifest, index, &e), 0);
	return &e;
}

static const struct import_skipped *skipped(struct fixture *f, const char *part_of_reason)
{
	for (size_t i = 0; i < f->report->skipped_count; i++)
		if (strstr(f->report->skipped[i].reason, part_of_reason))
			return &f->report->skipped[i];
	return NULL;
}

static unsigned manifests(struct fixture *f)
{
	unsigned count = 0;
	DIR *d = opendir(f->manifest_dir);

	for (struct dirent *e; (e = readdir(d));)
		count += e->d_name[0] != '.' || strlen(e->d_name) > 2;
	closedir(d);
	return count;
}

/* ---- shape ----------------------------------------------------------------------------------- */

static void parents_that_are_not_listed_are_made(void **state)
{
	struct fixture *f = *state;

	mem_store_put_pattern(f->store, "a/b/c/file", 10, 1);
	mem_store_put_pattern(f->store, "z", 5, 1);
	run(f);
	assert_int_equal(f->info.files, 2);
	assert_int_equal(f->info.dirs, 4); /* with the root */
	assert_int_equal(f->info.bytes, 15);
	assert_int_equal(entry(f, "a/b")->type, MANIFEST_DIR);
	assert_int_equal(entry(f, "a/b")->mode, 0555);
	assert_int_equal(entry(f, "a/b")->mtime_ns, 1234567890);
	assert_int_equal(entry(f, "a/b/c/file")->mode, 0444);
	assert_int_equal(f->report->added, 2);
	assert_int_equal(f->report->skipped_count, 0);
}

static void attributes_empty_directories_and_symlinks_are_kept(void **state)
{
	struct fixture *f = *state;

	mem_store_put_dir(f->store, "empty");
	mem_store_set_attr(f->store, "empty", 0750, 5, 6, 77);
	mem_store_put_pattern(f->store, "d/file", 0, 1);
	mem_store_set_attr(f->store, "d/file", 04711, 7, 8, 99);
	mem_store_put_symlink(f->store, "d/link", "../empty");
	run(f);
	assert_int_equal(entry(f, "empty")->mode, 0750);
	assert_int_equal(entry(f, "empty")->uid, 5);
	assert_int_equal(entry(f, "empty")->gid, 6);
	assert_int_equal(entry(f, "empty")->mtime_ns, 77);
	assert_int_equal(entry(f, "empty")->children, 0);
	assert_int_equal(entry(f, "d/file")->mode, 04711);
	assert_int_equal(entry(f, "d/file")->mtime_ns, 99);
	assert_int_equal(entry(f, "d/file")->size, 0);
	assert_int_equal(entry(f, "d/link")->type, MANIFEST_SYMLINK);
	assert_memory_equal(entry(f, "d/link")->target, "../empty", 8);
	assert_int_equal(f->info.symlinks, 1);
}

static void an_empty_origin_is_an_empty_dataset(void **state)
{
	struct fixture *f = *state;

	run(f);
	assert_int_equal(f->info.entries, 1);
	assert_int_equal(f->info.bytes, 0);
}

static void marker_keys_are_directories(void **state)
{
	struct fixture *f = *state;

	mem_store_put_raw_name(f->store, "dir/", 4);
	mem_store_put_raw_name(f->store, "a/b/", 4);
	mem_store_put_pattern(f->store, "dir/file", 1, 1);
	mem_store_put_pattern(f->store, "full/", 3, 1); /* has bytes: no marker, and no name */
	mem_store_put_raw_name(f->store, "", 0);	/* of the prefix itself */
	run(f);
	assert_int_equal(entry(f, "dir")->type, MANIFEST_DIR);
	assert_int_equal(entry(f, "a/b")->type, MANIFEST_DIR);
	assert_non_null(entry(f, "dir/file"));
	assert_null(entry(f, "full"));
	assert_int_equal(f->info.files, 1);
	assert_int_equal(f->report->skipped_count, 1);
	assert_int_equal(f->report->skipped[0].count, 1);
}

static void a_directory_wins_over_a_file_of_its_name(void **state)
{
	struct fixture *f = *state;

	mem_store_put_pattern(f->store, "x", 9, 1);
	mem_store_put_pattern(f->store, "x/y", 1, 1);
	mem_store_put_pattern(f->store, "p", 9, 1);
	mem_store_put_raw_name(f->store, "p/", 2);
	run(f);
	assert_int_equal(entry(f, "x")->type, MANIFEST_DIR);
	assert_int_equal(entry(f, "p")->type, MANIFEST_DIR);
	assert_int_equal(entry(f, "x/y")->type, MANIFEST_FILE);
	assert_int_equal(f->info.bytes, 1);
	assert_int_equal(skipped(f, "name of a directory")->count, 2);
}

static int list_twice(struct origin *o, origin_entry_fn *fn, void *arg, const atomic_bool *cancel,
	int64_t deadline_ms, struct error *err)
{
	struct origin_entry e = {
		.path = "same",
		.path_len = 4,
		.validator = "\"one\"",
		.size = 1,
		.mode = ORIGIN_UNKNOWN_MODE,
		.uid = ORIGIN_UNKNOWN_ID,
		.gid = ORIGIN_UNKNOWN_ID,
	};

	(void)o;
	(void)cancel;
	(void)deadline_ms;
	for (int i = 0; i < 150; i++) {
		int r = fn(arg, &e, err);

		if (r < 0)
			return r;
		e.validator = "\"two\"";
		e.size = 2;
	}
	return 0;
}

static void of_duplicates_the_first_is_kept(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(run_list(f, list_twice, NULL), 0);
	assert_int_equal(f->info.files, 1);
	assert_int_equal(entry(f, "same")->size, 1);
	assert_string_equal(entry(f, "same")->validator, "\"one\"");
	assert_int_equal(skipped(f, "more than once")->count, 149);
	assert_int_equal(skipped(f, "more than once")->examples_count, 100);
}

static void names_that_cannot_be_mounted_are_reported(void **state)
{
	struct fixture *f = *state;
	char name[300];

	mem_store_put_raw_name(f->store, "a//b", 4);
	mem_store_put_raw_name(f->store, "/abs", 4);
	mem_store_put_raw_name(f->store, "a/../b", 6);
	mem_store_put_raw_name(f->store, "./c", 3);
	mem_store_put_raw_name(f->store, "nul\0byte", 8);
	memset(name, 'n', sizeof(name));
	mem_store_put_raw_name(f->store, name, 256);
	mem_store_put_other(f->store, "pipe", "a pipe");
	mem_store_put_raw_name(f->store, "sp ace\n\xff\xfe.UTF-8-\xc3\xa4", 18);
	mem_store_put_raw_name(f->store, name, 255);
	run(f);
	assert_int_equal(f->info.files, 2);
	assert_non_null(entry(f, "sp ace\n\xff\xfe.UTF-8-\xc3\xa4"));
	assert_int_equal(skipped(f, "a pipe")->count, 1);
	assert_int_equal(f->report->skipped_count, 6);
}

static void symlinks_that_leave_are_reported(void **state)
{
	struct fixture *f = *state;
	static const char *const inside[] = {"x", "../x", "./x/../../y", "../a/..", "."};
	static const char *const outside[] = {"/etc/passwd", "../../x", "x/../../../y", "../.."};
	char name[16];

	for (size_t i = 0; i < 5; i++) {
		snprintf(name, sizeof(name), "d/in%zu", i);
		mem_store_put_symlink(f->store, name, inside[i]);
	}
	for (size_t i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "d/out%zu", i);
		mem_store_put_symlink(f->store, name, outside[i]);
	}
	run(f);
	assert_int_equal(f->info.symlinks, 5);
	assert_int_equal(skipped(f, "leaves the dataset")->count, 4);
	assert_null(entry(f, "d/out0"));
}

/* ---- filters --------------------------------------------------------------------------------- */

static void filters_apply_and_drop_directories_that_lead_nowhere(void **state)
{
	struct fixture *f = *state;

	mem_store_put_dir(f->store, "train");
	mem_store_put_pattern(f->store, "train/a.jpg", 1, 1);
	mem_store_put_pattern(f->store, "train/a.tmp", 1, 1);
	mem_store_put_dir(f->store, "tmp");
	mem_store_put_pattern(f->store, "tmp/x.tmp", 1, 1);
	mem_store_put_dir(f->store, "empty");
	mem_store_put_other(f->store, "dev.tmp", "a device");
	set_filter(f, NULL, "*.tmp");
	run(f);
	assert_int_equal(f->info.files, 1);
	assert_non_null(entry(f, "train/a.jpg"));
	assert_null(entry(f, "tmp"));
	assert_null(entry(f, "empty"));
	assert_int_equal(f->report->skipped_count, 0); /* what is left out on purpose is no news */

	set_filter(f, "train/", NULL);
	run(f);
	assert_int_equal(f->info.files, 2);
	assert_int_equal(f->info.dirs, 2);
}

/* ---- changes --------------------------------------------------------------------------------- */

static void changes_are_counted_against_the_snapshot_before(void **state)
{
	struct fixture *f = *state;
	struct manifest *before;
	char name[32];

	for (int i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "d%d/f%d", i % 7, i);
		mem_store_put_pattern(f->store, name, 10, 1);
	}
	mem_store_put_symlink(f->store, "link", "d1");
	run(f);
	assert_int_equal(f->report->added, 51);
	before = manifest_ref(f->manifest);

	assert_int_equal(run_list(f, NULL, before), IMPORT_UNCHANGED);
	assert_int_equal(f->report->added + f->report->changed + f->report->removed, 0);
	assert_int_equal(manifests(f), 1);

	mem_store_remove(f->store, "d0/f7");
	mem_store_put_pattern(f->store, "d1/f8", 11, 1);       /* another size */
	mem_store_set_validator(f->store, "d2/f9", "\"new\""); /* the same size */
	mem_store_set_attr(f->store, "d3/f10", 0600, 1, 1, 0);
	mem_store_put_symlink(f->store, "link", "d2");
	mem_store_put_pattern(f->store, "d9/new", 1, 1);
	mem_store_put_pattern(f->store, "a", 1, 1);
	assert_int_equal(run_list(f, NULL, before), 0);
	assert_int_equal(f->report->added, 2);
	assert_int_equal(f->report->changed, 4);
	assert_int_equal(f->report->removed, 1);
	manifest_unref(before);
}

static void an_attribute_of_a_directory_makes_a_new_snapshot(void **state)
{
	struct fixture *f = *state;
	struct manifest *before;

	mem_store_put_dir(f->store, "d");
	run(f);
	before = manifest_ref(f->manifest);
	mem_store_set_attr(f->store, "d", 0700, 0, 0, 5);
	assert_int_equal(run_list(f, NULL, before), 0);
	assert_int_equal(f->report->changed, 0);
	manifest_unref(before);
}

/* ---- failures -------------------------------------------------------------------------------- */

static void a_failed_or_cancelled_import_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	struct mem_fault fault = {.kind = MEM_FAIL_FATAL, .ops = MEM_LIST};

	mem_store_put_pattern(f->store, "a", 1, 1);
	mem_store_add_fault(f->store, &fault);
	assert_int_equal(run_list(f, NULL, NULL), -EIO);
	assert_int_equal(manifests(f), 0);
	mem_store_clear_faults(f->store);
	atomic_store(&f->cancel, true);
	assert_int_equal(run_list(f, NULL, NULL), -ECANCELED);
	assert_int_equal(manifests(f), 0);
	atomic_store(&f->cancel, false);
	run(f);
	assert_int_equal(manifests(f), 1);
}

/* ---- size ------------------------------------------------------------------------------------ */

static uint64_t synthetic_entries = 200000;

/* Directories of 100 files, in an order that jumps about. */
static int list_synthetic(struct origin *o, origin_entry_fn *fn, void *arg,
	const atomic_bool *cancel, int64_t deadline_ms, struct error *err)
{
	(void)o;
	(void)cancel;
	(void)deadline_ms;
	for (uint64_t i = 0; i < synthetic_entries; i++) {
		uint64_t n = i * 7919 % synthetic_entries;
		char path[96], etag[48];
		struct origin_entry e = {
			.path = path,
			.path_len = (size_t)snprintf(path, sizeof(path),
				"train/n%08" PRIu64 "/image-%012" PRIu64 ".jpeg", n / 100, n),
			.size = 100000 + n % 1000,
			.mtime_ns = (int64_t)n,
			.validator = etag,
			.mode = ORIGIN_UNKNOWN_MODE,
			.uid = ORIGIN_UNKNOWN_ID,
			.gid = ORIGIN_UNKNOWN_ID,
		};
		int r;

		snprintf(etag, sizeof(etag), "\"%032" PRIx64 "\"", n * 0x9e3779b97f4a7c15u);
		r = fn(arg, &e, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Anonymous memory of this process at its peak is not kept by the kernel; sampled it is enough. */
static uint64_t rss_anon_bytes(void)
{
	FILE *file = fopen("/proc/self/status", "r");
	unsigned long kib = 0;
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "RssAnon: %lu kB", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return (uint64_t)kib << 10;
}

struct sampler {
	pthread_t thread;
	atomic_bool stop;
	uint64_t peak;
};

static void *sample(void *arg)
{
	struct sampler *s = arg;

	while (!atomic_load(&s->stop)) {
		uint64_t now = rss_anon_bytes();

		if (now > s->peak)
			s->peak = now;
		usleep(20000);
	}
	return NULL;
}

static uint64_t dir_bytes_sum;
static int add_bytes(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)path;
	(void)type;
	(void)ftw;
	dir_bytes_sum += (uint64_t)st->st_blocks * 512;
	return 0;
}

static uint64_t dir_bytes(const char *dir)
{
	dir_bytes_sum = 0;
	nftw(dir, add_bytes, 32, FTW_PHYS);
	return dir_bytes_sum;
}

static void many_entries_take_bounded_memory_and_leave_no_scratch(void **state)
{
	struct fixture *f = *state;
	struct sampler s = {.peak = 0};
	int64_t start_ms = clock_mono_ms(), took_ms;
	uint64_t before = rss_anon_bytes();

	if (getenv("GRANARY_TEST_LARGE"))
		synthetic_entries = 10000000;
	assert_int_equal(pthread_create(&s.thread, NULL, sample, &s), 0);
	if (run_list(f, list_synthetic, NULL) < 0)
		fail_msg("%s", f->err.text);
	atomic_store(&s.stop, true);
	pthread_join(s.thread, NULL);
	took_ms = clock_mono_ms() - start_ms + 1;
	print_message("%" PRIu64 " entries in %" PRId64 " ms (%" PRIu64 "/s, with verify), %" PRIu64
		      " MiB anonymous over %" PRIu64 "\n",
		synthetic_entries, took_ms, synthetic_entries * 1000 / (uint64_t)took_ms,
		(s.peak - before) >> 20, before >> 20);
	assert_int_equal(f->info.files, synthetic_entries);
	assert_int_equal(f->info.dirs, synthetic_entries / 100 + 2);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	assert_true(s.peak - before < ((uint64_t)256 << 20));
#endif
	assert_true(dir_bytes(f->db_dir) < ((uint64_t)16 << 20));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(parents_that_are_not_listed_are_made),
		TEST(attributes_empty_directories_and_symlinks_are_kept),
		TEST(an_empty_origin_is_an_empty_dataset),
		TEST(marker_keys_are_directories),
		TEST(a_directory_wins_over_a_file_of_its_name),
		TEST(of_duplicates_the_first_is_kept),
		TEST(names_that_cannot_be_mounted_are_reported),
		TEST(symlinks_that_leave_are_reported),
		TEST(filters_apply_and_drop_directories_that_lead_nowhere),
		TEST(changes_are_counted_against_the_snapshot_before),
		TEST(an_attribute_of_a_directory_makes_a_new_snapshot),
		TEST(a_failed_or_cancelled_import_leaves_nothing),
		TEST(many_entries_take_bounded_memory_and_leave_no_scratch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
