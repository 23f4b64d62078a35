/*
 * The block store of one worker: verified bytes on a local disk, under a hard capacity and a
 * free-space floor, warm after any crash.
 *
 * Layout below `dir` (0700):
 *	format			the format version
 *	segments/N		blocks of small files, packed, 4 KiB aligned, one dataset per segment;
 *				after a block's bytes its trailer: XXH3 per 64 KiB, block id, length
 *	files/N, files/N.sum	one sparse backing file per object over BLOCK_BYTES, blocks at the
 *				object's own offsets, and the XXH3 per 64 KiB beside it; a block
 *				whose place there a reader still holds goes to a segment
 *	index/			RocksDB: block id -> place; file number -> dataset, object
 *
 * Invariants
 *  1. No byte is served whose checksum, block id and length do not match.
 *  2. Group commit: bytes are fdatasync'ed before the index names them; a delete is synced in the
 *     index before its place is used again. Reads are served before durability.
 *  3. Bytes are never recycled under a reader. A sparse file that was handed out is only unlinked,
 *     never punched or rewritten where it held bytes, and stays charged until its last holder lets
 *     go. A slot in a segment carries a generation in the directory (directory.h, shared memory),
 *     which readers check again after their read.
 *  4. Charged bytes (file extents, preallocation, index reserve) never exceed the capacity, and no
 *     write starts that would leave less than the floor free on the filesystem.
 *  5. Full disk or IO error degrades to "not stored" (store_degraded says why); it fails no read.
 *
 * Classes: a block under its dataset's threshold and the store's pin ceiling is pinned; others are
 * filler while they use room of the dataset's grant that pinned blocks have not filled, else
 * elastic. Pinned blocks are never evicted by traffic; fillers never evict each other and go when a
 * pinned block needs their room; elastic blocks go first, least recently used first. A dataset may
 * be kept as an LRU cache keeps it: then it has no fillers, and whatever of it is not pinned is
 * elastic.
 *
 * Least recently used is what the store knows of it: reads by store_read and by views, to the second;
 * not those that the kernel answers from its page cache or from a file passed through, nor the order
 * from before a restart.
 *
 * Calling sequence: open (recovers), set_dataset for each dataset of the plan, put and read from any
 * thread, close. Threading: all functions but open and close may be called at once.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "manifest/block.h"

#define STORE_FORMAT_VERSION 1
#define STORE_CAPACITY_MIN_BYTES ((uint64_t)64 << 20)

struct store;
struct store_disk; /* disk.h: the IO below the store, replaced by tests that lose power */

/* As fast as it takes to read all that is stored once a week. */
#define STORE_SCRUB_WEEKLY UINT64_MAX

struct store_options {
	const char *dir; /* made when missing */
	uint64_t capacity_bytes;
	uint64_t free_floor_bytes;
	const struct store_disk *disk; /* NULL: the real one */
	unsigned commit_interval_ms;   /* 0: 100 */
	unsigned tick_ms;	       /* of the pin ceiling; 0: 1000 */
	/* The most that the scrubber reads of the disk (scrub.h); 0: it is off. */
	uint64_t scrub_bytes_per_s;
};

/* -EINVAL newer format, -EBUSY another process has it, -ENOSPC capacity under the minimum. */
int store_open(const struct store_options *opts, struct store **ret, struct error *err);
void store_close(struct store *s); /* commits; NULL is fine */

/* A random id, made with the store and kept in it. */
uint64_t store_id(const struct store *s);

/* ---- datasets -------------------------------------------------------------------------------- */

/* Walks the blocks of the current snapshot: 1 and the next id, 0 at the end, negative on an error. */
typedef int store_live_fn(void *arg, struct block_id *ret_id);

/* Grant and threshold of a dataset. Blocks that a lower threshold unpins, and fillers beyond the
 * grant, are dropped; whatever is kept is classified anew. A grant of 0 drops nothing: all blocks
 * become elastic, and go after the other elastic ones when another needs the room. With `live` the
 * blocks that it does not name (those of older snapshots) become elastic; NULL leaves that as it is.
 * May take long (it scans); call it from no read path. */
