/*
 * The scrubber: a thread that reads what is stored at a bounded rate, verifies it, and drops what is
 * damaged, so that it is fetched again before a job waits for it and before a second copy is lost.
 *
 * A pass goes by file and place, so that a disk's head moves one way. It reads past the page cache
 * where the file system can (O_DIRECT), which is what finds damage of the disk under a good cached
 * page, and leaves the page cache to readers; IO is of the idle class. Where it stands is a record of
 * the index, written once a minute, so that a process that is restarted daily still gets round.
 *
 * Threading: any thread; stop before the store's commit thread.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/sync.h"

struct store;

/* Where a block lies, as one number that sorts: file, then page. */
typedef uint64_t scrub_place;

static inline scrub_place scrub_place_of(uint32_t file, uint32_t page)
{
	return (uint64_t)file << 32 | page;
}

struct scrub {
	uint64_t bytes_per_s; /* constant; 0: off; STORE_SCRUB_WEEKLY */
	pthread_t thread;
	bool started;
	struct cond changed;
	/* guarded by the store's mu */
	bool stopping;
	scrub_place at; /* everything up to here has been read in this pass */
	uint64_t read_bytes, damaged_blocks, passes;
};

int scrub_start(struct store *s, struct error *err);
void scrub_stop(struct store *s); /* fine when never started */
/* What it may read in a second now. */
uint64_t scrub_rate_locked(const struct store *s);
