/*
 * The fetches under way, and the bytes of read-ahead that nobody has asked for yet, by block.
 *
 * Single flight: a byte that some fetch brings or holds is never fetched a second time. A reader
 * that asks for bytes gets the fetch that covers the first of them, or a new one that ends where
 * another begins.
 *
 * Bounds: `threads` gets at once, and one in each reader's thread; `memory_bytes` of buffers (hard);
 * FETCH_AHEAD_MAX_BYTES of read-ahead that has not been read (beyond it none is started);
 * FILL_QUEUE_MOST blocks whose rest may wait; what fetch_index.h says. What nobody reads is dropped
 * after FETCH_KEEP_MS when room is short, after FETCH_KEEP_MAX_MS in any case.
 *
 * Calling sequence: new; acquire, fetch_wait, fetch_bytes, served, release by each reader; sweep
 * once a second; free after the last reader.
 *
 * Threading: any thread. Under the table's lock only those of the queues are taken, and no call
 * to disk, origin or reader is made.
 */
#pragma once

#include "worker/fetch.h"

#define FETCH_THREADS_DEFAULT 96 /* 4,000 files/s from an origin 20 ms away need 80 */
#define FETCH_MEMORY_DEFAULT_BYTES ((uint64_t)256 << 20)
#define FETCH_AHEAD_MAX_BYTES ((uint64_t)128 << 20)
/* Of a record that was asked for ahead, by somebody who did not know its ends to the page. */
#define FETCH_SPARE_BYTES 8192u
#define FETCH_KEEP_MS 5000
#define FETCH_KEEP_MAX_MS 60000
#define FETCH_TIMEOUT_MS 60000

struct fetch_table_options {
	struct store *store;
	struct origin_queue *origins; /* outlives the table */
	unsigned threads;	      /* 0: the default */
	uint64_t memory_bytes;	      /* 0: the default */
	int64_t timeout_ms;	      /* of one fetch, of each of its pieces; 0: the default */
};

int fetch_table_new(
	const struct fetch_table_options *opts, struct fetch_table **ret, struct error *err);
/* Cancels what still runs. No reader is left. NULL is fine. */
void fetch_table_free(struct fetch_table *t);

struct fetch_want {
	struct dataset *dataset;
	struct manifest *manifest;
	uint32_t entry;
	const struct store_block *block;
	enum fetch_goal goal;
	uint32_t offset, end; /* within the block */
	uint32_t read_ahead;
	const char *job;
	bool here; /* the caller runs what it alone wants, when it is short */
};

/* The fetch that covers want->offset, or a new one; the caller becomes a reader of it. Who wants
 * the block stored gets one that stores it, whatever stretches are under way; a small part of it, out
 * of order, comes first. *ret_run: the caller has to run it now (fetch_run_here). NULL when memory or
 * threads are out. */
struct fetch *fetch_table_acquire(
	struct fetch_table *t, const struct fetch_want *want, bool *ret_run);

/* The reader has used [offset, offset+len) of the block. */
void fetch_table_served(struct fetch *f, uint32_t offset, uint32_t len);
enum fetch_leave {
	FETCH_LEAVE_SERVED,
	FETCH_LEAVE_CANCELLED,
	FETCH_LEAVE_TIMED_OUT,
};
/* Ends being a reader; drops the reference. */
void fetch_table_release(struct fetch *f, enum fetch_leave why);

/* Starts getting what lies behind want->end, as far as read_ahead, unless enough is under way. */
void fetch_table_read_ahead(struct fetch_table *t, const struct fetch_want *want);

/* Starts getting want->block for readers to come, or [offset, end) alone of one that is not to be
 * stored, unless that is under way already or enough is unread. Whether it is on its way. */
bool fetch_table_prefetch(struct fetch_table *t, const struct fetch_want *want);

void fetch_table_sweep(struct fetch_table *t);

struct fetch_table_stat {
	unsigned running;
	uint64_t memory_bytes, ahead_bytes;
	uint64_t fetches, joined; /* made; readers that found one */
};
void fetch_table_stat(struct fetch_table *t, struct fetch_table_stat *ret);

/* ---- for fetch.c ------------------------------------------------------------------------------
 */

struct mutex *fetch_table_lock(struct fetch_table *t);
struct store *fetch_table_store(struct fetch_table *t);
struct buffer_pool *fetch_table_buffers(struct fetch_table *t);
struct origin_queue *fetch_table_origins(struct fetch_table *t);
/* Asks for the turn of the next piece. False: the fetch will be run again when it has it, or when
 * nobody waits for it and its fill may begin. */
bool fetch_table_next_turn(struct fetch *f);
/* Has a thread of the queue go on with a fetch that the reader's has run; false: it is complete, and
 * none has time. */
bool fetch_table_go_on(struct fetch *f);
/* The run is over: takes the fetch out of the table, or keeps its unread bytes. */
void fetch_table_finish(struct fetch *f, int result, bool stored, const struct error *err);
