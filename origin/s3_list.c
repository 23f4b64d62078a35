/*
 * Listing a bucket in parallel. A server gives at most a thousand keys per answer, one answer after
 * the other, so speed comes from listing several parts of the key space at once:
 *
 * - A folder is listed with the delimiter while few parts are in work: its objects are entries, its
 *   sub-folders become parts.
 * - When enough parts are in work, a sub-folder becomes a flat part: all its keys, without
 * delimiter.
 * - An answer with very many sub-folders is cut into a few runs of neighbours, each a flat part: a
 *   million folders of three files must not cost a million requests. Keys directly in the folder
 * are already entries and are skipped there.
 *
 * Runs rely on the order of keys that S3 promises; an answer out of order fails the listing (and
 * list-parallel=1 lists such a server, plainly from the first key to the last).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/cleanup.h"
#include "origin/s3_origin.h"
#include "origin/walk.h"

#define PAGE_KEYS 1000
/* Sub-folders of one answer that become parts of their own; more are cut into RUNS. */
#define FOLDERS_MAX 64
#define RUNS 16

/* A part: its fields follow each other in the walk's item, each with its NUL. */
struct part {
	bool flat;
	const char *prefix; /* that all keys begin with */
	/* of a run: first and last sub-folder; "" for all of the prefix */
	const char *first, *last;
};

struct lister {
	struct s3_origin *o;
	const struct origin_listing *l;
	size_t root_len; /* of the origin's prefix, which paths do not have */
};

/* One page, while it is asked for. */
struct page {
	struct s3_call call; /* first: libs3's callbacks get it */
	struct lister *ls;
	struct walk *walk;
	const struct part *part;
	struct buf marker;   /* of the next page; empty: no more */
	struct buf last_key; /* order check over pages */
	bool done;
	struct buf folders; /* names, each with its NUL */
	size_t n_folders;
	/* What the entry function said, which is no business of the retry loop. */
	int emitted;
	struct error emit_error;
};

/* ---- parts ----------------------------------------------------------------------------------- */

static int push(struct page *pg, bool flat, const char *prefix, const char *first, const char *last,
	struct error *err)
{
	cleanup_buf struct buf item = BUF_INIT;

	if (buf_append(&item, flat ? "F" : "D", 1) < 0 ||
		buf_append(&item, prefix, strlen(prefix) + 1) < 0 ||
		buf_append(&item, first, strlen(first) + 1) < 0 ||
		buf_append(&item, last, strlen(last) + 1) < 0)
		return error_set(err, -ENOMEM, "list %s: out of memory", pg->ls->l->url);
	return walk_push(pg->walk, item.data, item.len, err);
}

static struct part part_of(const char *item)
{
	struct part p = {.flat = item[0] == 'F', .prefix = item + 1};

	p.first = p.prefix + strlen(p.prefix) + 1;
	p.last = p.first + strlen(p.first) + 1;
	return p;
}

static bool begins_with(const char *key, const char *prefix)
{
	return strncmp(key, prefix, strlen(prefix)) == 0;
}

/* Is the key behind the run's end? */
static bool is_behind(const struct part *p, const char *key)
{
	return p->last[0] && strcmp(key, p->last) > 0 && !begins_with(key, p->last);
}

/* Does another part have it? */
static bool is_foreign(const struct part *p, const char *key)
{
	if (!p->first[0])
		return false;
	return strcmp(key, p->first) < 0 || is_behind(p, key) ||
	       !strchr(key + strlen(p->prefix), '/');
}

/* ---- entries --------------------------------------------------------------------------------- */

