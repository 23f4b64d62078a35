#include "master/import_listing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/buf.h"
#include "common/cleanup.h"
#include "master/import_entry.h"

/* Directories whose implied record was written lately, by the digest of their path: neighbours in
 * a listing share their parents, which need not be written for every file again. A directory that
 * falls out of the table is written again, and the record replaces itself. */
#define SEEN_DIRS 16384
#define VALIDATOR_MAX_BYTES 255
#define TARGET_MAX_BYTES 4095

struct listing {
	const struct import_job *job;
	struct namespace_scratch *scratch;
	struct import_report *report;
	struct manifest_builder_entry *root;
	uint64_t sequence;
	struct buf key, value;
	XXH128_hash_t seen[SEEN_DIRS];
};

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "no memory to import the listing");
}

static int put(struct listing *l, const struct manifest_builder_entry *e, uint64_t sequence,
	struct error *err)
{
	if (import_entry_key(e->path, e->path_len, sequence, &l->key) < 0 ||
		import_entry_value(e, &l->value) < 0)
		return no_memory(err);
	return namespace_scratch_put(
		l->scratch, l->key.data, l->key.len, l->value.data, l->value.len, err);
}

/* Writes the implied records of all directories above `path`, the nearest first. Once one was
 * written lately, so were those above it. */
static int put_parents(struct listing *l, const char *path, size_t path_len, struct error *err)
{
	for (;;) {
		const char *slash = memrchr(path, '/', path_len);
		struct manifest_builder_entry dir = {
			.path = path,
			.type = MANIFEST_DIR,
			.validator = "",
			.mtime_ns = l->job->dirs_mtime_ns,
			.mode = 0555,
			.uid = UINT32_MAX,
			.gid = UINT32_MAX,
		};
		XXH128_hash_t digest;
		size_t slot;
		int r;

		if (!slash)
			return 0;
		path_len = (size_t)(slash - path);
		dir.path_len = path_len;
		digest = XXH3_128bits(path, path_len);
		slot = digest.low64 % SEEN_DIRS;
		if (XXH128_isEqual(l->seen[slot], digest))
			return 0;
		r = put(l, &dir, IMPORT_IMPLIED, err);
		if (r < 0)
			return r;
		l->seen[slot] = digest;
	}
}

static int skip(struct listing *l, const struct origin_entry *e, const char *reason)
{
	import_report_skip(l->report, reason, e->path, e->path_len);
	return 1;
}

/* False when the target leads, from the directory of the link, out of the dataset, or through
 * outside. Links in its way are the origin's to judge: only that can follow them. */
static bool target_stays_inside(const char *path, size_t path_len, const char *target, size_t len)
{
	size_t depth = 0, at = 0;

	for (size_t i = 0; i < path_len; i++)
		depth += path[i] == '/';
	if (target[0] == '/')
		return false;
	while (at < len) {
		const char *slash = memchr(target + at, '/', len - at);
		size_t part = slash ? (size_t)(slash - target) - at : len - at;

		if (part == 2 && memcmp(target + at, "..", 2) == 0) {
			if (depth-- == 0)
				return false;
		} else if (part > 0 && !(part == 1 && target[at] == '.')) {
			depth++;
		}
		at += part + 1;
	}
	return true;
}

static const char *symlink_flaw(const struct origin_entry *e)
{
	if (!e->target || e->target_len == 0 || e->target_len > TARGET_MAX_BYTES ||
		memchr(e->target, '\0', e->target_len))
		return "a symlink whose target is empty, over 4,095 bytes or has a NUL";
	if (!target_stays_inside(e->path, e->path_len, e->target, e->target_len))
		return "a symlink that leaves the dataset";
	return NULL;
}

void import_root_attributes(struct manifest_builder_entry *root, const struct origin_entry *e)
{
	if (e->mode != ORIGIN_UNKNOWN_MODE)
		root->mode = e->mode & 07777;
	root->uid = e->uid;
	root->gid = e->gid;
	if (e->type == ORIGIN_DIR && e->mtime_ns != 0)
		root->mtime_ns = e->mtime_ns;
}

/* What e is by its name and type: MANIFEST_*, or -1 with a reason for leaving it out. *ret_len is
 * the length of the path without the '/' of a marker key. */
