/*
 * Who reads records of a file at equal distances, so that the records to come are fetched while the one
 * at hand is read: every eighth of them by one of eight loaders, a column of a table, a slice of an
 * array.
 *
 * A stream is what one reader (a thread, as the kernel names it) reads of one file. From RECORD_FEW
 * equal distances on, half as many records as it has read are named ahead, RECORD_AHEAD and
 * RECORD_AHEAD_BYTES at most, each once, and only while some record of the last RECORD_CREDIT was not
 * in a store: who reads what is cached costs nothing. A shuffled reader has no streams but by chance.
 *
 * Streams of one file with the same distance that together read nearly all of it, as loaders beside
 * each other do, have whole blocks named instead, RECORD_BLOCKS_BYTES ahead: there are fewer gets to make,
 * and each of them brings the others' records, too.
 *
 * The kernel asks for whole pages, and not for those that it has, so a record of odd length seems to
 * begin up to a page off. The distance is the mean of all, and what is named is a page longer at either
 * end where records do not lie on pages. Of the first bytes of a file it asks for more than the reader
 * did: what is named is as long as the longest of the last RECORD_FEW, without the first.
 *
 * A bounded table: sets of streams, chosen by file.
 *
 * Threading: any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/sync.h"

#define RECORD_FEW 4
#define RECORD_AHEAD 16
#define RECORD_AHEAD_BYTES ((uint64_t)8 << 20)
#define RECORD_BLOCKS_BYTES ((uint64_t)32 << 20)
#define RECORD_CREDIT 64
#define RECORD_STRIDE_SETS 32
#define RECORD_STRIDE_WAYS 16

struct record_stream {
	uint64_t ino; /* 0: free */
	uint32_t reader;
	uint64_t first, last;	   /* where the first and the last record began */
	uint64_t end;		   /* of the last request */
	uint64_t lens[RECORD_FEW]; /* of the last records: of record n lens[n % RECORD_FEW] */
	uint32_t steps;		   /* from the first record to the last */
	bool uneven;		   /* the distances differ: records do not lie on pages */
	uint32_t credit;	   /* records to go without a miss */
	uint32_t named;		   /* so many steps from the first was the last one named */
	uint64_t at[RECORD_AHEAD]; /* where record n was said to begin: at[n % RECORD_AHEAD] */
	bool was_named;		   /* the last record, */
	uint64_t named_at;	   /* as one that begins there */
	uint64_t named_blocks;	   /* blocks below were named */
	uint64_t used;		   /* by the set's clock */
};

struct record_stride {
	struct record_stream_set {
		struct mutex mu;
		uint64_t clock;
		struct record_stream streams[RECORD_STRIDE_WAYS];
	} sets[RECORD_STRIDE_SETS];
};

struct record_advice {
	/* Records to be brought now, of so many bytes each; the last may end behind the file. */
	unsigned count;
	uint64_t at[RECORD_AHEAD], len;
	/* And blocks [block, end) of the file. */
	uint64_t block, end;
	/* The record that is read was named before, as one that begins there. */
	bool was_named;
	uint64_t named_at;
};

void record_stride_init(struct record_stride *r);
void record_stride_deinit(struct record_stride *r);

/* Notes a read within a file of `size` bytes. */
struct record_advice record_stride_note(struct record_stride *r, uint64_t ino, uint32_t reader,
	uint64_t offset, uint32_t len, uint64_t size);
/* What the reader asked for last was in no store. */
void record_stride_missed(struct record_stride *r, uint64_t ino, uint32_t reader);
