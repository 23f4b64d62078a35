/*
 * Node ids that the kernel holds: the entry's index in its manifest, with the number of the
 * snapshot that this mount showed in the high bits, so that a switch never gives an old id a new
 * meaning.
 *
 *	1			the root of whatever is shown now (of every snapshot)
 *	slot << 32 | index + 1	entry `index` of the snapshot that was shown slot-th
 *
 * 0 is no node. Nothing is kept per node: an id is looked up in its manifest each time.
 */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#define NODE_ROOT ((uint64_t)1)
#define NODE_SLOT_MAX ((uint32_t)INT32_MAX)
#define NODE_SLOT_CURRENT UINT32_MAX

struct node_ref {
	uint32_t slot; /* NODE_SLOT_CURRENT for the root */
	uint32_t index;
};

static inline uint64_t node_id_make(uint32_t slot, uint32_t index)
{
	assert(slot <= NODE_SLOT_MAX && index < UINT32_MAX);
	if (index == 0)
		return NODE_ROOT;
	return (uint64_t)slot << 32 | (index + 1);
}

/* False for what node_id_make never made. */
static inline bool node_id_parse(uint64_t ino, struct node_ref *ret)
{
	uint32_t low = (uint32_t)ino;

	if (ino == NODE_ROOT) {
		*ret = (struct node_ref){.slot = NODE_SLOT_CURRENT, .index = 0};
		return true;
	}
	if (low < 2 || ino >> 32 > NODE_SLOT_MAX)
		return false;
	*ret = (struct node_ref){.slot = (uint32_t)(ino >> 32), .index = low - 1};
	return true;
}
