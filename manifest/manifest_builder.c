/*
 * How the file comes about: entries are appended to it as they come, strings to a nameless file
 * that is copied behind them at the end. A directory's children come in one run, after its own
 * entry was written: when the run ends, its numbers are patched into that entry. manifest_dirs
 * finds parents.
 */
#include "manifest/manifest_builder.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "manifest/manifest_dirs.h"
#include "manifest/manifest_format.h"
#include "manifest/manifest_seal.h"
#include "manifest/manifest_temp.h"

#define ENTRY_ROOM 4096 /* entries gathered before they are written */
#define STRINGS_ROOM ((size_t)256 << 10)
#define COPY_BYTES ((size_t)1 << 20)

struct manifest_builder {
	struct manifest_disk_header head; /* in host byte order until finish */
	struct manifest_dirs dirs;
	FILE *strings;
	int fd;
	int failed; /* of the first write that failed: the file can never be finished */
	char dir[MANIFEST_TEMP_PATH_BYTES];
	char path[MANIFEST_TEMP_PATH_BYTES]; /* "" once it has its final name */

	/* The entry added last, whether or not a parent was found for it. */
	char last[MANIFEST_PATH_MAX_BYTES + 1];
	size_t last_len, last_depth; /* depth of root: 0 */

	/* The directory whose children are coming. */
	uint32_t parent;
	size_t parent_len; /* of its path, which `last` starts with while has_parent */
	int has_parent;
	struct manifest_disk_children below; /* host byte order */

	size_t gathered;
	struct manifest_disk_entry entries[ENTRY_ROOM];
	char strings_buffer[STRINGS_ROOM];
};

/* ---- writing ----------------------------------------------------------------------------------
 */

static int flush_entries(struct manifest_builder *b)
{
	uint64_t at =
		MANIFEST_HEADER_BYTES + (b->head.entries - b->gathered) * MANIFEST_ENTRY_BYTES;
	int r = manifest_pwrite(b->fd, b->entries, b->gathered * sizeof(b->entries[0]), at);

	if (r == 0)
		b->gathered = 0;
	return r;
}

static int append_string(struct manifest_builder *b, const char *text, size_t len)
{
	errno = 0;
	if (len && fwrite_unlocked(text, len, 1, b->strings) != 1)
		return errno ? -errno : -EIO;
	b->head.strings_bytes += len;
	return 0;
}

static int append_strings(struct manifest_builder *b, const char *name, size_t name_len,
	const char *tail, size_t tail_len)
{
	int r = append_string(b, name, name_len);

	if (r == 0)
		r = append_string(b, tail, tail_len);
	return r < 0 ? r : append_string(b, "", 1);
}

static const char *tail_of(const struct manifest_builder_entry *e, size_t *ret_len)
{
	*ret_len = 0;
	if (e->type == MANIFEST_SYMLINK) {
		*ret_len = e->target_len;
		return e->target;
	}
	if (e->type == MANIFEST_FILE && e->validator) {
		*ret_len = strlen(e->validator);
		return e->validator;
	}
	return "";
}

static void count_entry(struct manifest_builder *b, const struct manifest_builder_entry *e)
{
	b->head.entries++;
	b->head.files += e->type == MANIFEST_FILE;
	b->head.dirs += e->type == MANIFEST_DIR;
	b->head.symlinks += e->type == MANIFEST_SYMLINK;
	if (e->type == MANIFEST_FILE) {
		b->head.bytes += e->size;
		b->head.blocks += block_count(e->size);
	}
}

static int write_entry(
	struct manifest_builder *b, const struct manifest_builder_entry *e, size_t name_at)
{
	struct manifest_disk_entry *raw = &b->entries[b->gathered];
	size_t name_len = e->path_len - name_at, tail_len;
	const char *tail = tail_of(e, &tail_len);

