/*
 * Limits of what is read from origins in a second: of all together, and of those whose URL begins
 * with a prefix.
 *
 * A prefix is a URL that ends between two components: s3://bucket, https://host:8443, file:///data/a.
 * It covers itself and all below. Where several cover a URL the longest holds, alone. URLs are
 * compared as they are written, but that scheme and host have no case, that a port which is the
 * scheme's own says nothing, and that user, password and trailing slashes are left away.
 *
 * At most ORIGIN_LIMITS_MAX prefixes of ORIGIN_PREFIX_BYTES and ORIGIN_PREFIXES_BYTES together, so
 * that their text (origin_limits_text) is less than ORIGIN_LIMITS_TEXT_BYTES.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define ORIGIN_LIMITS_MAX 64
#define ORIGIN_PREFIX_BYTES 256 /* with the NUL */
#define ORIGIN_PREFIXES_BYTES 2048
#define ORIGIN_LIMITS_TEXT_BYTES 4096

struct origin_limit {
	char prefix[ORIGIN_PREFIX_BYTES]; /* as origin_url_plain has it */
	uint64_t bytes_per_s;
};

struct origin_limits {
	uint64_t bytes_per_s; /* of all origins; 0: no limit */
	bool total_given;
	size_t count;
	struct origin_limit list[ORIGIN_LIMITS_MAX]; /* by prefix */
};

#define ORIGIN_LIMITS_INIT {.bytes_per_s = 0}

/* "RATE", "off" or "PREFIX=RATE" (the last '=' counts). -EINVAL, with what is right: what is no rate
 * or prefix, is there already, or is too much. */
int origin_limits_add(struct origin_limits *l, const char *text, struct error *err);
/* NULL: the URL has no limit of its own. */
const struct origin_limit *origin_limits_find(const struct origin_limits *l, const char *url);
/* "1000, s3://bucket=500" in bytes a second, "off" without a total: the same for the same limits. */
void origin_limits_text(const struct origin_limits *l, char ret[static ORIGIN_LIMITS_TEXT_BYTES]);

/* A URL as prefixes are compared with it, as far as they may be long. */
void origin_url_plain(const char *url, char ret[static ORIGIN_PREFIX_BYTES + 1]);
/* Both as origin_url_plain has them. */
bool origin_prefix_covers(const char *prefix, const char *plain_url);
