/* What the two halves of the HTTP origin share: origin_http.c (stat, get) and http_index.c (list).
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "origin/http_client.h"
#include "origin/origin_ops.h"

struct http_origin {
	char *base;  /* URL, ends with '/', no credentials */
	char *index; /* absolute URL of a listing file, or NULL */
	struct http_client *client;
	/* How many entries of listings had an etag, only a time, neither. */
	atomic_uint_fast64_t with_etag, with_time, with_nothing;
};

/* Validators of objects whose listing has a time and no etag: "mtime:SECONDS". */
#define HTTP_TIME_VALIDATOR "mtime:"

/* Appends the percent-encoded path; '/' stays. 0 or -ENOMEM. */
int http_url_append_path(struct buf *url, const char *path, size_t len);

int http_index_list(struct http_origin *o, const struct origin_listing *l, struct error *err);
