/*
 * A manifest file of any content: opened, walked, looked up, verified. Whatever it holds, functions
 * answer with an error at worst, and what verify lets pass keeps the promises of the builder
 * (but for the length of paths, which nothing here stands on).
 *
 * The first byte chooses how much of the file is made right, so that the checksums do not hide what
 * is behind them: 0 nothing, 1 the checksums, 2 also the header's sizes, 3 also its sums.
 */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "manifest/manifest_format.h"
#include "manifest/manifest_seal.h"
#include "placement/pin.h"

#define BLOCKS_MAX 100000 /* more would only cost time */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* ---- making it right ---------------------------------------------------------------------------
 */

static void fix_sizes(struct manifest_disk_header *h, size_t len)
{
	uint64_t fits = (len - MANIFEST_HEADER_BYTES) / MANIFEST_ENTRY_BYTES;
	uint64_t entries = fits ? 1 + le64toh(h->entries) % fits : 0;

	memcpy(h->magic, MANIFEST_MAGIC, sizeof(h->magic));
	h->version = htole32(MANIFEST_FORMAT_VERSION);
	h->header_bytes = htole32(MANIFEST_HEADER_BYTES);
	h->entry_bytes = htole32(MANIFEST_ENTRY_BYTES);
	h->chunk_bytes = htole32(MANIFEST_CHUNK_BYTES);
	h->block_bytes = htole64(BLOCK_BYTES);
	h->entries = htole64(entries);
	h->strings_bytes = htole64(len - MANIFEST_HEADER_BYTES - entries * MANIFEST_ENTRY_BYTES);
}

static void fix_sums(struct manifest_disk_header *h, const uint8_t *entries)
{
	uint64_t counts[3] = {0}, bytes = 0, blocks = 0;

	for (uint64_t i = 0; i < le64toh(h->entries); i++) {
		struct manifest_disk_entry e;

		memcpy(&e, entries + i * sizeof(e), sizeof(e));
		counts[e.type % 3]++;
		if (e.type == MANIFEST_FILE) {
			bytes += le64toh(e.size);
			blocks += block_count(le64toh(e.size));
		}
	}
	h->files = htole64(counts[MANIFEST_FILE]);
	h->dirs = htole64(counts[MANIFEST_DIR]);
	h->symlinks = htole64(counts[MANIFEST_SYMLINK]);
	h->bytes = htole64(bytes);
	h->blocks = htole64(blocks);
}

static void fix_body(int mode, uint8_t *body, size_t len)
{
	struct manifest_disk_header h;

	if (mode < 2 || len < sizeof(h))
		return;
	memcpy(&h, body, sizeof(h));
	fix_sizes(&h, len);
	if (mode == 3)
		fix_sums(&h, body + sizeof(h));
	memcpy(body, &h, sizeof(h));
}

static int make_file(const uint8_t *data, size_t len)
{
	int mode = len ? data[0] % 4 : 0, fd = memfd_create("manifest", 0), r;
	size_t body_len = len ? len - 1 : 0;
	size_t padded = mode ? (body_len + 7) / 8 * 8 : body_len;
	char digest[MANIFEST_DIGEST_TEXT_BYTES];
	uint8_t *body = calloc(1, padded + 1);

	assert(fd >= 0 && body);
	if (body_len)
		memcpy(body, data + 1, body_len);
	fix_body(mode, body, padded);
	r = manifest_pwrite(fd, body, padded, 0);
	if (r == 0 && mode && padded >= MANIFEST_HEADER_BYTES)
		r = manifest_seal(fd, padded, digest, NULL);
	assert(r == 0);
	free(body);
	return fd;
}

/* ---- using it ----------------------------------------------------------------------------------
 */

static unsigned touch(const char *at, size_t len)
{
	unsigned sum = 0;

	for (size_t i = 0; i < len; i++)
		sum += (unsigned char)at[i];
	return sum;
}

static void use_entry(struct manifest *m, uint32_t index, bool sound)
{
	cleanup_buf struct buf path = BUF_INIT;
	struct manifest_entry e;
	uint32_t found;
	int r = manifest_entry(m, index, &e);

	assert(r == 0 || (!sound && r == -EIO));
	if (r < 0)
		return;
	assert(e.parent < manifest_info(m)->entries && (index == 0 || e.parent < index));
	assert((uint64_t)e.first_child + e.children <= manifest_info(m)->entries || !e.children);
	touch(e.name, e.name_len);
	touch(e.validator, strlen(e.validator) + 1);
	touch(e.target, e.target_len);
	r = manifest_lookup(m, e.parent, e.name, e.name_len, &found);
	assert(!sound || index == 0 || (r == 0 && found == index));
	r = manifest_path(m, index, &path);
	assert(r == 0 || (!sound && r == -EIO));
	if (r < 0)
		return;
	r = manifest_lookup_path(m, path.data, path.len, &found);
	assert(!sound || (r == 0 && found == index));
}

static void use_manifest(struct manifest *m)
{
	const struct manifest_info *info = manifest_info(m);
	struct error err = ERROR_INIT;
	uint64_t threshold, pinned;
	bool sound = manifest_verify(m, &err) == 0;
	int r;

	assert(sound || err.text[0]);
	for (uint32_t i = 0; i < info->entries; i++)
		use_entry(m, i, sound);
	if (info->blocks > BLOCKS_MAX)
		return;
	r = pin_threshold(m, info->bytes / 2, &threshold, &pinned, &err);
	assert(!sound || (r == 0 && pinned <= info->bytes / 2));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct error err = ERROR_INIT;
	struct manifest *m;
	char path[64];
	int fd = make_file(data, len), r;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = manifest_open(path, &m, &err);
	assert(r == 0 || (r == -EINVAL && err.text[0]));
	if (r == 0) {
		use_manifest(m);
		manifest_unref(m);
	}
	close(fd);
	return 0;
}
