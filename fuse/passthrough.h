/*
 * Passthrough: the kernel reads a file of the store by itself in place of a file of the mount,
 * without asking us, through the page cache of the store's file, also for maps.
 *
 * Which files: those over BLOCK_BYTES whose blocks all lie in one file of this host's store
 * (block_source.h: whole). One is verified whole before it is handed over, once as long as the store
 * does not change it: up to PASSTHROUGH_OPEN_VERIFY_BYTES while its open waits, a larger one by a
 * thread of its own while this open goes the cached way, so that the next one passes through. From
 * the hand-over on it is the store that keeps the bytes as they are (store_view.h) and its scrubber
 * that looks for damage.
 *
 * Only with MOUNT_MODE_OPEN, a kernel that can (6.9) and CAP_SYS_ADMIN. Where INIT grants it but the
 * kernel then refuses the first file, all opens are cached from then on.
 *
 * What the client before this one has handed to the kernel goes on to be read there. Nobody holds
 * it for this one, so it is given back as soon as nobody has it open, and decided anew.
 *
 * Calling sequence: init; want (INIT asks) and on; attach once the device is there; resume when it
 * took over, before anything is opened; start, stop, end. Threading: decide and close from any
 * thread.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/metrics.h"
#include "common/sync.h"
#include "fuse/open_files.h"
#include "fuse/open_records.h"

#define PASSTHROUGH_OPEN_VERIFY_BYTES ((uint64_t)256 << 20)
/* Of the pool's threads, so that reads of the network go on meanwhile. */
#define PASSTHROUGH_OPEN_VERIFIERS 16u
#define PASSTHROUGH_QUEUE_MAX 64u
#define PASSTHROUGH_VERIFIED 8192u /* files remembered as verified, 16 bytes each */
#define PASSTHROUGH_IDLE_MS 10000

struct fs;
struct fs_node;

enum passthrough_state { PASSTHROUGH_OFF, PASSTHROUGH_ON, PASSTHROUGH_REFUSED };

struct passthrough {
	struct fs *fs;
	/* constant once attached */
	int device;
	bool wanted;
	struct metric_series *opens_series, *verified_series;

	_Atomic(enum passthrough_state) state;
	struct open_files files;
	struct open_records records;
	atomic_uint verifiers; /* opens that verify now */
	atomic_uint backings;  /* files that the kernel has */
	atomic_uint_fast64_t opens, verified_bytes;

	struct mutex mu;
	struct cond changed;
	/* guarded by mu */
	bool stopping;
	struct block_whole_key
		*verified; /* PASSTHROUGH_VERIFIED of them, each at its hash's place */
	struct block_whole *queue[PASSTHROUGH_QUEUE_MAX];
	unsigned queued;
	/* owned by the thread */
	pthread_t thread;
	bool started;
	int64_t swept_ms;
};

int passthrough_init(struct passthrough *p, struct fs *fs, struct error *err);
void passthrough_deinit(struct passthrough *p);

/* Whether this process may do it: CAP_SYS_ADMIN. */
bool passthrough_permitted(void);
/* Whether the kernel knows of it (6.9), as far as that shows without a mount. `fuse`: /dev/fuse. */
bool passthrough_in_kernel(int fuse);
/* INIT has settled it. */
void passthrough_on(struct passthrough *p);
bool passthrough_is_on(const struct passthrough *p);

/* device: of the session, borrowed. */
void passthrough_attach(struct passthrough *p, int device);
/* From what the state has of the client before. */
void passthrough_resume(struct passthrough *p);
int passthrough_start(struct passthrough *p, struct error *err);
void passthrough_stop(struct passthrough *p);
/* Gives everything back, before the device is closed. */
void passthrough_end(struct passthrough *p);

/* Whether an inode that nobody has open is passed through, and to what; id 0 for no. May verify the
 * file, as long as goes_on says so. */
void passthrough_decide(struct passthrough *p, const struct fs_node *node,
	bool (*goes_on)(void *arg), void *arg, struct open_backing *ret);
void passthrough_close(struct passthrough *p, const struct open_backing *gone);
/* An open that is about to be answered. */
void passthrough_count_open(struct passthrough *p);
