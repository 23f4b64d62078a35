/*
 * Preloading: the kernel is given small files out of the store of this host before a reader asks
 * for them (FUSE_NOTIFY_STORE), as preload_plan.h says which. A few threads read and verify them as
 * a read does; the bytes go into the kernel's page cache, and the reader's read makes no request.
 *
 * What it does not do: fetch. A block that is not in this host's store is left to its reader, and so
 * is what is sampled (sample.h): of that its readers are to ask.
 *
 * Bytes given count as bytes read from the local store: reads that the kernel answers are
 * invisible, and each byte given to it is counted once, as it is with the kernel's own read-ahead.
 * A file that its reader asks for meanwhile is counted as read, not as preloaded: the kernel makes
 * the preload wait for the read's answer, and `note` comes before that.
 *
 * Threading: `note` from any thread. A preload waits in the kernel while a read of the same file is
 * under way, so `stop` has to come while the session still answers.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/sync.h"
#include "fuse/preload_plan.h"
#include "manifest/manifest.h"

#define PRELOAD_THREADS 8
#define PRELOAD_FILE_MAX_BYTES ((uint64_t)1 << 20)

struct fs;
struct fs_node;
struct fuse_session;

struct preload {
	struct fs *fs;
	/* constant while the threads run */
	struct fuse_session *se;
	uint64_t window_bytes;
	pthread_t threads[PRELOAD_THREADS];
	unsigned started;

	struct mutex mu;
	struct cond work;
	/* guarded by mu */
	bool on, stopping;
	struct manifest *manifest; /* that the plan is about, NULL before the first read */
	uint32_t slot;
	struct preload_plan plan;
	/* Files that are being given, and whether their readers asked meanwhile. */
	struct preload_busy {
		bool taken, asked;
		uint32_t slot, index;
	} busy[PRELOAD_THREADS];
};

void preload_init(struct preload *p, struct fs *fs);
void preload_deinit(struct preload *p); /* after preload_stop */
/* Where it cannot start, nothing is preloaded. */
int preload_start(struct preload *p, struct fuse_session *se, struct error *err);
void preload_stop(struct preload *p);

/* A read of the node is about to be answered, from the store of this host or from elsewhere. */
void preload_note(struct preload *p, const struct fs_node *node, uint64_t offset, bool from_store);
