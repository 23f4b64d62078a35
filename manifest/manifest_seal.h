/*
 * The end of a manifest file: one digest a chunk, and the digest of them all.
 */
#pragma once

#include <stdint.h>

#include "common/error.h"
#include "manifest/manifest.h"
#include "manifest/manifest_format.h"

uint64_t manifest_chunk_digest(const void *chunk, size_t len);

static inline uint64_t manifest_chunk_count(uint64_t body_bytes)
{
	return (body_bytes + MANIFEST_CHUNK_BYTES - 1) / MANIFEST_CHUNK_BYTES;
}

/* chunk_digests as they stand in the file. */
void manifest_digest_make(const struct manifest_disk_header *header, const uint64_t *chunk_digests,
	uint64_t chunks, uint8_t ret_digest[MANIFEST_DIGEST_BYTES]);
void manifest_digest_text(
	const uint8_t digest[MANIFEST_DIGEST_BYTES], char ret_text[MANIFEST_DIGEST_TEXT_BYTES]);

/* Reads the body of `body_bytes` back from `fd` and writes chunk digests and digest after it. */
int manifest_seal(int fd, uint64_t body_bytes, char ret_digest[MANIFEST_DIGEST_TEXT_BYTES],
	struct error *err);

/* All of len or an error; a file that ends before is -EIO. */
int manifest_pread(int fd, void *dst, size_t len, uint64_t at);
int manifest_pwrite(int fd, const void *src, size_t len, uint64_t at);
