/*
 * s3://bucket[/prefix]: objects of an S3 server, through libs3.
 *
 * The validator is the listing's etag as the server writes it. A get sends it as If-Match and
 * checks etag, range and size of the answer before the first byte is taken.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

#include "common/cleanup.h"
#include "origin/options.h"
#include "origin/s3_origin.h"
#include "origin/s3_profile.h"

static void s3_free(void *impl)
{
	struct s3_origin *o = impl;

	s3_credentials_free(o->credentials);
	http_client_free(o->client);
	proxies_unref(o->proxies);
	cond_deinit(&o->freed);
	mutex_deinit(&o->mu);
	free(o->bucket);
	free(o->prefix);
	free(o->host);
	free(o->ca_file);
	free(o);
}

/* ---- open ------------------------------------------------------------------------------------ */

static int parse_url(struct s3_origin *o, const char *url, char **ret_shown, struct error *err)
{
	const char *bucket = url + strlen("s3://");
	size_t bucket_len = strcspn(bucket, "/");
	const char *prefix = bucket + bucket_len;
	size_t prefix_len;

	prefix += strspn(prefix, "/");
	prefix_len = strlen(prefix);
	while (prefix_len && prefix[prefix_len - 1] == '/')
		prefix_len--;
	if (prefix_len + 1 > S3_MAX_KEY_SIZE)
		return error_set(err, -EINVAL, "the prefix is longer than a key may be");
	if (asprintf(&o->bucket, "%.*s", (int)bucket_len, bucket) < 0)
		o->bucket = NULL;
	if (asprintf(&o->prefix, "%.*s%s", (int)prefix_len, prefix, prefix_len ? "/" : "") < 0)
		o->prefix = NULL;
	if (!o->bucket || !o->prefix ||
		asprintf(ret_shown, "s3://%s%s%.*s", o->bucket, prefix_len ? "/" : "",
			(int)prefix_len, prefix) < 0) {
		*ret_shown = NULL;
		return error_set(err, -ENOMEM, "out of memory");
	}
	if (strchr(o->bucket, '@') || strchr(o->bucket, ':') ||
		S3_validate_bucket_name(o->bucket, S3UriStylePath) != S3StatusOK)
		return error_set(err, -EINVAL,
			"an S3 origin is s3://bucket/prefix with a valid bucket name: give "
			"server and keys as options");
	return 0;
}

/* "https://host:port", "http://host" or "host". */
static int parse_endpoint(struct s3_origin *o, const char *endpoint, struct error *err)
{
	CURLU *u = curl_url();
	char *scheme = NULL, *host = NULL, *port = NULL, *path = NULL, *user = NULL;
	int r = 0;

	if (!u || curl_url_set(u, CURLUPART_URL, endpoint, CURLU_DEFAULT_SCHEME) != CURLUE_OK ||
		curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
		curl_url_get(u, CURLUPART_HOST, &host, 0) != CURLUE_OK ||
		(strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0) ||
		curl_url_get(u, CURLUPART_USER, &user, 0) == CURLUE_OK ||
		(curl_url_get(u, CURLUPART_PATH, &path, 0) == CURLUE_OK &&
			strcmp(path, "/") != 0)) {
		r = error_set(err, -EINVAL,
			"option endpoint: give http(s)://host[:port] without a path or user");
	} else {
		curl_url_get(u, CURLUPART_PORT, &port, 0);
		o->protocol = strcmp(scheme, "http") == 0 ? S3ProtocolHTTP : S3ProtocolHTTPS;
		if (asprintf(&o->host, "%s%s%s", host, port ? ":" : "", port ? port : "") < 0) {
			o->host = NULL;
			r = error_set(err, -ENOMEM, "out of memory");
		}
	}
	curl_free(scheme);
	curl_free(host);
	curl_free(port);
	curl_free(path);
	curl_free(user);
	curl_url_cleanup(u);
	return r;
}

static void choose_style(struct s3_origin *o, const char *addressing)
{
	bool fits_host = S3_validate_bucket_name(o->bucket, S3UriStyleVirtualHost) == S3StatusOK;

	/* A dot in the bucket's name is one label too many for AWS's certificates. */
	if (strcmp(addressing, "virtual") == 0 || (strcmp(addressing, "auto") == 0 && !o->host &&
							  fits_host && !strchr(o->bucket, '.')))
		o->style = S3UriStyleVirtualHost;
	else
		o->style = S3UriStylePath;
}

