/*
 * Listing a web server: its JSON index pages, walked folder by folder, or one listing file (option
 * index). http_listing.h has their forms.
 */
#include <errno.h>
#include <string.h>

#include "common/buf.h"
#include "origin/http_listing.h"
#include "origin/http_spool.h"

static int visit_listing(struct http_listing *doc, const struct origin_listing *l,
	struct http_spool *spool, struct error *err)
{
	int r = http_spool_fetch(spool, doc->o->client, doc->o->index, l, true, err);

	if (r == ORIGIN_GONE)
		return error_set(err, -EIO, "list %s: there is no such listing file", doc->url);
	if (r < 0)
		return r;
	doc->file = spool->file;
	return http_listing_read_file(doc, err);
}

static int visit_page(struct http_listing *doc, const struct origin_listing *l,
	struct http_spool *spool, struct error *err)
{
	cleanup_buf struct buf url = BUF_INIT;
	int r;

	if (buf_append_str(&url, doc->o->base) < 0 ||
		http_url_append_path(&url, doc->folder, doc->folder_len) < 0)
		return error_set(err, -ENAMETOOLONG, "list %s%s: the name is too long", doc->url,
			doc->folder);
	doc->url = url.data;
	r = http_spool_fetch(spool, doc->o->client, url.data, l, doc->folder_len == 0, err);
	if (r == ORIGIN_GONE && doc->folder_len > 0)
		return 0; /* deleted since its parent was listed */
	if (r == ORIGIN_GONE)
		return error_set(err, -EIO, "list %s: the server has no such folder", doc->url);
	if (r < 0)
		return r;
	doc->file = spool->file;
	if (strncmp(spool->content_type, "application/json", 16) != 0)
		return error_set(err, -EIO,
			"list %s: the index page is not JSON: serve it with nginx's "
			"`autoindex_format json`, or name a listing file with the option "
			"index",
			doc->url);
	return http_listing_read_page(doc, err);
}

struct index_walk {
	struct http_origin *o;
	const struct origin_listing *l;
};

static int visit(void *arg, struct walk *w, const char *item, size_t len, struct error *err)
{
	struct index_walk *iw = arg;
	struct http_spool spool = {0};
	struct http_listing doc = {
		.o = iw->o,
		.walk = w,
		.url = iw->o->index ? iw->o->index : iw->o->base,
		.folder = item,
		.folder_len = len,
	};
	int r = iw->o->index ? visit_listing(&doc, iw->l, &spool, err)
			     : visit_page(&doc, iw->l, &spool, err);

	http_spool_deinit(&spool);
	return r;
}

int http_index_list(struct http_origin *o, const struct origin_listing *l, struct error *err)
{
	struct index_walk iw = {.o = o, .l = l};

	atomic_store(&o->with_etag, 0);
	atomic_store(&o->with_time, 0);
	atomic_store(&o->with_nothing, 0);
	return walk_run(l, "", 0, visit, &iw, err);
}
