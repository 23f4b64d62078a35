/*
 * One manifest from the master to a file: streamed into a file of this process's own, verified,
 * synced, renamed to `path`. Nothing is left at `path` by a failure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/rpc/rpc.h"
#include "common/sync.h"

#define MANIFEST_FETCH_INFIX ".fetching-" /* in the names of half-fetched files */

/* How another thread ends a fetch: fields guarded by *mu. */
struct manifest_fetch_cancel {
	struct mutex *mu;
	bool cancelled;
	struct rpc_stream *stream; /* while one is open */
};

/* -ECANCELED once `cancel` says so. */
int manifest_fetch(struct rpc_channel *channel, const char *digest, const char *path,
	int64_t deadline_ms, struct manifest_fetch_cancel *cancel, struct error *err);
void manifest_fetch_cancel_locked(struct manifest_fetch_cancel *cancel);