static int emit(struct page *pg, const S3ListBucketContent *c, struct error *err)
{
	size_t len = strlen(c->key);
	struct origin_entry e = {
		.path = c->key + pg->ls->root_len,
		.path_len = len - pg->ls->root_len,
		.type = ORIGIN_FILE,
		.size = c->size,
		.mtime_ns = origin_mtime_ns(c->lastModified),
		.validator = c->eTag ? c->eTag : "",
		.mode = ORIGIN_UNKNOWN_MODE,
		.uid = ORIGIN_UNKNOWN_ID,
		.gid = ORIGIN_UNKNOWN_ID,
	};

	/* "dir/" is how consoles and tools mark a directory; the root's own marker is nobody's. */
	if (e.path_len == 0)
		return 0;
	if (c->key[len - 1] == '/') {
		e.type = ORIGIN_DIR;
		e.path_len--;
		e.size = 0;
		e.validator = "";
	}
	return walk_emit(pg->walk, &e, err);
}

static int take_contents(struct page *pg, const S3ListBucketContent *contents, int n)
{
	const struct part *p = pg->part;

	for (int i = 0; i < n && !pg->done; i++) {
		const char *key = contents[i].key;

		if (!begins_with(key, p->prefix))
			return error_set(pg->call.err, -EIO,
				"the server listed keys that were not "
				"asked for");
		if (p->flat && p->first[0]) {
			if (pg->last_key.len && strcmp(key, pg->last_key.data) <= 0)
				return error_set(pg->call.err, -EIO,
					"the server does not list keys in their order: say "
					"list-parallel=1");
			buf_clear(&pg->last_key);
			if (buf_append_str(&pg->last_key, key) < 0)
				return error_set(pg->call.err, -ENOMEM, "out of memory");
			pg->done = is_behind(p, key);
			if (is_foreign(p, key))
				continue;
		}
		pg->emitted = emit(pg, &contents[i], &pg->emit_error);
		if (pg->emitted < 0)
			return 0;
	}
	return 0;
}

static int take_folders(struct page *pg, const char **prefixes, int n)
{
	buf_clear(&pg->folders);
	pg->n_folders = 0;
	for (int i = 0; i < n; i++) {
		/* A folder that is the one asked for would be listed for ever. */
		if (!begins_with(prefixes[i], pg->part->prefix) ||
			strlen(prefixes[i]) <= strlen(pg->part->prefix))
			return error_set(pg->call.err, -EIO,
				"the server listed folders that were "
				"not asked for");
		if (buf_append(&pg->folders, prefixes[i], strlen(prefixes[i]) + 1) < 0)
			return error_set(pg->call.err, -ENOMEM, "out of memory");
		pg->n_folders++;
	}
	return 0;
}

static S3Status on_page(int truncated, const char *next, int n, const S3ListBucketContent *contents,
	int n_prefixes, const char **prefixes, void *arg)
{
	struct page *pg = arg;

	pg->call.bytes++;
	buf_clear(&pg->marker);
	if (truncated && !next)
		pg->call.outcome = error_set(pg->call.err, -EIO,
			"the server does not tell how the "
			"listing goes on");
	else if (truncated && buf_append_str(&pg->marker, next) < 0)
		pg->call.outcome = error_set(pg->call.err, -ENOMEM, "out of memory");
	if (pg->call.outcome == 0)
		pg->call.outcome = take_folders(pg, prefixes, n_prefixes);
	if (pg->call.outcome == 0)
		pg->call.outcome = take_contents(pg, contents, n);
	return pg->call.outcome == 0 ? S3StatusOK : S3StatusAbortedByCallback;
}

/* ---- pages ----------------------------------------------------------------------------------- */

/* Just before the first sub-folder of a run: its name without the '/' is a key of the folder
 * itself, or of a neighbour that sorts before it. */
static char *start_of(const struct part *p)
{
	size_t len = strlen(p->first);

	return len ? strndup(p->first, len - 1) : NULL;
}

