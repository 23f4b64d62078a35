/*
 * RocksDB as the store's index. Memory: two write buffers, a block cache of 1 MiB, and 64 open
 * tables; disk: index_base_bytes and INDEX_BYTES_PER_BLOCK a block.
 */
#include "store/index.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include <rocksdb/c.h>

#include "common/cleanup.h"
#include "common/database/database_repair.h"
#include "common/database/database_trial.h"
#include "common/size.h"

#define LOG_SUBSYSTEM "store"
#include "common/log.h"

#define INFO_LOG_BYTES ((size_t)128 << 10)
#define INDEX_OPEN_FILES 64

struct index {
	char *dir;
	rocksdb_options_t *options;
	rocksdb_block_based_table_options_t *table;
	rocksdb_cache_t *cache;
	rocksdb_writeoptions_t *synced;
	rocksdb_t *db; /* NULL after a failed reopen */
	uint64_t base_bytes;
};

static size_t write_buffer_bytes(uint64_t capacity_bytes)
{
	uint64_t bytes = capacity_bytes / 1024;

	if (bytes < (uint64_t)128 << 10)
		return (size_t)128 << 10;
	return bytes < (uint64_t)8 << 20 ? (size_t)bytes : (size_t)8 << 20;
}

uint64_t index_base_bytes(uint64_t capacity_bytes)
{
	/* Two logs and two tables being written, each preallocated at little more than the buffer's
	 * size; the info logs; manifest, options and directory. */
	return 5 * (uint64_t)write_buffer_bytes(capacity_bytes) + 4 * INFO_LOG_BYTES +
	       ((uint64_t)256 << 10);
}

static void index_options(struct index *ix, uint64_t capacity_bytes)
{
	size_t buffer = write_buffer_bytes(capacity_bytes);

	ix->options = rocksdb_options_create();
	ix->table = rocksdb_block_based_options_create();
	ix->cache = rocksdb_cache_create_lru((size_t)1 << 20);
	ix->synced = rocksdb_writeoptions_create();
	rocksdb_writeoptions_set_sync(ix->synced, 1);
	rocksdb_block_based_options_set_block_cache(ix->table, ix->cache);
	rocksdb_options_set_block_based_table_factory(ix->options, ix->table);
	rocksdb_options_set_create_if_missing(ix->options, 1);
	rocksdb_options_set_write_buffer_size(ix->options, buffer);
	rocksdb_options_set_max_write_buffer_number(ix->options, 2);
	rocksdb_options_set_arena_block_size(ix->options, buffer / 8);
	rocksdb_options_set_max_total_wal_size(ix->options, 2 * buffer);
	rocksdb_options_set_target_file_size_base(ix->options, 2 * buffer);
	rocksdb_options_set_max_bytes_for_level_base(ix->options, 8 * buffer);
	rocksdb_options_set_compression(ix->options, rocksdb_no_compression);
	rocksdb_options_set_max_background_jobs(ix->options, 2);
	rocksdb_options_set_max_open_files(ix->options, INDEX_OPEN_FILES);
	rocksdb_options_set_max_file_opening_threads(ix->options, 1);
	rocksdb_options_set_manifest_preallocation_size(ix->options, (size_t)16 << 10);
	rocksdb_options_set_max_manifest_file_size(ix->options, (size_t)64 << 10);
	rocksdb_options_set_keep_log_file_num(ix->options, 2);
	rocksdb_options_set_max_log_file_size(ix->options, INFO_LOG_BYTES);
	rocksdb_options_set_info_log_level(ix->options, 2 /* warnings */);
	rocksdb_options_set_stats_dump_period_sec(ix->options, 0);
	rocksdb_options_set_stats_persist_period_sec(ix->options, 0);
	rocksdb_options_set_wal_recovery_mode(ix->options, rocksdb_point_in_time_recovery);
}

static void remove_damaged(const struct index *ix)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s.damaged", ix->dir);
	database_remove(path);
}

/* Moves the files away, so that somebody may look at them; one such copy is kept, until the next
 * open that finds the index sound. */
static int set_aside(struct index *ix, struct error *err)
{
	char aside[PATH_MAX];

	snprintf(aside, sizeof(aside), "%s.damaged", ix->dir);
	remove_damaged(ix);
	if (rename(ix->dir, aside) < 0 && errno != ENOENT)
		return error_set_errno(
			err, -errno, "cannot set aside the damaged index %s", ix->dir);
	log_error("the index %s could not be read: it is set aside as %s and the cache starts "
		  "empty",
		ix->dir, aside);
	return 0;
}

/* RocksDB writes when it is opened, and Debian's aborts the process when it cannot. */
static int check_room(const struct index *ix, struct error *err)
{
	char have[SIZE_TEXT_BYTES], need[SIZE_TEXT_BYTES], parent[PATH_MAX];
	uint64_t free_bytes;
	struct statvfs vfs;

	snprintf(parent, sizeof(parent), "%s", ix->dir);
	if (strrchr(parent, '/'))
		*strrchr(parent, '/') = '\0';
	if (statvfs(parent, &vfs) < 0)
		return 0;
	free_bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
	if (free_bytes >= ix->base_bytes)
		return 0;
	return error_set(err, -ENOSPC,
		"only %s free on the filesystem of %s, the index needs %s: make room",
		size_format(free_bytes, have), ix->dir, size_format(ix->base_bytes, need));
}

