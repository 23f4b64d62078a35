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

static enum import_skip skip_of_flaw(enum manifest_path_flaw flaw)
{
	switch (flaw) {
	case MANIFEST_PATH_ABSOLUTE:
		return IMPORT_SKIP_ABSOLUTE;
	case MANIFEST_PATH_DOTS:
		return IMPORT_SKIP_DOTS;
	case MANIFEST_PATH_NUL:
		return IMPORT_SKIP_NUL;
	case MANIFEST_PATH_LONG:
		return IMPORT_SKIP_LONG;
	case MANIFEST_PATH_DEEP:
		return IMPORT_SKIP_DEEP;
	case MANIFEST_PATH_EMPTY:
	case MANIFEST_PATH_OK:
		break;
	}
	return IMPORT_SKIP_EMPTY;
}

/* True when the target leads, from the directory of the link, to a place inside of the dataset for
 * sure: at most as many ".." in front as there are directories above, and none after a name. */
static bool target_stays_inside(const char *path, size_t path_len, const char *target, size_t len)
{
	size_t above = 0, at = 0;
	bool named = false;

	for (size_t i = 0; i < path_len; i++)
		above += path[i] == '/';
	if (target[0] == '/' || memchr(target, '\0', len))
		return false;
	while (at < len) {
		const char *slash = memchr(target + at, '/', len - at);
		size_t part = slash ? (size_t)(slash - target) - at : len - at;

		if (part == 2 && memcmp(target + at, "..", 2) == 0) {
			if (named || above == 0)
				return false;
			above--;
		} else if (part > 0 && !(part == 1 && target[at] == '.')) {
			named = true;
		}
		at += part + 1;
	}
	return true;
}

static void root_attributes(struct listing *l, const struct origin_entry *e)
{
	if (e->mode != ORIGIN_UNKNOWN_MODE)
		l->root->mode = e->mode & 07777;
	l->root->uid = e->uid;
	l->root->gid = e->gid;
	if (e->type == ORIGIN_DIR)
		l->root->mtime_ns = e->mtime_ns;
}

/* 0: e is fit for the manifest and `m` says how; 1: it was counted as skipped, or is the root. */
static int judge(struct listing *l, const struct origin_entry *e, struct manifest_builder_entry *m)
{
	static const uint32_t plain_modes[] = {
		[MANIFEST_FILE] = 0444, [MANIFEST_DIR] = 0555, [MANIFEST_SYMLINK] = 0777};
	enum manifest_path_flaw flaw;
	size_t len = e->path_len;
	bool marker;

	marker = len > 0 && e->path[len - 1] == '/' &&
		 (e->type == ORIGIN_DIR || (e->type == ORIGIN_FILE && e->size == 0));
	if (marker)
		len--;
	if (len == 0 &&
		(marker || e->type == ORIGIN_DIR || (e->type == ORIGIN_FILE && e->size == 0))) {
		root_attributes(l, e);
		return 1;
	}
	flaw = manifest_path_check(e->path, len);
	if (flaw != MANIFEST_PATH_OK) {
		import_report_skip(l->report, skip_of_flaw(flaw), e->path, e->path_len);
		return 1;
	}
	*m = (struct manifest_builder_entry){
		.path = e->path,
		.path_len = len,
		.type = MANIFEST_DIR,
		.mtime_ns = e->mtime_ns,
		.validator = "",
		.uid = e->uid,
		.gid = e->gid,
	};
	if (e->type == ORIGIN_OTHER) {
		import_report_skip(l->report, IMPORT_SKIP_OTHER_TYPE, e->path, e->path_len);
		return 1;
	}
	if (e->type == ORIGIN_FILE && !marker) {
		m->type = MANIFEST_FILE;
		m->size = e->size;
		m->validator = e->validator ? e->validator : "";
		if (strlen(m->validator) > VALIDATOR_MAX_BYTES) {
			import_report_skip(
				l->report, IMPORT_SKIP_VALIDATOR_LONG, e->path, e->path_len);
			return 1;
		}
	}
	if (e->type == ORIGIN_SYMLINK) {
		bool sized = e->target && e->target_len > 0 && e->target_len <= TARGET_MAX_BYTES;

		if (!sized || !target_stays_inside(e->path, len, e->target, e->target_len)) {
			import_report_skip(l->report,
				sized ? IMPORT_SKIP_LINK_LEAVES : IMPORT_SKIP_LINK_BAD, e->path,
				e->path_len);
			return 1;
		}
		m->type = MANIFEST_SYMLINK;
		m->target = e->target;
		m->target_len = e->target_len;
	}
	m->mode = e->mode == ORIGIN_UNKNOWN_MODE ? plain_modes[m->type] : e->mode & 07777;
	if (m->type == MANIFEST_DIR && e->mtime_ns == 0)
		m->mtime_ns = l->job->dirs_mtime_ns;
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
	if (!filter_empty(l->job->filter)) {
		if (m.type != MANIFEST_DIR && !filter_keeps(l->job->filter, m.path, m.path_len))
			return 0;
	}
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
	r = origin_list(job->origin, on_entry, l, job->cancel, job->deadline_ms, err);
	return r < 0 ? r : namespace_scratch_flush(scratch, err);
}
