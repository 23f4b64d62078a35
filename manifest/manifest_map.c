#include "manifest/manifest_map.h"

#include <endian.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/sigbus.h"
#include "manifest/block.h"
#include "manifest/manifest_seal.h"

/* Runs in the signal handler, before the zeros appear. */
static void on_fault(void *arg, size_t offset)
{
	struct manifest_map *map = arg;

	atomic_store(&map->states[offset / MANIFEST_CHUNK_BYTES], MANIFEST_CHUNK_DAMAGED);
}

bool manifest_map_check_chunk(struct manifest_map *map, uint64_t chunk)
{
	uint64_t at = chunk * MANIFEST_CHUNK_BYTES, left = map->body_bytes - at;
	size_t len = left < MANIFEST_CHUNK_BYTES ? left : MANIFEST_CHUNK_BYTES;
	uint8_t was = MANIFEST_CHUNK_UNREAD;
	uint64_t digest;

	if (manifest_map_state(map, chunk) == MANIFEST_CHUNK_DAMAGED)
		return false;
	digest = manifest_chunk_digest(map->body + at, len);
	if (htole64(digest) != map->digests[chunk]) {
		atomic_store(&map->states[chunk], MANIFEST_CHUNK_DAMAGED);
		return false;
	}
	/* Never overwrites what the fault handler noted meanwhile. */
	return atomic_compare_exchange_strong(&map->states[chunk], &was, MANIFEST_CHUNK_GOOD) ||
	       was == MANIFEST_CHUNK_GOOD;
}

static void header_to_host(struct manifest_disk_header *h)
{
	h->version = le32toh(h->version);
	h->header_bytes = le32toh(h->header_bytes);
	h->entry_bytes = le32toh(h->entry_bytes);
	h->chunk_bytes = le32toh(h->chunk_bytes);
	h->block_bytes = le64toh(h->block_bytes);
	h->dataset_id = le64toh(h->dataset_id);
	h->snapshot = le64toh(h->snapshot);
	h->created_s = le64toh(h->created_s);
	h->entries = le64toh(h->entries);
	h->files = le64toh(h->files);
	h->dirs = le64toh(h->dirs);
	h->symlinks = le64toh(h->symlinks);
	h->bytes = le64toh(h->bytes);
	h->blocks = le64toh(h->blocks);
	h->strings_bytes = le64toh(h->strings_bytes);
}

static int check_counts(const struct manifest_disk_header *h)
{
	if (h->entries == 0 || h->entries > MANIFEST_ENTRIES_MAX || h->files > h->entries ||
		h->dirs > h->entries || h->symlinks > h->entries ||
		h->files + h->dirs + h->symlinks != h->entries || h->dirs == 0)
		return -EINVAL;
	if (h->bytes > INT64_MAX || h->blocks < h->bytes / h->block_bytes ||
		h->blocks > h->bytes / h->block_bytes + h->files)
		return -EINVAL;
	return h->strings_bytes > MANIFEST_STRINGS_MAX_BYTES ? -EINVAL : 0;
}

static int check_header(const struct manifest_disk_header *h, const char *path, struct error *err)
{
	if (memcmp(h->magic, MANIFEST_MAGIC, sizeof(h->magic)) != 0)
		return error_set(err, -EINVAL, "%s is not a manifest", path);
	if (h->version > MANIFEST_FORMAT_VERSION)
		return error_set(err, -EINVAL,
			"manifest %s was written by a newer granary (format %u, this one "
			"reads up to %d); upgrade this one",
			path, h->version, MANIFEST_FORMAT_VERSION);
	if (h->version == 0 || h->header_bytes != MANIFEST_HEADER_BYTES ||
		h->entry_bytes != MANIFEST_ENTRY_BYTES || h->chunk_bytes != MANIFEST_CHUNK_BYTES)
		return error_set(err, -EINVAL, "manifest %s is damaged: bad header", path);
	if (h->block_bytes != BLOCK_BYTES)
		return error_set(err, -EINVAL,
			"manifest %s is for blocks of %llu bytes, this granary uses %llu", path,
			(unsigned long long)h->block_bytes, (unsigned long long)BLOCK_BYTES);
	if (check_counts(h) < 0)
		return error_set(err, -EINVAL, "manifest %s is damaged: impossible counts", path);
	return 0;
}

/* The bounds of check_counts keep this far from overflow. */
static uint64_t body_size(const struct manifest_disk_header *h)
{
	uint64_t bytes =
		MANIFEST_HEADER_BYTES + h->entries * MANIFEST_ENTRY_BYTES + h->strings_bytes;

	return (bytes + 7) / 8 * 8;
}

