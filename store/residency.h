/*
 * What the owner knows of each directory slot beyond the directory itself: on which eviction list
 * the block is, when it was last read, and whether the current snapshot names it. 16 bytes a slot,
 * in pages that are taken when first used.
 *
 * Lists are in order of age, oldest first. Pinned blocks are on none.
 *
 * Threading: the caller's lock, except residency_recent.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RESIDENCY_NONE UINT32_MAX

/* Lists: elastic blocks by recency; elastic blocks of datasets without a grant, which go after
 * those; elastic blocks of datasets that are kept as an LRU cache keeps them, by recency, which go
 * last; and the fillers of each dataset. */
#define LIST_ELASTIC 0u
#define LIST_LEFTOVER 1u
#define LIST_LRU 2u
#define LIST_FILLER(dataset) (3u + (dataset))

struct slot_note;

struct residency {
	struct slot_note *notes;
	size_t map_bytes;
	uint32_t slots_max;
	uint32_t lists;
};

int residency_init(struct residency *r, uint64_t slots_max, uint32_t lists);
void residency_deinit(struct residency *r);

void residency_add(struct residency *r, uint32_t slot, uint32_t list);
void residency_remove(struct residency *r, uint32_t slot); /* fine when on no list */
uint32_t residency_oldest(const struct residency *r, uint32_t list);
void residency_moved(struct residency *r, uint32_t from, uint32_t to);

/* Was the block read within this coarse second? Then there is nothing to note; no lock needed. */
bool residency_recent(const struct residency *r, uint32_t slot, uint32_t now_s);
/* Notes the read of an elastic block and makes it the youngest of `list`. */
void residency_touch(struct residency *r, uint32_t slot, uint32_t list, uint32_t now_s);

bool residency_live(const struct residency *r, uint32_t slot);
void residency_set_live(struct residency *r, uint32_t slot, bool live);
