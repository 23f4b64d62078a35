#include "manifest/manifest_seal.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/cleanup.h"

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#define READ_CHUNKS 16
#define TABLE_ROOM 4096 /* chunk digests gathered before they are written */

int manifest_pread(int fd, void *dst, size_t len, uint64_t at)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pread(fd, (char *)dst + done, len - done, (off_t)(at + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		done += (size_t)n;
	}
	return 0;
}

int manifest_pwrite(int fd, const void *src, size_t len, uint64_t at)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pwrite(fd, (const char *)src + done, len - done, (off_t)(at + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

uint64_t manifest_chunk_digest(const void *chunk, size_t len)
{
	return XXH3_64bits(chunk, len);
}

static void digest_finish(XXH3_state_t *state, uint8_t ret_digest[MANIFEST_DIGEST_BYTES])
{
	XXH128_canonical_t canonical;

	XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state));
	memcpy(ret_digest, canonical.digest, MANIFEST_DIGEST_BYTES);
}

void manifest_digest_make(const struct manifest_disk_header *header, const uint64_t *chunk_digests,
	uint64_t chunks, uint8_t ret_digest[MANIFEST_DIGEST_BYTES])
{
	XXH3_state_t state;

	XXH3_128bits_reset(&state);
	XXH3_128bits_update(&state, header, sizeof(*header));
	XXH3_128bits_update(&state, chunk_digests, chunks * sizeof(*chunk_digests));
	digest_finish(&state, ret_digest);
}

void manifest_digest_text(
	const uint8_t digest[MANIFEST_DIGEST_BYTES], char ret_text[MANIFEST_DIGEST_TEXT_BYTES])
{
	static const char hex[] = "0123456789abcdef";

	for (size_t i = 0; i < MANIFEST_DIGEST_BYTES; i++) {
		ret_text[2 * i] = hex[digest[i] >> 4];
		ret_text[2 * i + 1] = hex[digest[i] & 15];
	}
	ret_text[2 * MANIFEST_DIGEST_BYTES] = '\0';
}

/* The chunk digests on their way into the file and into the digest. */
struct table {
	int fd;
	uint64_t at;
	size_t count;
	XXH3_state_t state;
	uint64_t digests[TABLE_ROOM];
};

static int table_flush(struct table *t)
{
	size_t bytes = t->count * sizeof(t->digests[0]);
	int r = manifest_pwrite(t->fd, t->digests, bytes, t->at);

	if (r < 0)
		return r;
	XXH3_128bits_update(&t->state, t->digests, bytes);
	t->at += bytes;
	t->count = 0;
	return 0;
}

static int table_add_piece(struct table *t, const char *piece, size_t len)
{
	for (size_t at = 0; at < len; at += MANIFEST_CHUNK_BYTES) {
		size_t left = len - at;
		size_t chunk = left < MANIFEST_CHUNK_BYTES ? left : MANIFEST_CHUNK_BYTES;

		t->digests[t->count++] = htole64(manifest_chunk_digest(piece + at, chunk));
		if (t->count == TABLE_ROOM) {
			int r = table_flush(t);

			if (r < 0)
				return r;
		}
	}
	return 0;
}

static int seal(
	struct table *t, char *piece, uint64_t body_bytes, uint8_t digest[MANIFEST_DIGEST_BYTES])
{
	uint64_t piece_bytes = READ_CHUNKS * MANIFEST_CHUNK_BYTES;
	int r;

	XXH3_128bits_reset(&t->state);
	for (uint64_t at = 0; at < body_bytes; at += piece_bytes) {
		uint64_t left = body_bytes - at;
		size_t len = left < piece_bytes ? left : piece_bytes;

		r = manifest_pread(t->fd, piece, len, at);
		if (r < 0)
			return r;
		if (at == 0)
			XXH3_128bits_update(&t->state, piece, MANIFEST_HEADER_BYTES);
		r = table_add_piece(t, piece, len);
		if (r < 0)
			return r;
	}
	r = table_flush(t);
	if (r < 0)
		return r;
	digest_finish(&t->state, digest);
	return manifest_pwrite(t->fd, digest, MANIFEST_DIGEST_BYTES, t->at);
}

int manifest_seal(
	int fd, uint64_t body_bytes, char ret_digest[MANIFEST_DIGEST_TEXT_BYTES], struct error *err)
{
	cleanup_free struct table *t = aligned_alloc(64, (sizeof(*t) + 63) / 64 * 64);
	cleanup_free char *piece = malloc(READ_CHUNKS * MANIFEST_CHUNK_BYTES);
	uint8_t digest[MANIFEST_DIGEST_BYTES];
	int r;

	if (!t || !piece)
		return error_set_errno(err, -ENOMEM, "manifest");
	t->fd = fd;
	t->at = body_bytes;
	t->count = 0;
	r = seal(t, piece, body_bytes, digest);
	if (r < 0)
		return error_set_errno(err, r, "cannot write the manifest's checksums");
	manifest_digest_text(digest, ret_digest);
	return 0;
}