	*raw = (struct manifest_disk_entry){
		.strings_at = htole64(b->head.strings_bytes),
		.mtime_ns = htole64((uint64_t)e->mtime_ns),
		.parent = htole32(b->parent),
		.uid = htole32(e->uid),
		.gid = htole32(e->gid),
		.mode = htole16(e->mode & 07777),
		.tail_len = htole16((uint16_t)tail_len),
		.type = (uint8_t)e->type,
		.name_len = (uint8_t)name_len,
	};
	if (e->type == MANIFEST_FILE) {
		struct object_id id = object_id_make(
			b->head.dataset_id, e->path, e->path_len, e->size, tail, e->mtime_ns);

		raw->size = htole64(e->size);
		raw->object_hi = htole64(id.hi);
		raw->object_lo = htole64(id.lo);
	}
	b->gathered++;
	count_entry(b, e);
	if (b->gathered == ENTRY_ROOM) {
		int r = flush_entries(b);

		if (r < 0)
			return r;
	}
	return append_strings(b, e->path + name_at, name_len, tail, tail_len);
}

/* ---- parents ----------------------------------------------------------------------------------
 */

/* The run of the parent's children has ended: patch its entry. */
static int close_parent(struct manifest_builder *b)
{
	struct manifest_disk_children below = {
		.first_child = htole32(b->below.first_child),
		.children = htole32(b->below.children),
		.subdirs = htole32(b->below.subdirs),
	};
	uint64_t at = MANIFEST_HEADER_BYTES + (uint64_t)b->parent * MANIFEST_ENTRY_BYTES +
		      offsetof(struct manifest_disk_entry, below);

	if (!b->has_parent)
		return 0;
	b->has_parent = 0;
	return b->below.children ? manifest_pwrite(b->fd, &below, sizeof(below), at) : 0;
}

/* All entries of the level above are in the file from here on, so that they can be patched. */
static int descend(struct manifest_builder *b)
{
	int r = close_parent(b);

	if (r == 0)
		r = flush_entries(b);
	return r < 0 ? r : manifest_dirs_descend(&b->dirs);
}

static int find_parent(struct manifest_builder *b, const char *path, size_t parent_len)
{
	int r;

	/* `last` still holds the entry before this one. */
	if (b->has_parent && parent_len == b->parent_len && memcmp(path, b->last, parent_len) == 0)
		return 0;
	r = close_parent(b);
	if (r < 0)
		return r;
	r = manifest_dirs_find(&b->dirs, path, parent_len, &b->parent);
	if (r != 0)
		return r;
	b->has_parent = 1;
	b->parent_len = parent_len;
	b->below = (struct manifest_disk_children){0};
	return 0;
}

static int refuse(const struct manifest_builder_entry *e, const char *why, struct error *err)
{
	return error_set(err, -EINVAL, "'%.*s': %s", (int)(e->path_len < 200 ? e->path_len : 200),
		e->path, why);
}

static int check_order(
	struct manifest_builder *b, const struct manifest_builder_entry *e, struct error *err)
{
	int order = b->last_depth == 0
			    ? -1
			    : manifest_path_compare(b->last, b->last_len, e->path, e->path_len);

	if (order == 0)
		return refuse(e, "comes twice", err);
	if (order > 0)
		return refuse(e, "is out of order", err);
	return 0;
}

/* ---- add --------------------------------------------------------------------------------------
 */

static int check_entry(
	struct manifest_builder *b, const struct manifest_builder_entry *e, struct error *err)
{
	size_t tail_len;
	const char *tail = tail_of(e, &tail_len);

	if (e->type > MANIFEST_SYMLINK)
		return refuse(e, "an entry of an unknown type", err);
	if (e->type == MANIFEST_FILE && e->size > MANIFEST_FILE_MAX_BYTES)
		return refuse(e, "a file of more than 1 PiB", err);
	if (e->type == MANIFEST_FILE && b->head.bytes + e->size > INT64_MAX)
		return refuse(e, "the sizes add up to more than 2^63 bytes", err);
	if (tail_len > MANIFEST_TAIL_MAX_BYTES || memchr(tail, '\0', tail_len))
		return refuse(e, "a validator or link target over 4095 bytes or with a NUL", err);
	if (e->type == MANIFEST_SYMLINK && tail_len == 0)
		return refuse(e, "a symlink without a target", err);
	if (b->head.entries >= MANIFEST_ENTRIES_MAX ||
		b->head.strings_bytes > MANIFEST_STRINGS_MAX_BYTES - (1 << 16))
		return error_set(err, -EFBIG, "more entries than a manifest can hold");
	return 0;
}

static size_t depth_of(const char *path, size_t len, size_t *ret_name_at)
{
	size_t depth = 1;

	*ret_name_at = 0;
	for (const char *at = path, *end = path + len;
		(at = memchr(at, '/', (size_t)(end - at)));) {
		depth++;
		*ret_name_at = (size_t)(++at - path);
	}
	return depth;
}

