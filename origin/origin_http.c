/*
 * http(s)://host/path/: files of a web server.
 *
 * The validator is the listing's etag, or "mtime:SECONDS" of its Last-Modified, or "". A get sends
 * it as If-Match or If-Unmodified-Since and checks the reply's own headers before the first byte of
 * the body is taken: not every server honours conditions.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <curl/curl.h>

#include "common/cleanup.h"
#include "origin/http_origin.h"
#include "origin/options.h"

/* A server without ranges sends everything: so much is thrown away in front of what was asked. */
#define HTTP_SKIP_BYTES_MAX ((uint64_t)16 << 20)
#define HTTP_PATH_BYTES_MAX 8192

int http_url_append_path(struct buf *url, const char *path, size_t len)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789-._~/";

	if (len > HTTP_PATH_BYTES_MAX || buf_reserve(url, len * 3) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < len; i++) {
		int r = path[i] && strchr(plain, path[i])
				? buf_append(url, &path[i], 1)
				: buf_printf(url, "%%%02X", (unsigned char)path[i]);

		if (r < 0)
			return r;
	}
	return 0;
}

static void http_free(void *impl)
{
	struct http_origin *o = impl;

	http_client_free(o->client);
	free(o->base);
	free(o->index);
	free(o);
}

/* ---- open ------------------------------------------------------------------------------------ */

/* Takes the user and password out of the URL into *ret (NULL when there are none). */
static int take_part(CURLU *u, CURLUPart part, char **ret)
{
	char *text = NULL;
	CURLUcode code = curl_url_get(u, part, &text, CURLU_URLDECODE);

	*ret = NULL;
	if (code == CURLUE_NO_USER || code == CURLUE_NO_PASSWORD)
		return 0;
	if (code != CURLUE_OK)
		return code == CURLUE_OUT_OF_MEMORY ? -ENOMEM : -EINVAL;
	*ret = strdup(text);
	explicit_bzero(text, strlen(text));
	curl_free(text);
	curl_url_set(u, part, NULL, 0);
	return *ret ? 0 : -ENOMEM;
}

static bool has_part(CURLU *u, CURLUPart part)
{
	char *text = NULL;
	bool has = curl_url_get(u, part, &text, 0) == CURLUE_OK;

	curl_free(text);
	return has;
}

static char *whole_url(CURLU *u)
{
	char *text = NULL, *copy = NULL;

	if (curl_url_get(u, CURLUPART_URL, &text, 0) == CURLUE_OK)
		copy = strdup(text);
	curl_free(text);
	return copy;
}

/* The URL of the folder: always with a '/' at its end. */
static char *base_url(CURLU *u)
{
	cleanup_free char *url = whole_url(u);
	size_t len = url ? strlen(url) : 0;
	char *base = url ? malloc(len + 2) : NULL;

	if (!base)
		return NULL;
	memcpy(base, url, len + 1);
	if (len && base[len - 1] != '/')
		strcpy(base + len, "/");
	return base;
}

static int set_index(struct http_origin *o, CURLU *u, const char *index, struct error *err)
{
	if (!index)
		return 0;
	if (curl_url_set(u, CURLUPART_URL, o->base, 0) != CURLUE_OK ||
		curl_url_set(u, CURLUPART_URL, index, CURLU_URLENCODE) != CURLUE_OK ||
		has_part(u, CURLUPART_USER))
		return error_set(err, -EINVAL,
			"option index: '%s' is neither a URL (without credentials) nor a "
			"path below %s",
			strchr(index, '@') ? "..." : index, o->base);
	o->index = whole_url(u);
	return o->index ? 0 : error_set(err, -ENOMEM, "%s: out of memory", o->base);
}

static int set_credentials(struct http_origin *o, const struct origin_options *opts,
	const char *user, const char *password)
{
	const char *text = origin_options_get(opts, "http-user");

	return http_client_set_credentials(o->client, text ? text : user,
		text ? origin_options_get(opts, "http-password") : password,
		origin_options_get(opts, "http-token"));
}

