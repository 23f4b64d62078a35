/*
 * The uniform pin: a block is pinned exactly when block_pin_hash(block) < threshold. Any node can
 * compute it; a growing threshold only adds blocks, a shrinking one only drops those in between.
 */
#pragma once

#include "manifest/manifest.h"

#define PIN_NONE ((uint64_t)0)
#define PIN_ALL UINT64_MAX

static inline bool pin_holds(uint64_t threshold, const struct block_id *id)
{
	return block_pin_hash(id) < threshold;
}

/* The largest threshold whose pinned object bytes do not exceed `cache_bytes`, exactly; and those
 * bytes. Streams over the manifest a few times in bounded memory. */
int pin_threshold(struct manifest *m, uint64_t cache_bytes, uint64_t *ret_threshold,
	uint64_t *ret_pinned_bytes, struct error *err);