/* 0, negative, or MANIFEST_DIRS_NONE. */
static int place_entry(struct manifest_builder *b, const struct manifest_builder_entry *e)
{
	size_t name_at, depth = depth_of(e->path, e->path_len, &name_at);
	int r = 0;

	if (depth > b->last_depth + 1)
		return MANIFEST_DIRS_NONE;
	if (depth > b->last_depth)
		r = descend(b);
	if (r == 0)
		r = find_parent(b, e->path, name_at ? name_at - 1 : 0);
	if (r < 0)
		return r;
	memcpy(b->last, e->path, e->path_len);
	b->last_len = e->path_len;
	b->last_depth = depth;
	if (r == MANIFEST_DIRS_NONE)
		return r;
	if (b->below.children++ == 0)
		b->below.first_child = (uint32_t)b->head.entries;
	b->below.subdirs += e->type == MANIFEST_DIR;
	if (e->type == MANIFEST_DIR)
		r = manifest_dirs_add(&b->dirs, (uint32_t)b->head.entries, e->path, e->path_len);
	return r < 0 ? r : write_entry(b, e, name_at);
}

int manifest_builder_add(
	struct manifest_builder *b, const struct manifest_builder_entry *e, struct error *err)
{
	enum manifest_path_flaw flaw = manifest_path_check(e->path, e->path_len);
	int r;

	if (b->failed)
		return error_set_errno(err, b->failed, "cannot write the manifest");
	if (flaw != MANIFEST_PATH_OK)
		return refuse(e, manifest_path_flaw_text(flaw), err);
	r = check_entry(b, e, err);
	if (r == 0)
		r = check_order(b, e, err);
	if (r < 0)
		return r;
	r = place_entry(b, e);
	if (r < 0) {
		b->failed = r;
		return error_set_errno(err, r, "cannot write the manifest");
	}
	if (r == MANIFEST_DIRS_NONE)
		return refuse(e, "its directory is not there or not a directory", err);
	return 0;
}

/* ---- begin and end ----------------------------------------------------------------------------
 */

static int open_files(struct manifest_builder *b, struct error *err)
{
	int r;

	manifest_temp_sweep(b->dir);
	b->fd = manifest_temp_make(b->dir, b->path, err);
	if (b->fd < 0) {
		b->path[0] = '\0';
		return b->fd;
	}
	r = manifest_temp_stream(b->dir, b->strings_buffer, sizeof(b->strings_buffer), &b->strings);
	if (r == 0)
		r = manifest_dirs_init(&b->dirs, b->dir);
	return r < 0 ? error_set_errno(err, r, "cannot write a manifest in %s", b->dir) : 0;
}

static int add_root(
	struct manifest_builder *b, const struct manifest_builder_entry *root, struct error *err)
{
	struct manifest_builder_entry e = *root;
	int r;

	e.path = "";
	e.path_len = 0;
	r = manifest_dirs_add(&b->dirs, 0, "", 0);
	if (r == 0)
		r = write_entry(b, &e, 0);
	return r < 0 ? error_set_errno(err, r, "cannot write a manifest in %s", b->dir) : 0;
}

int manifest_builder_new(const char *dir, uint64_t dataset_id, uint64_t snapshot, int64_t created_s,
	const struct manifest_builder_entry *root, struct manifest_builder **ret, struct error *err)
{
	struct manifest_builder *b;
	int r;

	if (root->type != MANIFEST_DIR)
		return error_set(err, -EINVAL, "the root of a manifest is a directory");
	b = calloc(1, sizeof(*b));
	if (!b)
		return error_set_errno(err, -ENOMEM, "cannot write a manifest in %s", dir);
	b->fd = -1;
	b->head.dataset_id = dataset_id;
	b->head.snapshot = snapshot;
	b->head.created_s = (uint64_t)created_s;
	r = snprintf(b->dir, sizeof(b->dir), "%s", dir) >= (int)sizeof(b->dir)
		    ? error_set_errno(err, -ENAMETOOLONG, "%.80s...", dir)
		    : open_files(b, err);
	if (r == 0)
		r = add_root(b, root, err);
	if (r < 0) {
		manifest_builder_free(b);
		return r;
	}
	*ret = b;
	return 0;
}

