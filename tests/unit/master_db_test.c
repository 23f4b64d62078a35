/* The namespace database: what survives, what is refused, and that scratch data never stays. */
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <rocksdb/c.h>

#include "common/database/database_trial.h"
#include "database_damage.h"
#include "master/namespace_db.h"
#include "master/namespace_scratch.h"
#include "master/state.pb-c.h"

struct fixture {
	char dir[64], db_dir[128];
	struct namespace_db *db;
	struct error err;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	strcpy(f->dir, "/tmp/db-test-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->db_dir, sizeof(f->db_dir), "%s/db", f->dir);
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

	namespace_db_close(f->db);
	nftw(f->dir, remove_one, 32, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static void open_db(struct fixture *f)
{
	if (namespace_db_open(f->db_dir, &f->db, &f->err) < 0)
		fail_msg("%s", f->err.text);
}

static void close_db(struct fixture *f)
{
	namespace_db_close(f->db);
	f->db = NULL;
}

static void put_totals(struct fixture *f, uint64_t id, uint64_t hit_bytes)
{
	Granary__State__V1__TotalsState totals = GRANARY__STATE__V1__TOTALS_STATE__INIT;
	struct namespace_batch *batch = namespace_batch_new();

	totals.hit_bytes = hit_bytes;
	assert_true(namespace_batch_empty(batch));
	assert_int_equal(namespace_batch_put(batch, NAMESPACE_TOTALS, id, 0, &totals.base), 0);
	assert_false(namespace_batch_empty(batch));
	assert_int_equal(namespace_db_commit(f->db, batch, true, &f->err), 0);
	namespace_batch_free(batch);
}

static int get_totals(struct fixture *f, uint64_t id, uint64_t *ret)
{
	ProtobufCMessage *message;
	int r = namespace_db_get(f->db, NAMESPACE_TOTALS, id, 0,
		&granary__state__v1__totals_state__descriptor, &message, &f->err);

	if (r == 0) {
		*ret = ((Granary__State__V1__TotalsState *)message)->hit_bytes;
		protobuf_c_message_free_unpacked(message, NULL);
	}
	return r;
}

static void raw_put(struct fixture *f, const char *key, const char *value)
{
	rocksdb_options_t *options = rocksdb_options_create();
	rocksdb_writeoptions_t *write = rocksdb_writeoptions_create();
	char *text = NULL;
	rocksdb_t *db = rocksdb_open(options, f->db_dir, &text);

	assert_null(text);
	if (value)
		rocksdb_put(db, write, key, strlen(key), value, strlen(value), &text);
	else
		rocksdb_delete(db, write, key, strlen(key), &text);
	assert_null(text);
	rocksdb_close(db);
	rocksdb_writeoptions_destroy(write);
	rocksdb_options_destroy(options);
}

struct walked {
	uint64_t ids[8];
	size_t count;
	int result;
};

static int visit(void *arg, uint64_t a, uint64_t b, ProtobufCMessage **message, struct error *err)
{
	struct walked *w = arg;

	(void)err;
	assert_int_equal(b, 0);
	assert_non_null(*message);
	w->ids[w->count++] = a;
	return w->result;
}

static void records_survive_and_are_walked_in_order(void **state)
{
	struct fixture *f = *state;
	struct walked w = {.count = 0};
	uint64_t bytes;

	open_db(f);
	put_totals(f, 300, 3);
	put_totals(f, 2, 2);
	put_totals(f, UINT64_MAX, 4);
	close_db(f);
	open_db(f);
	assert_int_equal(get_totals(f, 300, &bytes), 0);
	assert_int_equal(bytes, 3);
	assert_int_equal(get_totals(f, 301, &bytes), -ENOENT);
	assert_int_equal(namespace_db_scan(f->db, NAMESPACE_TOTALS,
				 &granary__state__v1__totals_state__descriptor, visit, &w, &f->err),
		0);
	assert_int_equal(w.count, 3);
	assert_int_equal(w.ids[0], 2);
	assert_int_equal(w.ids[1], 300);
	assert_true(w.ids[2] == UINT64_MAX);
	w = (struct walked){.result = -ECANCELED};
	assert_int_equal(namespace_db_scan(f->db, NAMESPACE_TOTALS,
				 &granary__state__v1__totals_state__descriptor, visit, &w, &f->err),
		-ECANCELED);
	assert_int_equal(w.count, 1);
}

static void a_second_opening_is_refused(void **state)
{
	struct fixture *f = *state;
	struct namespace_db *other;

	open_db(f);
	assert_int_equal(namespace_db_open(f->db_dir, &other, &f->err), -EBUSY);
	assert_non_null(strstr(f->err.text, f->db_dir));
	assert_null(strchr(f->err.text, '\n'));
}

static void a_newer_format_is_refused(void **state)
{
	struct fixture *f = *state;

	open_db(f);
	close_db(f);
	raw_put(f, "format", "2");
	assert_int_equal(namespace_db_open(f->db_dir, &f->db, &f->err), -EPROTO);
	assert_non_null(strstr(f->err.text, "newer granary"));
	assert_non_null(strstr(f->err.text, f->db_dir));
	raw_put(f, "format", "junk");
	assert_int_equal(namespace_db_open(f->db_dir, &f->db, &f->err), -EPROTO);
	raw_put(f, "format", "1");
	open_db(f);
}

static void records_without_a_format_are_refused(void **state)
{
	struct fixture *f = *state;

	open_db(f);
	put_totals(f, 1, 1);
	close_db(f);
	raw_put(f, "format", NULL);
	assert_int_equal(namespace_db_open(f->db_dir, &f->db, &f->err), -EIO);
	assert_non_null(strstr(f->err.text, f->db_dir));
}

/* The file of that prefix, or fails. */
static void find_file(struct fixture *f, const char *prefix, const char *suffix, char path[512])
{
	DIR *d = opendir(f->db_dir);

	assert_non_null(d);
	path[0] = '\0';
	for (struct dirent *e; (e = readdir(d));)
		if (strncmp(e->d_name, prefix, strlen(prefix)) == 0 &&
			strlen(e->d_name) >= strlen(suffix) &&
			strcmp(e->d_name + strlen(e->d_name) - strlen(suffix), suffix) == 0)
			snprintf(path, 512, "%s/%.200s", f->db_dir, e->d_name);
	closedir(d);
	assert_true(path[0]);
}

static void overwrite(const char *path, off_t at, const char *bytes)
{
	int fd = open(path, O_WRONLY);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, strlen(bytes), at), strlen(bytes));
	close(fd);
}

/* The log becomes a table with the second opening. */
static void one_table(struct fixture *f)
{
	open_db(f);
	put_totals(f, 1, 11);
	close_db(f);
	open_db(f);
	close_db(f);
}

static void a_lost_catalogue_is_repaired(void **state)
{
	struct fixture *f = *state;
	uint64_t bytes;
	char path[512];

	open_db(f);
	put_totals(f, 1, 11);
	close_db(f);
	open_db(f); /* brings the log into a table */
	put_totals(f, 2, 22);
	close_db(f);
	find_file(f, "MANIFEST-", "", path);
	overwrite(path, 0, "this is not what a catalogue of tables starts with");
	open_db(f);
	assert_int_equal(get_totals(f, 1, &bytes), 0);
	assert_int_equal(bytes, 11);
	assert_int_equal(get_totals(f, 2, &bytes), 0);
	assert_int_equal(bytes, 22);
}

static void a_lost_pointer_to_the_catalogue_loses_no_record(void **state)
{
	struct fixture *f = *state;
	uint64_t bytes;
	char path[512];

	open_db(f);
	put_totals(f, 1, 11);
	close_db(f);
	snprintf(path, sizeof(path), "%s/CURRENT", f->db_dir);
	assert_int_equal(unlink(path), 0);
	open_db(f);
	assert_int_equal(get_totals(f, 1, &bytes), 0);
	assert_int_equal(bytes, 11);
}

static void damage_beyond_repair_is_refused_with_the_directory(void **state)
{
	struct fixture *f = *state;
	char path[512];

	one_table(f);
	find_file(f, "", ".sst", path);
	assert_int_equal(truncate(path, 100), 0);
	for (int i = 0; i < 2; i++) { /* the second time, after a repair that lost it */
		assert_int_equal(namespace_db_open(f->db_dir, &f->db, &f->err), -EIO);
		assert_non_null(strstr(f->err.text, f->db_dir));
		assert_non_null(strstr(f->err.text, "backup"));
		assert_null(strchr(f->err.text, '\n'));
	}
}

static void a_table_that_rocksdb_dies_of_is_refused_and_left(void **state)
{
	struct fixture *f = *state;
	char path[512];

	one_table(f);
	damage_deadly(f->db_dir);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(namespace_db_open(f->db_dir, &f->db, &f->err), -EIO);
		assert_non_null(strstr(f->err.text, f->db_dir));
		assert_non_null(strstr(f->err.text, "backup"));
		find_file(f, "", ".sst", path);
	}
}

