/*
 * What to bring ahead of readers who announced their order, and what of it to let go. Without
 * threads, clock, kernel or network: order.h has those.
 *
 * A list is what one job announced. Its next part, the *pieces*, is known by file and offset: at
 * most ORDER_PIECE_MAX_BYTES each, within an aligned stretch of that size.
 *
 *	AHEAD ----> FETCHING ----> READY ----> GONE (read, failed, or skipped)
 *	   \----------------------------------/
 *
 * Invariants
 *  1. Pieces of a list are handed out in its order; each at most once, unless the list rested.
 *  2. The bytes of FETCHING and READY pieces, and of those being read, are in `buffers`: never more
 *     than its budget. Lists share it equally.
 *  3. A piece goes when all of it was read; when its reader asked elsewhere before it was handed out;
 *     or when it was skipped: when the reader said that he is past it (step), or when its room is
 *     wanted and the last pieces that were asked for, twice as many as fit the memory (within
 *     ORDER_FLOOR_READS_LEAST and _MOST), all lie behind it. Of several processes that read one
 *     list the slowest loses nothing that way.
 *  4. What is not asked for of us is not worth bringing (the kernel may have all of it): when fewer
 *     than half of the last 64 pieces that went were asked for, none is handed out until that
 *     changes; whether they are asked for is still seen.
 *  5. A list whose reader gave no sign for ORDER_REST_MS rests: its bytes are let go, and brought
 *     anew when he shows up. One that nobody holds any more goes after ORDER_FORGET_MS.
 *
 * Bounds: ORDER_LISTS_MAX lists; ORDER_RANGES_MAX ranges wait in all of them together, and any list
 * may have ORDER_RANGES_LEAST; ORDER_PIECES_MAX pieces.
 *
 * Threading: none of its own.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fuse/block_source.h"
#include "fuse/order_buffers.h"
#include "fuse/order_list.h"

#define ORDER_LISTS_MAX 16
#define ORDER_RANGES_MAX ((uint64_t)2 << 20)
#define ORDER_RANGES_LEAST ((uint64_t)4 * ORDER_CHUNK_RANGES)
#define ORDER_PIECES_MAX 32768u
#define ORDER_PIECE_MAX_BYTES ORDER_BUFFER_MAX_BYTES
#define ORDER_FLOOR_READS_LEAST 128u
#define ORDER_FLOOR_READS_MOST 1024u
#define ORDER_EVIDENCE 64u /* bits of a word */
#define ORDER_REST_MS 600000
#define ORDER_FORGET_MS 3600000
#define ORDER_BUCKETS 8192u

enum order_state { ORDER_AHEAD, ORDER_FETCHING, ORDER_READY, ORDER_GONE };

struct order_piece {
	uint32_t index, len;
	uint64_t offset;
	uint64_t position; /* of the announced entry in its list */
	enum order_state state;
	unsigned char *bytes; /* while FETCHING, READY, or referenced */
	bool arrived, failed; /* the bytes, also of one that is GONE already */
	enum block_from from; /* once arrived */
	bool asked;
	uint32_t served_bytes;
	unsigned refs;			 /* who fetches it, and those who read its bytes */
	struct order_job *job;		 /* NULL when GONE */
	struct order_piece *prev, *next; /* in its list */
	struct order_piece *bucket_prev, *bucket_next;
};

/* One list and its reader. */
struct order_job {
	uint64_t id; /* 0: free */
	bool held;   /* somebody may add to it */
	struct order_list waiting;
	uint64_t announced, positions; /* entries added; entries of which pieces were made */
	struct order_piece *pieces;    /* in order */
	struct order_piece *next;      /* the first AHEAD one */
	uint32_t piece_count;
	uint64_t used_bytes; /* of the buffers, by its pieces */
	bool resting;
	int64_t sign_ms;       /* the reader's last */
	uint64_t step, passed; /* as he reports: his step, and how many entries are behind him */
	/* What is seen of him: positions of the last pieces that he asked for. */
	uint64_t recent[ORDER_FLOOR_READS_MOST];
	uint32_t recent_at, recent_count;
	uint64_t evidence; /* of the last pieces that went: one bit each, asked for or not */
	uint32_t evidence_count;
};

struct order_tally {
	uint64_t announced, fetched_bytes, used_bytes, dropped_bytes;
};

struct order_plan {
	struct order_buffers buffers;
	struct order_job jobs[ORDER_LISTS_MAX];
	struct order_piece **buckets; /* made with the first list */
	uint64_t last_id;
	uint32_t piece_count;
	uint64_t waiting;	  /* ranges in all lists */
	unsigned turn;		  /* whose piece is handed out next */
	struct order_tally tally; /* cumulative */
};

void order_plan_init(struct order_plan *p, uint64_t memory_bytes);
void order_plan_deinit(struct order_plan *p); /* no piece is referenced */

/* ---- who announces --------------------------------------------------------------------------- */

/* A new list; *ret_id names it. -EBUSY: ORDER_LISTS_MAX already; -ENOMEM. */
int order_plan_begin(struct order_plan *p, int64_t now_ms, uint64_t *ret_id);
/* Adds `count` ranges; -EAGAIN: there is no room now; -ENOENT: no such list (any more); -ENOMEM. */
int order_plan_add(
	struct order_plan *p, uint64_t id, const struct order_range *ranges, unsigned count);
/* Nothing more will be added: it goes by itself once it was read. */
void order_plan_seal(struct order_plan *p, uint64_t id);
void order_plan_drop(struct order_plan *p, uint64_t id);
void order_plan_drop_all(struct order_plan *p);
/* The reader has `passed` entries behind him; what lies before that is let go. -ENOENT. */
int order_plan_step(
	struct order_plan *p, uint64_t id, uint64_t step, uint64_t passed, int64_t now_ms);
struct order_job *order_plan_find(struct order_plan *p, uint64_t id);

/* ---- who fetches ----------------------------------------------------------------------------- */

/* The next piece to bring, with a buffer and a reference; NULL when there is none, or no room. */
struct order_piece *order_plan_next(struct order_plan *p);
/* Whether order_plan_next has something to do: without looking into the lists. */
bool order_plan_has_next(const struct order_plan *p);
/* Ends the fetch and its reference: the bytes are there, or (ok false) will not come. */
void order_plan_arrived(
	struct order_plan *p, struct order_piece *piece, bool ok, enum block_from from);

/* ---- who reads ------------------------------------------------------------------------------- */

/* A read of [offset, offset+len) is about to be answered: notes what it says of the reader. */
void order_plan_read(
	struct order_plan *p, uint32_t index, uint64_t offset, uint32_t len, int64_t now_ms);
/* The FETCHING or READY piece that has the byte, preferably READY; NULL: none. */
struct order_piece *order_plan_at(struct order_plan *p, uint32_t index, uint64_t offset);
/* The first byte in (offset, offset+len) that such a piece has, or offset + len. */
uint64_t order_plan_gap(struct order_plan *p, uint32_t index, uint64_t offset, uint32_t len);
void order_plan_ref(struct order_piece *piece);
/* `len` bytes of a referenced piece were used; ends the reference. */
void order_plan_used(struct order_plan *p, struct order_piece *piece, uint32_t len);
void order_plan_unref(struct order_plan *p, struct order_piece *piece);

/* ---- once a second --------------------------------------------------------------------------- */

void order_plan_tick(struct order_plan *p, int64_t now_ms);
bool order_plan_empty(const struct order_plan *p);
