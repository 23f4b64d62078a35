/*
 * A sorted table on the disk for the length of one import: a column family of the namespace
 * database, written without the log, never compacted, dropped whole at the end (its files go with
 * it) and at the next opening after a crash.
 *
 * Calling sequence: new; put any number of records from one thread at a time (a record of the same
 * key replaces the one before); flush; read in the order of the keys; free. Memory is bounded by
 * SCRATCH_MEMORY_BYTES however many records there are.
 *
 * Errors: -EIO, -ENOSPC, -ENOMEM.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "master/namespace_db.h"

#define SCRATCH_MEMORY_BYTES ((size_t)64 << 20)

struct namespace_scratch;

int namespace_scratch_new(
	struct namespace_db *db, uint64_t id, struct namespace_scratch **ret, struct error *err);
void namespace_scratch_free(struct namespace_scratch *s); /* NULL is fine */

int namespace_scratch_put(struct namespace_scratch *s, const void *key, size_t key_len,
	const void *value, size_t value_len, struct error *err);
int namespace_scratch_flush(struct namespace_scratch *s, struct error *err);

#define SCRATCH_END 1
/* 0 and the next record, valid until the next call; SCRATCH_END; or negative. */
int namespace_scratch_next(struct namespace_scratch *s, const char **ret_key, size_t *ret_key_len,
	const char **ret_value, size_t *ret_value_len, struct error *err);
