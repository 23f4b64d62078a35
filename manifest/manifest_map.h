/*
 * The mapped body of a manifest file and what is known about each of its chunks.
 *
 * Invariants: the chunk digests are a private copy that was checked against the file's digest at
 * open. A chunk is read only after its digest was found right; once a chunk is damaged (wrong
 * digest or an IO error in the map) it stays so, and whoever was reading it at that moment finds
 * out by manifest_map_intact.
 *
 * Reading [at, at+len): manifest_map_check; copy the bytes; manifest_map_intact. Only then believe.
 *
 * Threading: any thread may read; two that meet at an unchecked chunk both check it.
 */
#pragma once

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "manifest/manifest_format.h"

enum manifest_chunk_state { MANIFEST_CHUNK_UNREAD, MANIFEST_CHUNK_GOOD, MANIFEST_CHUNK_DAMAGED };

struct manifest_map {
	const uint8_t *body;
	uint64_t body_bytes;
	uint64_t file_bytes;
	uint64_t chunks;
	uint64_t *digests;	 /* as in the file */
	_Atomic uint8_t *states; /* enum manifest_chunk_state of each chunk */
	uint8_t digest[MANIFEST_DIGEST_BYTES];
	int guard;
};

/* Checks everything but the chunks' content; the header comes in host byte order. The map must not
 * be moved in memory until deinit. */
int manifest_map_init(struct manifest_map *map, const char *path,
	struct manifest_disk_header *ret_header, struct error *err);
void manifest_map_deinit(struct manifest_map *map);

bool manifest_map_check_chunk(struct manifest_map *map, uint64_t chunk);

static inline uint8_t manifest_map_state(struct manifest_map *map, uint64_t chunk)
{
	return atomic_load_explicit(&map->states[chunk], memory_order_acquire);
}

/* 0 when [at, at+len), within the body and not empty, may be read, else -EIO. */
static inline int manifest_map_check(struct manifest_map *map, uint64_t at, uint64_t len)
{
	for (uint64_t c = at / MANIFEST_CHUNK_BYTES; c <= (at + len - 1) / MANIFEST_CHUNK_BYTES;
		c++) {
		if (manifest_map_state(map, c) != MANIFEST_CHUNK_GOOD &&
			!manifest_map_check_chunk(map, c))
			return -EIO;
	}
	return 0;
}

/* After reading: no page of it was replaced by zeros meanwhile. */
static inline bool manifest_map_intact(struct manifest_map *map, uint64_t at, uint64_t len)
{
	atomic_thread_fence(memory_order_acquire);
	for (uint64_t c = at / MANIFEST_CHUNK_BYTES; c <= (at + len - 1) / MANIFEST_CHUNK_BYTES;
		c++) {
		if (manifest_map_state(map, c) != MANIFEST_CHUNK_GOOD)
			return false;
	}
	return true;
}
