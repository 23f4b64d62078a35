/*
 * The master's manifest files: DIR/DIGEST.manifest, one a retained snapshot. Which digests are used
 * is the registry's to know; this module opens, removes and sweeps. Files of other suffixes belong
 * to the caches of workers and mounts that share the directory, and are never touched.
 *
 * Errors: -ENOENT, -EINVAL (not a digest), what manifest_open says.
 *
 * Threading: any thread; the directory's name is immutable.
 */
#pragma once

#include <stdbool.h>

#include "common/error.h"
#include "manifest/manifest.h"

#define MANIFEST_STORE_SUFFIX ".manifest"

struct manifest_store;

/* `dir` is made when missing, 0700. */
int manifest_store_new(const char *dir, struct manifest_store **ret, struct error *err);
void manifest_store_free(struct manifest_store *s); /* NULL is fine */
const char *manifest_store_dir(const struct manifest_store *s);

int manifest_store_open(
	struct manifest_store *s, const char *digest, struct manifest **ret, struct error *err);
/* The file itself, for sending it. */
int manifest_store_open_fd(
	struct manifest_store *s, const char *digest, int *ret_fd, struct error *err);
/* What maps the file keeps it. */
void manifest_store_remove(struct manifest_store *s, const char *digest);

/* Removes every manifest that `used` denies and what a crashed import left; at start only. */
typedef bool manifest_store_used(void *arg, const char *digest);
void manifest_store_sweep(struct manifest_store *s, manifest_store_used *used, void *arg);

/* 32 lower-case hex digits: what may become part of a file's name. */
bool manifest_store_is_digest(const char *text);
