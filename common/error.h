/*
 * The text of a failure, for people; the number travels as the function's result.
 *
 * Functions return 0, a negative -errno that callers forward unchanged, or a positive outcome that
 * their own header names. A function that takes a trailing `struct error *err` writes it exactly
 * when it returns a negative number; NULL is allowed and means that nobody wants the text.
 * A text says what failed, on what, and what to do about it; it never holds a secret.
 */
#pragma once

#include <stdarg.h>
#include <stddef.h>

#define ERROR_TEXT_BYTES 512
#define ERROR_GAP "..."
/* Room for the path of a file in a text, and for the URL of an object: what is longer is cut, so that
 * what happened to it still fits. */
#define ERROR_PATH_BYTES 97
#define ERROR_OBJECT_BYTES 161

struct error {
	char text[ERROR_TEXT_BYTES];
};

#define ERROR_INIT {.text = ""}

/* Copies `len` bytes of text; where they do not fit, ERROR_GAP stands for their middle: what it is
 * about comes first and the cause last, and both are wanted. UTF-8 sequences stay whole. dst may be
 * where text is. */
void error_cut(char *dst, size_t room, const char *text, size_t len);

/* Writes the text (cut as above) and returns `code`, so that `return error_set(...)` reads well. */
int error_set(struct error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* As error_set, and appends ": " and strerror(-code). */
int error_set_errno(struct error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the text that is there; returns `code`. */
int error_prefix(struct error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