int store_set_dataset(struct store *s, uint64_t dataset_id, uint64_t grant_bytes,
	uint64_t threshold, store_live_fn *live, void *arg, struct error *err);
#define STORE_HAS_BLOCKS 4
/* The same for a dataset of which the store has no block: never scans, and waits for no scan that is
 * under way. STORE_HAS_BLOCKS, and nothing done, when it would have to scan. */
int store_announce_dataset(struct store *s, uint64_t dataset_id, uint64_t grant_bytes,
	uint64_t threshold, struct error *err);
/* From the next store_set_dataset of it on: kept as an LRU cache keeps it. Not remembered by the
 * store when it is closed. -ENOSPC: too many datasets. */
int store_set_elastic(struct store *s, uint64_t dataset_id, bool elastic, struct error *err);
/* Drops all blocks of the dataset. */
int store_remove_dataset(struct store *s, uint64_t dataset_id, struct error *err);

struct store_dataset_stat {
	uint64_t dataset_id;
	uint64_t pinned_bytes, filler_bytes, elastic_bytes; /* object bytes */
	uint64_t corrupt_blocks;			    /* dropped since open */
};
/* Fills up to `room` of them, in no order; returns how many there are. */
size_t store_dataset_stats(struct store *s, struct store_dataset_stat *ret, size_t room);

struct store_stat {
	uint64_t capacity_bytes, charged_bytes, held_bytes, blocks;
	uint64_t free_floor_bytes;
	uint64_t pin_ceiling;	    /* UINT64_MAX: none */
	uint64_t scrub_bytes_per_s; /* now; 0: off */
	/* Since open: read by the scrubber, found damaged by it, and how often it got round. */
	uint64_t scrubbed_bytes, scrub_damaged_blocks, scrub_passes;
};
void store_stat(struct store *s, struct store_stat *ret);
/* While the store is full, blocks whose pin hash is not below this are not pinned, whatever the
 * threshold of their dataset (pin_ceiling.h); UINT64_MAX: it is not full. Never 0. */
uint64_t store_pin_ceiling(const struct store *s);
/* "" or why nothing is stored at the moment; copies. */
void store_degraded(struct store *s, char text[static 128]);

/* ---- blocks ---------------------------------------------------------------------------------- */

struct store_block {
	struct block_id id;
	uint64_t dataset_id;
	struct object_id object;
	uint64_t object_bytes;
	uint64_t index; /* within the object */
	uint32_t len;	/* bytes of the block */
};

enum store_admit {
	STORE_ADMIT_GRANT,   /* pinned when under the threshold, else filler if there is room */
	STORE_ADMIT_ELASTIC, /* of an older snapshot: may use free or elastic room only */
	STORE_ADMIT_LRU, /* the same for one of the current snapshot, which a plan may pin later */
};

/* Would a put of this block be taken now? Cheap, advisory: saves a fetch of a whole block. */
bool store_would_take(struct store *s, const struct store_block *b, enum store_admit admit);

#define STORE_EXISTS 1 /* it was there already */
#define STORE_FULL 2   /* no room under the rules, or degraded: not stored */
/* Stores the block's bytes; readers may have them when this returns. */
int store_put(struct store *s, const struct store_block *b, enum store_admit admit,
	const void *data, struct error *err);

#define STORE_MISS 3
/* Reads [offset, offset+len) of a block, verified. STORE_MISS also when it was found damaged: then
 * it has been dropped, counted and logged. */
int store_read(struct store *s, const struct store_block *b, uint32_t offset, uint32_t len,
	void *dst, struct error *err);
bool store_has(struct store *s, const struct block_id *id);
/* A reader elsewhere read an elastic one (recency). */
void store_touch(struct store *s, const struct block_id *id);

/* Waits until everything put before is durable (tests, shutdown). */
int store_sync(struct store *s, struct error *err);

/* ---- the local short circuit ------------------------------------------------------------------ */

/* Lets processes of this host read by themselves (store_view.h) through a unix socket at `path`,
 * mode 0600, or 0660 of `group`. */
struct store_lease_server;
int store_lease_server_start(struct store *s, const char *path, const char *group,
	struct store_lease_server **ret, struct error *err);
void store_lease_server_stop(struct store_lease_server *l); /* NULL is fine */
