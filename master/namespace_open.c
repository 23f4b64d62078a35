/*
 * Opening the namespace database: its directory, its format, its repair. What is damaged beyond
 * repair is refused, and so is what another or a newer granary owns; nothing is ever made anew in
 * its place.
 */
#include "master/namespace_db.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "common/database/database_trial.h"
#include "master/namespace_db_private.h"

#define LOG_SUBSYSTEM "master"
#include "common/log.h"

#define NAMESPACE_FORMAT 1
#define FORMAT_KEY "format"
#define COLUMN_FAMILIES_MAX 256

static rocksdb_options_t *options_new(void)
{
	rocksdb_options_t *o = rocksdb_options_create();

	rocksdb_options_set_create_if_missing(o, 1);
	rocksdb_options_set_paranoid_checks(o, 1);
	/* The records are few; what bounds memory is set low, scratch has settings of its own. */
	rocksdb_options_set_write_buffer_size(o, 4u << 20);
	rocksdb_options_set_max_total_wal_size(o, 16u << 20);
	rocksdb_options_set_max_open_files(o, 128);
	rocksdb_options_set_max_background_jobs(o, 2);
	rocksdb_options_set_info_log_level(o, 2 /* warnings */);
	rocksdb_options_set_keep_log_file_num(o, 2);
	rocksdb_options_set_max_log_file_size(o, 1u << 20);
	return o;
}

/* Opens with every column family that is there, and drops the scratch ones. */
static int open_families(struct namespace_db *db, char **ret_text)
{
	static const char *const first[] = {"default"};
	rocksdb_column_family_handle_t *handles[COLUMN_FAMILIES_MAX];
	const rocksdb_options_t *options[COLUMN_FAMILIES_MAX];
	const char *const *names = first;
	size_t count = 0;
	char *text = NULL;
	char **found;

	found = rocksdb_list_column_families(db->options, db->dir, &count, &text);
	if (text) { /* a directory without a database: it is made now */
		rocksdb_free(steal(&text));
		if (found)
			rocksdb_list_column_families_destroy(found, count);
		found = NULL;
	}
	if (found)
		names = (const char *const *)found;
	else
		count = 1;
	if (count > COLUMN_FAMILIES_MAX)
		count = COLUMN_FAMILIES_MAX; /* RocksDB refuses, and says that some are missing */
	for (size_t i = 0; i < count; i++)
		options[i] = db->options;
	db->db = rocksdb_open_column_families(
		db->options, db->dir, (int)count, names, options, handles, &text);
	for (size_t i = 0; db->db && i < count; i++) {
		char *ignored = NULL;

		if (strcmp(names[i], "default") == 0) {
			db->records = handles[i];
			continue;
		}
		if (strncmp(names[i], NAMESPACE_SCRATCH_PREFIX, strlen(NAMESPACE_SCRATCH_PREFIX)) ==
			0)
			rocksdb_drop_column_family(db->db, handles[i], &ignored);
		rocksdb_free(ignored);
		rocksdb_column_family_handle_destroy(handles[i]);
	}
	if (found)
		rocksdb_list_column_families_destroy(found, count);
	*ret_text = text;
	return text ? -EIO : 0;
}

/* In RocksDB's words, for another process and for this one. */
static bool says_locked(const char *text)
{
	return strstr(text, "While lock file") || strstr(text, "lock hold by");
}

static int open_refused(struct namespace_db *db, bool locked, const char *text, struct error *err)
{
	if (locked)
		return error_set(err, -EBUSY,
			"the state directory %s is in use by another granary: stop that one, "
			"talk to it with --master, or choose another --state-dir",
			db->dir);
	return error_set(err, -EIO,
		"cannot open the master's state %s: %s; mend the disk or restore the directory "
		"from a backup; to start anew without its datasets and quotas, move it away",
		db->dir, text);
}

/* RocksDB takes a directory without its file CURRENT for an empty one, makes a new database there
 * and removes what was in it. */
static bool has_lost_current(const char *dir)
{
	cleanup_dir DIR *d = opendir(dir);
	bool has_current = false, has_data = false;
	struct dirent *e;

	while (d && (e = readdir(d))) {
		const char *suffix = strrchr(e->d_name, '.');

		has_current |= strcmp(e->d_name, "CURRENT") == 0;
		has_data |= strncmp(e->d_name, "MANIFEST-", 9) == 0 ||
			    (suffix && strcmp(suffix, ".sst") == 0) ||
			    (suffix && strcmp(suffix, ".log") == 0);
	}
	return has_data && !has_current;
}

/* A repair puts tables that it cannot read into lost/. What stood in them is gone without a trace
 * in the database, which is the user's to decide about, not ours. */
static int lost_check(struct namespace_db *db, struct error *err)
{
	cleanup_free char *lost = NULL;
	cleanup_dir DIR *d = NULL;
	struct dirent *e;

	if (asprintf(&lost, "%s/lost", db->dir) < 0)
		return error_set(err, -ENOMEM, "no memory for the master's state");
	d = opendir(lost);
	while (d && (e = readdir(d))) {
		const char *suffix = strrchr(e->d_name, '.');

		if (suffix && strcmp(suffix, ".sst") == 0)
			return error_set(err, -EIO,
				"a part of the master's state %s is damaged: restore the directory "
				"from a backup; to go on with what is left, remove %s",
				db->dir, lost);
	}
	return 0;
}

