/*
 * Who reads sequentially, so that a miss can be fetched together with what will be asked for next.
 *
 * The kernel's own read-ahead ends at the request it sends; behind that, a stream that went on
 * where it stopped gets as much again as it has read so far, READ_AHEAD_MAX_BYTES together with the
 * read, and whole blocks behind the one at hand, each named once, so that many gets are under way: as
 * much as it has read, or READ_AHEAD_RAMP times that where it began with the file, as who wants all
 * of it does, and no more than its window. Where files are read whole (whole_files.h), all of the
 * window is named with the first read. A random reader never gets any, so it costs the origin
 * nothing beyond what it reads.
 *
 * The window begins with READ_AHEAD_WINDOW_BYTES. Whenever the stream has read that much and waited
 * for half of it, the window doubles, up to READ_AHEAD_WINDOW_MAX_BYTES, as long as the last
 * doubling has brought a twentieth more bytes a second: an origin that gives a connection 60 MB/s
 * rewards many, one that is close none.
 *
 * A bounded table: sets of four streams, chosen by node, so that several readers of one file do not
 * disturb each other much. The kernel sends the large requests of one reader from several threads;
 * they may arrive swapped, which does not break a stream.
 *
 * Threading: any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/sync.h"
#include "fuse/whole_files.h"

#define READ_AHEAD_MAX_BYTES ((uint32_t)8 << 20)
#define READ_AHEAD_RAMP 8
#define READ_AHEAD_WINDOW_BYTES ((uint32_t)32 << 20)
#define READ_AHEAD_WINDOW_MAX_BYTES ((uint32_t)128 << 20)
#define READ_AHEAD_SETS 256
#define READ_AHEAD_WAYS 4
#define READ_AHEAD_LOCKS 16

struct read_ahead_stream {
	uint64_t ino;
	uint64_t next;	    /* where the last request ended */
	uint64_t run_bytes; /* read in sequence so far */
	uint64_t named;	    /* blocks below were named, or are at hand */
	uint64_t used;	    /* for the choice of the one to replace */
	bool from_start;    /* of the file */
	/* the window, and the round of so many bytes that it is judged by */
	uint32_t window;
	bool settled;
	uint64_t round_bytes, waited_bytes;
	int64_t round_ns; /* when it began */
	double rate;	  /* bytes/ns of the round before the window grew; 0: it has not */
};

struct read_ahead {
	struct mutex mu[READ_AHEAD_LOCKS]; /* set i is guarded by mu[i % READ_AHEAD_LOCKS] */
	struct read_ahead_stream streams[READ_AHEAD_SETS][READ_AHEAD_WAYS];
	uint64_t clock[READ_AHEAD_SETS];
	struct whole_files whole; /* of more than one block */
};

void read_ahead_init(struct read_ahead *r);
void read_ahead_deinit(struct read_ahead *r);

struct read_ahead_advice {
	uint32_t bytes;	     /* past the read, to be fetched with it as far as its block goes */
	uint64_t block, end; /* blocks [block, end) of the file, to be brought now */
	/* A file of more than a block is begun, where such files are read whole. */
	bool begun, whole;
};

/* Notes a read within a file of `size` bytes, at a time of the monotonic clock. */
struct read_ahead_advice read_ahead_note(struct read_ahead *r, uint64_t ino, uint64_t offset,
	uint32_t len, uint64_t size, int64_t now_ns);
/* What was noted has to wait for its bytes. */
void read_ahead_waits(struct read_ahead *r, uint64_t ino, uint64_t offset, uint32_t len);
