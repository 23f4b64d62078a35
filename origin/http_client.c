#include "origin/http_client.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

#include "common/cleanup.h"
#include "common/sync.h"
#include "origin/options.h"
#include "origin/origin_ops.h"
#include "origin/proxies.h"

#define HTTP_REDIRECTS_MAX 5
#define HTTP_BUFFER_BYTES (256 * 1024)
/* Of the body of an error, so that its connection can be used again; longer ones cost it. */
#define HTTP_ERROR_BODY_BYTES 65536

/* A libcurl handle with its connections: a multi handle of its own, because only multi lets us look
 * at deadlines more often than once a second. */
struct http_handle {
	CURL *easy;
	CURLM *multi;
	struct http_handle *next;
};

struct http_client {
	/* constant */
	char *ca_file;
	bool insecure;
	long connect_timeout_ms;
	int64_t stall_ms;
	unsigned handles_max;
	CURLSH *share;
	struct mutex share_mu[CURL_LOCK_DATA_LAST];

	struct mutex mu;
	struct cond returned;
	/* guarded by mu */
	struct http_handle *idle; /* last used first: its connection is the likeliest to be open */
	unsigned handles;	  /* idle and in use */
	char *user, *password, *token;
	struct proxies *proxies;
};

/* One running request. */
struct exchange {
	const struct http_request *req;
	struct http_reply *reply;
	struct origin_attempt *at;
	struct error *err;
	CURL *easy;
	bool https;
	struct proxies *proxies; /* our own reference */
	struct curl_slist *headers;
	char curl_error[CURL_ERROR_SIZE];
	bool head_done;
	int outcome; /* of the callbacks */
	uint64_t body_bytes;
	uint64_t error_body_bytes;
};

static void lock_share(CURL *easy, curl_lock_data what, curl_lock_access access, void *arg)
{
	(void)easy;
	(void)access;
	mutex_lock(&((struct http_client *)arg)->share_mu[what]);
}

static void unlock_share(CURL *easy, curl_lock_data what, void *arg)
{
	(void)easy;
	mutex_unlock(&((struct http_client *)arg)->share_mu[what]);
}

