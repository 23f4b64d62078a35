/*
 * A growable run of bytes with a hard bound. Zero-initialised is empty; `data` is always followed by
 * a NUL that `len` does not count, so a buf of text is a C string.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct buf {
	char *data;
	size_t len;
	size_t room;
};

#define BUF_INIT {.data = NULL}
#define BUF_MAX_BYTES ((size_t)1 << 30)

/* All return 0 or -ENOMEM (also past BUF_MAX_BYTES); a failed call leaves the buf as it was. */
int buf_reserve(struct buf *b, size_t more);
int buf_append(struct buf *b, const void *data, size_t len);
int buf_append_str(struct buf *b, const char *text);
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void buf_clear(struct buf *b);
void buf_deinit(struct buf *b);
/* Hands the bytes to the caller (free()), leaving the buf empty; never NULL. */
char *buf_take(struct buf *b);

#define cleanup_buf __attribute__((cleanup(buf_deinit)))
