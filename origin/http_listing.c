/*
 * Elements are read one by one: a byte a call is given to the JSON parser, so that it stops exactly
 * behind each of them, and nothing but the one at hand is in memory.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>
#include <jansson.h>

#include "common/cleanup.h"
#include "origin/http_listing.h"

#define ELEMENT_BYTES_MAX 65536
#define CHECK_EVERY 1024
/* A server that answers every name with the same page would be walked for ever. */
#define FOLDER_DEPTH_MAX 128

struct reader {
	const struct http_listing *doc;
	uint64_t elements;
	size_t element_bytes;
};

static int malformed(struct reader *rd, struct error *err, const char *what)
{
	return error_set(err, -EIO, "list %s: element %" PRIu64 ": %s", rd->doc->url,
		rd->elements + 1, what);
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
		.mtime_ns = origin_mtime_ns(e->mtime_s),
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
	count_guarantee(rd->doc->o, e);
	r = walk_emit(rd->doc->walk, &entry, err);
	if (r == 0 && ++rd->elements % CHECK_EVERY == 0)
		r = walk_check(rd->doc->walk, err);
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
	c = getc_unlocked(rd->doc->file);
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
		error_set(err, -EIO, "list %s: element %" PRIu64 " is not valid JSON: %s",
			rd->doc->url, rd->elements + 1, why.text);
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
	if (buf_append(&path, rd->doc->folder, rd->doc->folder_len) < 0 ||
		buf_append(&path, json_string_value(name), json_string_length(name)) < 0)
		return error_set(err, -ENOMEM, "list %s: out of memory", rd->doc->url);
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
	if (depth_of(rd->doc->folder, rd->doc->folder_len) >= FOLDER_DEPTH_MAX)
		return error_set(err, -EIO,
			"list %s%.80s...: more than %d folders deep: is there a loop?",
			rd->doc->o->base, e.path, FOLDER_DEPTH_MAX);
	if (buf_append_str(&path, "/") < 0)
		return error_set(err, -ENOMEM, "list %s: out of memory", rd->doc->url);
	return walk_push(rd->doc->walk, path.data, path.len, err);
}

typedef int take_fn(struct reader *rd, const json_t *object, struct error *err);

/* Objects one after the other, until the end of the document or of the array. */
static int read_objects(struct reader *rd, bool array, take_fn *take, struct error *err)
{
	for (bool first = true;; first = false) {
		int c = next_byte(rd->doc->file), r;
		json_t *object;

		if (array && c == ']')
			return next_byte(rd->doc->file) == EOF
				       ? 0
				       : malformed(rd, err, "something follows the array");
		if (array && !first) {
			if (c != ',')
				return malformed(rd, err, "the array does not end");
			c = next_byte(rd->doc->file);
		}
		if (!array && c == EOF)
			return 0;
		if (c != '{')
			return malformed(rd, err, "it is not an object");
		ungetc(c, rd->doc->file);
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

	if (memchr(line, '\0', len))
		return malformed(rd, err, "it holds a NUL");
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
		return error_set(err, -ENOMEM, "list %s: out of memory", rd->doc->url);
	for (;;) {
		size_t len = 0;
		int c, r;

		while ((c = getc_unlocked(rd->doc->file)) != EOF && c != '\n') {
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

/* ---- the two kinds of document --------------------------------------------------------------- */

int http_listing_read_file(const struct http_listing *doc, struct error *err)
{
	struct reader rd = {.doc = doc};
	int c = next_byte(doc->file);

	if (c == '[')
		return read_objects(&rd, true, take_listed, err);
	if (c == EOF)
		return 0;
	ungetc(c, doc->file);
	return c == '{' ? read_objects(&rd, false, take_listed, err) : read_lines(&rd, err);
}

int http_listing_read_page(const struct http_listing *doc, struct error *err)
{
	struct reader rd = {.doc = doc};

	if (next_byte(doc->file) != '[')
		return error_set(
			err, -EIO, "list %s: the index page is not a JSON array", doc->url);
	return read_objects(&rd, true, take_indexed, err);
}
