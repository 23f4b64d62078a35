#include "manifest/manifest.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "manifest/manifest_format.h"
#include "manifest/manifest_map.h"
#include "manifest/manifest_seal.h"
#include "manifest/manifest_verify.h"

struct manifest {
	struct manifest_info info;
	uint64_t strings_at, strings_bytes;
	struct manifest_map map;
	_Atomic uint32_t refs;
};

/* ---- one entry --------------------------------------------------------------------------------
 */

static uint64_t entry_place(uint32_t index)
{
	return MANIFEST_HEADER_BYTES + (uint64_t)index * MANIFEST_ENTRY_BYTES;
}

/* A copy, so that what is checked is what is used even if the file is written under the map. */
static int read_raw(struct manifest *m, uint32_t index, struct manifest_disk_entry *ret)
{
	uint64_t at = entry_place(index);

	if (index >= m->info.entries)
		return -ENOENT;
	if (manifest_map_check(&m->map, at, sizeof(*ret)) < 0)
		return -EIO;
	memcpy(ret, m->map.body + at, sizeof(*ret));
	return manifest_map_intact(&m->map, at, sizeof(*ret)) ? 0 : -EIO;
}

/* Where the entry's strings stand in the body: name, tail, NUL. */
static int strings_place(struct manifest *m, const struct manifest_disk_entry *raw,
	uint64_t *ret_at, uint64_t *ret_len)
{
	uint64_t at = le64toh(raw->strings_at);
	uint64_t len = (uint64_t)raw->name_len + le16toh(raw->tail_len) + 1;

	if (at > m->strings_bytes || len > m->strings_bytes - at)
		return -EIO;
	*ret_at = m->strings_at + at;
	*ret_len = len;
	return manifest_map_check(&m->map, *ret_at, len);
}