static void init_curl(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

static int copy_text(char **slot, const char *text)
{
	*slot = text && *text ? strdup(text) : NULL;
	return text && *text && !*slot ? -ENOMEM : 0;
}

static int copy_options(struct http_client *c, const struct origin_options *opts)
{
	int r = 0;

	r |= copy_text(&c->ca_file, origin_options_text(opts, "ca-file"));
	c->insecure = origin_options_yes(opts, "insecure");
	c->connect_timeout_ms = (long)origin_options_ms(opts, "connect-timeout");
	c->stall_ms = origin_options_ms(opts, "stall-timeout");
	c->handles_max = (unsigned)origin_options_number(opts, "max-connections");
	return r;
}

static struct http_client *client_alloc(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct http_client *c = calloc(1, sizeof(*c));

	pthread_once(&once, init_curl);
	if (!c)
		return NULL;
	mutex_init(&c->mu);
	cond_init(&c->returned);
	for (int i = 0; i < CURL_LOCK_DATA_LAST; i++)
		mutex_init(&c->share_mu[i]);
	c->share = curl_share_init();
	if (!c->share) {
		http_client_free(c);
		return NULL;
	}
	curl_share_setopt(c->share, CURLSHOPT_LOCKFUNC, lock_share);
	curl_share_setopt(c->share, CURLSHOPT_UNLOCKFUNC, unlock_share);
	curl_share_setopt(c->share, CURLSHOPT_USERDATA, c);
	curl_share_setopt(c->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
	curl_share_setopt(c->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
	return c;
}

int http_client_new(const struct origin_options *opts, struct http_client **ret, struct error *err)
{
	struct http_client *c = client_alloc();
	int r = 0;

	if (!c || copy_options(c, opts) != 0)
		r = error_set(err, -ENOMEM, "http client: out of memory");
	if (r == 0)
		r = proxies_new(opts, &c->proxies, err);
	if (r == 0)
		*ret = c;
	else
		http_client_free(c);
	return r;
}

static void handle_free(struct http_handle *h)
{
	curl_easy_cleanup(h->easy);
	curl_multi_cleanup(h->multi);
	free(h);
}

void http_client_free(struct http_client *c)
{
	if (!c)
		return;
	while (c->idle) {
		struct http_handle *h = c->idle;

		c->idle = h->next;
		handle_free(h);
	}
	if (c->share)
		curl_share_cleanup(c->share);
	for (int i = 0; i < CURL_LOCK_DATA_LAST; i++)
		mutex_deinit(&c->share_mu[i]);
	cond_deinit(&c->returned);
	mutex_deinit(&c->mu);
	free(c->ca_file);
	proxies_unref(c->proxies);
	origin_secret_free(c->user);
	origin_secret_free(c->password);
	origin_secret_free(c->token);
	free(c);
}

static void replace_secret(char **slot, char *copy)
{
	origin_secret_free(*slot);
	*slot = copy;
}

int http_client_set_credentials(
	struct http_client *c, const char *user, const char *password, const char *token)
{
	char *copies[3] = {NULL};

	if (copy_text(&copies[0], user) < 0 || copy_text(&copies[1], password) < 0 ||
		copy_text(&copies[2], token) < 0) {
		for (int i = 0; i < 3; i++)
			origin_secret_free(copies[i]);
		return -ENOMEM;
	}
	mutex_guard(&c->mu);
	replace_secret(&c->user, copies[0]);
	replace_secret(&c->password, copies[1]);
	replace_secret(&c->token, copies[2]);
	return 0;
}

int http_client_renew_proxies(
	struct http_client *c, const struct origin_options *opts, struct error *err)
{
	struct proxies *fresh, *old;
	int r = proxies_new(opts, &fresh, err);

	if (r < 0)
		return r;
	mutex_lock(&c->mu);
	old = c->proxies;
	c->proxies = fresh;
	mutex_unlock(&c->mu);
	proxies_unref(old);
	return 0;
}

static struct http_handle *handle_new(void)
{
	struct http_handle *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->easy = curl_easy_init();
	h->multi = curl_multi_init();
	if (h->easy && h->multi)
		return h;
	handle_free(h);
	return NULL;
}

/* An idle handle, a new one, or the next that is returned; NULL with *ret_out. */
static struct http_handle *take_handle(
	struct http_client *c, struct origin_attempt *at, int *ret_out, struct error *err)
{
	struct http_handle *h;

	mutex_guard(&c->mu);
	while (!c->idle && c->handles >= c->handles_max) {
		if (attempt_stopped(at)) {
			*ret_out = attempt_retry(
				at, "no connection was free (max-connections %u)", c->handles_max);
			return NULL;
		}
		cond_wait(&c->returned, &c->mu, clock_deadline_ms(HTTP_SLICE_MS));
	}
	h = c->idle;
	if (h) {
		c->idle = h->next;
		return h;
	}
	h = handle_new();
	if (h)
		c->handles++;
	else
		*ret_out = error_set(err, -ENOMEM, "out of memory for a connection");
	return h;
}

static void return_handle(struct http_client *c, struct http_handle *h)
{
	/* Forgets the request and its secrets; connections stay. */
	curl_easy_reset(h->easy);
	mutex_guard(&c->mu);
	h->next = c->idle;
	c->idle = h;
	cond_signal(&c->returned);
}

/* ---- the answer ------------------------------------------------------------------------------ */

static const char *header(CURL *easy, const char *name)
{
	struct curl_header *h;

	return curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &h) == CURLHE_OK ? h->value : NULL;
}

static void copy_header(CURL *easy, const char *name, char *room, size_t bytes)
{
	const char *value = header(easy, name);

	/* One that does not fit is not cut: half an etag would match the wrong object. */
	if (value && strlen(value) < bytes)
		strcpy(room, value);
}

/* "bytes 0-99/1000" or "bytes 0-99" with an unknown total of "*". */
static bool parse_content_range(const char *value, struct http_reply *reply)
{
	uint64_t first, last, total;
	int end = 0;

	if (!value)
		return false;
	if (sscanf(value, "bytes %" SCNu64 "-%" SCNu64 "/%n", &first, &last, &end) < 2 || end == 0)
		return false;
	reply->range_first = first;
	reply->range_last = last;
	reply->range_total = -1;
	if (strcmp(value + end, "*") == 0)
		return first <= last;
	if (sscanf(value + end, "%" SCNu64 "%n", &total, &end) != 1 || total > INT64_MAX)
		return false;
	reply->range_total = (int64_t)total;
	return first <= last && last < total;
}

static void fill_reply(struct exchange *x)
{
	struct http_reply *reply = x->reply;
	const char *encoding = header(x->easy, "Content-Encoding");
	curl_off_t length = -1;
	long status = 0;

	memset(reply, 0, sizeof(*reply));
	curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(x->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
	reply->status = (int)status;
	reply->content_length = length;
	reply->last_modified_s = -1;
	copy_header(x->easy, "ETag", reply->etag, sizeof(reply->etag));
	copy_header(x->easy, "Content-Type", reply->content_type, sizeof(reply->content_type));
	copy_header(
		x->easy, "x-amz-bucket-region", reply->bucket_region, sizeof(reply->bucket_region));
	if (header(x->easy, "Last-Modified"))
		reply->last_modified_s = curl_getdate(header(x->easy, "Last-Modified"), NULL);
	reply->encoded = encoding && strcasecmp(encoding, "identity") != 0;
	reply->has_range = parse_content_range(header(x->easy, "Content-Range"), reply);
}

/* Once per request, when all headers of the last answer are there. */
static void head_arrived(struct exchange *x)
{
	if (x->head_done)
		return;
	x->head_done = true;
	fill_reply(x);
	if (x->reply->status / 100 == 2 && x->req->on_head)
		x->outcome = x->req->on_head(x->req->arg, x->reply, x->at, x->err);
}

static void keep_refusal(struct buf *b, const char *data, size_t bytes)
{
	if (b && b->room > b->len + bytes)
		buf_append(b, data, bytes);
}

static size_t on_write(char *data, size_t size, size_t n, void *arg)
{
	struct exchange *x = arg;
	size_t bytes = size * n;

	head_arrived(x);
	if (x->outcome != 0)
		return 0;
	x->body_bytes += bytes;
	if (x->reply->status / 100 != 2) {
		keep_refusal(x->req->refusal, data, bytes);
		x->error_body_bytes += bytes;
		return x->error_body_bytes > HTTP_ERROR_BODY_BYTES ? 0 : bytes;
	}
	if (x->req->on_body)
		x->outcome = x->req->on_body(x->req->arg, data, bytes, x->at, x->err);
	return x->outcome == 0 ? bytes : 0;
}

/* The proxy that may have had a part in it; a request through a tunnel is answered by the server. */
static const char *proxy_note(const struct exchange *x)
{
	return x->req->foreign ? "" : proxies_note(x->proxies, x->https);
}

static const char *plain_proxy_note(const struct exchange *x)
{
	return x->https ? "" : proxy_note(x);
}

static int refused_by_proxy(struct exchange *x, long status)
{
	if (status == 407)
		return error_set(x->err, -EACCES,
			"HTTP 407: the proxy wants a user and password, or others than it got%s",
			proxy_note(x));
	return error_set(x->err, -EACCES, "HTTP %ld: the proxy does not connect to this server%s",
		status, proxy_note(x));
}

static int classify_status(struct exchange *x)
{
	struct origin_attempt *at = x->at;
	int status = x->reply->status;
	curl_off_t after_s = 0;

	if (status / 100 == 2)
		return 0;
	switch (status) {
	case 404:
	case 410:
		return ORIGIN_GONE;
	case 412:
	case 416:
		return ORIGIN_CHANGED;
	case 401:
	case 403:
		return attempt_refused(at, "HTTP %d: the server refuses these credentials%s",
			status, plain_proxy_note(x));
	case 407:
		return refused_by_proxy(x, status);
	case 408:
	case 425:
	case 429:
		break;
	default:
		if (status / 100 != 5)
			return error_set(x->err, -EIO, "HTTP %d%s", status, plain_proxy_note(x));
	}
	curl_easy_getinfo(x->easy, CURLINFO_RETRY_AFTER, &after_s);
	attempt_pause(at, after_s);
	return attempt_retry(at, "HTTP %d%s", status, plain_proxy_note(x));
}

/* What libcurl said about the transfer, when no callback of ours ended it. */
static int classify_transfer(struct exchange *x, CURLcode code)
{
	const char *text = x->curl_error[0] ? x->curl_error : curl_easy_strerror(code);
	long tunnel = 0; /* the proxy's answer to our CONNECT */

	curl_easy_getinfo(x->easy, CURLINFO_HTTP_CONNECTCODE, &tunnel);
	if (code != CURLE_OK && (tunnel == 401 || tunnel == 403 || tunnel == 407))
		return refused_by_proxy(x, tunnel);
	switch (code) {
	case CURLE_OK:
		return 0;
	case CURLE_OUT_OF_MEMORY:
		return error_set(x->err, -ENOMEM, "out of memory");
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
		return error_set(x->err, -EIO,
			"the server's certificate cannot be verified: %s: give "
			"its authority with ca-file",
			text);
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_URL_MALFORMAT:
	case CURLE_TOO_MANY_REDIRECTS:
	case CURLE_NOT_BUILT_IN:
	case CURLE_BAD_FUNCTION_ARGUMENT:
		return error_set(x->err, -EIO, "%s", text);
	default:
		x->at->unreachable = !x->head_done;
		return attempt_retry(x->at, "%s%s", text, proxy_note(x));
	}
}

/* ---- the request ----------------------------------------------------------------------------- */

static int add_header(struct exchange *x, const char *line)
{
	struct curl_slist *longer = curl_slist_append(x->headers, line);

	if (!longer)
		return -ENOMEM;
	x->headers = longer;
	return 0;
}

static void set_security(struct http_client *c, struct exchange *x)
{
	CURL *e = x->easy;

	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(e, CURLOPT_REDIR_PROTOCOLS_STR, x->https ? "https" : "http,https");
	/* A body may be a secret (a web identity): it goes where it was sent to, nowhere else. */
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, x->req->foreign || x->req->body ? 0L : 1L);
	curl_easy_setopt(e, CURLOPT_MAXREDIRS, (long)HTTP_REDIRECTS_MAX);
	if (c->ca_file)
		curl_easy_setopt(e, CURLOPT_CAINFO, c->ca_file);
	if (c->insecure) {
		curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	if (x->req->foreign) {
		curl_easy_setopt(e, CURLOPT_PROXY, "");
		return;
	}
	if (proxies_url(x->proxies, x->https))
		curl_easy_setopt(e, CURLOPT_PROXY, proxies_url(x->proxies, x->https));
	if (proxies_exceptions(x->proxies))
		curl_easy_setopt(e, CURLOPT_NOPROXY, proxies_exceptions(x->proxies));
	mutex_guard(&c->mu);
	if (c->token) {
		curl_easy_setopt(e, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
		curl_easy_setopt(e, CURLOPT_XOAUTH2_BEARER, c->token);
	} else if (c->user) {
		curl_easy_setopt(e, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
		curl_easy_setopt(e, CURLOPT_USERNAME, c->user);
		curl_easy_setopt(e, CURLOPT_PASSWORD, c->password ? c->password : "");
	}
}

static int set_request(struct http_client *c, struct exchange *x)
{
	const struct http_request *req = x->req;
	CURL *e = x->easy;
	char range[64];
	int r = 0;

	curl_easy_setopt(e, CURLOPT_URL, req->url);
	curl_easy_setopt(e, CURLOPT_SHARE, c->share);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, c->connect_timeout_ms);
	curl_easy_setopt(e, CURLOPT_BUFFERSIZE, (long)HTTP_BUFFER_BYTES);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
	/* Ranges come faster over connections of their own than through the windows of one. */
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(e, CURLOPT_USERAGENT, "granary");
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, x->curl_error);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_write);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, x);
	set_security(c, x);

	r |= add_header(x, "Accept-Encoding: identity");
	for (size_t i = 0; req->headers && req->headers[i]; i++)
		r |= add_header(x, req->headers[i]);
	if (req->ranged) {
		if (req->last == UINT64_MAX)
			snprintf(range, sizeof(range), "%" PRIu64 "-", req->first);
		else
			snprintf(range, sizeof(range), "%" PRIu64 "-%" PRIu64, req->first,
				req->last);
		curl_easy_setopt(e, CURLOPT_RANGE, range);
	}
	if (req->body)
		curl_easy_setopt(e, CURLOPT_COPYPOSTFIELDS, req->body);
	if (req->method && strcmp(req->method, "HEAD") == 0)
		curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
	else if (req->method)
		curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, req->method);
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, x->headers);
	return r;
}