static int open_db(struct index *ix, struct error *err)
{
	char *why = NULL;
	int r = check_room(ix, err);

	if (r == 0)
		r = database_try(ix->dir, err);
	if (r < 0)
		return r;
	ix->db = rocksdb_open(ix->options, ix->dir, &why);
	if (ix->db)
		return 0;
	error_set(err, -EIO, "RocksDB cannot open %s: %s", ix->dir, why ? why : "no reason given");
	rocksdb_free(why);
	return -EIO;
}

static void close_db(struct index *ix)
{
	if (ix->db)
		rocksdb_close(ix->db);
	ix->db = NULL;
}

static int index_repair(void *index, int attempt, struct error *err)
{
	struct index *ix = index;
	struct error why = ERROR_INIT;
	char lost[PATH_MAX];
	int r;

	close_db(ix);
	if (attempt == 0) {
		log_error("the index %s is damaged: repairing it", ix->dir);
		r = database_repair(ix->dir, &why);
		/* What it gave up on is of no use to us and would take room. */
		snprintf(lost, sizeof(lost), "%s/lost", ix->dir);
		database_remove(lost);
		remove_damaged(ix);
		if (r == 0)
			r = open_db(ix, &why);
		if (r == 0)
			return 0;
		log_error("repair of the index %s failed: %s", ix->dir, why.text);
	}
	r = set_aside(ix, err);
	return r < 0 ? r : open_db(ix, err);
}

static void index_close(void *index)
{
	struct index *ix = index;

	if (!ix)
		return;
	close_db(ix);
	rocksdb_writeoptions_destroy(ix->synced);
	rocksdb_options_destroy(ix->options);
	rocksdb_block_based_options_destroy(ix->table);
	rocksdb_cache_destroy(ix->cache);
	free(ix->dir);
	free(ix);
}

static int index_open(
	void *ctx, const char *dir, uint64_t capacity_bytes, void **ret, struct error *err)
{
	struct index *ix = calloc(1, sizeof(*ix));
	struct error why = ERROR_INIT;
	int r;

	(void)ctx;
	if (!ix || !(ix->dir = strdup(dir))) {
		free(ix);
		return error_set(err, -ENOMEM, "out of memory");
	}
	ix->base_bytes = index_base_bytes(capacity_bytes);
	index_options(ix, capacity_bytes);
	r = open_db(ix, &why);
	if (r == -ENOSPC) {
		error_set(err, r, "%s", why.text);
	} else if (r < 0) {
		log_error("%s", why.text);
		r = index_repair(ix, 0, err);
	} else {
		remove_damaged(ix);
	}
	if (r < 0) {
		index_close(ix);
		return r;
	}
	*ret = ix;
	return 0;
}

static int index_load(void *index, index_load_fn *fn, void *arg, struct error *err)
{
	struct index *ix = index;
	rocksdb_readoptions_t *options = rocksdb_readoptions_create();
	rocksdb_iterator_t *it;
	char *why = NULL;
	int r = 0;

	rocksdb_readoptions_set_fill_cache(options, 0);
	it = rocksdb_create_iterator(ix->db, options);
	for (rocksdb_iter_seek_to_first(it); r == 0 && rocksdb_iter_valid(it);
		rocksdb_iter_next(it)) {
		size_t key_len, value_len;
		const char *key = rocksdb_iter_key(it, &key_len);
		const char *value = rocksdb_iter_value(it, &value_len);

		r = fn(arg, key, key_len, value, value_len);
	}
	if (r == 0) {
		rocksdb_iter_get_error(it, &why);
		if (why)
			r = error_set(err, -EBADMSG, "the index %s is damaged: %s", ix->dir, why);
		rocksdb_free(why);
	}
	rocksdb_iter_destroy(it);
	rocksdb_readoptions_destroy(options);
	return r;
}

static int index_write(void *index, const struct record_bytes *ops, size_t count, struct error *err)
{
	struct index *ix = index;
	rocksdb_writebatch_t *batch;
	char *why = NULL;
	int r;

	if (!ix->db) {
		r = open_db(ix, err);
		if (r < 0)
			return r;
	}
	batch = rocksdb_writebatch_create();
	for (size_t i = 0; i < count; i++) {
		const struct record_bytes *op = &ops[i];

		if (op->value_len)
			rocksdb_writebatch_put(batch, (const char *)op->key, op->key_len,
				(const char *)op->value, op->value_len);
		else
			rocksdb_writebatch_delete(batch, (const char *)op->key, op->key_len);
	}
	rocksdb_write(ix->db, ix->synced, batch, &why);
	rocksdb_writebatch_destroy(batch);
	if (!why)
		return 0;
	r = error_set(err, -EIO, "the index %s: %s", ix->dir, why);
	rocksdb_free(why);
	/* RocksDB refuses everything after a failed write until it is opened anew. */
	close_db(ix);
	return r;
}

const struct index_ops index_rocksdb_ops = {
	.open = index_open,
	.close = index_close,
	.load = index_load,
	.repair = index_repair,
	.write = index_write,
};
