#include "master/import.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "master/import_entry.h"
#include "master/import_listing.h"
#include "master/manifest_store.h"
#include "master/snapshot_diff.h"

#define ROOT_STAT_MS 10000

DEFINE_CLEANUP(struct namespace_scratch *, namespace_scratch_free)
DEFINE_CLEANUP(struct manifest_builder *, manifest_builder_free)
DEFINE_CLEANUP(struct manifest *, manifest_unref)

/* An entry whose strings are its own. */
struct kept_entry {
	struct manifest_builder_entry e;
	struct buf strings; /* validator, NUL, target */
	bool set;
};

/* All records of one path, as they come out of the scratch table one after the other. */
struct group {
	struct buf path;
	struct kept_entry leaf, dir; /* the first file or symlink, the first listed directory */
	bool implied;		     /* something lies below it */
	uint64_t leaves;
};

struct build {
	const struct import_job *job;
	struct import_report *report;
	struct manifest_builder *builder;
	struct group group;
	struct buf path; /* of the record just read */
};

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "no memory to build the manifest");
}

static int keep(struct kept_entry *k, const struct manifest_builder_entry *e)
{
	size_t validator_bytes = strlen(e->validator) + 1;

	if (k->set)
		return 0;
	buf_clear(&k->strings);
	if (buf_append(&k->strings, e->validator, validator_bytes) < 0 ||
		(e->target_len > 0 && buf_append(&k->strings, e->target, e->target_len) < 0))
		return -ENOMEM;
	k->e = *e;
	k->e.validator = k->strings.data;
	k->e.target = k->strings.data + validator_bytes;
	k->set = true;
	return 0;
}

/* Ends the group: puts what its records amount to into the manifest. */
static int group_emit(struct build *b, struct error *err)
{
	struct group *g = &b->group;
	struct manifest_builder_entry e = {
		.type = MANIFEST_DIR,
		.mtime_ns = b->job->dirs_mtime_ns,
		.validator = "",
		.mode = 0555,
		.uid = UINT32_MAX,
		.gid = UINT32_MAX,
	};
	bool is_dir = g->implied || (g->dir.set && filter_empty(b->job->filter));
	uint64_t dropped = g->leaves;

	if (g->path.len == 0 || (!is_dir && !g->leaf.set))
		return 0;
	if (is_dir && g->dir.set)
		e = g->dir.e;
	if (!is_dir) {
		e = g->leaf.e;
		dropped--;
	}
	for (uint64_t i = 0; i < dropped; i++)
		import_report_skip(b->report,
			is_dir ? "a file with the name of a directory (the directory was kept)"
			       : "listed more than once (the first was kept)",
			g->path.data, g->path.len);
	e.path = g->path.data;
	e.path_len = g->path.len;
	return manifest_builder_add(b->builder, &e, err);
}

static int group_begin(struct build *b)
{
	struct group *g = &b->group;

	g->leaf.set = g->dir.set = g->implied = false;
	g->leaves = 0;
	buf_clear(&g->path);
	return buf_append(&g->path, b->path.data, b->path.len);
}

static int group_add(struct build *b, const struct manifest_builder_entry *e, uint64_t sequence)
{
	struct group *g = &b->group;

	if (sequence == IMPORT_IMPLIED) {
		g->implied = true;
		return 0;
	}
	if (e->type == MANIFEST_DIR)
		return keep(&g->dir, e);
	g->leaves++;
	return keep(&g->leaf, e);
}

static int build_all(struct build *b, struct namespace_scratch *scratch, struct error *err)
{
	for (;;) {
		const char *key, *value;
		size_t key_len, value_len;
		struct manifest_builder_entry e;
		uint64_t sequence;
		int r = namespace_scratch_next(scratch, &key, &key_len, &value, &value_len, err);

		if (r < 0)
			return r;
		if (r == SCRATCH_END)
			return group_emit(b, err);
		if (atomic_load_explicit(b->job->cancel, memory_order_relaxed))
			return error_set(err, -ECANCELED, "the import was cancelled");
		r = import_entry_read(key, key_len, value, value_len, &b->path, &e, &sequence);
		if (r == -ENOMEM)
			return no_memory(err);
		if (r < 0)
			return error_set(err, -EIO, "the sorted listing is damaged");
		if (b->path.len != b->group.path.len ||
			memcmp(b->path.data, b->group.path.data, b->path.len) != 0) {
			r = group_emit(b, err);
			if (r < 0)
				return r;
			atomic_fetch_add_explicit(
				&b->job->progress->entries, 1, memory_order_relaxed);
			if (group_begin(b) < 0)
				return no_memory(err);
		}
		if (group_add(b, &e, sequence) < 0)
			return no_memory(err);
	}
}

