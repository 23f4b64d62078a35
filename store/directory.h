/*
 * The directory: which block lies where, in memory shared with readers of this host (store_view.h).
 *
 * A memfd of fixed, sealed size: one header page, then 32 bytes a slot in buckets of eight. A block
 * lies in one of two buckets that its id names. The table starts with 1,024 slots and doubles in
 * place when three quarters are used; pages that no slot uses take no memory. So it takes 43 to 85
 * bytes a block, and never more than 32 * directory_slots_max(capacity): a slot for each 3 KiB of
 * capacity, rounded up to a power of two, at most 2 GiB. Seven eighths of the slots are used at
 * most.
 *
 * Invariants
 *  1. Only the owner writes, under its own lock. A slot's `seq` is odd while it is written and has
 *     grown whenever what the slot says has ceased to hold; a reader that finds the same even seq
 *     before and after it read the bytes knows that their place was not given to another block.
 *     The flags are not covered: they change in place.
 *  2. A lookup that races with a doubling may look twice; it never finds a wrong block, and a miss
 * is only ever a miss of speed.
 *
 * The owner's functions are marked; the others any thread may call, in any process.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "manifest/block.h"

/* The low bits of a slot's flags. */
enum block_class { CLASS_PINNED = 0, CLASS_FILLER = 1, CLASS_ELASTIC = 2 };
#define FLAG_CLASS 3u
#define FLAG_SPARSE 4u /* in a sparse file: the checks are in its sidecar */
#define FLAG_OLD 8u    /* of an older snapshot: stays elastic under any threshold */
#define FLAGS_MASK 15u

struct directory_entry {
	struct block_id id;
	uint32_t file;
	uint32_t page; /* offset in the file, in 4 KiB */
	uint32_t len;
	uint32_t flags;
	/* Where it was found, for directory_holds. */
	uint32_t slot;
	uint32_t seq;
};

static inline enum block_class entry_class(const struct directory_entry *e)
{
	return (enum block_class)(e->flags & FLAG_CLASS);
}

struct directory;

uint64_t directory_slots_max(uint64_t capacity_bytes);

/* The owner's side. */
int directory_create(uint64_t slots_max, uint64_t epoch, struct directory **ret, struct error *err);
void directory_set_store_id(struct directory *d, uint64_t store_id);
int directory_fd(const struct directory *d); /* to hand to readers: sealed against writing */
/* Tells readers that no more changes come. */
void directory_set_closed(struct directory *d);

/* The reader's side: maps a memfd that came from elsewhere (not taken over), read-only; -EPROTO
 * when it is not a directory of this version. */
int directory_map(int fd, struct directory **ret, struct error *err);
bool directory_is_closed(const struct directory *d);

void directory_free(struct directory *d); /* NULL is fine */
uint64_t directory_store_id(const struct directory *d);
uint64_t directory_epoch(const struct directory *d);

bool directory_lookup(
	const struct directory *d, const struct block_id *id, struct directory_entry *ret);
/* Is it all as it was when the entry was looked up? */
bool directory_holds(const struct directory *d, const struct directory_entry *e);

/* The slots in use now; their numbers are below it. */
uint32_t directory_slots(const struct directory *d);
/* What a slot holds; false when it is empty, or for others than the owner being written. */
bool directory_at(const struct directory *d, uint32_t slot, struct directory_entry *ret);

/* Told of every block that moves to another slot. */
typedef void directory_moved_fn(void *arg, uint32_t from, uint32_t to);

/* Owner only. Adds a block that is not there; writes slot and seq of `e`. -ENOSPC when full. */
int directory_insert(
	struct directory *d, struct directory_entry *e, directory_moved_fn *moved, void *arg);
void directory_remove(struct directory *d, uint32_t slot);
void directory_set_flags(struct directory *d, uint32_t slot, uint32_t flags);
uint64_t directory_blocks(const struct directory *d);
/* No more blocks, or hardly any. */
bool directory_full(const struct directory *d);
