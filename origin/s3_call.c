#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/buf.h"
#include "origin/s3_origin.h"

#define WAIT_SLICE_MS 100

/* ---- begin ----------------------------------------------------------------------------------- */

static int take_slot(struct s3_origin *o, struct origin_attempt *at)
{
	mutex_guard(&o->mu);
	while (o->requests >= o->requests_max) {
		if (attempt_stopped(at))
			return attempt_retry(
				at, "no connection was free (max-connections %u)", o->requests_max);
		cond_wait(&o->freed, &o->mu, clock_deadline_ms(WAIT_SLICE_MS));
	}
	o->requests++;
	return 0;
}

static void free_slot(struct s3_origin *o)
{
	mutex_guard(&o->mu);
	o->requests--;
	cond_signal(&o->freed);
}

/* libs3 asks while it waits. */
static int should_end(void *arg)
{
	struct s3_call *call = arg;

	if (attempt_stopped(call->at))
		return 1;
	if (call->bytes != call->seen_bytes) {
		call->seen_bytes = call->bytes;
		call->seen_ms = clock_mono_ms();
	} else if (clock_mono_ms() - call->seen_ms > call->o->stall_ms) {
		call->stalled = true;
		return 1;
	}
	return 0;
}

static void address(struct s3_call *call)
{
	struct s3_origin *o = call->o;
	const char *region;

	mutex_lock(&o->mu);
	strcpy(call->region, o->region);
	call->proxies = proxies_ref(o->proxies);
	mutex_unlock(&o->mu);
	region = call->region[0] ? call->region : S3_DEFAULT_REGION;
	if (o->host)
		snprintf(call->host, sizeof(call->host), "%s", o->host);
	else
		snprintf(call->host, sizeof(call->host), "s3.%s.amazonaws.com%s", region,
			strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
}

static void fill_context(struct s3_call *call)
{
	struct s3_origin *o = call->o;
	int64_t left = clock_left_ms(call->at->deadline_ms);

	call->headers[0] = (S3NameValue){"x-amz-request-payer", "requester"};
	call->extras = (S3RequestExtras){
		.headersCount = o->requester_pays ? 1 : 0,
		.headers = call->headers,
		.caFile = o->ca_file,
		.skipVerifyPeer = o->insecure,
		.cancelCallback = should_end,
		.cancelData = call,
		.proxy = proxies_url(call->proxies, o->protocol == S3ProtocolHTTPS),
		.noProxy = proxies_exceptions(call->proxies),
	};
	call->bucket = (S3BucketContext){
		.hostName = call->host,
		.bucketName = o->bucket,
		.protocol = o->protocol,
		.uriStyle = o->style,
		.accessKeyId = call->keys.access_key_id,
		.secretAccessKey = call->keys.secret_access_key,
		.securityToken = call->keys.session_token,
		.authRegion = call->region[0] ? call->region : NULL,
		.extras = &call->extras,
	};
	call->timeout_ms = left < 1 ? 1 : left > 3600000 ? 3600000 : (int)left;
	call->seen_ms = clock_mono_ms();
}

int s3_call_begin(
	struct s3_call *call, struct s3_origin *o, struct origin_attempt *at, struct error *err)
{
	int r;

	call->o = o;
	call->at = at;
	call->err = err;
	call->status = S3StatusInternalError; /* until libs3 says what it was */
	if (o->sign) {
		r = s3_credentials_get(o->credentials, &call->keys, at, err);
		if (r != 0)
			return r;
	}
	r = take_slot(o, at);
	if (r != 0) {
		s3_keys_deinit(&call->keys);
		return r;
	}
	address(call);
	fill_context(call);
	return 0;
}

/* ---- the answer ------------------------------------------------------------------------------ */

S3Status s3_call_properties(const S3ResponseProperties *head, void *arg)
{
	struct s3_call *call = arg;

	call->bytes++;
	call->http_status = head->httpStatus;
	if (call->on_head)
		call->outcome = call->on_head(call, head);
	return call->outcome == 0 ? S3StatusOK : S3StatusAbortedByCallback;
}

static void copy(char *room, size_t bytes, const char *text)
{
	snprintf(room, bytes, "%s", text ? text : "");
}

void s3_call_complete(S3Status status, const S3ErrorDetails *details, void *arg)
{
	struct s3_call *call = arg;
	const char *message = details ? details->message : NULL;

	call->status = status;
	if (!details)
		return;
	if (details->httpStatus)
		call->http_status = details->httpStatus;
	call->retry_after_s = details->retryAfterSeconds;
	call->proxy_status = details->proxyStatus;
	if (!message)
		message = details->transportError;
	copy(call->code, sizeof(call->code), details->code);
	copy(call->message, sizeof(call->message), message);
	copy(call->told_region, sizeof(call->told_region), details->region);
}

/* ---- the bucket's region --------------------------------------------------------------------- */

/* From the header that even refusals carry. False when the server does not tell. */
static bool ask_region(struct s3_call *call)
{
	struct s3_origin *o = call->o;
	cleanup_buf struct buf url = BUF_INIT;
	struct http_request req = {.method = "HEAD"};
	struct http_reply reply = {0};
	struct origin_attempt at = *call->at;
	struct error ignored = ERROR_INIT;
	int r;

	r = o->style == S3UriStylePath ? buf_printf(&url, "%s://%s/%s",
						 o->protocol == S3ProtocolHTTP ? "http" : "https",
						 call->host, o->bucket)
				       : buf_printf(&url, "%s://%s.%s/",
						 o->protocol == S3ProtocolHTTP ? "http" : "https",
						 o->bucket, call->host);
	if (r < 0)
		return false;
	req.url = url.data;
	/* A refusal is the answer we expect: only the header matters, never the outcome. */
	r = http_client_run(o->client, &req, &reply, &at, &ignored);
	if (!reply.bucket_region[0])
		return false;
	copy(call->told_region, sizeof(call->told_region), reply.bucket_region);
	return true;
}

static bool is_region(const char *text)
{
	return text[0] && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(text);
}

/* The request went to the wrong region: remembers the right one for the retry. */
static int follow_region(struct s3_call *call)
{
	struct s3_origin *o = call->o;

	if (!is_region(call->told_region) && !ask_region(call))
		return error_set(call->err, -EIO,
			"the bucket is in another region, which the server does not tell: "
			"give it with the option region");
	if (!is_region(call->told_region) || strcmp(call->told_region, call->region) == 0)
		return error_set(call->err, -EIO,
			"the server sends this request to another place (%s): check "
			"endpoint and region",
			call->code);
	mutex_guard(&o->mu);
	strcpy(o->region, call->told_region);
	return attempt_retry(call->at, "the bucket is in region %s", call->told_region);
}

/* ---- what an answer means -------------------------------------------------------------------- */

static bool code_is_one_of(const struct s3_call *call, const char *const *codes)
{
	for (; *codes; codes++) {
		if (strcmp(call->code, *codes) == 0)
			return true;
	}
	return false;
}

static bool is_elsewhere(const struct s3_call *call)
{
	static const char *const codes[] = {"AuthorizationHeaderMalformed", "PermanentRedirect",
		"TemporaryRedirect", "Redirect", "IllegalLocationConstraintException",
		"IncorrectEndpoint", NULL};

	return code_is_one_of(call, codes) || call->http_status == 301 ||
	       call->http_status == 307 ||
	       /* HEAD has no error document: a bad region is a bare 400. */
	       (call->http_status == 400 && !call->code[0]);
}

static bool is_refused(const struct s3_call *call)
{
	static const char *const codes[] = {"AccessDenied", "InvalidAccessKeyId",
		"SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired",
		"InvalidTokenId", "InvalidClientTokenId", "ExpiredTokenException",
		"MissingSecurityHeader", "InvalidSecurity",
		"XAdminUserNotFound", /* versitygw, with status 404 */
		NULL};

	return code_is_one_of(call, codes) || call->http_status == 401 || call->http_status == 403;
}

static const char *proxy_note(const struct s3_call *call)
{
	return proxies_note(call->proxies, call->o->protocol == S3ProtocolHTTPS);
}

/* Where it may have been the proxy that answered. */
static const char *plain_proxy_note(const struct s3_call *call)
{
	return call->o->protocol == S3ProtocolHTTPS || call->code[0] ? "" : proxy_note(call);
}

/* Only what says so, or a HEAD, which says nothing: servers have other uses for 404, too. */
static bool is_gone(const struct s3_call *call)
{
	return call->http_status == 404 &&
	       (!call->code[0] || strncmp(call->code, "NoSuch", 6) == 0 ||
		       strcmp(call->code, "NotFound") == 0);
}

static int refused(struct s3_call *call)
{
	char code[sizeof(call->code)];

	if (call->code[0])
		strcpy(code, call->code);
	else
		snprintf(code, sizeof(code), "HTTP %d", call->http_status);
	if (strcmp(call->code, "RequestTimeTooSkewed") == 0)
		return error_set(call->err, -EACCES, "the clock of this machine is wrong: %s",
			call->message);
	if (!call->o->sign)
		return error_set(call->err, -EACCES, "%s: the bucket is not public", code);
	return attempt_refused(call->at, "the credentials were refused: %s%s%s%s", code,
		call->message[0] ? ": " : "", call->message, plain_proxy_note(call));
}

static bool is_passing(const struct s3_call *call)
{
	static const char *const codes[] = {"SlowDown", "SlowDownRead", "InternalError",
		"RequestTimeout", "ServiceUnavailable", "Throttling", "TooManyRequests",
		"RequestLimitExceeded", "OperationAborted", NULL};
	int status = call->http_status;

	return code_is_one_of(call, codes) || status / 100 == 5 || status == 408 || status == 425 ||
	       status == 429;
}

static int refused_by_proxy(struct s3_call *call, int status)
{
	if (status == 407)
		return error_set(call->err, -EACCES,
			"HTTP 407: the proxy wants a user and password, or others than it got%s",
			proxy_note(call));
	return error_set(call->err, -EACCES, "HTTP %d: the proxy does not connect to %s%s", status,
		call->host, proxy_note(call));
}

/* The server answered, and said no. */
static int classify_answer(struct s3_call *call)
{
	if (strcmp(call->code, "NoSuchBucket") == 0)
		return error_set(call->err, -EIO, "there is no bucket '%s'", call->o->bucket);
	if (call->http_status == 407)
		return refused_by_proxy(call, 407);
	if (is_elsewhere(call))
		return follow_region(call);
	if (is_refused(call))
		return refused(call);
	if (is_gone(call))
		return ORIGIN_GONE;
	if (call->http_status == 412 || call->http_status == 416)
		return ORIGIN_CHANGED;
	if (is_passing(call)) {
		attempt_pause(call->at, call->retry_after_s);
		return attempt_retry(call->at, "HTTP %d %s%s%s%s", call->http_status, call->code,
			call->message[0] ? ": " : "", call->message, plain_proxy_note(call));
	}
	return error_set(call->err, -EIO, "HTTP %d %s%s%s%s", call->http_status, call->code,
		call->message[0] ? ": " : "", call->message, plain_proxy_note(call));
}

/* There was no answer, or only a part of one. */
static int classify_transport(struct s3_call *call)
{
	const char *name = S3_get_status_name(call->status);
	const char *text = call->message[0] ? call->message : name;

	if (call->proxy_status == 401 || call->proxy_status == 403 || call->proxy_status == 407)
		return refused_by_proxy(call, call->proxy_status);
	switch (call->status) {
	case S3StatusOutOfMemory:
		return error_set(call->err, -ENOMEM, "out of memory");
	case S3StatusServerFailedVerification:
		return error_set(call->err, -EIO,
			"the server's certificate cannot be verified: %s: give its authority "
			"with ca-file",
			text);
	case S3StatusNameLookupError:
	case S3StatusFailedToConnect:
		call->at->unreachable = true;
		return attempt_retry(call->at, "%s: %s%s", call->host, text, proxy_note(call));
	case S3StatusKeyTooLong:
	case S3StatusUriTooLong:
		return ORIGIN_GONE; /* no server has an object of that name */
	case S3StatusInterrupted:
	case S3StatusAbortedByCallback:
		if (call->stalled)
			return attempt_retry(call->at, "the connection stalled for %lld s%s",
				(long long)(clock_mono_ms() - call->seen_ms) / 1000,
				proxy_note(call));
		return attempt_retry(
			call->at, "no answer within the time for one attempt%s", proxy_note(call));
	case S3StatusConnectionFailed:
	case S3StatusXmlParseFailure:
	case S3StatusInternalError:
	case S3StatusFailedToInitializeRequest:
		call->at->unreachable = call->http_status == 0;
		return attempt_retry(call->at, "%s%s", text, proxy_note(call));
	default:
		return error_set(call->err, -EIO, "%s: %s", name, text);
	}
}

int s3_call_end(struct s3_call *call)
{
	int r;

	free_slot(call->o);
	s3_keys_deinit(&call->keys);
	if (call->outcome != 0)
		r = call->outcome;
	else if (call->status == S3StatusOK)
		r = 0;
	else if (call->http_status >= 300)
		r = classify_answer(call);
	else
		r = classify_transport(call);
	proxies_unref(call->proxies);
	return r;
}
