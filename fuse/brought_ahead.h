/*
 * Which blocks, and records, were begun for a reader before he asked (prefetch.h), so that his read
 * of them counts as the miss that it would have been, although he finds them in a store.
 *
 * A table of hashes, the newer one replaces: what is lost counts as a hit.
 *
 * Threading: any thread, no lock.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define BROUGHT_AHEAD_BLOCKS 1024

struct brought_ahead {
	_Atomic uint64_t blocks[BROUGHT_AHEAD_BLOCKS]; /* 0: free */
};

/* A record that begins there takes the place of a block's number. */
static inline uint64_t brought_ahead_record(uint64_t offset)
{
	return UINT64_C(1) << 63 | offset;
}

void brought_ahead_note(struct brought_ahead *b, uint64_t ino, uint64_t block);
void brought_ahead_forget(struct brought_ahead *b, uint64_t ino, uint64_t block);
bool brought_ahead_has(const struct brought_ahead *b, uint64_t ino, uint64_t block);
/* Whether the block of `offset` was; that ends with the read of its last byte. */
bool brought_ahead_read(
	struct brought_ahead *b, uint64_t ino, uint64_t offset, uint32_t len, uint64_t size);