static void what_is_no_directory_is_refused(void **state)
{
	struct fixture *f = *state;
	int fd = open(f->db_dir, O_CREAT | O_WRONLY, 0600);

	close(fd);
	assert_int_equal(namespace_db_open(f->db_dir, &f->db, &f->err), -ENOTDIR);
	assert_int_equal(namespace_db_open("/does/not/exist", &f->db, &f->err), -ENOENT);
	assert_non_null(strstr(f->err.text, "/does/not/exist"));
}

static void a_damaged_record_is_refused_with_the_directory(void **state)
{
	struct fixture *f = *state;
	struct walked w = {.count = 0};
	char key[18] = "t\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0";
	rocksdb_options_t *options = rocksdb_options_create();
	rocksdb_writeoptions_t *write = rocksdb_writeoptions_create();
	char *text = NULL;
	rocksdb_t *db;

	open_db(f);
	close_db(f);
	db = rocksdb_open(options, f->db_dir, &text);
	rocksdb_put(db, write, key, 17, "\xff\xff\xff", 3, &text);
	assert_null(text);
	rocksdb_close(db);
	rocksdb_writeoptions_destroy(write);
	rocksdb_options_destroy(options);
	open_db(f);
	assert_int_equal(namespace_db_scan(f->db, NAMESPACE_TOTALS,
				 &granary__state__v1__totals_state__descriptor, visit, &w, &f->err),
		-EIO);
	assert_non_null(strstr(f->err.text, f->db_dir));
}

