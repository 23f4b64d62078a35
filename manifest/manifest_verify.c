/*
 * In the order of the file the children of each directory follow those of the one before it, so the
 * runs of children, taken in the order of their directories, must cover 1..entries-1 without a gap.
 */
#include "manifest/manifest_verify.h"

#include <errno.h>

#include "manifest/manifest_format.h"

struct walk {
	struct manifest *m;
	struct manifest_info seen;
	uint32_t next;	    /* first entry that no directory had yet */
	uint32_t level_end; /* first entry below the level that is being walked */
	unsigned depth;
};

static int wrong(struct walk *w, uint32_t index, const char *what, struct error *err)
{
	return error_set(err, -EIO, "manifest %s is damaged: entry %u: %s",
		manifest_info(w->m)->digest, index, what);
}

static bool name_ascends(const struct manifest_entry *a, const struct manifest_entry *b)
{
	size_t shorter = a->name_len < b->name_len ? a->name_len : b->name_len;
	int order = memcmp(a->name, b->name, shorter);

	return order < 0 || (order == 0 && a->name_len < b->name_len);
}

static int check_children(
	struct walk *w, uint32_t index, const struct manifest_entry *dir, struct error *err)
{
	struct manifest_entry before, child;
	uint32_t subdirs = 0;

	if (dir->children && dir->first_child != w->next)
		return wrong(w, index, "its children are not where they belong", err);
	for (uint32_t i = 0; i < dir->children; i++) {
		if (manifest_entry(w->m, dir->first_child + i, &child) < 0)
			return wrong(w, dir->first_child + i, "cannot be read", err);
		if (child.parent != index)
			return wrong(w, dir->first_child + i, "has another parent", err);
		if (i > 0 && !name_ascends(&before, &child))
			return wrong(w, dir->first_child + i, "is out of order", err);
		subdirs += child.type == MANIFEST_DIR;
		before = child;
	}
	if (subdirs != dir->subdirs)
		return wrong(w, index, "its subdirectories are miscounted", err);
	w->next += dir->children;
	return 0;
}

/* A level ends where the children of its first directory begin. */
static int check_depth(struct walk *w, uint32_t index, struct error *err)
{
	if (index < w->level_end)
		return 0;
	w->level_end = w->next;
	if (index >= w->next)
		return wrong(w, index, "is in no directory", err);
	return ++w->depth > MANIFEST_DEPTH_MAX ? wrong(w, index, "is too deep", err) : 0;
}

static void count(struct walk *w, const struct manifest_entry *e)
{
	w->seen.files += e->type == MANIFEST_FILE;
	w->seen.dirs += e->type == MANIFEST_DIR;
	w->seen.symlinks += e->type == MANIFEST_SYMLINK;
	w->seen.bytes += e->size;
	w->seen.blocks += block_count(e->size);
}

int manifest_verify_entries(struct manifest *m, struct error *err)
{
	const struct manifest_info *info = manifest_info(m);
	struct walk w = {.m = m, .next = 1, .level_end = 1};

	for (uint32_t i = 0; i < info->entries; i++) {
		struct manifest_entry e;
		int r = check_depth(&w, i, err);

		if (r < 0)
			return r;
		if (manifest_entry(m, i, &e) < 0)
			return wrong(&w, i, "cannot be read", err);
		count(&w, &e);
		/* Stops a sum of hostile sizes before it comes round to the right one. */
		if (w.seen.bytes > info->bytes)
			break;
		if (e.type == MANIFEST_DIR)
			r = check_children(&w, i, &e, err);
		if (r < 0)
			return r;
	}
	if (w.seen.files != info->files || w.seen.dirs != info->dirs ||
		w.seen.symlinks != info->symlinks || w.seen.bytes != info->bytes ||
		w.seen.blocks != info->blocks || w.next != info->entries)
		return wrong(&w, 0, "the counts in the header are wrong", err);
	return 0;
}