/* Region and endpoint of the options, else of the profile. */
static int place(struct s3_origin *o, const struct origin_options *opts, struct error *err)
{
	const char *region = origin_options_get(opts, "region");
	const char *endpoint = origin_options_get(opts, "endpoint");
	struct s3_profile profile = {0};
	int r = 0;

	if (!region || !endpoint) {
		/* What is wrong with these files is said when keys are wanted from them. */
		if (s3_profile_read(opts, &profile, NULL) < 0)
			memset(&profile, 0, sizeof(profile));
		region = region ? region : profile.region;
		endpoint = endpoint ? endpoint : profile.endpoint;
	}
	if (region && (strlen(region) >= sizeof(o->region) || strpbrk(region, "/ .:@")))
		r = error_set(err, -EINVAL, "option region: '%s' is no region", region);
	else if (region)
		strcpy(o->region, region);
	if (r == 0 && endpoint)
		r = parse_endpoint(o, endpoint, err);
	s3_profile_deinit(&profile);
	return r;
}

static void init_library(void)
{
	const S3ConnectionSettings settings = {.lowSpeedSeconds = 3600,
		.lowSpeedBytesPerSecond = 1,
		.maxIdleConnections = 1024,
		.receiveBufferBytes = 256 * 1024};
	struct sigaction old;

	S3_initialize("granary", S3_INIT_ALL, NULL);
	/* Stalls are ours to notice: s3_call.c knows the origin's own limit. */
	S3_set_connection_settings(&settings);
	/* TLS writes to a closed connection raise it, from any thread. */
	if (sigaction(SIGPIPE, NULL, &old) == 0 && old.sa_handler == SIG_DFL)
		signal(SIGPIPE, SIG_IGN);
}

static int fill(struct s3_origin *o, const char *url, const struct origin_options *opts,
	char **ret_shown, struct error *err)
{
	const char *ca_file = origin_options_get(opts, "ca-file");
	int r = parse_url(o, url, ret_shown, err);

	if (r == 0)
		r = place(o, opts, err);
	if (r < 0)
		return r;
	choose_style(o, origin_options_text(opts, "addressing"));
	o->sign = origin_options_yes(opts, "sign");
	o->requester_pays = origin_options_yes(opts, "requester-pays");
	o->insecure = origin_options_yes(opts, "insecure");
	o->stall_ms = origin_options_ms(opts, "stall-timeout");
	o->requests_max = (unsigned)origin_options_number(opts, "max-connections");
	if (!ca_file)
		ca_file = origin_options_get(opts, "aws-ca-file");
	if (ca_file)
		o->ca_file = strdup(ca_file);
	if (ca_file && !o->ca_file)
		return error_set(err, -ENOMEM, "out of memory");
	r = proxies_new(opts, &o->proxies, err);
	if (r == 0)
		r = http_client_new(opts, &o->client, err);
	if (r < 0)
		return r;
	return s3_credentials_new(opts, &o->credentials, err);
}

static int s3_open(const char *url, const struct origin_options *opts, void **ret_impl,
	char **ret_shown, struct error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct s3_origin *o = calloc(1, sizeof(*o));
	int r;

	pthread_once(&once, init_library);
	if (!o)
		return error_set(err, -ENOMEM, "out of memory");
	mutex_init(&o->mu);
	cond_init(&o->freed);
	*ret_shown = NULL;
	r = fill(o, url, opts, ret_shown, err);
	if (r == 0) {
		*ret_impl = o;
		return 0;
	}
	s3_free(o);
	return r;
}

static const char *s3_guarantee(void *impl)
{
	(void)impl;
	return "etag";
}

/* ---- stat and get ---------------------------------------------------------------------------- */

/* The object's key, or false when no object can have it. */
static bool make_key(
	struct s3_origin *o, const char *path, size_t len, char key[static S3_MAX_KEY_SIZE + 1])
{
	size_t prefix_len = strlen(o->prefix);

	if (len == 0 || prefix_len + len > S3_MAX_KEY_SIZE || memchr(path, '\0', len))
		return false;
	memcpy(key, o->prefix, prefix_len);
	memcpy(key + prefix_len, path, len);
	key[prefix_len + len] = '\0';
	return true;
}

struct s3_stat {
	struct s3_call call; /* first: libs3's callbacks get it */
	struct origin_entry *ret;
	char *validator;
};

static int stat_head(struct s3_call *call, const S3ResponseProperties *head)
{
	struct s3_stat *s = (struct s3_stat *)call;

	if (head->eTag && strlen(head->eTag) >= 256)
		return error_set(call->err, -EIO, "the etag is too long");
	strcpy(s->validator, head->eTag ? head->eTag : "");
	s->ret->size = head->contentLength;
	s->ret->mtime_ns = origin_mtime_ns(head->lastModified);
	return 0;
}