static int open_parsed(struct http_origin *o, CURLU *u, const struct origin_options *opts,
	char **ret_shown, struct error *err)
{
	char *user = NULL, *password = NULL;
	int r = take_part(u, CURLUPART_USER, &user);

	if (r == 0)
		r = take_part(u, CURLUPART_PASSWORD, &password);
	if (r == 0) {
		o->base = base_url(u);
		r = o->base ? 0 : -ENOMEM;
	}
	if (r < 0)
		error_set_errno(err, r, "open the HTTP origin");
	if (r == 0)
		r = http_client_new(opts, &o->client, err);
	if (r == 0 && set_credentials(o, opts, user, password) < 0)
		r = error_set(err, -ENOMEM, "open the HTTP origin: out of memory");
	origin_secret_free(user);
	origin_secret_free(password);
	if (r < 0)
		return r;
	r = set_index(o, u, origin_options_get(opts, "index"), err);
	if (r < 0)
		return r;
	*ret_shown = strdup(o->base);
	return *ret_shown ? 0 : error_set(err, -ENOMEM, "%s: out of memory", o->base);
}

static int http_open(const char *url, const struct origin_options *opts, void **ret_impl,
	char **ret_shown, struct error *err)
{
	struct http_origin *o = calloc(1, sizeof(*o));
	CURLU *u = curl_url();
	int r;

	if (!o || !u)
		r = error_set(err, -ENOMEM, "out of memory");
	else if (curl_url_set(u, CURLUPART_URL, url, CURLU_URLENCODE) != CURLUE_OK)
		/* Not shown: where its password begins is just what could not be told. */
		r = error_set(err, -EINVAL, "the http URL is malformed: give http(s)://host/path/");
	else if (has_part(u, CURLUPART_QUERY) || has_part(u, CURLUPART_FRAGMENT))
		r = error_set(
			err, -EINVAL, "an http origin is a folder: its URL has no ? and no #");
	else
		r = open_parsed(o, u, opts, ret_shown, err);
	curl_url_cleanup(u);
	if (r == 0) {
		*ret_impl = o;
		return 0;
	}
	if (o)
		http_free(o);
	return r;
}

static int http_renew(void *impl, const struct origin_options *opts, struct error *err)
{
	struct http_origin *o = impl;
	int r = 0;

	/* Credentials of the URL cannot be renewed, and stay when the options bring none. */
	if (origin_options_get(opts, "http-user") || origin_options_get(opts, "http-token"))
		r = set_credentials(o, opts, NULL, NULL);
	if (r < 0)
		return error_set(err, r, "%s: out of memory", o->base);
	return http_client_renew_proxies(o->client, opts, err);
}

static const char *http_guarantee(void *impl)
{
	struct http_origin *o = impl;

	if (atomic_load(&o->with_nothing))
		return "size only";
	if (atomic_load(&o->with_time))
		return "modification time";
	return "etag";
}

static int http_list(void *impl, const struct origin_listing *l, struct error *err)
{
	return http_index_list(impl, l, err);
}

/* ---- stat and get ---------------------------------------------------------------------------- */

/* A path that a server would fold ("a/../b") names no object of a listing. */
static bool is_odd(const char *path, size_t len)
{
	for (size_t at = 0; at <= len;) {
		const char *slash = memchr(path + at, '/', len - at);
		size_t n = slash ? (size_t)(slash - path) - at : len - at;

		if (n == 0 || (n == 1 && path[at] == '.') ||
			(n == 2 && path[at] == '.' && path[at + 1] == '.'))
			return true;
		at += n + 1;
	}
	return false;
}

static int object_url(struct http_origin *o, const char *path, size_t len, struct buf *ret)
{
	int r = buf_append_str(ret, o->base);

	return r < 0 ? r : http_url_append_path(ret, path, len);
}

