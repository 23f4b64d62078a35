/*
 * Listing a web server: JSON index pages (nginx `autoindex on; autoindex_format json;`), walked
 * folder by folder, or one listing file (option index), in one of three forms told apart by their
 * first byte:
 *
 *   [{"path": "a/b", "size": 3, "etag": "\"x\"", "mtime": 1700000000}, ...]
 *   the same objects one after the other, one a line
 *   3<TAB>a/b<TAB>"x"          size, path (any bytes but tab and newline), and an etag if there is
 * one
 *
 * etag and mtime may be left out; an etag is quoted if it is not; mtime is seconds or an HTTP date
 * and has to be the Last-Modified that the server sends; a path with '/' at its end is a directory.
 * Elements are parsed one by one: memory does not grow with the listing.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>
#include <jansson.h>

#include "common/cleanup.h"
#include "origin/http_origin.h"
#include "origin/http_spool.h"
#include "origin/walk.h"

#define ELEMENT_BYTES_MAX 65536
#define CHECK_EVERY 1024
/* A server that answers every name with the same page would be walked for ever. */
#define FOLDER_DEPTH_MAX 128

/* One document being read. */
struct reader {
	struct http_origin *o;
	struct walk *walk;
	FILE *file;
	const char *url;    /* for texts */
	const char *folder; /* of an index page, "" or with '/' at its end */
	size_t folder_len;
	uint64_t elements;
	size_t element_bytes;
};

static int malformed(struct reader *rd, struct error *err, const char *what)
{
	return error_set(
		err, -EIO, "list %s: element %" PRIu64 ": %s", rd->url, rd->elements + 1, what);
}

/* ---- entries --------------------------------------------------------------------------------- */

struct element {
	const char *path;
	size_t path_len;
	enum origin_entry_type type;
	uint64_t size;
	const char *etag; /* NULL: none */
	int64_t mtime_s;  /* -1: none */
};

static int write_validator(const struct element *e, char room[static HTTP_ETAG_BYTES])
{
	size_t len = e->etag ? strlen(e->etag) : 0;

	room[0] = '\0';
	if (e->type != ORIGIN_FILE)
		return 0;
	/* It becomes a header of our requests. */
	if (len + 3 > HTTP_ETAG_BYTES || (e->etag && strpbrk(e->etag, "\r\n")))
		return -EINVAL;
	if (len && (e->etag[0] == '"' || strncmp(e->etag, "W/\"", 3) == 0))
		strcpy(room, e->etag);
	else if (len)
		snprintf(room, HTTP_ETAG_BYTES, "\"%s\"", e->etag);
	else if (e->mtime_s >= 0)
		snprintf(room, HTTP_ETAG_BYTES, HTTP_TIME_VALIDATOR "%" PRId64, e->mtime_s);
	return 0;
}

static void count_guarantee(struct http_origin *o, const struct element *e)
{
	if (e->type != ORIGIN_FILE)
		return;
	if (e->etag && *e->etag)
		atomic_fetch_add(&o->with_etag, 1);
	else if (e->mtime_s >= 0)
		atomic_fetch_add(&o->with_time, 1);
	else
		atomic_fetch_add(&o->with_nothing, 1);
}

