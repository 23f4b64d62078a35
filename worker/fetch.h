/*
 * One get from the origin that readers share: a stretch [start, end) of a block on its way, or just
 * arrived. Where the origins' bandwidth is limited it comes in pieces, and has no thread while it
 * waits for its next turn (origin_queue.h). That wait counts towards nobody's deadline, nor does what
 * its earlier pieces took.
 *
 *	        readers join                      all bytes read, or stored, or failed
 *	QUEUED ----> RUNNING ----> ARRIVED ----> (out of the table)
 *	                 \-------> FAILED  ----->
 *
 * A block that is to be stored, of which its first reader wants a small part from somewhere within,
 * begins with that part: its first get brings that, the others what is behind it and then what is
 * before it, when the fill queue lets them (fill_queue.h) or a reader waits for it.
 *
 * Invariants
 *  1. `filled` bytes are final: of [begin, end), then of [start, begin). It only grows.
 *  2. A fetch in the table may be joined. It leaves the table before, or in the moment, it fails,
 * is cancelled or its bytes are in the store, so that a later reader never joins a dead one.
 *  3. One that is to be stored covers its whole block, and there is at most one of a block. Bytes of a
 * whole block that were not to be stored are, once a reader comes who wants that: another plan has
 * come meanwhile.
 *
 * A reader of all that a short first get brings runs it itself (fetch_run_here), as long as it need
 * not wait for a turn: no other thread has to be woken, and to wake the reader. Its cancel and its
 * deadline are the get's then; others who joined start over.
 *
 * Else a reader's cancel ends only its own waiting. When the last one leaves without its bytes, a
 * stretch that is not for the store is cancelled; one for the store goes on, unless it was the
 * deadline that made them leave: then the origin is stuck, and the thread has better to do.
 *
 * Threading: fields as grouped; `table` owns the lock. References are counted: one for the table,
 * one for the thread that runs it, one for each reader and for each message on its way.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/sync.h"
#include "store/store.h"
#include "worker/buffer_pool.h"
#include "worker/dataset.h"
#include "worker/fill_queue.h"
#include "worker/origin_queue.h"
#include "worker/work_queue.h"

struct fetch_table;
struct fetch_group;

enum fetch_goal {
	FETCH_PASS,	     /* for the readers only */
	FETCH_STORE_GRANT,   /* whole block, into the dataset's grant */
	FETCH_STORE_ELASTIC, /* whole block, into elastic room: of an older snapshot */
	FETCH_STORE_LRU,     /* the same, of the current one */
};

enum fetch_state { FETCH_RUNNING, FETCH_ARRIVED, FETCH_FAILED };

struct fetch {
	struct work work; /* of the queue, until it runs */
	atomic_uint refs;

	/* fixed when made */
	struct fetch_table *table;
	struct dataset *dataset;
	struct manifest *manifest;
	uint32_t entry;
	struct store_block block;
	uint32_t start, end;  /* within the block */
	uint32_t begin;	      /* of the first get, within the block */
	uint32_t first_bytes; /* which brings no more than these */
	bool sequential;      /* asked for with read-ahead */
	int64_t deadline_ms;  /* moved on by origin_turn_waited_us, and when a fill begins */
	char job[DATASET_JOB_BYTES];

	/* owned by the running thread until filled says that there is something */
	struct buffer *buffer;
	uint32_t piece_start; /* a number of bytes filled */

	struct origin_turn turn; /* open while it is FETCH_RUNNING */

	_Atomic(enum fetch_goal) goal; /* FETCH_PASS may become another one */
	_Atomic uint32_t filled;
	_Atomic uint32_t wake_at; /* somebody waits until filled is this much */
	atomic_bool cancel;
	struct cond changed;

	/* guarded by the table's lock */
	enum fetch_state state;
	bool here;  /* runs in its first reader's thread */
	int result; /* when FETCH_FAILED */
	struct error err;
	unsigned readers;
	uint32_t wanted; /* until so many are filled somebody has asked for them */
	struct fill fill;
	uint64_t served_bytes;
	uint32_t served_to;   /* the furthest byte that was read, from start */
	uint32_t spare;	      /* so many bytes nobody need read */
	uint32_t ahead_bytes; /* charged to the table's budget of read-ahead */
	int64_t arrived_ms;
	struct fetch_group *group;   /* of its block, while it is in the table */
	struct fetch *prev, *next;   /* in the group */
	struct fetch *older, *newer; /* in the list of those kept */
	bool kept;
};

struct fetch *fetch_ref(struct fetch *f);
void fetch_unref(struct fetch *f); /* NULL is fine */

/* The reader's other hand: true ends the wait. */
typedef bool fetch_gone_fn(void *arg);
/* The reader has waited for its job's share of the bandwidth, so long in all. False: it has no place
 * to wait any longer. */
typedef bool fetch_waits_fn(void *arg, uint64_t waited_us);

/* Told this often while it goes on. */
#define FETCH_WAITS_US 250000

/* One who waits for bytes of fetches, one after the other. */
struct fetch_reader {
	int64_t deadline_ms; /* moved on by waited_us */
	fetch_gone_fn *gone;
	const atomic_bool *cancel; /* what `gone` says; NULL: only that says it */
	fetch_waits_fn *waits;
	void *arg; /* of gone and waits */
	/* Of the time in fetch_wait, what the limit cost: origin_turn_waited_us. */
	uint64_t waited_us, told_us;
};
/* As it is now. */
int64_t fetch_reader_deadline_ms(const struct fetch_reader *reader);

#define FETCH_AGAIN 1 /* the fetch came to nothing, for no fault of the block: start over */
#define FETCH_LATER 2 /* it waits for its turn, and the reader cannot any longer */

/* Offsets here are within the block. */

/* The end of what comes in order from `offset` on. */
uint32_t fetch_straight_end(const struct fetch *f, uint32_t offset);
/* Waits until [from, upto), which comes in order, is there. 0, FETCH_AGAIN, FETCH_LATER, -ETIMEDOUT,
 * -ECANCELED, or what the fetch failed with: -ESTALE changed or gone at the origin, -EACCES, -EIO. */
int fetch_wait(struct fetch *f, uint32_t from, uint32_t upto, struct fetch_reader *reader,
	struct error *err);
/* The end of what has arrived from `offset` on. */
uint32_t fetch_arrived_end(const struct fetch *f, uint32_t offset);
/* Bytes that a wait has seen arrive. */
const unsigned char *fetch_bytes(const struct fetch *f, uint32_t offset);

/* ---- for fetch_table.c ------------------------------------------------------------------------ */

/* How many bytes have to be filled until [from, upto) is. */
uint32_t fetch_needs(const struct fetch *f, uint32_t from, uint32_t upto);
/* What the next get may bring at most; not of one that is complete. */
uint32_t fetch_next_bytes(const struct fetch *f);

/* Gets the bytes of its turn, and stores them all after the last; on a thread of the queue. */
void fetch_run(struct work *w);
/* The first get of a fetch that fetch_table_acquire gave its reader to run; another thread goes on
 * with it, and stores. The reader goes on as with any other fetch. */
void fetch_run_here(struct fetch *f, const struct fetch_reader *reader);
