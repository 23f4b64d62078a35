/*
 * HTTP requests over kept connections: a bounded pool of libcurl handles, and one attempt of one
 * request whose body streams to the caller.
 *
 * A request runs on the caller's thread. While it waits, the attempt's deadline and cancel flag are
 * looked at every HTTP_SLICE_MS, and a transfer that brings nothing for the stall timeout ends.
 * Redirects are followed (a few, never from https to http); credentials go to the first host only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/error.h"
#include "origin/origin.h"
#include "origin/retry.h"

#define HTTP_SLICE_MS 100
#define HTTP_ETAG_BYTES 256
/* An outcome for callbacks: the rest of the answer is of no interest; http_client_run returns it.
 */
#define HTTP_ENOUGH 100

struct http_reply {
	int status;
	int64_t content_length; /* -1: not said */
	bool has_range;		/* a Content-Range was there and understood */
	uint64_t range_first, range_last;
	int64_t range_total;	    /* -1: not said */
	char etag[HTTP_ETAG_BYTES]; /* as the server wrote it; "" for none */
	int64_t last_modified_s;    /* -1: not said */
	char content_type[64];	    /* "" for none */
	bool encoded;		    /* a Content-Encoding that is not identity */
	char bucket_region[64];	    /* x-amz-bucket-region; "" for none */
};

struct http_request {
	const char *method; /* NULL: GET; "HEAD" reads no body */
	const char *url;
	const char *const *headers; /* "Name: value", NULL-terminated; may be NULL */
	bool ranged;
	uint64_t first, last; /* last UINT64_MAX: to the end */
	const char *body;     /* to send; may be NULL */
	bool foreign;	      /* neither the options' credentials nor their proxies */
	/* Called once, before the body, for status 2xx only: 0, or an outcome that ends the
	 * attempt. */
	int (*on_head)(void *arg, const struct http_reply *reply, struct origin_attempt *at,
		struct error *err);
	/* For bodies of status 2xx; likewise. */
	int (*on_body)(void *arg, const void *data, size_t len, struct origin_attempt *at,
		struct error *err);
	/* Gets what the server said with any other status, as far as there is room reserved; may be
	 * NULL. */
	struct buf *refusal;
	void *arg;
};

struct http_client;

/* -ENOMEM, or -EINVAL for a malformed proxy. The options are not kept. */
int http_client_new(const struct origin_options *opts, struct http_client **ret, struct error *err);
void http_client_free(struct http_client *c);
/* New user, password or token for the requests that begin from now on. */
int http_client_set_credentials(
	struct http_client *c, const char *user, const char *password, const char *token);

/* The proxies of these options, likewise. */
int http_client_renew_proxies(
	struct http_client *c, const struct origin_options *opts, struct error *err);

/*
 * 0: an answer with status 2xx came and on_body took all of it; other answers are classified:
 * ORIGIN_GONE (404, 410), ORIGIN_CHANGED (412, 416), ORIGIN_CREDENTIALS (401, 403), ORIGIN_RETRY
 * (408, 425, 429, 5xx, a broken or stalled connection), -EACCES where a proxy refuses, -EIO for the
 * rest. *ret_reply is filled as far as the answer got.
 */
int http_client_run(struct http_client *c, const struct http_request *req,
	struct http_reply *ret_reply, struct origin_attempt *at, struct error *err);
