/*
 * A manifest: one snapshot of a dataset as one immutable, mmap-able file.
 *
 * Layout (little endian, manifest_format.h has the structs): header, fixed-size entries, strings,
 * one XXH3-64 per MANIFEST_CHUNK_BYTES of all that stands before them. The manifest's digest
 * (XXH3-128 of header and chunk digests) names the file in every cache. A chunk is checked at its
 * first touch; an IO error in the map becomes -EIO, not SIGBUS.
 *
 * Entries are numbered 0..entries-1; 0 is the root directory. They stand in the order of (depth,
 * path with '/' as the lowest byte), so the children of a directory are contiguous and sorted by
 * name, and lookups are binary searches. Everything an entry says was validated when the file was
 * built and is bounds-checked again when it is read (the file may come over the network).
 *
 * Threading: a manifest is immutable; share it by reference.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/error.h"
#include "manifest/block.h"

#define MANIFEST_DIGEST_TEXT_BYTES 33 /* 32 hex digits and NUL */

enum manifest_entry_type { MANIFEST_FILE, MANIFEST_DIR, MANIFEST_SYMLINK };

struct manifest;

struct manifest_info {
	uint64_t dataset_id;
	uint64_t snapshot; /* 1, 2, ... within the dataset */
	int64_t created_s; /* wall clock */
	uint64_t entries, files, dirs, symlinks;
	uint64_t bytes;	     /* sum of file sizes */
	uint64_t blocks;     /* sum of block counts */
	uint64_t file_bytes; /* of the manifest itself */
	char digest[MANIFEST_DIGEST_TEXT_BYTES];
};

/* A view into the map: valid while the manifest is referenced. Strings are not NUL-terminated, but
 * for `validator`. Use or copy them at once: a page that is lost later reads as zeros, and only the
 * next manifest_entry says -EIO. */
struct manifest_entry {
	enum manifest_entry_type type;
	uint32_t mode;	   /* permission bits */
	uint32_t uid, gid; /* UINT32_MAX: the mount decides */
	uint32_t parent;
	uint64_t size;
	int64_t mtime_ns;
	struct object_id object;
	const char *name;
	size_t name_len;
	const char *validator;
	const char *target; /* symlink */
	size_t target_len;
	uint32_t first_child, children; /* directory */
	uint32_t subdirs;		/* directory: for st_nlink */
};

/* -EINVAL: not a manifest, damaged, or of a newer format (the text says which). */
int manifest_open(const char *path, struct manifest **ret, struct error *err);
struct manifest *manifest_ref(struct manifest *m);
struct manifest *manifest_unref(struct manifest *m); /* returns NULL */
const struct manifest_info *manifest_info(const struct manifest *m);
/* Checks every chunk, and that the entries agree with each other and the header; for files that
 * came over the network and for tests. -EIO, and the text says where. */
int manifest_verify(struct manifest *m, struct error *err);

/* 0, -ENOENT (index out of range), -EIO (the chunk is damaged or unreadable). */
int manifest_entry(struct manifest *m, uint32_t index, struct manifest_entry *ret);
#define MANIFEST_NOT_A_FILE 1
/* What walks over all blocks need, without touching the strings: 0, MANIFEST_NOT_A_FILE, -ENOENT,
 * -EIO. */
int manifest_file(
	struct manifest *m, uint32_t index, struct object_id *ret_object, uint64_t *ret_size);
/* Among the children of `dir`: 0, -ENOENT, -ENOTDIR, -EIO. */
int manifest_lookup(
	struct manifest *m, uint32_t dir, const char *name, size_t name_len, uint32_t *ret_index);
int manifest_lookup_path(
	struct manifest *m, const char *path, size_t path_len, uint32_t *ret_index);
/* Appends the path relative to the root, without a leading '/'. */
int manifest_path(struct manifest *m, uint32_t index, struct buf *ret_path);

/* The resident part of the map can be dropped at any time. */
void manifest_drop_resident(struct manifest *m);