static int page_attempt(void *arg, struct origin_attempt *at, struct error *err)
{
	static const S3ListBucketHandler handler = {
		{s3_call_properties, s3_call_complete}, on_page};
	struct page *pg = arg;
	const struct part *p = pg->part;
	cleanup_free char *start = start_of(p);
	const char *marker = pg->marker.len ? pg->marker.data : start;
	int r;

	if (p->first[0] && !start)
		return error_set(err, -ENOMEM, "out of memory");
	memset(&pg->call, 0, sizeof(pg->call));
	r = s3_call_begin(&pg->call, pg->ls->o, at, err);
	if (r != 0)
		return r;
	S3_list_bucket(&pg->call.bucket, p->prefix[0] ? p->prefix : NULL, marker,
		p->flat ? NULL : "/", PAGE_KEYS, NULL, pg->call.timeout_ms, &handler, &pg->call);
	r = s3_call_end(&pg->call);
	return r == ORIGIN_GONE || r == ORIGIN_CHANGED
		       ? error_set(err, -EIO, "HTTP %d", pg->call.http_status)
		       : r;
}

static int page_reread(void *arg, struct origin_attempt *at, struct error *err)
{
	struct page *pg = arg;

	return s3_credentials_reread(pg->ls->o->credentials, at, err);
}

static int fetch(struct page *pg, struct error *err)
{
	const struct origin_listing *l = pg->ls->l;
	const char *path = pg->part->prefix + pg->ls->root_len;
	struct retry_work work = {
		.attempt = page_attempt,
		.reread_credentials = pg->ls->o->sign ? page_reread : NULL,
		.arg = pg,
		.subject = {"list", l->url, path, strlen(path)},
		.first_contact = path[0] == '\0' && pg->marker.len == 0,
		.cancel = l->cancel,
		.deadline_ms = l->deadline_ms,
	};
	int r = retry_run(l->retry, &work, err);

	if (r == 0 && pg->emitted < 0) {
		if (err)
			*err = pg->emit_error;
		return pg->emitted;
	}
	return r;
}

/* The sub-folders of one page become parts. */
static int push_folders(struct page *pg, struct error *err)
{
	struct lister *ls = pg->ls;
	const char *at = pg->folders.data;
	size_t per_run = pg->n_folders <= FOLDERS_MAX ? 1 : (pg->n_folders + RUNS - 1) / RUNS;

	for (size_t i = 0; i < pg->n_folders;) {
		const char *first = at, *last = at;
		size_t n = 0;
		int r;

		for (; n < per_run && i < pg->n_folders; n++, i++) {
			last = at;
			at += strlen(at) + 1;
		}
		if (per_run == 1)
			r = push(pg, walk_pending(pg->walk) >= 4 * (size_t)ls->l->threads, first,
				"", "", err);
		else
			r = push(pg, true, pg->part->prefix, first, last, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int visit(void *arg, struct walk *w, const char *item, size_t len, struct error *err)
{
	struct lister *ls = arg;
	struct part part = part_of(item);
	struct page pg = {.ls = ls, .walk = w, .part = &part};
	int r;

	(void)len;
	do {
		r = walk_check(w, err);
		if (r == 0)
			r = fetch(&pg, err);
		if (r == 0)
			r = push_folders(&pg, err);
	} while (r == 0 && pg.marker.len && !pg.done);
	buf_deinit(&pg.marker);
	buf_deinit(&pg.last_key);
	buf_deinit(&pg.folders);
	return r;
}

int s3_list(struct s3_origin *o, const struct origin_listing *l, struct error *err)
{
	struct lister ls = {.o = o, .l = l, .root_len = strlen(o->prefix)};
	cleanup_buf struct buf item = BUF_INIT;

	if (buf_append(&item, l->threads == 1 ? "F" : "D", 1) < 0 ||
		buf_append(&item, o->prefix, strlen(o->prefix) + 1) < 0 ||
		buf_append(&item, "\0\0", 2) < 0)
		return error_set(err, -ENOMEM, "list %s: out of memory", l->url);
	return walk_run(l, item.data, item.len, visit, &ls, err);
}