static int http_stat(void *impl, const char *path, size_t path_len, struct origin_entry *ret,
	char ret_validator[static 256], struct origin_attempt *at, struct error *err)
{
	struct http_origin *o = impl;
	cleanup_buf struct buf url = BUF_INIT;
	struct http_request req = {.method = "HEAD"};
	struct http_reply reply;
	int r;

	if (is_odd(path, path_len))
		return ORIGIN_GONE;
	if (object_url(o, path, path_len, &url) < 0)
		return error_set(err, -ENOMEM, "the name is too long");
	req.url = url.data;
	r = http_client_run(o->client, &req, &reply, at, err);
	if (r != 0)
		return r;
	if (reply.content_length < 0)
		return error_set(err, -EIO, "the server does not tell the size");
	if (reply.etag[0])
		strcpy(ret_validator, reply.etag);
	else if (reply.last_modified_s >= 0)
		snprintf(ret_validator, 256, HTTP_TIME_VALIDATOR "%" PRId64, reply.last_modified_s);
	else
		ret_validator[0] = '\0';
	*ret = (struct origin_entry){
		.path = path,
		.path_len = path_len,
		.type = ORIGIN_FILE,
		.size = (uint64_t)reply.content_length,
		.mtime_ns = origin_mtime_ns(reply.last_modified_s),
		.validator = ret_validator,
		.mode = ORIGIN_UNKNOWN_MODE,
		.uid = ORIGIN_UNKNOWN_ID,
		.gid = ORIGIN_UNKNOWN_ID,
	};
	return 0;
}

struct http_get {
	const struct origin_range *range;
	uint64_t skip; /* bytes in front of the range that a server without ranges sends */
	uint64_t filled;
	bool has_time;
	int64_t time_s; /* of the validator */
};

static bool is_weak(const char *etag)
{
	return etag[0] == 'W' && etag[1] == '/';
}

/* A strong etag is compared as a whole; a weak one by its opaque part. */
static bool etag_matches(const char *ours, const char *theirs)
{
	if (!is_weak(ours))
		return strcmp(ours, theirs) == 0;
	return strcmp(ours + 2, is_weak(theirs) ? theirs + 2 : theirs) == 0;
}

static int check_validator(
	const struct http_get *g, const struct http_reply *reply, struct error *err)
{
	const char *validator = g->range->validator;

	if (!validator[0])
		return 0;
	if (g->has_time)
		return reply->last_modified_s >= 0 && reply->last_modified_s != g->time_s
			       ? ORIGIN_CHANGED
			       : 0;
	if (!reply->etag[0])
		return error_set(err, -EIO,
			"the answer has no ETag to compare with the listing's %s", validator);
	return etag_matches(validator, reply->etag) ? 0 : ORIGIN_CHANGED;
}

static int check_whole(struct http_get *g, const struct http_reply *reply, struct error *err)
{
	const struct origin_range *range = g->range;

	if (reply->content_length >= 0 && (uint64_t)reply->content_length != range->object_bytes)
		return ORIGIN_CHANGED;
	if (range->offset > HTTP_SKIP_BYTES_MAX)
		return error_set(err, -EIO, "the server does not know ranges");
	g->skip = range->offset;
	return 0;
}

static int check_head(
	void *arg, const struct http_reply *reply, struct origin_attempt *at, struct error *err)
{
	struct http_get *g = arg;
	const struct origin_range *range = g->range;
	int r = check_validator(g, reply, err);

	(void)at;
	if (r != 0)
		return r;
	if (reply->encoded)
		return error_set(err, -EIO, "the server compresses what should come as it is");
	if (reply->status == 200)
		return check_whole(g, reply, err);
	if (reply->status != 206 || !reply->has_range)
		return error_set(err, -EIO, "HTTP %d without a Content-Range that makes sense",
			reply->status);
	if (reply->range_total >= 0 && (uint64_t)reply->range_total != range->object_bytes)
		return ORIGIN_CHANGED;
	if (reply->range_first != range->offset ||
		reply->range_last != range->offset + range->len - 1)
		return error_set(err, -EIO,
			"asked for bytes %" PRIu64 "-%" PRIu64 ", the answer has %" PRIu64
			"-%" PRIu64,
			range->offset, range->offset + range->len - 1, reply->range_first,
			reply->range_last);
	return 0;
}