static int open_repaired(struct namespace_db *db, struct error *err)
{
	struct error words = ERROR_INIT;
	char *text = NULL;
	int r = database_repair(db->dir, &words);

	if (r == 0)
		r = database_try(db->dir, &words);
	if (r < 0)
		return open_refused(db, r == -EBUSY, words.text, err);
	r = open_families(db, &text);
	if (r < 0)
		r = open_refused(db, says_locked(text), text, err);
	rocksdb_free(text);
	return r;
}

static int repair(struct namespace_db *db, const char *why, struct error *err)
{
	int r;

	log_warn("the state in %s is damaged (%s); repairing it", db->dir, why);
	r = open_repaired(db, err);
	if (r == 0)
		log_warn("the state in %s was repaired; check `granary dataset ls`; what it was is "
			 "kept as %s.damaged",
			db->dir, db->dir);
	return r;
}

static int open_or_repair(struct namespace_db *db, struct error *err)
{
	struct error damage = ERROR_INIT;
	char *text = NULL;
	int r;

	if (has_lost_current(db->dir))
		return repair(db, "its file CURRENT is missing", err);
	if (database_try(db->dir, &damage) < 0)
		return repair(db, damage.text, err);
	r = open_families(db, &text);
	if (r < 0 && (strstr(text, "Corruption") || strstr(text, "corrupt")))
		r = repair(db, text, err);
	else if (r < 0)
		r = open_refused(db, says_locked(text), text, err);
	rocksdb_free(text);
	return r;
}

static bool has_records(struct namespace_db *db)
{
	rocksdb_iterator_t *it = rocksdb_create_iterator_cf(db->db, db->read, db->records);
	bool any;

	rocksdb_iter_seek_to_first(it);
	any = rocksdb_iter_valid(it);
	rocksdb_iter_destroy(it);
	return any;
}

static int format_write(struct namespace_db *db, struct error *err)
{
	char number[16], *text = NULL;
	int n = snprintf(number, sizeof(number), "%d", NAMESPACE_FORMAT);

	rocksdb_put_cf(db->db, db->write_synced, db->records, FORMAT_KEY, strlen(FORMAT_KEY),
		number, (size_t)n, &text);
	return namespace_failed(db, text, "write the format version", err);
}

/* A new database gets the version; an old one is refused when it is newer than this program, and
 * would be migrated here, one step a version, when it is older (1 is the first). */
static int format_check(struct namespace_db *db, struct error *err)
{
	char *text = NULL, number[16] = "";
	size_t len;
	char *value = rocksdb_get_cf(
		db->db, db->read, db->records, FORMAT_KEY, strlen(FORMAT_KEY), &len, &text);
	long version;

	if (text)
		return namespace_failed(db, text, "read the format version", err);
	if (!value) {
		if (!has_records(db))
			return format_write(db, err);
		return error_set(err, -EIO,
			"the master's state %s has lost its format version: restore it from "
			"a backup, or move it away to start anew",
			db->dir);
	}
	if (len < sizeof(number))
		memcpy(number, value, len);
	rocksdb_free(value);
	version = strtol(number, NULL, 10);
	if (version > NAMESPACE_FORMAT)
		return error_set(err, -EPROTO,
			"the master's state %s has format %ld, this granary knows up to %d: "
			"run the newer granary that wrote it, or choose another --state-dir",
			db->dir, version, NAMESPACE_FORMAT);
	if (version < 1)
		return error_set(err, -EPROTO,
			"the master's state %s has the unknown format '%s': restore it from "
			"a backup, or move it away to start anew",
			db->dir, number);
	return 0;
}

static int dir_make(const char *dir, struct error *err)
{
	struct stat st;

	if (mkdir(dir, 0700) == 0)
		return 0;
	if (errno != EEXIST)
		return error_set_errno(err, -errno, "cannot make the state directory %s", dir);
	if (stat(dir, &st) < 0)
		return error_set_errno(err, -errno, "cannot use the state directory %s", dir);
	if (!S_ISDIR(st.st_mode))
		return error_set(err, -ENOTDIR, "%s is in the way: it must be a directory", dir);
	return 0;
}

int namespace_db_open(const char *dir, struct namespace_db **ret, struct error *err)
{
	struct namespace_db *db;
	int r = dir_make(dir, err);

	if (r < 0)
		return r;
	db = calloc(1, sizeof(*db));
	if (!db || !(db->dir = strdup(dir))) {
		free(db);
		return error_set(err, -ENOMEM, "no memory for the master's state");
	}
	db->options = options_new();
	db->read = rocksdb_readoptions_create();
	db->write_synced = rocksdb_writeoptions_create();
	rocksdb_writeoptions_set_sync(db->write_synced, 1);
	db->write_lazy = rocksdb_writeoptions_create();
	r = open_or_repair(db, err);
	if (r == 0)
		r = lost_check(db, err);
	if (r == 0)
		r = format_check(db, err);
	if (r < 0) {
		namespace_db_close(db);
		return r;
	}
	*ret = db;
	return 0;
}

void namespace_db_close(struct namespace_db *db)
{
	if (!db)
		return;
	if (db->records)
		rocksdb_column_family_handle_destroy(db->records);
	if (db->db)
		rocksdb_close(db->db);
	rocksdb_writeoptions_destroy(db->write_lazy);
	rocksdb_writeoptions_destroy(db->write_synced);
	rocksdb_readoptions_destroy(db->read);
	rocksdb_options_destroy(db->options);
	free(db->dir);
	free(db);
}
