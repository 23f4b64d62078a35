#include "origin/limits.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/size.h"

static const struct scheme {
	const char *name, *port;
	bool has_host;
} schemes[] = {
	{"s3", "", true},
	{"http", "80", true},
	{"https", "443", true},
	{"file", "", false},
	{"mem", "", true},
};

static const struct scheme *scheme_of(const char *url)
{
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		size_t len = strlen(schemes[i].name);

		if (strncasecmp(url, schemes[i].name, len) == 0 &&
			strncmp(url + len, "://", 3) == 0)
			return &schemes[i];
	}
	return NULL;
}

/* ---- URLs ------------------------------------------------------------------------------------- */

struct plain {
	char *text;
	size_t len;
};

static void put(struct plain *p, const char *bytes, size_t len, bool lower)
{
	for (size_t i = 0; i < len && p->len < ORIGIN_PREFIX_BYTES; i++)
		p->text[p->len++] = lower ? (char)tolower((unsigned char)bytes[i]) : bytes[i];
}

/* "user:password@Host:443" without what says nothing. */
static void put_authority(
	struct plain *p, const struct scheme *scheme, const char *authority, size_t len)
{
	const char *at = memrchr(authority, '@', len);
	size_t port = strlen(scheme->port);

	if (at) {
		len -= (size_t)(at + 1 - authority);
		authority = at + 1;
	}
	if (port > 0 && len > port && authority[len - port - 1] == ':' &&
		strncmp(authority + len - port, scheme->port, port) == 0)
		len -= port + 1;
	put(p, authority, len, true);
}

void origin_url_plain(const char *url, char ret[static ORIGIN_PREFIX_BYTES + 1])
{
	const struct scheme *scheme = scheme_of(url);
	struct plain p = {.text = ret};
	size_t begin;

	if (scheme) {
		const char *authority = url + strlen(scheme->name) + 3;
		size_t len = strcspn(authority, "/");

		put(&p, scheme->name, strlen(scheme->name), false);
		put(&p, "://", 3, false);
		put_authority(&p, scheme, authority, len);
		url = authority + len;
	}
	begin = p.len;
	put(&p, url, strlen(url), false);
	while (p.len > begin && ret[p.len - 1] == '/')
		p.len--;
	ret[p.len] = '\0';
}

bool origin_prefix_covers(const char *prefix, const char *plain_url)
{
	size_t len = strlen(prefix);

	return strncmp(plain_url, prefix, len) == 0 &&
	       (plain_url[len] == '/' || plain_url[len] == '\0');
}

/* ---- limits ----------------------------------------------------------------------------------- */

static int add_total(struct origin_limits *l, const char *text, struct error *err)
{
	struct error why = ERROR_INIT;
	uint64_t rate = 0;

	if (strcmp(text, "off") != 0 && rate_parse(text, &rate, &why) < 0)
		return error_set(err, -EINVAL, "%s; give RATE, off, or PREFIX=RATE for one origin",
			why.text);
	if (l->total_given)
		return error_set(err, -EINVAL,
			"'%s' is a second limit of all origins: give one, and PREFIX=RATE for "
			"single ones",
			text);
	l->total_given = true;
	l->bytes_per_s = rate;
	return 0;
}