/* Drives the transfer until it is done, stopped or stalled. */
static int perform(struct http_client *c, struct http_handle *h, struct exchange *x)
{
	uint64_t seen_bytes = 0;
	int64_t seen_ms = clock_mono_ms();
	int running = 1;

	for (;;) {
		CURLMcode m = curl_multi_perform(h->multi, &running);
		CURLMsg *msg;
		int left;

		if (m != CURLM_OK)
			return attempt_retry(x->at, "%s", curl_multi_strerror(m));
		if (!running) {
			msg = curl_multi_info_read(h->multi, &left);
			return classify_transfer(x, msg ? msg->data.result : CURLE_RECV_ERROR);
		}
		if (attempt_stopped(x->at))
			return attempt_retry(x->at, "no answer within the time for one attempt%s",
				proxy_note(x));
		if (x->body_bytes != seen_bytes) {
			seen_bytes = x->body_bytes;
			seen_ms = clock_mono_ms();
		} else if (clock_mono_ms() - seen_ms >
			   c->stall_ms + c->connect_timeout_ms * (x->head_done ? 0 : 1)) {
			return attempt_retry(x->at, "the connection stalled for %lld s%s",
				(long long)(clock_mono_ms() - seen_ms) / 1000, proxy_note(x));
		}
		curl_multi_poll(h->multi, NULL, 0, HTTP_SLICE_MS, NULL);
	}
}

