/*
 * The namespace database: the master's durable state in RocksDB. With namespace_scratch.c the only
 * user of RocksDB in this folder.
 *
 * A record is a protobuf-c message (state.proto) under (kind, a, b); namespace_db.c has the layout.
 * Changes are made in batches: a batch is applied as a whole or not at all, and a synced commit is
 * on the disk before it returns.
 *
 * Errors: -EBUSY another process has the directory open, -EPROTO it was written by a newer (or
 * unknown) version, -EIO damaged beyond RocksDB's repair or the disk fails, -ENOMEM. Texts name the
 * directory and say what to do.
 *
 * Threading: any thread at any time; who must see whose changes is the caller's business.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "common/error.h"

struct namespace_db;
struct namespace_batch;

enum namespace_kind {
	NAMESPACE_DATASET = 'd',  /* a: dataset id */
	NAMESPACE_SNAPSHOT = 's', /* a: dataset id, b: snapshot */
	NAMESPACE_REPORT = 'r',	  /* a: dataset id; of the last import */
	NAMESPACE_TOTALS = 't',	  /* a: dataset id */
	NAMESPACE_MOUNT = 'm',	  /* a: mount id */
	NAMESPACE_WORKER = 'w',	  /* a: worker id */
	NAMESPACE_JOB = 'j',	  /* a: job id */
};

/* `dir` is made when missing, 0700. Scratch data of a crashed import is dropped. */
int namespace_db_open(const char *dir, struct namespace_db **ret, struct error *err);
void namespace_db_close(struct namespace_db *db); /* NULL is fine */

/* 0 and a message (protobuf_c_message_free_unpacked), or -ENOENT. */
int namespace_db_get(struct namespace_db *db, enum namespace_kind kind, uint64_t a, uint64_t b,
	const ProtobufCMessageDescriptor *type, ProtobufCMessage **ret, struct error *err);

/* Every record of a kind in the order of (a, b); *message is the visitor's once it takes it
 * (sets it to NULL). Negative stops the walk. */
typedef int namespace_visit(
	void *arg, uint64_t a, uint64_t b, ProtobufCMessage **message, struct error *err);
int namespace_db_scan(struct namespace_db *db, enum namespace_kind kind,
	const ProtobufCMessageDescriptor *type, namespace_visit *visit, void *arg,
	struct error *err);

struct namespace_batch *namespace_batch_new(void); /* NULL: no memory */
void namespace_batch_free(struct namespace_batch *b);
int namespace_batch_put(struct namespace_batch *b, enum namespace_kind kind, uint64_t id_a,
	uint64_t id_b, const ProtobufCMessage *message);
void namespace_batch_delete(
	struct namespace_batch *b, enum namespace_kind kind, uint64_t id_a, uint64_t id_b);
bool namespace_batch_empty(const struct namespace_batch *b);
int namespace_db_commit(
	struct namespace_db *db, struct namespace_batch *b, bool synced, struct error *err);
