/*
 * The pin ceiling: what a store that is full makes of the plan's thresholds. A block is pinned here
 * when its hash is under its dataset's threshold and under the ceiling, which is one for all
 * datasets. So what is pinned stays a uniform subset, the same one that a lower threshold would give:
 * the highest hashes go first, and whoever knows the ceiling knows the blocks.
 *
 * A thread looks once an interval:
 *  - pinned blocks found no room although everything else had gone: the ceiling falls so far that
 *    1/64 of the capacity comes free. The next blocks under it have room then, and so on until all of
 *    them fit.
 *  - the file system has stayed under the floor for PIN_SHORT_TICKS looks, or more is charged than
 *    may be: elastic blocks and fillers go, then the ceiling falls, until it is made up.
 *  - no such thing for PIN_RAISE_TICKS looks, what is pinned has stopped to grow, and there is room:
 *    the ceiling goes when all that it keeps out would fit; where room is left for more than twice
 *    that 1/64 it rises by what would take half of it. When it falls again soon after, the next rise
 *    takes twice as long, up to 64 times.
 *
 * A process starts without a ceiling: one that was full finds its own again at the cost of a 64th.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/sync.h"

#define PIN_TICK_MS 1000
#define PIN_SHORT_TICKS 5u
#define PIN_RAISE_TICKS 30u

struct store;

struct pin_ceiling {
	_Atomic uint64_t hash; /* blocks at or above are not pinned; PIN_ALL: none; never 0 */
	unsigned tick_ms;      /* constant */
	pthread_t thread;
	bool started;
	struct cond changed;
	/* guarded by the store's mu */
	bool stopping;
	uint64_t refused; /* pinned blocks that found no room since the last look */
	/* owned by the thread */
	unsigned short_ticks;	     /* looks in a row that found less than the floor free */
	unsigned quiet_ticks;	     /* looks since something was refused, short, or changed */
	unsigned raised_ticks;	     /* looks since the last rise */
	unsigned backoff;	     /* rises wait 2^backoff times as long */
	uint64_t quiet_pinned_bytes; /* pinned when the quiet began */
};

int pin_ceiling_start(struct store *s, struct error *err);
void pin_ceiling_stop(struct store *s); /* fine when never started */
