#include "master/namespace_scratch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "master/namespace_db_private.h"

#define BATCH_BYTES ((size_t)1 << 20)
#define READ_AHEAD_BYTES ((size_t)512 << 10)

struct namespace_scratch {
	struct namespace_db *db;
	rocksdb_column_family_handle_t *family;
	rocksdb_options_t *options;
	rocksdb_writeoptions_t *write;
	rocksdb_writebatch_t *batch;
	size_t batch_bytes;
	rocksdb_readoptions_t *read;
	rocksdb_iterator_t *it; /* NULL until the first next */
};

static int failed(struct namespace_scratch *s, char *text, struct error *err)
{
	bool full = text && strstr(text, "No space");
	int r = namespace_failed(s->db, text, "sort the listing", err);

	return r < 0 && full ? -ENOSPC : r;
}

/* Written once, read once in order: no compaction, and large blocks so that the tables' indexes,
 * which stay in memory, are small. */
static rocksdb_options_t *options_new(void)
{
	rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
	rocksdb_options_t *o = rocksdb_options_create();

	rocksdb_options_set_write_buffer_size(o, SCRATCH_MEMORY_BYTES / 2);
	rocksdb_options_set_max_write_buffer_number(o, 2);
	rocksdb_options_set_disable_auto_compactions(o, 1);
	rocksdb_options_set_level0_slowdown_writes_trigger(o, 1 << 20);
	rocksdb_options_set_level0_stop_writes_trigger(o, 1 << 20);
	rocksdb_block_based_options_set_block_size(table, 64u << 10);
	rocksdb_block_based_options_set_no_block_cache(table, 1);
	rocksdb_options_set_block_based_table_factory(o, table);
	rocksdb_block_based_options_destroy(table);
	return o;
}

int namespace_scratch_new(
	struct namespace_db *db, uint64_t id, struct namespace_scratch **ret, struct error *err)
{
	struct namespace_scratch *s = calloc(1, sizeof(*s));
	char name[64], *text = NULL;
	int r;

	if (!s)
		return error_set(err, -ENOMEM, "no memory to sort the listing");
	s->db = db;
	s->options = options_new();
	s->write = rocksdb_writeoptions_create();
	rocksdb_writeoptions_disable_WAL(s->write, 1);
	s->batch = rocksdb_writebatch_create();
	s->read = rocksdb_readoptions_create();
	rocksdb_readoptions_set_fill_cache(s->read, 0);
	rocksdb_readoptions_set_readahead_size(s->read, READ_AHEAD_BYTES);
	snprintf(name, sizeof(name), NAMESPACE_SCRATCH_PREFIX "%016" PRIx64, id);
	s->family = rocksdb_create_column_family(db->db, s->options, name, &text);
	r = failed(s, text, err);
	if (r < 0) {
		s->family = NULL;
		namespace_scratch_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void namespace_scratch_free(struct namespace_scratch *s)
{
	char *text = NULL;

	if (!s)
		return;
	if (s->it)
		rocksdb_iter_destroy(s->it);
	if (s->family) {
		/* Should this fail, the next opening drops it. */
		rocksdb_drop_column_family(s->db->db, s->family, &text);
		rocksdb_free(text);
		rocksdb_column_family_handle_destroy(s->family);
	}
	rocksdb_readoptions_destroy(s->read);
	rocksdb_writebatch_destroy(s->batch);
	rocksdb_writeoptions_destroy(s->write);
	rocksdb_options_destroy(s->options);
	free(s);
}

int namespace_scratch_put(struct namespace_scratch *s, const void *key, size_t key_len,
	const void *value, size_t value_len, struct error *err)
{
	rocksdb_writebatch_put_cf(s->batch, s->family, key, key_len, value, value_len);
	s->batch_bytes += key_len + value_len;
	return s->batch_bytes < BATCH_BYTES ? 0 : namespace_scratch_flush(s, err);
}

int namespace_scratch_flush(struct namespace_scratch *s, struct error *err)
{
	char *text = NULL;

	rocksdb_write(s->db->db, s->write, s->batch, &text);
	rocksdb_writebatch_clear(s->batch);
	s->batch_bytes = 0;
	return failed(s, text, err);
}

int namespace_scratch_next(struct namespace_scratch *s, const char **ret_key, size_t *ret_key_len,
	const char **ret_value, size_t *ret_value_len, struct error *err)
{
	char *text = NULL;

	if (!s->it) {
		s->it = rocksdb_create_iterator_cf(s->db->db, s->read, s->family);
		rocksdb_iter_seek_to_first(s->it);
	} else {
		rocksdb_iter_next(s->it);
	}
	if (!rocksdb_iter_valid(s->it)) {
		rocksdb_iter_get_error(s->it, &text);
		return text ? failed(s, text, err) : SCRATCH_END;
	}
	*ret_key = rocksdb_iter_key(s->it, ret_key_len);
	*ret_value = rocksdb_iter_value(s->it, ret_value_len);
	return 0;
}
