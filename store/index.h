/*
 * The durable index as a vtable: a sorted key-value store with atomic, synced batches. The real one
 * is RocksDB (index.c); tests have one in memory that records.
 *
 * Damage never makes `open` refuse: it repairs, and what cannot be repaired is set aside with a
 * loud line in the log, and an empty index takes its place.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "store/record.h"

/* 0 to go on, negative stops. */
typedef int index_load_fn(
	void *arg, const void *key, size_t key_len, const void *value, size_t value_len);

struct index_ops {
	/* `dir` is the index's own directory; the capacity scales its buffers. -ENOSPC, and nothing
	 * touched, without index_base_bytes of free space. */
	int (*open)(
		void *ctx, const char *dir, uint64_t capacity_bytes, void **ret, struct error *err);
	void (*close)(void *index);
	/* All records in key order; -EBADMSG when it is damaged half-way. */
	int (*load)(void *index, index_load_fn *fn, void *arg, struct error *err);
	/* Tries to bring back what load could not read; `attempt` counts from 0. The second one
	 * gives up the contents. */
	int (*repair)(void *index, int attempt, struct error *err);
	/* All or nothing, durable when it returns 0. */
	int (*write)(void *index, const struct record_bytes *ops, size_t count, struct error *err);
};

extern const struct index_ops index_rocksdb_ops;

/* What RocksDB may take on disk before the first record: log, manifest, options, info log. */
uint64_t index_base_bytes(uint64_t capacity_bytes);
/* And for each block: its record, twice while a compaction runs, and the log's share. */
#define INDEX_BYTES_PER_BLOCK 160
