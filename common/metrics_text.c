#include "common/metrics_text.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/metrics.h"

#define DOUBLE_BYTES 40

bool metrics_text_name_ok(const char *name, bool colons)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_:";
	static const char rest[] =
		"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_:";

	if (!name || !name[0] || !strchr(letters, name[0]) || strspn(name, rest) != strlen(name))
		return false;
	return colons || (!strchr(name, ':') && strncmp(name, "__", 2) != 0);
}

/* The length of the valid UTF-8 sequence at p, 0 when there is none. */
static size_t utf8_len(const unsigned char *p)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t len = p[0] < 0x80 ? 1 : p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
	uint32_t code;

	if (len == 1)
		return 1;
	if (p[0] < 0xc2 || p[0] > 0xf4)
		return 0;
	code = p[0] & (0x7f >> len);
	for (size_t i = 1; i < len; i++) {
		/* The NUL at the end is no continuation, so this never reads past it. */
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (p[i] & 0x3f);
	}
	if (code < least[len] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return 0;
	return len;
}

static int put_char(struct buf *out, const unsigned char *p, size_t len, bool quoted)
{
	switch (*p) {
	case '\\':
		return buf_append_str(out, "\\\\");
	case '\n':
		return buf_append_str(out, "\\n");
	case '"':
		return buf_append_str(out, quoted ? "\\\"" : "\"");
	default:
		return buf_append(out, p, len);
	}
}

/* Readers refuse a whole page for one byte that is not UTF-8, and names of files may hold any. */
static int put_text(struct buf *out, const char *text, size_t max, bool quoted)
{
	const unsigned char *p = (const unsigned char *)text;
	const unsigned char *start = p;
	int r = 0;

	while (r == 0 && *p) {
		size_t len = utf8_len(p);

		if ((size_t)(p - start) + (len ? len : 1) > max)
			break;
		if (len > 0) {
			r = put_char(out, p, len, quoted);
			p += len;
		} else {
			r = buf_append_str(out, "\xef\xbf\xbd");
			p++;
		}
	}
	return r;
}

int metrics_text_label(struct buf *out, const char *name, const char *value)
{
	int r = buf_printf(out, "%s%s=\"", out->len > 0 ? "," : "", name);

	if (r == 0)
		r = put_text(out, value, METRIC_LABEL_VALUE_BYTES, true);
	if (r == 0)
		r = buf_append_str(out, "\"");
	return r;
}

int metrics_text_head(struct buf *out, const char *name, const char *help, const char *type)
{
	int r = buf_printf(out, "# HELP %s ", name);

	if (r == 0)
		r = put_text(out, help, SIZE_MAX, false);
	if (r == 0)
		r = buf_printf(out, "\n# TYPE %s %s\n", name, type);
	return r;
}

static int put_name(struct buf *out, const char *name, const char *suffix, const char *labels)
{
	if (!labels[0])
		return buf_printf(out, "%s%s", name, suffix);
	return buf_printf(out, "%s%s{%s}", name, suffix, labels);
}

int metrics_text_count(
	struct buf *out, const char *name, const char *suffix, const char *labels, uint64_t value)
{
	int r = put_name(out, name, suffix, labels);

	return r < 0 ? r : buf_printf(out, " %" PRIu64 "\n", value);
}

/* The shortest text that reads back as the same number, whatever the locale. */
static void format_double(double value, char text[DOUBLE_BYTES])
{
	char *comma;

	if (isnan(value)) {
		strcpy(text, "NaN");
		return;
	}
	if (isinf(value)) {
		strcpy(text, value > 0 ? "+Inf" : "-Inf");
		return;
	}
	snprintf(text, DOUBLE_BYTES, "%.15g", value);
	if (strtod(text, NULL) != value)
		snprintf(text, DOUBLE_BYTES, "%.17g", value);
	comma = strchr(text, ',');
	if (comma)
		*comma = '.';
}

int metrics_text_double(
	struct buf *out, const char *name, const char *suffix, const char *labels, double value)
{
	char text[DOUBLE_BYTES];
	int r = put_name(out, name, suffix, labels);

	format_double(value, text);
	return r < 0 ? r : buf_printf(out, " %s\n", text);
}

static int put_bucket(
	struct buf *out, const char *name, const char *labels, const char *le, uint64_t count)
{
	return buf_printf(out, "%s_bucket{%s%sle=\"%s\"} %" PRIu64 "\n", name, labels,
		labels[0] ? "," : "", le, count);
}

int metrics_text_bucket(
	struct buf *out, const char *name, const char *labels, double upper, uint64_t count)
{
	char text[DOUBLE_BYTES];

	format_double(upper, text);
	return put_bucket(out, name, labels, text, count);
}

int metrics_text_last_bucket(struct buf *out, const char *name, const char *labels, uint64_t count)
{
	return put_bucket(out, name, labels, "+Inf", count);
}