static int s3_stat(void *impl, const char *path, size_t path_len, struct origin_entry *ret,
	char ret_validator[static 256], struct origin_attempt *at, struct error *err)
{
	static const S3ResponseHandler handler = {s3_call_properties, s3_call_complete};
	struct s3_stat s = {.call.on_head = stat_head, .ret = ret, .validator = ret_validator};
	char key[S3_MAX_KEY_SIZE + 1];
	int r;

	if (!make_key(impl, path, path_len, key))
		return ORIGIN_GONE;
	*ret = (struct origin_entry){
		.path = path,
		.path_len = path_len,
		.type = ORIGIN_FILE,
		.validator = ret_validator,
		.mode = ORIGIN_UNKNOWN_MODE,
		.uid = ORIGIN_UNKNOWN_ID,
		.gid = ORIGIN_UNKNOWN_ID,
	};
	r = s3_call_begin(&s.call, impl, at, err);
	if (r != 0)
		return r;
	S3_head_object(&s.call.bucket, key, NULL, s.call.timeout_ms, &handler, &s.call);
	return s3_call_end(&s.call);
}

struct s3_get {
	struct s3_call call; /* first: libs3's callbacks get it */
	const struct origin_range *range;
	uint64_t filled;
};

static int get_head(struct s3_call *call, const S3ResponseProperties *head)
{
	const struct origin_range *range = ((struct s3_get *)call)->range;
	int64_t last = (int64_t)(range->offset + range->len - 1);

	if (range->validator[0] && !head->eTag)
		return error_set(call->err, -EIO,
			"the answer has no ETag to compare with the listing's %s",
			range->validator);
	if (range->validator[0] && strcmp(head->eTag, range->validator) != 0)
		return ORIGIN_CHANGED;
	if (head->httpStatus == 200) {
		if (head->contentLength != range->object_bytes)
			return ORIGIN_CHANGED;
		if (range->len != range->object_bytes)
			return error_set(call->err, -EIO, "the server does not know ranges");
		return 0;
	}
	if (head->httpStatus != 206)
		return error_set(
			call->err, -EIO, "HTTP %d is no answer to a get", head->httpStatus);
	if (head->contentRangeTotal >= 0 &&
		(uint64_t)head->contentRangeTotal != range->object_bytes)
		return ORIGIN_CHANGED;
	if (head->contentRangeStart != (int64_t)range->offset || head->contentRangeEnd != last)
		return error_set(call->err, -EIO,
			"asked for bytes %" PRIu64 "-%" PRId64 ", the answer has %" PRId64
			"-%" PRId64,
			range->offset, last, head->contentRangeStart, head->contentRangeEnd);
	return 0;
}

static S3Status get_data(int bytes, const char *data, void *arg)
{
	struct s3_get *g = arg;

	if ((uint64_t)bytes > g->range->len - g->filled) {
		g->call.outcome =
			error_set(g->call.err, -EIO, "the answer is longer than it may be");
		return S3StatusAbortedByCallback;
	}
	memcpy(g->range->dst + g->filled, data, (size_t)bytes);
	g->filled += (uint64_t)bytes;
	g->call.bytes += (uint64_t)bytes;
	attempt_arrived(g->call.at, (uint64_t)bytes);
	return S3StatusOK;
}

static int s3_get(
	void *impl, const struct origin_range *range, struct origin_attempt *at, struct error *err)
{
	static const S3GetObjectHandler handler = {
		{s3_call_properties, s3_call_complete}, get_data};
	const S3GetConditions conditions = {
		.ifModifiedSince = -1,
		.ifNotModifiedSince = -1,
		.ifMatchETag = range->validator[0] ? range->validator : NULL,
	};
	struct s3_get g = {.call.on_head = get_head, .range = range};
	char key[S3_MAX_KEY_SIZE + 1];
	int r;

	if (!make_key(impl, range->path, range->path_len, key))
		return ORIGIN_GONE;
	r = s3_call_begin(&g.call, impl, at, err);
	if (r != 0)
		return r;
	S3_get_object(&g.call.bucket, key, &conditions, range->offset, range->len, NULL,
		g.call.timeout_ms, &handler, &g.call);
	return s3_call_end(&g.call);
}

static int s3_list_op(void *impl, const struct origin_listing *l, struct error *err)
{
	return s3_list(impl, l, err);
}

static int s3_reread(void *impl, struct origin_attempt *at, struct error *err)
{
	struct s3_origin *o = impl;

	return s3_credentials_reread(o->credentials, at, err);
}

static int s3_renew(void *impl, const struct origin_options *opts, struct error *err)
{
	struct s3_origin *o = impl;
	struct proxies *fresh, *old;
	int r = s3_credentials_renew(o->credentials, opts, err);

	if (r == 0)
		r = http_client_renew_proxies(o->client, opts, err);
	if (r == 0)
		r = proxies_new(opts, &fresh, err);
	if (r < 0)
		return r;
	mutex_lock(&o->mu);
	old = o->proxies;
	o->proxies = fresh;
	mutex_unlock(&o->mu);
	proxies_unref(old);
	return 0;
}

const struct origin_ops origin_s3_ops = {
	.scheme = "s3",
	.open = s3_open,
	.free = s3_free,
	.guarantee = s3_guarantee,
	.list = s3_list_op,
	.stat = s3_stat,
	.get = s3_get,
	.reread_credentials = s3_reread,
	.renew = s3_renew,
};
