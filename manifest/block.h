/*
 * A block: BLOCK_BYTES of an object (the last one shorter; a file up to that size is one block, an
 * empty file has none). Its identity depends on the object's content as far as the origin can prove
 * it, not on the snapshot, so unchanged files keep their blocks across a refresh:
 *
 *	object id = XXH3-128(dataset id, path, size, validator or mtime)
 *	block id  = object id mixed with the block's index
 *
 * Two 64-bit hashes derived from it decide independently: block_pin_hash whether it is pinned,
 * block_home_hash where it lives. block_sample_hash says, whatever these do, whether a sample has it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define BLOCK_BYTES ((uint64_t)4 << 20)
#define BLOCK_CHECK_BYTES ((uint64_t)64 << 10) /* one checksum covers this much */

struct object_id {
	uint64_t hi, lo;
};

struct block_id {
	uint64_t hi, lo;
};

static inline bool block_id_equal(const struct block_id *a, const struct block_id *b)
{
	return a->hi == b->hi && a->lo == b->lo;
}

/* validator "" means that mtime_ns stands in for it. */
struct object_id object_id_make(uint64_t dataset_id, const char *path, size_t path_len,
	uint64_t size, const char *validator, int64_t mtime_ns);
struct block_id block_id_make(const struct object_id *object, uint64_t index);

/* Uniform over 0..2^64-2, so that threshold UINT64_MAX pins everything. */
uint64_t block_pin_hash(const struct block_id *id);
uint64_t block_home_hash(const struct block_id *id);
uint64_t block_sample_hash(const struct object_id *object, uint64_t index);

static inline uint64_t block_count(uint64_t object_bytes)
{
	return (object_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;
}

/* Bytes of block `index` of an object. */
static inline uint64_t block_len(uint64_t object_bytes, uint64_t index)
{
	uint64_t left = object_bytes - index * BLOCK_BYTES;

	return left < BLOCK_BYTES ? left : BLOCK_BYTES;
}
