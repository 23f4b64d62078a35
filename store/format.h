/*
 * The store's format version, in the file `format`: one line,
 *
 *	granary store 1 0123456789abcdef
 *
 * whose last word is the XXH3 of what is before it, so that a flipped bit is not taken for a newer
 * version. Every later version keeps this line.
 */
#pragma once

#include "common/error.h"
#include "store/disk.h"

#define FORMAT_LINE_BYTES 64

/* The line of a version; returns its length. */
size_t format_line(unsigned version, char ret[static FORMAT_LINE_BYTES]);
/* -EINVAL for a newer version. Writes the line where there is none, or a damaged one. */
int format_check(const struct store_disk *d, const char *dir, struct error *err);