/* ---- scratch --------------------------------------------------------------------------------- */

static void scratch_is_sorted_and_replaces(void **state)
{
	struct fixture *f = *state;
	struct namespace_scratch *s;
	const char *key, *value;
	size_t key_len, value_len;

	open_db(f);
	assert_int_equal(namespace_scratch_new(f->db, 1, &s, &f->err), 0);
	assert_int_equal(namespace_scratch_put(s, "b", 1, "old", 3, &f->err), 0);
	assert_int_equal(namespace_scratch_put(s, "a\0b", 3, "1", 1, &f->err), 0);
	assert_int_equal(namespace_scratch_put(s, "b", 1, "new", 3, &f->err), 0);
	assert_int_equal(namespace_scratch_flush(s, &f->err), 0);
	assert_int_equal(namespace_scratch_next(s, &key, &key_len, &value, &value_len, &f->err), 0);
	assert_int_equal(key_len, 3);
	assert_int_equal(namespace_scratch_next(s, &key, &key_len, &value, &value_len, &f->err), 0);
	assert_memory_equal(value, "new", 3);
	assert_int_equal(namespace_scratch_next(s, &key, &key_len, &value, &value_len, &f->err),
		SCRATCH_END);
	namespace_scratch_free(s);
}

static uint64_t bytes_of_tables;

static int add_table(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)type;
	(void)ftw;
	if (strstr(path, ".sst"))
		bytes_of_tables += (uint64_t)st->st_size;
	return 0;
}

/* A process of its own (RocksDB's threads do not survive a fork) that dies in an import. */
static int crash_in_an_import(const char *db_dir)
{
	struct fixture f = {.err = ERROR_INIT};
	struct namespace_scratch *s;
	char value[1000];

	snprintf(f.db_dir, sizeof(f.db_dir), "%s", db_dir);
	open_db(&f);
	put_totals(&f, 5, 55);
	if (namespace_scratch_new(f.db, 7, &s, &f.err) < 0)
		return 1;
	/* Not to be compressed away. */
	for (size_t i = 0; i < sizeof(value); i++)
		value[i] = (char)random();
	for (uint64_t i = 0; i < 100000; i++) {
		memcpy(value, &i, sizeof(i));
		if (namespace_scratch_put(s, &i, sizeof(i), value, sizeof(value), &f.err) < 0)
			return 1;
	}
	raise(SIGKILL);
	return 1;
}

static void scratch_of_a_crash_is_dropped_at_the_next_opening(void **state)
{
	struct fixture *f = *state;
	uint64_t bytes;
	pid_t child = fork();
	int status;

	if (child == 0) {
		execl("/proc/self/exe", "master_db_test", "crash", f->db_dir, NULL);
		_exit(1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	nftw(f->db_dir, add_table, 32, FTW_PHYS);
	assert_true(bytes_of_tables > 1000000); /* there was something to drop */
	open_db(f);
	bytes_of_tables = 0;
	nftw(f->db_dir, add_table, 32, FTW_PHYS);
	assert_true(bytes_of_tables < 100000);
	assert_int_equal(get_totals(f, 5, &bytes), 0);
	assert_int_equal(bytes, 55);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(records_survive_and_are_walked_in_order),
		TEST(a_second_opening_is_refused),
		TEST(a_newer_format_is_refused),
		TEST(records_without_a_format_are_refused),
		TEST(a_lost_catalogue_is_repaired),
		TEST(a_lost_pointer_to_the_catalogue_loses_no_record),
		TEST(damage_beyond_repair_is_refused_with_the_directory),
		TEST(a_table_that_rocksdb_dies_of_is_refused_and_left),
		TEST(what_is_no_directory_is_refused),
		TEST(a_damaged_record_is_refused_with_the_directory),
		TEST(scratch_is_sorted_and_replaces),
		TEST(scratch_of_a_crash_is_dropped_at_the_next_opening),
	};

	database_trial_main(argc, argv);
	if (argc == 3 && strcmp(argv[1], "crash") == 0)
		return crash_in_an_import(argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