static int build_manifest(const struct import_job *job, struct namespace_scratch *scratch,
	const struct manifest_builder_entry *root, struct import_report *report,
	char digest[MANIFEST_DIGEST_TEXT_BYTES], struct error *err)
{
	CLEANUP(manifest_builder_free_ptr) struct manifest_builder *builder = NULL;
	struct build b = {.job = job, .report = report};
	int r;

	r = manifest_builder_new(job->manifest_dir, job->dataset_id, job->snapshot, job->created_s,
		root, &builder, err);
	if (r < 0)
		return r;
	b.builder = builder;
	r = build_all(&b, scratch, err);
	buf_deinit(&b.path);
	buf_deinit(&b.group.path);
	buf_deinit(&b.group.leaf.strings);
	buf_deinit(&b.group.dir.strings);
	return r < 0 ? r : manifest_builder_finish(builder, digest, err);
}

static int scratch_open(
	const struct import_job *job, struct namespace_scratch **ret, struct error *err)
{
	uint64_t id;

	if (getrandom(&id, sizeof(id), 0) != (ssize_t)sizeof(id))
		return error_set_errno(err, -errno, "cannot get random bytes");
	return namespace_scratch_new(job->db, id, ret, err);
}

/* Counts the changes; an unchanged manifest is removed again. */
static int compare(const struct import_job *job, const char *path, struct manifest *fresh,
	struct import_report *report, struct error *err)
{
	int r;

	if (!job->previous) {
		report->added = manifest_info(fresh)->files + manifest_info(fresh)->symlinks;
		return 0;
	}
	r = snapshot_diff(job->previous, fresh, job->cancel, report, err);
	if (r < 0 || r == SNAPSHOT_DIFF_SAME)
		unlink(path);
	return r == SNAPSHOT_DIFF_SAME ? IMPORT_UNCHANGED : r;
}

/* A directory tree has a root with attributes; an object store would be asked in vain. Without an
 * answer the root is like any directory that the origin does not list. */
static void root_ask(const struct import_job *job, struct manifest_builder_entry *root)
{
	struct origin_entry e;
	char validator[256];

	if (strncmp(origin_url(job->origin), "file:", 5) == 0 &&
		origin_stat(job->origin, "", 0, &e, validator, clock_deadline_ms(ROOT_STAT_MS),
			NULL) == 0)
		import_root_attributes(root, &e);
}

int import_run(const struct import_job *job, struct import_report *report,
	struct manifest_info *ret_info, struct error *err)
{
	CLEANUP(namespace_scratch_free_ptr) struct namespace_scratch *scratch = NULL;
	CLEANUP(manifest_unref_ptr) struct manifest *fresh = NULL;
	cleanup_free char *path = NULL;
	struct manifest_builder_entry root = {
		.type = MANIFEST_DIR,
		.path = "",
		.validator = "",
		.mtime_ns = job->dirs_mtime_ns,
		.mode = 0555,
		.uid = UINT32_MAX,
		.gid = UINT32_MAX,
	};
	char digest[MANIFEST_DIGEST_TEXT_BYTES];
	int r;

	atomic_store(&job->progress->phase, IMPORT_LISTING);
	r = scratch_open(job, &scratch, err);
	if (r == 0)
		r = import_listing_run(job, scratch, report, &root, err);
	if (r < 0)
		return r;
	root_ask(job, &root); /* the listing has shown that it is there */
	atomic_store(&job->progress->entries, 0);
	atomic_store(&job->progress->phase, IMPORT_BUILDING);
	r = build_manifest(job, scratch, &root, report, digest, err);
	if (r < 0)
		return r;
	if (asprintf(&path, "%s/%s" MANIFEST_STORE_SUFFIX, job->manifest_dir, digest) < 0)
		return no_memory(err);
	r = manifest_open(path, &fresh, err);
	if (r < 0)
		return r;
	*ret_info = *manifest_info(fresh);
	return compare(job, path, fresh, report, err);
}
