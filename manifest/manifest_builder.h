/*
 * Writes a manifest from entries that come sorted. Memory is bounded: what was written is read back
 * through the page cache, not kept.
 *
 * Calling sequence: new; add for every entry but the root, in the order of manifest_path_compare,
 * every parent before its children; finish (syncs the file and its directory, renames it into
 * place); free. Without finish, free removes the half-written file.
 */
#pragma once

#include "manifest/manifest.h"

struct manifest_builder;

struct manifest_builder_entry {
	const char *path;
	size_t path_len;
	enum manifest_entry_type type;
	uint64_t size;
	int64_t mtime_ns;
	const char *validator;
	uint32_t mode, uid, gid;
	const char *target;
	size_t target_len;
};

/* Orders by depth, then bytewise with '/' below every other byte. */
int manifest_path_compare(const char *a, size_t a_len, const char *b, size_t b_len);

/* The file will be `dir`/DIGEST.manifest. root gives the root's mode, owner and mtime. */
int manifest_builder_new(const char *dir, uint64_t dataset_id, uint64_t snapshot, int64_t created_s,
	const struct manifest_builder_entry *root, struct manifest_builder **ret,
	struct error *err);
/* -EINVAL: out of order, duplicate, no such parent, a path that manifest_path_check refuses, a file
 * over 1 PiB, a validator or target over 4,095 bytes, a symlink without a target. The builder is as
 * it was then, and takes the next entry (a refused one still counts for the order). Any other error
 * is one of writing, and finish will fail too. The validators of directories and symlinks are not
 * kept. */
int manifest_builder_add(
	struct manifest_builder *b, const struct manifest_builder_entry *e, struct error *err);
int manifest_builder_finish(
	struct manifest_builder *b, char ret_digest[MANIFEST_DIGEST_TEXT_BYTES], struct error *err);
void manifest_builder_free(struct manifest_builder *b);

/* What a path may not be. 0 is fine. */
enum manifest_path_flaw {
	MANIFEST_PATH_OK,
	MANIFEST_PATH_EMPTY,	/* no path at all, or a component is empty ("a//b") */
	MANIFEST_PATH_ABSOLUTE, /* starts with '/' */
	MANIFEST_PATH_DOTS,	/* a component is "." or ".." */
	MANIFEST_PATH_NUL,	/* holds a NUL */
	MANIFEST_PATH_LONG,	/* a component over 255 bytes or the path over 4,095 */
	MANIFEST_PATH_DEEP,	/* more than 255 levels */
};
enum manifest_path_flaw manifest_path_check(const char *path, size_t len);
const char *manifest_path_flaw_text(enum manifest_path_flaw flaw);
