/*
 * Layout. Column family "default" holds the records. A key is 17 bytes: the kind (namespace_db.h),
 * then a and b as big-endian 64-bit numbers, so that a scan runs in their order. Values are packed
 * messages of state.proto; of NAMESPACE_REPORT it is granary.v1.ImportReport.
 *
 *	"format"	the format's version as decimal text
 *	'd' id 0	DatasetState
 *	's' id number	SnapshotState
 *	'r' id 0	ImportReport of the last import
 *	't' id 0	TotalsState
 *	'm' id 0	MountState
 *	'w' id 0	WorkerState
 *	'j' id 0	JobState
 *
 * Column families "scratch-*" hold what imports sort. They are dropped when the import ends, and at
 * the next opening when it crashed. They are written without the log.
 */
#include "master/namespace_db.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "master/namespace_db_private.h"

#define KEY_BYTES 17
#define MESSAGE_MAX_BYTES ((size_t)8 << 20)

struct namespace_batch {
	rocksdb_writebatch_t *batch;
};

int namespace_failed(struct namespace_db *db, char *text, const char *what, struct error *err)
{
	if (!text)
		return 0;
	error_set(err, -EIO, "cannot %s in the master's state %s: %s", what, db->dir, text);
	rocksdb_free(text);
	return -EIO;
}

static void key_make(
	unsigned char key[static KEY_BYTES], enum namespace_kind kind, uint64_t a, uint64_t b)
{
	uint64_t big[2] = {htobe64(a), htobe64(b)};

	key[0] = (unsigned char)kind;
	memcpy(key + 1, big, sizeof(big));
}

static void key_read(const char *key, uint64_t *ret_a, uint64_t *ret_b)
{
	uint64_t big[2];

	memcpy(big, key + 1, sizeof(big));
	*ret_a = be64toh(big[0]);
	*ret_b = be64toh(big[1]);
}

static int unpack(struct namespace_db *db, const ProtobufCMessageDescriptor *type, const char *data,
	size_t len, ProtobufCMessage **ret, struct error *err)
{
	*ret = protobuf_c_message_unpack(type, NULL, len, (const uint8_t *)data);
	if (*ret)
		return 0;
	return error_set(err, -EIO,
		"a record (%s) of the master's state %s is damaged: restore the directory "
		"from a backup, or move it away to start anew",
		type->short_name, db->dir);
}

int namespace_db_get(struct namespace_db *db, enum namespace_kind kind, uint64_t a, uint64_t b,
	const ProtobufCMessageDescriptor *type, ProtobufCMessage **ret, struct error *err)
{
	unsigned char key[KEY_BYTES];
	char *text = NULL, *value;
	size_t len;
	int r;

	key_make(key, kind, a, b);
	value = rocksdb_get_cf(
		db->db, db->read, db->records, (const char *)key, sizeof(key), &len, &text);
	if (text)
		return namespace_failed(db, text, "read a record", err);
	if (!value)
		return error_set(err, -ENOENT, "no such record in %s", db->dir);
	r = unpack(db, type, value, len, ret, err);
	rocksdb_free(value);
	return r;
}

int namespace_db_scan(struct namespace_db *db, enum namespace_kind kind,
	const ProtobufCMessageDescriptor *type, namespace_visit *visit, void *arg,
	struct error *err)
{
	rocksdb_iterator_t *it = rocksdb_create_iterator_cf(db->db, db->read, db->records);
	char prefix = (char)kind, *text = NULL;
	int r = 0;

	for (rocksdb_iter_seek(it, &prefix, 1); r == 0 && rocksdb_iter_valid(it);
		rocksdb_iter_next(it)) {
		size_t key_len, len;
		const char *key = rocksdb_iter_key(it, &key_len);
		const char *value = rocksdb_iter_value(it, &len);
		ProtobufCMessage *message = NULL;
		uint64_t a, b;

		if (key[0] != prefix)
			break;
		if (key_len != KEY_BYTES)
			continue; /* "format" */
		key_read(key, &a, &b);
		r = unpack(db, type, value, len, &message, err);
		if (r == 0)
			r = visit(arg, a, b, &message, err);
		if (message)
			protobuf_c_message_free_unpacked(message, NULL);
	}
	if (r == 0) {
		rocksdb_iter_get_error(it, &text);
		r = namespace_failed(db, text, "read records", err);
	}
	rocksdb_iter_destroy(it);
	return r;
}

struct namespace_batch *namespace_batch_new(void)
{
	struct namespace_batch *b = calloc(1, sizeof(*b));

	if (b)
		b->batch = rocksdb_writebatch_create();
	return b;
}

void namespace_batch_free(struct namespace_batch *b)
{
	if (!b)
		return;
	rocksdb_writebatch_destroy(b->batch);
	free(b);
}

int namespace_batch_put(struct namespace_batch *b, enum namespace_kind kind, uint64_t id_a,
	uint64_t id_b, const ProtobufCMessage *message)
{
	size_t len = protobuf_c_message_get_packed_size(message);
	unsigned char key[KEY_BYTES];
	cleanup_free uint8_t *value = NULL;

	if (len > MESSAGE_MAX_BYTES || !(value = malloc(len + 1)))
		return -ENOMEM;
	protobuf_c_message_pack(message, value);
	key_make(key, kind, id_a, id_b);
	rocksdb_writebatch_put(b->batch, (const char *)key, sizeof(key), (const char *)value, len);
	return 0;
}

void namespace_batch_delete(
	struct namespace_batch *b, enum namespace_kind kind, uint64_t id_a, uint64_t id_b)
{
	unsigned char key[KEY_BYTES];

	key_make(key, kind, id_a, id_b);
	rocksdb_writebatch_delete(b->batch, (const char *)key, sizeof(key));
}

bool namespace_batch_empty(const struct namespace_batch *b)
{
	return rocksdb_writebatch_count(b->batch) == 0;
}

int namespace_db_commit(
	struct namespace_db *db, struct namespace_batch *b, bool synced, struct error *err)
{
	char *text = NULL;

	rocksdb_write(db->db, synced ? db->write_synced : db->write_lazy, b->batch, &text);
	return namespace_failed(db, text, "write", err);
}
