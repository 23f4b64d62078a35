/*
 * Which fetches there are of which block, and what was read of it a moment ago: requests of a
 * sequential reader come out of order, so read-ahead must not bring again what was read and let go
 * of. A bit for each stretch of FETCH_STRETCH_BYTES; it counts for FETCH_READ_MS.
 *
 * Bounds: a group for each block with a fetch, and FETCH_INDEX_IDLE_MAX of blocks without.
 *
 * Threading: its owner's lock (fetch_table.h).
 */
#pragma once

#include "worker/fetch.h"

#define FETCH_STRETCH_BYTES 65536u
#define FETCH_READ_MS 5000
#define FETCH_INDEX_IDLE_MAX 4096u

struct fetch_index {
	struct fetch_group *groups; /* a hash */
	unsigned idle;
};

/* The fetch that brings, or has, that byte; NULL. */
struct fetch *fetch_index_find(
	const struct fetch_index *x, const struct block_id *id, uint32_t offset);
bool fetch_index_has_block(const struct fetch_index *x, const struct block_id *id);
/* Where the next fetch behind `offset` begins, or `end` if that comes first. */
uint32_t fetch_index_room_until(
	const struct fetch_index *x, const struct block_id *id, uint32_t offset, uint32_t end);

/* 0 or -ENOMEM. f->group is set as long as it is in here. */
int fetch_index_add(struct fetch_index *x, struct fetch *f);
void fetch_index_remove(struct fetch_index *x, struct fetch *f);
/* Of all of them, in no order; `fn` adds and removes none. */
void fetch_index_each(const struct fetch_index *x, void (*fn)(struct fetch *f));

/* All bytes of it have been read; before it is removed. */
void fetch_index_note_read(struct fetch *f);
bool fetch_index_was_read(const struct fetch_index *x, const struct block_id *id, uint32_t offset);
/* What was read is asked for again: a new pass, which may read ahead again. */
void fetch_index_forget_read(struct fetch_index *x, const struct block_id *id, uint32_t offset);
/* Of blocks without a fetch that were last read that long ago. */
void fetch_index_forget_idle(struct fetch_index *x, int64_t age_ms);
