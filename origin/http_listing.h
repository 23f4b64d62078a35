/*
 * Reading a web server's listing: a JSON index page (nginx `autoindex on; autoindex_format json;`)
 * of one folder, or a listing file of everything in one of three forms told apart by their first
 * byte:
 *
 *   [{"path": "a/b", "size": 3, "etag": "\"x\"", "mtime": 1700000000}, ...]
 *   the same objects one after the other, one a line
 *   3<TAB>a/b<TAB>"x"          size, path (any bytes but tab and newline), and an etag if there is
 * one
 *
 * etag and mtime may be left out; an etag is quoted if it is not; mtime is seconds or an HTTP date
 * and has to be the Last-Modified that the server sends; a path with '/' at its end is a directory.
 *
 * Both return 0, what walk_emit returned, or -EIO with the number of the element that makes no
 * sense.
 */
#pragma once

#include <stdio.h>

#include "origin/http_origin.h"
#include "origin/walk.h"

struct http_listing {
	struct http_origin *o; /* for its guarantee's counters */
	struct walk *walk;
	FILE *file;
	const char *url;    /* for texts */
	const char *folder; /* of an index page: "" or with '/' at its end */
	size_t folder_len;
};

int http_listing_read_file(const struct http_listing *doc, struct error *err);
/* Folders of the page become items of the walk. */
int http_listing_read_page(const struct http_listing *doc, struct error *err);