static int emit(struct reader *rd, const struct element *e, struct error *err)
{
	char validator[HTTP_ETAG_BYTES];
	struct origin_entry entry = {
		.path = e->path,
		.path_len = e->path_len,
		.type = e->type,
		.size = e->size,
		.mtime_ns = e->mtime_s > 0 ? e->mtime_s * 1000000000 : 0,
		.validator = validator,
		.mode = ORIGIN_UNKNOWN_MODE,
		.uid = ORIGIN_UNKNOWN_ID,
		.gid = ORIGIN_UNKNOWN_ID,
	};
	int r;

	if (e->mtime_s > INT64_MAX / 1000000000)
		return malformed(rd, err, "its time makes no sense");
	if (write_validator(e, validator) < 0)
		return malformed(rd, err, "its etag is too long or holds a line break");
	if (e->type == ORIGIN_OTHER)
		entry.reason = "neither a file nor a directory";
	count_guarantee(rd->o, e);
	r = walk_emit(rd->walk, &entry, err);
	if (r == 0 && ++rd->elements % CHECK_EVERY == 0)
		r = walk_check(rd->walk, err);
	return r;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static bool is_space(int c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static int next_byte(FILE *f)
{
	int c;

	do
		c = getc_unlocked(f);
	while (is_space(c));
	return c;
}

/* One byte a call, so that the parser stops exactly behind the element. */
static size_t feed(void *buffer, size_t room, void *arg)
{
	struct reader *rd = arg;
	int c;

	if (room == 0 || ++rd->element_bytes > ELEMENT_BYTES_MAX)
		return (size_t)-1;
	c = getc_unlocked(rd->file);
	if (c == EOF)
		return 0;
	*(char *)buffer = (char)c;
	return 1;
}

static json_t *read_object(struct reader *rd, struct error *err)
{
	json_error_t why;
	json_t *object;

	rd->element_bytes = 0;
	object =
		json_load_callback(feed, rd, JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES, &why);
	if (!object)
		error_set(err, -EIO, "list %s: element %" PRIu64 " is not valid JSON: %s", rd->url,
			rd->elements + 1, why.text);
	return object;
}

static int64_t json_time(const json_t *v)
{
	if (json_is_integer(v))
		return json_integer_value(v);
	if (json_is_real(v) && json_real_value(v) >= 0 && json_real_value(v) < 1e12)
		return (int64_t)json_real_value(v);
	return json_is_string(v) ? (int64_t)curl_getdate(json_string_value(v), NULL) : -1;
}

static int json_size(struct reader *rd, const json_t *v, uint64_t *ret, struct error *err)
{
	if (!json_is_integer(v) || json_integer_value(v) < 0)
		return malformed(rd, err, "it has no size");
	*ret = (uint64_t)json_integer_value(v);
	return 0;
}

/* {"path": ..., "size": ..., "etag": ..., "mtime": ...} of a listing file. */
static int take_listed(struct reader *rd, const json_t *object, struct error *err)
{
	const json_t *path = json_object_get(object, "path");
	struct element e = {
		.path = json_string_value(path),
		.path_len = json_string_length(path),
		.etag = json_string_value(json_object_get(object, "etag")),
		.mtime_s = json_time(json_object_get(object, "mtime")),
	};
	int r;

	if (!e.path)
		return malformed(rd, err, "it has no path");
	if (e.path_len > 1 && e.path[e.path_len - 1] == '/') {
		e.type = ORIGIN_DIR;
		e.path_len--;
		return emit(rd, &e, err);
	}
	r = json_size(rd, json_object_get(object, "size"), &e.size, err);
	return r < 0 ? r : emit(rd, &e, err);
}

static bool can_be_walked(const char *name, size_t len)
{
	return len > 0 && !memchr(name, '/', len) && strcmp(name, ".") != 0 &&
	       strcmp(name, "..") != 0;
}

static unsigned depth_of(const char *folder, size_t len)
{
	unsigned depth = 0;

	for (size_t i = 0; i < len; i++)
		depth += folder[i] == '/';
	return depth;
}

/* {"name": ..., "type": ..., "mtime": ..., "size": ...} of an index page. */
static int take_indexed(struct reader *rd, const json_t *object, struct error *err)
{
	const json_t *name = json_object_get(object, "name");
	const char *type = json_string_value(json_object_get(object, "type"));
	cleanup_buf struct buf path = BUF_INIT;
	struct element e = {.mtime_s = json_time(json_object_get(object, "mtime"))};
	int r;

	if (!json_is_string(name) || !type)
		return malformed(rd, err, "it has no name or no type");
	if (buf_append(&path, rd->folder, rd->folder_len) < 0 ||
		buf_append(&path, json_string_value(name), json_string_length(name)) < 0)
		return error_set(err, -ENOMEM, "list %s: out of memory", rd->url);
	e.path = path.data;
	e.path_len = path.len;
	e.type = strcmp(type, "file") == 0	  ? ORIGIN_FILE
		 : strcmp(type, "directory") == 0 ? ORIGIN_DIR
						  : ORIGIN_OTHER;
	if (e.type == ORIGIN_FILE) {
		r = json_size(rd, json_object_get(object, "size"), &e.size, err);
		if (r < 0)
			return r;
	}
	r = emit(rd, &e, err);
	if (r < 0 || e.type != ORIGIN_DIR ||
		!can_be_walked(json_string_value(name), json_string_length(name)))
		return r;
	if (depth_of(rd->folder, rd->folder_len) >= FOLDER_DEPTH_MAX)
		return error_set(err, -EIO,
			"list %s%.80s...: more than %d folders deep: is there a loop?", rd->o->base,
			e.path, FOLDER_DEPTH_MAX);
	if (buf_append_str(&path, "/") < 0)
		return error_set(err, -ENOMEM, "list %s: out of memory", rd->url);
	return walk_push(rd->walk, path.data, path.len, err);
}

typedef int take_fn(struct reader *rd, const json_t *object, struct error *err);

/* Objects one after the other, until the end of the document or of the array. */
static int read_objects(struct reader *rd, bool array, take_fn *take, struct error *err)
{
	for (bool first = true;; first = false) {
		int c = next_byte(rd->file), r;
		json_t *object;

		if (array && c == ']')
			return next_byte(rd->file) == EOF
				       ? 0
				       : malformed(rd, err, "something follows the array");
		if (array && !first) {
			if (c != ',')
				return malformed(rd, err, "the array does not end");
			c = next_byte(rd->file);
		}
		if (!array && c == EOF)
			return 0;
		if (c != '{')
			return malformed(rd, err, "it is not an object");
		ungetc(c, rd->file);
		object = read_object(rd, err);
		if (!object)
			return -EIO;
		r = take(rd, object, err);
		json_decref(object);
		if (r < 0)
			return r;
	}
}

/* ---- text ------------------------------------------------------------------------------------ */

static int take_line(struct reader *rd, char *line, size_t len, struct error *err)
{
	char *path = memchr(line, '\t', len), *etag, *end = line + len, *number_end;
	struct element e = {.mtime_s = -1};

	if (!path || line[0] < '0' || line[0] > '9')
		return malformed(rd, err, "it is not SIZE<TAB>PATH");
	errno = 0;
	e.size = strtoull(line, &number_end, 10);
	if (number_end != path || errno || e.size > INT64_MAX)
		return malformed(rd, err, "its size makes no sense");
	path++;
	etag = memchr(path, '\t', (size_t)(end - path));
	e.path = path;
	e.path_len = (size_t)((etag ? etag : end) - path);
	if (etag)
		e.etag = etag + 1;
	if (e.path_len > 1 && path[e.path_len - 1] == '/') {
		e.type = ORIGIN_DIR;
		e.path_len--;
	}
	return emit(rd, &e, err);
}

static int read_lines(struct reader *rd, struct error *err)
{
	cleanup_free char *line = malloc(ELEMENT_BYTES_MAX);

	if (!line)
		return error_set(err, -ENOMEM, "list %s: out of memory", rd->url);
	for (;;) {
		size_t len = 0;
		int c, r;

		while ((c = getc_unlocked(rd->file)) != EOF && c != '\n') {
			if (len + 1 >= ELEMENT_BYTES_MAX)
				return malformed(rd, err, "the line is too long");
			line[len++] = (char)c;
		}
		if (c == EOF && len == 0)
			return 0;
		if (len && line[len - 1] == '\r')
			len--;
		line[len] = '\0';
		if (len == 0)
			continue;
		r = take_line(rd, line, len, err);
		if (r < 0)
			return r;
	}
}

/* ---- the two kinds of listing ---------------------------------------------------------------- */

static int visit_listing(struct reader *rd, const struct origin_listing *l,
	struct http_spool *spool, struct error *err)
{
	int r = http_spool_fetch(spool, rd->o->client, rd->o->index, l, true, err), c;

	if (r == ORIGIN_GONE)
		return error_set(err, -EIO, "list %s: there is no such listing file", rd->url);
	if (r < 0)
		return r;
	rd->file = spool->file;
	c = next_byte(rd->file);
	if (c == '[')
		return read_objects(rd, true, take_listed, err);
	if (c == EOF)
		return 0;
	ungetc(c, rd->file);
	return c == '{' ? read_objects(rd, false, take_listed, err) : read_lines(rd, err);
}

static int visit_page(struct reader *rd, const struct origin_listing *l, struct http_spool *spool,
	struct error *err)
{
	cleanup_buf struct buf url = BUF_INIT;
	int r;

	if (buf_append_str(&url, rd->o->base) < 0 ||
		http_url_append_path(&url, rd->folder, rd->folder_len) < 0)
		return error_set(
			err, -ENAMETOOLONG, "list %s%s: the name is too long", rd->url, rd->folder);
	rd->url = url.data;
	r = http_spool_fetch(spool, rd->o->client, url.data, l, rd->folder_len == 0, err);
	if (r == ORIGIN_GONE && rd->folder_len > 0)
		return 0; /* deleted since its parent was listed */
	if (r == ORIGIN_GONE)
		return error_set(err, -EIO, "list %s: the server has no such folder", rd->url);
	if (r < 0)
		return r;
	rd->file = spool->file;
	if (strncmp(spool->content_type, "application/json", 16) != 0 || next_byte(rd->file) != '[')
		return error_set(err, -EIO,
			"list %s: the index page is not JSON: serve it with nginx's "
			"`autoindex_format json`, or name a listing file with the option "
			"index",
			rd->url);
	return read_objects(rd, true, take_indexed, err);
}

struct index_walk {
	struct http_origin *o;
	const struct origin_listing *l;
};

static int visit(void *arg, struct walk *w, const char *item, size_t len, struct error *err)
{
	struct index_walk *iw = arg;
	struct http_spool spool = {0};
	struct reader rd = {
		.o = iw->o,
		.walk = w,
		.url = iw->o->index ? iw->o->index : iw->o->base,
		.folder = item,
		.folder_len = len,
	};
	int r = iw->o->index ? visit_listing(&rd, iw->l, &spool, err)
			     : visit_page(&rd, iw->l, &spool, err);

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