static int run_on(struct http_client *c, struct http_handle *h, struct exchange *x)
{
	int r;

	x->easy = h->easy;
	if (set_request(c, x) != 0)
		return error_set(x->err, -ENOMEM, "out of memory");
	if (curl_multi_add_handle(h->multi, h->easy) != CURLM_OK)
		return error_set(x->err, -ENOMEM, "out of memory for a transfer");
	r = perform(c, h, x);
	if (r == 0)
		head_arrived(x);
	/* A callback's outcome is why libcurl saw a write fail. */
	if (x->outcome != 0)
		r = x->outcome;
	else if (x->head_done && x->reply->status / 100 != 2)
		r = classify_status(x);
	curl_multi_remove_handle(h->multi, h->easy);
	return r;
}

int http_client_run(struct http_client *c, const struct http_request *req,
	struct http_reply *ret_reply, struct origin_attempt *at, struct error *err)
{
	struct exchange x = {.req = req,
		.reply = ret_reply,
		.at = at,
		.err = err,
		.https = strncasecmp(req->url, "https:", 6) == 0};
	struct http_handle *h;
	int r = -EIO;

	memset(ret_reply, 0, sizeof(*ret_reply));
	h = take_handle(c, at, &r, err);
	if (!h)
		return r;
	mutex_lock(&c->mu);
	x.proxies = proxies_ref(c->proxies);
	mutex_unlock(&c->mu);
	r = run_on(c, h, &x);
	proxies_unref(x.proxies);
	curl_slist_free_all(x.headers);
	return_handle(c, h);
	return r;
}
