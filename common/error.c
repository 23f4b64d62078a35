#include "common/error.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Longer than any text: an URL and a path of 4 KiB each, and what is said about them. */
#define WHOLE_BYTES 16384

/* In the middle of a UTF-8 sequence; of what is none, at most three bytes are taken for that. */
static bool within_sequence(char c)
{
	return ((unsigned char)c & 0xc0) == 0x80;
}

void error_cut(char *dst, size_t room, const char *text, size_t len)
{
	size_t head, tail;

	assert(room > strlen(ERROR_GAP));
	if (len < room) {
		memmove(dst, text, len);
		dst[len] = '\0';
		return;
	}
	head = (room - 1 - strlen(ERROR_GAP)) / 3;
	tail = room - 1 - strlen(ERROR_GAP) - head;
	for (int i = 0; i < 3 && head > 0 && within_sequence(text[head]); i++)
		head--;
	for (int i = 0; i < 3 && tail > 0 && within_sequence(text[len - tail]); i++)
		tail--;
	memmove(dst, text, head);
	memmove(dst + head + strlen(ERROR_GAP), text + len - tail, tail);
	memcpy(dst + head, ERROR_GAP, strlen(ERROR_GAP));
	dst[head + strlen(ERROR_GAP) + tail] = '\0';
}

/* The text, and ": cause" after it where that is not NULL. */
static void write_text(struct error *err, const char *cause, const char *fmt, va_list ap)
{
	char whole[WHOLE_BYTES];
	size_t used;

	vsnprintf(whole, sizeof(whole) - 2 - ERROR_TEXT_BYTES, fmt, ap);
	used = strlen(whole);
	if (cause)
		snprintf(whole + used, sizeof(whole) - used, ": %s", cause);
	error_cut(err->text, sizeof(err->text), whole, strlen(whole));
}

int error_set(struct error *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return code;
	va_start(ap, fmt);
	write_text(err, NULL, fmt, ap);
	va_end(ap);
	return code;
}

int error_set_errno(struct error *err, int code, const char *fmt, ...)
{
	char reason[128];
	va_list ap;

	if (!err)
		return code;
	va_start(ap, fmt);
	write_text(err, strerror_r(-code, reason, sizeof(reason)), fmt, ap);
	va_end(ap);
	return code;
}

int error_prefix(struct error *err, int code, const char *fmt, ...)
{
	struct error old;
	va_list ap;

	if (!err)
		return code;
	old = *err;
	va_start(ap, fmt);
	write_text(err, old.text, fmt, ap);
	va_end(ap);
	return code;
}
