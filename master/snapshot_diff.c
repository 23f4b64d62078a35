#include "master/snapshot_diff.h"

#include <errno.h>
#include <string.h>

#include "common/buf.h"
#include "manifest/manifest_builder.h"

#define CANCEL_EVERY 4096 /* entries */

/* A place in a manifest. Neighbours share their parent, whose path is therefore kept. */
struct walk {
	struct manifest *m;
	uint32_t index;
	bool end;
	struct manifest_entry e;
	uint32_t parent;   /* whose path stands in `path` */
	size_t parent_len; /* with the '/' */
	struct buf path;
};

static int walk_load(struct walk *w, struct error *err)
{
	int r;

	if (w->index >= manifest_info(w->m)->entries) {
		w->end = true;
		return 0;
	}
	r = manifest_entry(w->m, w->index, &w->e);
	if (r < 0)
		return error_set_errno(
			err, r, "cannot read the manifest %s", manifest_info(w->m)->digest);
	if (w->index == 0)
		return 0;
	if (w->index == 1 || w->e.parent != w->parent) {
		buf_clear(&w->path);
		if (w->e.parent != 0) {
			r = manifest_path(w->m, w->e.parent, &w->path);
			if (r == 0)
				r = buf_append(&w->path, "/", 1);
			if (r < 0)
				return error_set_errno(err, r, "cannot read the manifest %s",
					manifest_info(w->m)->digest);
		}
		w->parent = w->e.parent;
		w->parent_len = w->path.len;
	}
	w->path.len = w->parent_len;
	if (buf_append(&w->path, w->e.name, w->e.name_len) < 0)
		return error_set(err, -ENOMEM, "no memory to compare the snapshots");
	return 0;
}

static int walk_next(struct walk *w, struct error *err)
{
	w->index++;
	return walk_load(w, err);
}

static bool entries_equal(const struct manifest_entry *a, const struct manifest_entry *b)
{
	if (a->type != b->type || a->mode != b->mode || a->uid != b->uid || a->gid != b->gid ||
		a->mtime_ns != b->mtime_ns)
		return false;
	switch (a->type) {
	case MANIFEST_DIR:
		return true;
	case MANIFEST_SYMLINK:
		return a->target_len == b->target_len &&
		       memcmp(a->target, b->target, a->target_len) == 0;
	case MANIFEST_FILE:
		break;
	}
	return a->size == b->size && a->object.hi == b->object.hi && a->object.lo == b->object.lo;
}

static void count(uint64_t *counter, const struct manifest_entry *e)
{
	*counter += e->type != MANIFEST_DIR;
}

/* One step: compares the entries where both walks stand and moves on the one that is behind. */
static int step(struct walk *before, struct walk *after, bool *same, struct import_report *report,
	struct error *err)
{
	int order, r = 0;

	if (before->end)
		order = 1;
	else if (after->end)
		order = -1;
	else if (before->index == 0 || after->index == 0)
		order = (before->index != 0) - (after->index != 0);
	else
		order = manifest_path_compare(
			before->path.data, before->path.len, after->path.data, after->path.len);
	if (order < 0)
		count(&report->removed, &before->e);
	else if (order > 0)
		count(&report->added, &after->e);
	else if (!entries_equal(&before->e, &after->e))
		count(&report->changed, after->e.type == MANIFEST_DIR ? &before->e : &after->e);
	if (order != 0 || !entries_equal(&before->e, &after->e))
		*same = false;
	if (order <= 0)
		r = walk_next(before, err);
	if (r == 0 && order >= 0)
		r = walk_next(after, err);
	return r;
}

int snapshot_diff(struct manifest *before, struct manifest *after, const atomic_bool *cancel,
	struct import_report *report, struct error *err)
{
	struct walk a = {.m = before}, b = {.m = after};
	bool same = true;
	int r = walk_load(&a, err);

	if (r == 0)
		r = walk_load(&b, err);
	for (uint64_t steps = 0; r == 0 && !(a.end && b.end); steps++) {
		if (steps % CANCEL_EVERY == 0 && atomic_load(cancel))
			r = error_set(err, -ECANCELED, "the import was cancelled");
		else
			r = step(&a, &b, &same, report, err);
	}
	buf_deinit(&a.path);
	buf_deinit(&b.path);
	return r < 0 ? r : same ? SNAPSHOT_DIFF_SAME : 0;
}
