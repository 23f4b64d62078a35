/*
 * Brings a mount to the snapshot that the master wants it to show: a thread that fetches the
 * manifest, shows it, and has the kernel drop what it knew. Fetching may take long, so neither
 * heartbeats nor reads wait for it; until it is done the mount shows what it showed.
 *
 * Calling sequence: start, want (any thread, any number of times; the last one counts), stop.
 */
#pragma once

#include "cluster/manifest_cache.h"
#include "common/error.h"
#include "common/rpc/rpc.h"
#include "fuse/fs.h"
#include "fuse/session.h"

struct switcher {
	/* constant after start; all borrowed */
	struct fs *fs;
	struct session *session;
	struct manifest_cache *manifests;
	struct rpc_channel *master;

	pthread_t thread;
	/* owned by the thread */
	bool lost; /* the last try failed, and that was logged */
	int64_t fetch_timeout_ms;

	struct mutex mu;
	struct cond wake;
	/* guarded by mu */
	char wanted[MANIFEST_DIGEST_TEXT_BYTES]; /* "": whatever is shown */
	bool stopping;
};

int switcher_start(struct switcher *s, struct fs *fs, struct session *session,
	struct manifest_cache *manifests, struct rpc_channel *master, struct error *err);
void switcher_want(struct switcher *s, const char *digest);
void switcher_stop(struct switcher *s);
