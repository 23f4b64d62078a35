/*
 * Announced orders of a mount: what readers said that they will read is brought before they ask, as
 * order_plan.h says which and when, by as many gets at once as the origin rewards (order_pace.h).
 *
 * Bytes come from the mount's block_source, as verified as a reader's own, and wait in this process
 * until the reader's request takes them: `take` looks here before anybody else is asked. A request
 * for what is under way waits for it, so nothing is got twice. What cannot be brought is left to its
 * reader, who then hears the reason himself; after a failure nothing is brought for a second, and
 * longer after the next.
 *
 * Bytes count by where they came from when a reader gets them, as all others do.
 *
 * Calling sequence: init; start; begin, add, seal, drop, step by whoever hears the readers, take and
 * what follows from it by those who answer them, from any thread; stop, after which a take finds
 * nothing and the others fail; deinit. `tick` once a second.
 *
 * Threading: any thread. No lock is held while bytes are brought or copied.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/sync.h"
#include "fuse/order_pace.h"
#include "fuse/order_plan.h"
#include "fuse/read_cancel.h"
#include "manifest/manifest.h"

#define ORDER_THREADS_MAX 80 /* 4,000 files/s from an origin 20 ms away */
#define ORDER_ARRIVALS 16

struct fs;
struct fs_node;

struct order {
	struct fs *fs;
	atomic_bool active; /* some list has something left */
	pthread_t threads[ORDER_THREADS_MAX];
	struct read_cancel cancels[ORDER_THREADS_MAX];

	struct mutex mu;
	struct cond work;
	struct cond arrived[ORDER_ARRIVALS]; /* by piece */
	/* guarded by mu */
	bool on, stopping;
	unsigned started, fetching;
	struct order_plan plan;
	struct order_pace pace;
	struct manifest *manifest; /* that the lists are about, NULL without any */
	uint32_t slot;
	unsigned failures;	 /* one after the other */
	int64_t rests_until_ms;	 /* after a failure */
	struct order_tally told; /* to the counters */
};

/* memory_bytes 0: ORDER_MEMORY_BYTES. */
void order_init(struct order *o, struct fs *fs, uint64_t memory_bytes);
void order_deinit(struct order *o); /* after order_stop */
void order_start(struct order *o);
void order_stop(struct order *o);

/* ---- who announces: order_plan.h has the errors; -ESHUTDOWN when it does not run ---------------- */

/* A list about the snapshot that is shown now: *ret_manifest (a reference) is what paths are looked
 * up in. A switch to another snapshot drops it. */
int order_begin(struct order *o, uint64_t *ret_id, struct manifest **ret_manifest);
int order_add(struct order *o, uint64_t id, const struct order_range *ranges, unsigned count);
void order_seal(struct order *o, uint64_t id);
void order_drop(struct order *o, uint64_t id);
int order_step(struct order *o, uint64_t id, uint64_t step, uint64_t passed);
void order_drop_all(struct order *o);
void order_tick(struct order *o);

struct order_stat {
	unsigned lists;
	/* of the list asked for; zeros without it */
	uint64_t announced, passed, step;
	struct order_tally tally;
	unsigned in_flight_limit;
};
/* id 0: the list that was begun last. */
void order_stat(struct order *o, uint64_t id, struct order_stat *ret);

/* ---- who answers readers --------------------------------------------------------------------- */

static inline bool order_is_active(const struct order *o)
{
	return atomic_load_explicit(&o->active, memory_order_relaxed);
}

enum order_answer {
	ORDER_NONE,   /* nothing of it is here or under way */
	ORDER_HAS,    /* all of it: `ret` */
	ORDER_BRINGS, /* some of it: order_await, then order_part, by a thread that may wait */
};

struct order_held {
	struct order_piece *piece;
	const unsigned char *bytes;
	enum block_from from;
};

enum order_answer order_take(struct order *o, const struct fs_node *node, uint64_t offset,
	uint32_t len, struct order_held *ret);
/* The bytes were given to the reader. */
void order_release(struct order *o, struct order_held *held, uint32_t len);

/* Waits for the one piece that has all of it; false: there is none, or it does not come. */
bool order_await(struct order *o, const struct fs_node *node, uint64_t offset, uint32_t len,
	int64_t deadline_ms, struct read_cancel *cancel, struct order_held *ret);
/* Copies the bytes from offset on that one piece has, waiting for them; returns how many. 0: there
 * are none, and the caller gets *ret_gap bytes by himself before he asks again. */
uint32_t order_part(struct order *o, const struct fs_node *node, uint64_t offset, uint32_t len,
	unsigned char *dst, int64_t deadline_ms, struct read_cancel *cancel,
	enum block_from *ret_from, uint32_t *ret_gap);
