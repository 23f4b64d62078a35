/*
 * Who reads sequentially, so that a miss can be fetched together with what will be asked for next.
 *
 * The kernel's own read-ahead ends at the request it sends; behind that, a stream that went on
 * where it stopped gets as much again as it has read so far, up to READ_AHEAD_MAX_BYTES. A random
 * reader never gets any, so it costs the origin nothing beyond what it reads.
 *
 * A bounded table: sets of four streams, chosen by node, so that several readers of one file do not
 * disturb each other much. The kernel sends the large requests of one reader from several threads;
 * they may arrive swapped, which does not break a stream.
 *
 * Threading: any thread.
 */
#pragma once

#include <stdint.h>

#include "common/sync.h"

#define READ_AHEAD_MAX_BYTES ((uint32_t)8 << 20)
#define READ_AHEAD_SETS 256
#define READ_AHEAD_WAYS 4
#define READ_AHEAD_LOCKS 16

struct read_ahead_stream {
	uint64_t ino;
	uint64_t next;	    /* where the last request ended */
	uint64_t run_bytes; /* read in sequence so far */
	uint64_t used;	    /* for the choice of the one to replace */
};

struct read_ahead {
	struct mutex mu[READ_AHEAD_LOCKS]; /* set i is guarded by mu[i % READ_AHEAD_LOCKS] */
	struct read_ahead_stream streams[READ_AHEAD_SETS][READ_AHEAD_WAYS];
	uint64_t clock[READ_AHEAD_SETS];
};

void read_ahead_init(struct read_ahead *r);
void read_ahead_deinit(struct read_ahead *r);
/* Notes a read and returns how much past it to fetch, within a file of `size` bytes. */
uint32_t read_ahead_note(
	struct read_ahead *r, uint64_t ino, uint64_t offset, uint32_t len, uint64_t size);
