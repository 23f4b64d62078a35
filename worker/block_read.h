/*
 * One read of a range of a block: from the store, from a fetch that others share, or from one of
 * its own, piece by piece to a sink.
 *
 * What a miss does:
 *	pinned, and the store would take it	fetch the whole block, once for all readers; store
 *	of a dataset that is kept as an LRU	the same, as elastic
 *	cache keeps it
 *	read again in a later pass, and the	the same, as filler of the grant (elastic when only
 *	quota has room				an older snapshot has the block)
 *	else					get the range and the read-ahead, store nothing
 *
 * A store that is full, damaged or slow to fill never fails a read: it only makes it a miss.
 *
 * Threading: a block_reader serves any number of reads at once.
 */
#pragma once

#include "worker/fetch_table.h"
#include "worker/reuse.h"

struct block_reader {
	struct store *store;
	struct fetch_table *fetches;
	struct reuse *reuse;
	struct buffer_pool *buffers; /* of bytes that come from the store */
};

/* Takes a piece of the range, in order. `release(holder)` is to be called exactly once when the
 * bytes are no longer needed, also by a send that fails. Negative ends the read. */
typedef int block_send_fn(void *arg, bool from_origin, const void *data, size_t len,
	void (*release)(void *holder), void *holder);

struct block_read {
	struct dataset *dataset;
	struct manifest *manifest;
	uint32_t entry;
	bool current; /* the manifest is that of the current snapshot */
	struct store_block block;
	uint32_t offset, len; /* within the block; not empty */
	uint32_t read_ahead;
	const char *job;
	int64_t deadline_ms; /* moved on by what it waits for its job's share */
	block_send_fn *send;
	fetch_gone_fn *gone;
	/* True from when `gone` is. With it the caller's thread gets a short stretch itself, when
	 * nobody does yet; NULL: there is no such flag. */
	const atomic_bool *cancel;
	fetch_waits_fn *waits; /* may be NULL */
	void *arg;	       /* of these */
};

#define BLOCK_READ_LATER \
	1 /* `waits` said that it cannot wait; some of the range may have been sent */
/* 0 when all of the range was sent; BLOCK_READ_LATER. -ECANCELED, -ETIMEDOUT, -EAGAIN (short of
 * memory), or what the fetch failed with (fetch.h). */
int block_reader_read(struct block_reader *r, const struct block_read *read, struct error *err);
/* Somebody will want that range of the block soon (of `read` its file, block, range and job count):
 * starts what its miss will do, and waits for nothing. Whether it is on its way: not what is in the
 * store. */
bool block_reader_prefetch(struct block_reader *r, const struct block_read *read);
