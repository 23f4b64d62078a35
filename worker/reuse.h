/*
 * Which blocks that are not pinned are worth a whole fetch and a place in the room that the quota
 * has left: those that are read again in a later pass.
 *
 * A pass reads every byte of what it reads once, in requests of any size and order. So per block
 * one bit for each 64 KiB says whether the *first byte* of that stretch was asked for before:
 * within one pass each bit is set once, however the requests are cut, and a bit that is met set is
 * a read of a later pass.
 *
 * A block is worth fetching on a re-read once at least half of its stretches have been read, or
 * once re-reads have asked for as many bytes as it has: then a whole fetch costs at most about
 * twice what the readers asked for, whatever part of the block they use.
 *
 * The memory is a fixed table of 16-byte records in buckets of four, found by a hash of the block's
 * id. A full bucket gives up a random record for one newcomer in four: a dataset with more blocks
 * than the table holds stays known in part, instead of pushing itself out.
 *
 * Threading: any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "manifest/block.h"

#define REUSE_RECORDS_DEFAULT ((uint64_t)1 << 20) /* 16 MiB, touched as blocks are read */

struct reuse;

/* NULL when memory is out; records is a power of two, 4 at least. */
struct reuse *reuse_new(uint64_t records);
void reuse_free(struct reuse *u); /* NULL is fine */

/* Records a read of [offset, offset+len) of a block of block_bytes; true when the block is worth a
 * whole fetch now. */
bool reuse_read(struct reuse *u, const struct block_id *id, uint32_t block_bytes, uint32_t offset,
	uint32_t len);
/* Would its next read in a later pass be worth one? Records nothing. */
bool reuse_is_worth(struct reuse *u, const struct block_id *id, uint32_t block_bytes);
/* The block was stored: what was known of its reads is of no more use. */
void reuse_forget(struct reuse *u, const struct block_id *id);
