/*
 * The checks of a block: what is written with its bytes so that a reader can tell whether it holds
 * the right ones. In a segment they follow the bytes at the next multiple of 8 (the trailer); of a
 * sparse file's block they are in the sidecar at index * CHECKS_STRIDE.
 *
 *	magic 8 | block id 16 | len 4 | count 4 | count x XXH3 of 64 KiB | XXH3 of all before
 *
 * Numbers are little-endian.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "manifest/block.h"

#define STORE_PAGE_BYTES 4096u
#define CHECKS_MAX 64u /* BLOCK_BYTES / BLOCK_CHECK_BYTES */
#define CHECKS_BYTES_MAX (40u + 8u * CHECKS_MAX)
#define CHECKS_STRIDE 1024u

static inline uint32_t checks_count(uint32_t len)
{
	return (uint32_t)((len + BLOCK_CHECK_BYTES - 1) / BLOCK_CHECK_BYTES);
}

static inline uint32_t checks_bytes(uint32_t len)
{
	return 40 + 8 * checks_count(len);
}

/* Where the trailer starts, from the start of the slot. */
static inline uint32_t checks_offset(uint32_t len)
{
	return (len + 7) & ~7u;
}

/* Pages of a slot in a segment: the bytes and their trailer. */
static inline uint32_t slot_pages(uint32_t len)
{
	return (checks_offset(len) + checks_bytes(len) + STORE_PAGE_BYTES - 1) / STORE_PAGE_BYTES;
}

static inline uint32_t pages_of(uint64_t bytes)
{
	return (uint32_t)((bytes + STORE_PAGE_BYTES - 1) / STORE_PAGE_BYTES);
}

/* Writes checks_bytes(len) bytes. */
void checks_make(const struct block_id *id, const void *data, uint32_t len,
	uint8_t ret[static CHECKS_BYTES_MAX]);
/* Are these the checks of this block? */
bool checks_match(const uint8_t *checks, const struct block_id *id, uint32_t len);
/* Are these its bytes? */
bool checks_verify(
	const uint8_t *checks, const struct block_id *id, const void *data, uint32_t len);
uint64_t checks_sum(const uint8_t *checks, uint32_t chunk);
