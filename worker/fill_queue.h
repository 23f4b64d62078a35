/*
 * Blocks of which a reader has what it asked for, while the rest is still to come. Many are begun
 * by a random reader, each for one record; their rests are got a few at once, first come first
 * served, so that the next record need not share the origin with all of them.
 *
 * Bounds: FILL_QUEUE_MOST blocks from begin to end, each with the buffer of a whole one, and less
 * where the memory is less; FILL_QUEUE_AT_ONCE rests under way.
 *
 * Calling sequence of a fill: admit before it begins; add when the rest may wait; next names those
 * that are to run; hurry when a reader waits for the rest; end in any case.
 *
 * Threading: its owner's lock (fetch_table.h).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define FILL_QUEUE_MOST 16u
#define FILL_QUEUE_AT_ONCE 4u

struct fill {
	struct fill *prev, *next; /* while it waits */
	enum { FILL_NONE, FILL_BEGUN, FILL_WAITS, FILL_RUNS } state;
};

struct fill_queue {
	unsigned most, begun, running;
	struct fill *waiting;
};

void fill_queue_init(struct fill_queue *q, uint64_t memory_bytes);
/* False: as many as may be have begun, this one is to come whole. */
bool fill_queue_admit(struct fill_queue *q, struct fill *f);
void fill_queue_add(struct fill_queue *q, struct fill *f);
/* The next one to run, or NULL; it counts as running from now on. */
struct fill *fill_queue_next(struct fill_queue *q);
/* Whether it waited: now it runs beside the others, and its owner sees to that. */
bool fill_queue_hurry(struct fill_queue *q, struct fill *f);
/* Of one that was never admitted, too. */
void fill_queue_end(struct fill_queue *q, struct fill *f);
