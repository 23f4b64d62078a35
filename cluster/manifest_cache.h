/*
 * The manifests that a worker or a mount has at hand, by digest.
 *
 * DIR/DIGEST.manifest is a master's own file: on its host the directory is shared and nothing has
 * to be fetched. Elsewhere a manifest comes once, by ClusterService/FetchManifest, is verified,
 * synced and renamed to DIR/DIGEST.fetched. The two names keep this cache from ever touching a
 * master's file. Processes that share the directory may fetch at once: each writes a file of its
 * own and the last rename wins, which is harmless since the bytes are the same.
 *
 * A fetched file that does not open or has another digest than its name is removed and fetched
 * anew; a master's damaged one is passed over. Chunks are checked at their first touch; who meets a
 * damaged one says so with manifest_cache_damaged.
 *
 * Open manifests are kept in a table of MANIFEST_CACHE_OPEN_MAX; the least recently used one goes
 * first. One that is still referenced lives on outside of the table.
 *
 * Errors: -EINVAL a digest that is none, -ENOENT the master knows no such manifest, -EAGAIN the
 * master is away and the file is not here, -ETIMEDOUT, -EIO what came did not verify, and what the
 * disk says.
 *
 * Threading: any thread. One fetch of a digest at a time in this process, the others wait for it.
 * No lock is held while the disk or the master works.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/rpc/rpc.h"
#include "manifest/manifest.h"

#define MANIFEST_CACHE_OPEN_MAX 64
#define MANIFEST_CACHE_FILE_MAX_BYTES ((uint64_t)64 << 30) /* a longer answer is refused */

struct manifest_cache;

/* `dir` is made when missing (0700). Half-fetched files that an hour did not finish are removed. */
int manifest_cache_new(const char *dir, struct manifest_cache **ret, struct error *err);
/* For shutting down: fetches under way, and all later ones, end with -ECANCELED. */
void manifest_cache_cancel(struct manifest_cache *c);
/* Manifests handed out live on. No get may be running. NULL is fine. */
void manifest_cache_free(struct manifest_cache *c);

/* *ret is a reference of the caller's own (manifest_unref). `channel` leads to the master; NULL for
 * none: then what is not on disk is -EAGAIN. */
int manifest_cache_get(struct manifest_cache *c, struct rpc_channel *channel, const char *digest,
	int64_t deadline_ms, struct manifest **ret, struct error *err);

/* Opens the file of a manifest that get has brought, so that it can be read when its name is gone.
 * A descriptor of the caller's, or -errno. */
int manifest_cache_file(struct manifest_cache *c, const char *digest);

/* A reader found a chunk of it damaged (-EIO): the next get fetches it anew. */
void manifest_cache_damaged(struct manifest_cache *c, const char *digest);

/* Drops all but `keep` from the table and removes their fetched files; a master's files stay. */
void manifest_cache_prune(struct manifest_cache *c, const char *const *keep, size_t count);

/* True for 32 lower-case hex digits: what may become part of a file name. */
bool manifest_cache_digest_ok(const char *digest);