static int append_strings_file(struct manifest_builder *b)
{
	uint64_t at = MANIFEST_HEADER_BYTES + b->head.entries * MANIFEST_ENTRY_BYTES;
	uint64_t end = at + b->head.strings_bytes;
	cleanup_free char *piece = malloc(COPY_BYTES);
	static const char zeros[8];

	if (!piece)
		return -ENOMEM;
	errno = 0;
	if (fflush(b->strings) != 0)
		return errno ? -errno : -EIO;
	for (uint64_t done = 0; done < b->head.strings_bytes;) {
		uint64_t left = b->head.strings_bytes - done;
		size_t len = left < COPY_BYTES ? left : COPY_BYTES;
		int r = manifest_pread(fileno(b->strings), piece, len, done);

		if (r == 0)
			r = manifest_pwrite(b->fd, piece, len, at + done);
		if (r < 0)
			return r;
		done += len;
	}
	return manifest_pwrite(b->fd, zeros, (8 - end % 8) % 8, end);
}

static int write_header(struct manifest_builder *b)
{
	struct manifest_disk_header h = {
		.version = htole32(MANIFEST_FORMAT_VERSION),
		.header_bytes = htole32(MANIFEST_HEADER_BYTES),
		.entry_bytes = htole32(MANIFEST_ENTRY_BYTES),
		.chunk_bytes = htole32(MANIFEST_CHUNK_BYTES),
		.block_bytes = htole64(BLOCK_BYTES),
		.dataset_id = htole64(b->head.dataset_id),
		.snapshot = htole64(b->head.snapshot),
		.created_s = htole64(b->head.created_s),
		.entries = htole64(b->head.entries),
		.files = htole64(b->head.files),
		.dirs = htole64(b->head.dirs),
		.symlinks = htole64(b->head.symlinks),
		.bytes = htole64(b->head.bytes),
		.blocks = htole64(b->head.blocks),
		.strings_bytes = htole64(b->head.strings_bytes),
	};

	memcpy(h.magic, MANIFEST_MAGIC, sizeof(h.magic));
	return manifest_pwrite(b->fd, &h, sizeof(h), 0);
}

static int complete_body(struct manifest_builder *b)
{
	int r = b->failed;

	if (r == 0)
		r = close_parent(b);
	if (r == 0)
		r = flush_entries(b);
	if (r == 0)
		r = append_strings_file(b);
	return r < 0 ? r : write_header(b);
}

static int sync_dir(const char *dir)
{
	cleanup_fd int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int put_in_place(struct manifest_builder *b, const char *digest, struct error *err)
{
	char final[MANIFEST_TEMP_PATH_BYTES];
	int r;

	if (snprintf(final, sizeof(final), "%s/%s" MANIFEST_SUFFIX, b->dir, digest) >=
		(int)sizeof(final))
		return error_set_errno(err, -ENAMETOOLONG, "%.80s...", b->dir);
	if (fsync(b->fd) < 0 || rename(b->path, final) < 0)
		return error_set_errno(err, -errno, "cannot write manifest %s", final);
	b->path[0] = '\0';
	r = sync_dir(b->dir);
	return r < 0 ? error_set_errno(err, r, "cannot sync %s", b->dir) : 0;
}

int manifest_builder_finish(
	struct manifest_builder *b, char ret_digest[MANIFEST_DIGEST_TEXT_BYTES], struct error *err)
{
	uint64_t body = MANIFEST_HEADER_BYTES + b->head.entries * MANIFEST_ENTRY_BYTES +
			b->head.strings_bytes;
	char digest[MANIFEST_DIGEST_TEXT_BYTES];
	int r = complete_body(b);

	if (r < 0)
		return error_set_errno(err, r, "cannot write a manifest in %s", b->dir);
	r = manifest_seal(b->fd, (body + 7) / 8 * 8, digest, err);
	if (r == 0)
		r = put_in_place(b, digest, err);
	if (r == 0)
		memcpy(ret_digest, digest, sizeof(digest));
	return r;
}

void manifest_builder_free(struct manifest_builder *b)
{
	if (!b)
		return;
	if (b->path[0])
		unlink(b->path);
	if (b->fd >= 0)
		close(b->fd);
	if (b->strings)
		fclose(b->strings);
	manifest_dirs_deinit(&b->dirs);
	free(b);
}