static int check_prefix(const char *prefix, struct error *err)
{
	const struct scheme *scheme = scheme_of(prefix);
	const char *rest;

	if (!scheme)
		return error_set(err, -EINVAL,
			"'%.100s' begins no origin's URL: give s3://bucket, http(s)://host or "
			"file:///directory before the '='",
			prefix);
	rest = prefix + strlen(scheme->name) + 3;
	if (scheme->has_host && (rest[0] == '\0' || rest[0] == '/'))
		return error_set(err, -EINVAL, "'%.100s' names no %s", prefix,
			strcmp(scheme->name, "s3") == 0 ? "bucket" : "host");
	for (const char *c = prefix; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			return error_set(err, -EINVAL,
				"'%.100s' has a character in it that no origin's URL has", prefix);
	if (!scheme->has_host && rest[0] != '/')
		return error_set(
			err, -EINVAL, "'%.100s' is not absolute: give file:///directory", prefix);
	return 0;
}

static int read_limit(const char *text, struct origin_limit *ret, struct error *err)
{
	char prefix[ORIGIN_PREFIX_BYTES + 1], plain[ORIGIN_PREFIX_BYTES + 1];
	const char *rate = strrchr(text, '=');
	struct error why = ERROR_INIT;
	int r;

	if (rate - text >= ORIGIN_PREFIX_BYTES)
		return error_set(err, -EINVAL, "a prefix of %td bytes (at most %d)", rate - text,
			ORIGIN_PREFIX_BYTES - 1);
	memcpy(prefix, text, (size_t)(rate - text));
	prefix[rate - text] = '\0';
	r = check_prefix(prefix, err);
	if (r < 0)
		return r;
	if (rate_parse(rate + 1, &ret->bytes_per_s, &why) < 0 || ret->bytes_per_s == 0)
		return error_set(err, -EINVAL,
			"'%.50s' is no rate above 0 for '%.100s': give one like 2Gbps or 100MB/s, "
			"or leave this limit away",
			rate + 1, prefix);
	origin_url_plain(prefix, plain);
	strcpy(ret->prefix, plain);
	return 0;
}

static size_t prefixes_bytes(const struct origin_limits *l)
{
	size_t bytes = 0;

	for (size_t i = 0; i < l->count; i++)
		bytes += strlen(l->list[i].prefix);
	return bytes;
}

static int insert(struct origin_limits *l, const struct origin_limit *limit, struct error *err)
{
	size_t at = 0;

	while (at < l->count && strcmp(l->list[at].prefix, limit->prefix) < 0)
		at++;
	if (at < l->count && strcmp(l->list[at].prefix, limit->prefix) == 0)
		return error_set(err, -EINVAL, "'%.100s' has two limits: give one", limit->prefix);
	if (l->count == ORIGIN_LIMITS_MAX ||
		prefixes_bytes(l) + strlen(limit->prefix) > ORIGIN_PREFIXES_BYTES)
		return error_set(err, -EINVAL,
			"too many limits of single origins: at most %d, of %d bytes together",
			ORIGIN_LIMITS_MAX, ORIGIN_PREFIXES_BYTES);
	memmove(&l->list[at + 1], &l->list[at], (l->count - at) * sizeof(l->list[0]));
	l->list[at] = *limit;
	l->count++;
	return 0;
}

int origin_limits_add(struct origin_limits *l, const char *text, struct error *err)
{
	struct origin_limit limit;
	int r;

	if (!strchr(text, '='))
		return add_total(l, text, err);
	r = read_limit(text, &limit, err);
	return r < 0 ? r : insert(l, &limit, err);
}

const struct origin_limit *origin_limits_find(const struct origin_limits *l, const char *url)
{
	const struct origin_limit *found = NULL;
	char plain[ORIGIN_PREFIX_BYTES + 1];

	if (l->count == 0)
		return NULL;
	origin_url_plain(url, plain);
	/* By prefix, so a longer one that covers it comes later. */
	for (size_t i = 0; i < l->count; i++)
		if (origin_prefix_covers(l->list[i].prefix, plain))
			found = &l->list[i];
	return found;
}

void origin_limits_text(const struct origin_limits *l, char ret[static ORIGIN_LIMITS_TEXT_BYTES])
{
	size_t n;

	if (l->bytes_per_s > 0)
		n = (size_t)snprintf(ret, ORIGIN_LIMITS_TEXT_BYTES, "%" PRIu64, l->bytes_per_s);
	else
		n = (size_t)snprintf(ret, ORIGIN_LIMITS_TEXT_BYTES, "off");
	for (size_t i = 0; i < l->count; i++)
		n += (size_t)snprintf(ret + n, ORIGIN_LIMITS_TEXT_BYTES - n, ", %s=%" PRIu64,
			l->list[i].prefix, l->list[i].bytes_per_s);
}
