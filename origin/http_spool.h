/*
 * A document of a web server in an unnamed temporary file: index pages and listing files are read
 * from there, so that memory does not grow with them and a broken transfer goes on where it ended.
 */
#pragma once

#include <stdio.h>

#include "origin/http_client.h"
#include "origin/origin_ops.h"

#define HTTP_SPOOL_BYTES_MAX ((uint64_t)16 << 30)

struct http_spool {
	FILE *file; /* at its beginning after a fetch */
	uint64_t bytes;
	char etag[HTTP_ETAG_BYTES];
	char content_type[64];
};

/* 0, ORIGIN_GONE, or negative with a text that names the URL. */
int http_spool_fetch(struct http_spool *s, struct http_client *c, const char *url,
	const struct origin_listing *l, bool first_contact, struct error *err);
void http_spool_deinit(struct http_spool *s);
