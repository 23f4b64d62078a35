/*
 * What to give to the kernel before a reader asks for it, when nobody announced an order.
 *
 * A training epoch reads every small file once, in a random order. What will be asked for is known
 * then, only not when: so files near those that were read are handed out for preloading in the
 * order of the manifest, whichever comes first, the reader or the preload.
 *
 * Invariants
 *  1. In a pass no file is handed out that was read, from wherever, or handed out in it. A pass
 *     lasts until half of the last 32 requests were of files seen in it before (another epoch, or
 *     the page cache was dropped), or nothing was asked for 10 s.
 *  2. Only files among 256 neighbours of which two were read in the pass are handed out.
 *  3. Bytes handed out are at most `factor` (4) times the bytes read, but for what is under way: a
 *     reader of a few files cannot set off much. Each 16th file is left out as a sample: how many
 *     of these are asked for later tells what the others were worth. A pass of which less than
 *     half was worth it lowers the factor, down to 0 for the next passes.
 *  4. What was handed out and not used yet, as the sample says, is at most the window.
 *
 * Calling sequence: init; `read` for each first request of a file; `next` until it says false, and
 * after each what became of it: `pushed`, or `left` when it was not given to the kernel.
 *
 * Memory: 1/4 byte an entry, and 5 bytes for 256. Threading: none of its own; time is passed in.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define PRELOAD_ENTRIES_MAX (UINT32_C(32) << 20)
#define PRELOAD_CHUNK 256u
#define PRELOAD_SAMPLE 16u
#define PRELOAD_IDLE_MS 10000
#define PRELOAD_RECENT 32u /* bits of a word */

struct preload_plan {
	uint32_t entries;
	uint64_t window_bytes;
	uint64_t *seen;	      /* by entry: read, or handed out, in this pass */
	uint64_t *sample;     /* by entry: left out as a sample, not read since */
	uint8_t *chunk_reads; /* by chunk, up to CHUNK_HOT */
	uint32_t *hot;	      /* chunks in the order of becoming hot */
	uint32_t hot_count, hot_next;
	uint32_t at, end; /* entries of the chunk at hand */

	int64_t read_ms; /* when something was asked for last */
	/* The last first requests, and which of them were of a file that was seen, by place. */
	uint32_t recent[PRELOAD_RECENT], again;
	uint32_t recent_at;
	int64_t credit_bytes;
	uint64_t pushed_bytes, sampled, sample_reads; /* of this pass */
	unsigned factor, rest_passes;
};

/* -ENOMEM; -E2BIG: more entries than PRELOAD_ENTRIES_MAX. */
int preload_plan_init(struct preload_plan *p, uint64_t entries, uint64_t window_bytes);
void preload_plan_deinit(struct preload_plan *p);

/* The first bytes of a file were asked for. `bytes` of it, maybe 0, are in the store of this host:
 * what is elsewhere allows no preloading, but is not handed out later when it has come. */
void preload_plan_read(struct preload_plan *p, uint32_t index, uint64_t bytes, int64_t now_ms);
bool preload_plan_next(struct preload_plan *p, uint32_t *ret_index);
void preload_plan_pushed(struct preload_plan *p, uint64_t bytes);
/* The kernel does not know the file, or the store has not all of it: its reader will ask for it. */
void preload_plan_left(struct preload_plan *p, uint32_t index);
