/*
 * One manifest from the master to a file: streamed into a file of this process's own, verified,
 * synced, renamed to `path`. Nothing is left at `path` by a failure.
 */
#pragma once

#include <stdint.h>

#include "common/error.h"
#include "common/rpc/rpc.h"

#define MANIFEST_FETCH_INFIX ".fetching-" /* in the names of half-fetched files */

int manifest_fetch(struct rpc_channel *channel, const char *digest, const char *path,
	int64_t deadline_ms, struct error *err);