static int take_body(
	void *arg, const void *data, size_t len, struct origin_attempt *at, struct error *err)
{
	struct http_get *g = arg;
	const struct origin_range *range = g->range;
	const unsigned char *bytes = data;
	uint64_t n;

	if (g->skip) {
		n = len < g->skip ? len : g->skip;
		attempt_count_received(at, n);
		g->skip -= n;
		bytes += n;
		len -= n;
	}
	n = range->len - g->filled < len ? range->len - g->filled : len;
	if (n == 0 && len == 0)
		return 0;
	memcpy(range->dst + g->filled, bytes, n);
	g->filled += n;
	if (n)
		attempt_arrived(at, n);
	if (n == len)
		return 0;
	/* Behind the range of an answer with everything: enough seen. */
	if (range->offset + range->len < range->object_bytes)
		return HTTP_ENOUGH;
	return error_set(err, -EIO, "the answer is longer than it may be");
}

static int run_get(struct http_origin *o, struct http_get *g, const char *url,
	const char *condition, struct origin_attempt *at, struct error *err)
{
	const struct origin_range *range = g->range;
	const char *headers[2] = {condition, NULL};
	struct http_request req = {
		.url = url,
		.headers = condition[0] ? headers : NULL,
		.ranged = range->len < range->object_bytes,
		.first = range->offset,
		.last = range->offset + range->len - 1,
		.on_head = check_head,
		.on_body = take_body,
		.arg = g,
	};
	struct http_reply reply;
	int r = http_client_run(o->client, &req, &reply, at, err);

	return r == HTTP_ENOUGH ? 0 : r;
}

/* By hand, because strftime writes days and months in the user's language. */
static void time_condition(int64_t time_s, char *room, size_t bytes)
{
	static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
	static const char months[12][4] = {
		"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	time_t t = (time_t)time_s;
	struct tm tm;

	if (gmtime_r(&t, &tm))
		snprintf(room, bytes, "If-Unmodified-Since: %s, %02d %s %d %02d:%02d:%02d GMT",
			days[tm.tm_wday], tm.tm_mday, months[tm.tm_mon], tm.tm_year + 1900,
			tm.tm_hour, tm.tm_min, tm.tm_sec);
}

static int http_get(
	void *impl, const struct origin_range *range, struct origin_attempt *at, struct error *err)
{
	struct http_get g = {.range = range};
	cleanup_buf struct buf url = BUF_INIT;
	char condition[HTTP_ETAG_BYTES + 64] = "";

	if (is_odd(range->path, range->path_len))
		return ORIGIN_GONE;
	if (object_url(impl, range->path, range->path_len, &url) < 0)
		return error_set(err, -ENOMEM, "the name is too long");
	if (sscanf(range->validator, HTTP_TIME_VALIDATOR "%" SCNd64, &g.time_s) == 1) {
		g.has_time = true;
		time_condition(g.time_s, condition, sizeof(condition));
	} else if (range->validator[0] && !is_weak(range->validator)) {
		/* If-Match compares strongly: with a weak etag it would never match. */
		snprintf(condition, sizeof(condition), "If-Match: %s", range->validator);
	}
	return run_get(impl, &g, url.data, condition, at, err);
}

const struct origin_ops origin_http_ops = {
	.scheme = "http",
	.open = http_open,
	.free = http_free,
	.guarantee = http_guarantee,
	.list = http_list,
	.stat = http_stat,
	.get = http_get,
	.renew = http_renew,
};

const struct origin_ops origin_https_ops = {
	.scheme = "https",
	.open = http_open,
	.free = http_free,
	.guarantee = http_guarantee,
	.list = http_list,
	.stat = http_stat,
	.get = http_get,
	.renew = http_renew,
};