/* The digest in a name like `DIGEST.manifest`, or NULL when the name is of another kind. */
static const char *digest_in_name(const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	size_t digits = strspn(name, "0123456789abcdef");

	if (digits != MANIFEST_DIGEST_TEXT_BYTES - 1 || strcmp(name + digits, MANIFEST_SUFFIX) != 0)
		return NULL;
	return name;
}

static int check_digest(struct manifest_map *map, int fd, const struct manifest_disk_header *raw,
	const char *path, struct error *err)
{
	uint64_t table_bytes = map->chunks * sizeof(*map->digests);
	const char *named = digest_in_name(path);
	uint8_t stored[MANIFEST_DIGEST_BYTES];
	char text[MANIFEST_DIGEST_TEXT_BYTES];
	int r;

	r = manifest_pread(fd, map->digests, table_bytes, map->body_bytes);
	if (r == 0)
		r = manifest_pread(fd, stored, sizeof(stored), map->body_bytes + table_bytes);
	if (r < 0)
		return error_set_errno(err, r, "cannot read manifest %s", path);
	manifest_digest_make(raw, map->digests, map->chunks, map->digest);
	if (memcmp(stored, map->digest, sizeof(stored)) != 0)
		return error_set(
			err, -EINVAL, "manifest %s is damaged: its digest does not match", path);
	manifest_digest_text(map->digest, text);
	if (named && memcmp(named, text, sizeof(text) - 1) != 0)
		return error_set(err, -EINVAL,
			"manifest %s holds another manifest than its name says", path);
	return 0;
}

static int map_body(struct manifest_map *map, int fd, const char *path, struct error *err)
{
	void *body = mmap(NULL, map->body_bytes, PROT_READ, MAP_SHARED, fd, 0);

	if (body == MAP_FAILED)
		return error_set_errno(err, -errno, "cannot map manifest %s", path);
	map->guard = sigbus_guard(body, map->body_bytes, on_fault, map, err);
	if (map->guard < 0) {
		munmap(body, map->body_bytes);
		return error_prefix(err, map->guard, "cannot map manifest %s", path);
	}
	map->body = body;
	return 0;
}

static int open_regular(const char *path, uint64_t *ret_bytes, struct error *err)
{
	/* Not blocking: a FIFO put in the manifest's place must not hang us. */
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_set_errno(err, -errno, "cannot open manifest %s", path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "%s is not a manifest: not a regular file", path);
	*ret_bytes = (uint64_t)st.st_size;
	return steal_fd(&fd);
}

static int read_header(int fd, uint64_t file_bytes, const char *path,
	struct manifest_disk_header *ret_raw, struct error *err)
{
	int r;

	if (file_bytes < MANIFEST_HEADER_BYTES)
		return error_set(err, -EINVAL, "%s is not a manifest: too short", path);
	r = manifest_pread(fd, ret_raw, sizeof(*ret_raw), 0);
	if (r < 0)
		return error_set_errno(err, r, "cannot read manifest %s", path);
	return 0;
}

int manifest_map_init(struct manifest_map *map, const char *path,
	struct manifest_disk_header *ret_header, struct error *err)
{
	struct manifest_disk_header raw;
	cleanup_fd int fd = -1;
	int r;

	*map = (struct manifest_map){.guard = -1};
	fd = open_regular(path, &map->file_bytes, err);
	if (fd < 0)
		return fd;
	r = read_header(fd, map->file_bytes, path, &raw, err);
	if (r < 0)
		return r;
	*ret_header = raw;
	header_to_host(ret_header);
	r = check_header(ret_header, path, err);
	if (r < 0)
		return r;
	map->body_bytes = body_size(ret_header);
	map->chunks = manifest_chunk_count(map->body_bytes);
	if (map->file_bytes != map->body_bytes + map->chunks * 8 + MANIFEST_DIGEST_BYTES)
		return error_set(
			err, -EINVAL, "manifest %s is damaged: cut short or too long", path);
	map->digests = calloc(map->chunks, sizeof(*map->digests));
	map->states = calloc(map->chunks, sizeof(*map->states));
	if (!map->digests || !map->states)
		r = error_set_errno(err, -ENOMEM, "cannot open manifest %s", path);
	if (r == 0)
		r = check_digest(map, fd, &raw, path, err);
	if (r == 0)
		r = map_body(map, fd, path, err);
	if (r < 0)
		manifest_map_deinit(map);
	return r;
}

void manifest_map_deinit(struct manifest_map *map)
{
	if (map->body) {
		sigbus_unguard(map->guard);
		munmap((void *)map->body, map->body_bytes);
	}
	free(map->digests);
	free((void *)map->states);
	*map = (struct manifest_map){.guard = -1};
}