static bool name_is_sound(const char *name, size_t len)
{
	if (len == 0 || (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'))))
		return false;
	return !memchr(name, '/', len) && !memchr(name, '\0', len);
}

static int decode_strings(struct manifest *m, uint32_t index, const struct manifest_disk_entry *raw,
	struct manifest_entry *e)
{
	size_t tail_len = le16toh(raw->tail_len);
	uint64_t at, len;
	const char *text;

	if (strings_place(m, raw, &at, &len) < 0)
		return -EIO;
	text = (const char *)m->map.body + at;
	e->name = text;
	e->name_len = raw->name_len;
	e->validator = "";
	if (index == 0 ? raw->name_len != 0 : !name_is_sound(text, raw->name_len))
		return -EIO;
	if (memchr(text + raw->name_len, '\0', tail_len + 1) != text + raw->name_len + tail_len)
		return -EIO;
	if (e->type == MANIFEST_FILE) {
		e->validator = text + raw->name_len;
	} else if (e->type == MANIFEST_SYMLINK) {
		e->target = text + raw->name_len;
		e->target_len = tail_len;
	} else if (tail_len) {
		return -EIO;
	}
	return manifest_map_intact(&m->map, at, len) ? 0 : -EIO;
}

static int decode_dir(struct manifest *m, uint32_t index, const struct manifest_disk_entry *raw,
	struct manifest_entry *e)
{
	e->first_child = le32toh(raw->below.first_child);
	e->children = le32toh(raw->below.children);
	e->subdirs = le32toh(raw->below.subdirs);
	if (e->subdirs > e->children)
		return -EIO;
	if (e->children && (e->first_child <= index ||
				   (uint64_t)e->first_child + e->children > m->info.entries))
		return -EIO;
	return 0;
}

int manifest_entry(struct manifest *m, uint32_t index, struct manifest_entry *ret)
{
	struct manifest_disk_entry raw;
	int r = read_raw(m, index, &raw);

	if (r < 0)
		return r;
	*ret = (struct manifest_entry){
		.type = (enum manifest_entry_type)raw.type,
		.mode = le16toh(raw.mode),
		.uid = le32toh(raw.uid),
		.gid = le32toh(raw.gid),
		.parent = le32toh(raw.parent),
		.mtime_ns = (int64_t)le64toh(raw.mtime_ns),
	};
	/* Parents stand before their children: every way up ends at the root. */
	if (raw.type > MANIFEST_SYMLINK || ret->mode > 07777 ||
		(index == 0 ? ret->parent != 0 : ret->parent >= index))
		return -EIO;
	if (ret->type == MANIFEST_FILE) {
		ret->size = le64toh(raw.size);
		ret->object.hi = le64toh(raw.object_hi);
		ret->object.lo = le64toh(raw.object_lo);
		if (ret->size > MANIFEST_FILE_MAX_BYTES)
			return -EIO;
	} else if (ret->type == MANIFEST_DIR && decode_dir(m, index, &raw, ret) < 0) {
		return -EIO;
	}
	return decode_strings(m, index, &raw, ret);
}

int manifest_file(
	struct manifest *m, uint32_t index, struct object_id *ret_object, uint64_t *ret_size)
{
	struct manifest_disk_entry raw;
	int r = read_raw(m, index, &raw);

	if (r < 0)
		return r;
	if (raw.type != MANIFEST_FILE)
		return MANIFEST_NOT_A_FILE;
	if (le64toh(raw.size) > MANIFEST_FILE_MAX_BYTES)
		return -EIO;
	ret_object->hi = le64toh(raw.object_hi);
	ret_object->lo = le64toh(raw.object_lo);
	*ret_size = le64toh(raw.size);
	return 0;
}

/* ---- lookup and paths -------------------------------------------------------------------------
 */

/* As memcmp: the name against that of child `index` of `dir`. */
static int compare_name(struct manifest *m, uint32_t dir, uint32_t index, const char *name,
	size_t name_len, int *ret_order)
{
	struct manifest_disk_entry raw;
	uint64_t at, len;
	size_t shorter;
	int r = read_raw(m, index, &raw);

	if (r < 0 || le32toh(raw.parent) != dir || strings_place(m, &raw, &at, &len) < 0)
		return -EIO;
	shorter = name_len < raw.name_len ? name_len : raw.name_len;
	*ret_order = memcmp(name, m->map.body + at, shorter);
	if (*ret_order == 0)
		*ret_order = (name_len > raw.name_len) - (name_len < raw.name_len);
	return manifest_map_intact(&m->map, at, len) ? 0 : -EIO;
}

int manifest_lookup(
	struct manifest *m, uint32_t dir, const char *name, size_t name_len, uint32_t *ret_index)
{
	struct manifest_disk_entry raw;
	struct manifest_entry e = {0};
	uint32_t low, high;
	int r = read_raw(m, dir, &raw);

	if (r < 0)
		return r;
	if (raw.type != MANIFEST_DIR)
		return -ENOTDIR;
	if (decode_dir(m, dir, &raw, &e) < 0)
		return -EIO;
	low = e.first_child;
	high = e.first_child + e.children;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		int order;

		r = compare_name(m, dir, middle, name, name_len, &order);
		if (r < 0)
			return r;
		if (order == 0) {
			*ret_index = middle;
			return 0;
		}
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return -ENOENT;
}

int manifest_lookup_path(struct manifest *m, const char *path, size_t path_len, uint32_t *ret_index)
{
	uint32_t index = 0;

	for (size_t at = 0; at < path_len;) {
		const char *slash = memchr(path + at, '/', path_len - at);
		size_t len = slash ? (size_t)(slash - path) - at : path_len - at;
		int r = manifest_lookup(m, index, path + at, len, &index);

		if (r < 0)
			return r;
		at += len + 1;
		if (slash && at == path_len)
			return -ENOENT; /* "a/": an empty last name */
	}
	*ret_index = index;
	return 0;
}

static int append_name(struct manifest *m, uint32_t index, struct buf *path)
{
	struct manifest_entry e;
	int r = manifest_entry(m, index, &e);

	return r < 0 ? r : buf_append(path, e.name, e.name_len);
}

int manifest_path(struct manifest *m, uint32_t index, struct buf *ret_path)
{
	uint32_t chain[MANIFEST_DEPTH_MAX];
	size_t depth = 0, was = ret_path->len;
	int r = buf_reserve(ret_path, 0);

	while (r == 0 && index != 0) {
		struct manifest_entry e = {0};

		if (depth == MANIFEST_DEPTH_MAX)
			return -EIO;
		chain[depth++] = index;
		r = manifest_entry(m, index, &e);
		index = e.parent;
	}
	while (r == 0 && depth > 0) {
		r = append_name(m, chain[--depth], ret_path);
		if (r == 0 && depth > 0)
			r = buf_append(ret_path, "/", 1);
	}
	if (r < 0 && ret_path->data) {
		ret_path->len = was;
		ret_path->data[was] = '\0';
	}
	return r;
}

/* ---- the whole --------------------------------------------------------------------------------
 */

static void set_info(struct manifest *m, const struct manifest_disk_header *h)
{
	m->info = (struct manifest_info){
		.dataset_id = h->dataset_id,
		.snapshot = h->snapshot,
		.created_s = (int64_t)h->created_s,
		.entries = h->entries,
		.files = h->files,
		.dirs = h->dirs,
		.symlinks = h->symlinks,
		.bytes = h->bytes,
		.blocks = h->blocks,
		.file_bytes = m->map.file_bytes,
	};
	manifest_digest_text(m->map.digest, m->info.digest);
	m->strings_at = entry_place(0) + h->entries * MANIFEST_ENTRY_BYTES;
	m->strings_bytes = h->strings_bytes;
}

int manifest_open(const char *path, struct manifest **ret, struct error *err)
{
	struct manifest *m = calloc(1, sizeof(*m));
	struct manifest_disk_header header;
	struct manifest_entry root;
	int r;

	if (!m)
		return error_set_errno(err, -ENOMEM, "cannot open manifest %s", path);
	r = manifest_map_init(&m->map, path, &header, err);
	if (r < 0) {
		free(m);
		return r;
	}
	atomic_init(&m->refs, 1);
	set_info(m, &header);
	r = manifest_entry(m, 0, &root);
	if (r < 0 || root.type != MANIFEST_DIR) {
		manifest_unref(m);
		return error_set(err, -EINVAL, "manifest %s is damaged: it has no root", path);
	}
	*ret = m;
	return 0;
}

struct manifest *manifest_ref(struct manifest *m)
{
	uint32_t was = atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);

	assert(was > 0);
	return m;
}

struct manifest *manifest_unref(struct manifest *m)
{
	if (m && atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) == 1) {
		manifest_map_deinit(&m->map);
		free(m);
	}
	return NULL;
}

const struct manifest_info *manifest_info(const struct manifest *m)
{
	return &m->info;
}

int manifest_verify(struct manifest *m, struct error *err)
{
	for (uint64_t c = 0; c < m->map.chunks; c++) {
		if (!manifest_map_check_chunk(&m->map, c))
			return error_set(err, -EIO, "manifest %s is damaged at byte %llu",
				m->info.digest, (unsigned long long)(c * MANIFEST_CHUNK_BYTES));
	}
	return manifest_verify_entries(m, err);
}

void manifest_drop_resident(struct manifest *m)
{
	madvise((void *)m->map.body, m->map.body_bytes, MADV_DONTNEED);
}