static int type_of(const struct origin_entry *e, size_t *ret_len, const char **ret_reason)
{
	bool marker = e->path_len > 0 && e->path[e->path_len - 1] == '/' &&
		      (e->type == ORIGIN_DIR || (e->type == ORIGIN_FILE && e->size == 0));
	enum manifest_path_flaw flaw;

	*ret_len = e->path_len - marker;
	flaw = manifest_path_check(e->path, *ret_len);
	*ret_reason = flaw == MANIFEST_PATH_OK ? NULL : manifest_path_flaw_text(flaw);
	if (*ret_reason)
		return -1;
	if (e->type == ORIGIN_OTHER)
		*ret_reason = e->reason ? e->reason : "neither file, directory nor symlink";
	else if (e->type == ORIGIN_SYMLINK)
		*ret_reason = symlink_flaw(e);
	else if (e->validator && strlen(e->validator) > VALIDATOR_MAX_BYTES)
		*ret_reason = "an etag over 255 bytes";
	if (*ret_reason)
		return -1;
	if (e->type == ORIGIN_SYMLINK)
		return MANIFEST_SYMLINK;
	return e->type == ORIGIN_DIR || marker ? MANIFEST_DIR : MANIFEST_FILE;
}

/* The key of an object store's prefix itself, or a listing's own directory. */
static bool is_root(const struct origin_entry *e)
{
	return (e->path_len == 0 || (e->path_len == 1 && e->path[0] == '/')) &&
	       (e->type == ORIGIN_DIR || (e->type == ORIGIN_FILE && e->size == 0));
}

/* True: the user's patterns leave it out, so nothing needs to be said about it. */
static bool is_filtered(const struct listing *l, const struct origin_entry *e)
{
	return !filter_empty(l->job->filter) && e->type != ORIGIN_DIR &&
	       manifest_path_check(e->path, e->path_len) == MANIFEST_PATH_OK &&
	       !filter_keeps(l->job->filter, e->path, e->path_len);
}

/* 0: e is fit for the manifest and `m` says how; 1: it is the root, filtered out, or was counted as
 * skipped. */
static int judge(struct listing *l, const struct origin_entry *e, struct manifest_builder_entry *m)
{
	static const uint32_t plain_modes[] = {
		[MANIFEST_FILE] = 0444, [MANIFEST_DIR] = 0555, [MANIFEST_SYMLINK] = 0777};
	const char *reason;
	size_t len;
	int type;

	if (is_root(e)) {
		import_root_attributes(l->root, e);
		return 1;
	}
	if (is_filtered(l, e))
		return 1;
	type = type_of(e, &len, &reason);
	if (type < 0)
		return skip(l, e, reason);
	*m = (struct manifest_builder_entry){
		.path = e->path,
		.path_len = len,
		.type = (enum manifest_entry_type)type,
		.mtime_ns = e->mtime_ns,
		.validator = "",
		.mode = e->mode == ORIGIN_UNKNOWN_MODE ? plain_modes[type] : e->mode & 07777,
		.uid = e->uid,
		.gid = e->gid,
	};
	if (type == MANIFEST_FILE) {
		m->size = e->size;
		m->validator = e->validator ? e->validator : "";
	} else if (type == MANIFEST_SYMLINK) {
		m->target = e->target;
		m->target_len = e->target_len;
	} else if (e->mtime_ns == 0 && e->mode == ORIGIN_UNKNOWN_MODE) {
		m->mtime_ns = l->job->dirs_mtime_ns;
	}
	return 0;
}

static int on_entry(void *arg, const struct origin_entry *e, struct error *err)
{
	struct listing *l = arg;
	struct manifest_builder_entry m;
	int r;

	if (atomic_load_explicit(l->job->cancel, memory_order_relaxed))
		return error_set(err, -ECANCELED, "the import was cancelled");
	if (judge(l, e, &m) != 0)
		return 0;
	r = put(l, &m, l->sequence++, err);
	if (r < 0)
		return r;
	atomic_fetch_add_explicit(&l->job->progress->entries, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&l->job->progress->bytes, m.size, memory_order_relaxed);
	if (m.type == MANIFEST_DIR && !filter_empty(l->job->filter))
		return 0; /* kept only if something else implies it */
	return put_parents(l, m.path, m.path_len, err);
}

static void listing_free(struct listing *l)
{
	buf_deinit(&l->key);
	buf_deinit(&l->value);
	free(l);
}
DEFINE_CLEANUP(struct listing *, listing_free)

int import_listing_run(const struct import_job *job, struct namespace_scratch *scratch,
	struct import_report *report, struct manifest_builder_entry *ret_root, struct error *err)
{
	CLEANUP(listing_free_ptr) struct listing *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return no_memory(err);
	l->job = job;
	l->scratch = scratch;
	l->report = report;
	l->root = ret_root;
	r = (job->list ? job->list : origin_list)(
		job->origin, on_entry, l, job->cancel, job->deadline_ms, err);
	return r < 0 ? r : namespace_scratch_flush(scratch, err);
}
