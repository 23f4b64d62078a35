/*
 * One listed entry as the import sorts it: a key that puts the entries in the manifest's order, and
 * a value with all the rest.
 *
 * Key: depth (16 bits, big endian), the path with '/' as 0x00, 0x00, sequence (64 bits, big
 * endian). 0x00 is below every byte that a name can hold, so the order is manifest_path_compare's,
 * and equal paths stand together in the order in which the origin listed them. The sequence
 * IMPORT_IMPLIED marks a directory that something lies in, whether the origin listed it or not.
 *
 * The value is for this process only: the scratch table never outlives it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "manifest/manifest_builder.h"

#define IMPORT_IMPLIED UINT64_MAX

/* `path` is one that manifest_path_check accepts. Both replace what ret holds. */
int import_entry_key(const char *path, size_t path_len, uint64_t sequence, struct buf *ret);
int import_entry_value(const struct manifest_builder_entry *e, struct buf *ret);

/* -EPROTO: not what the two above make. The path is written to ret_path; ret borrows from it and
 * from value. */
int import_entry_read(const char *key, size_t key_len, const char *value, size_t value_len,
	struct buf *ret_path, struct manifest_builder_entry *ret, uint64_t *ret_sequence);
