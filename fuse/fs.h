/*
 * What a FUSE session serves: the snapshots shown, where bytes come from, and how entries look. The
 * operations (ops_*.c) work on it; session.c connects it to the kernel.
 *
 * Memory, worst case: 2 MiB for each thread that reads the disk (LOOP_THREADS_MAX + PRELOAD_THREADS
 * + 1: 50 MiB), 1 MiB for each that reads others (IO_POOL_THREADS_MAX: 64 MiB), 1 MiB for the
 * requests' own buffers of the session's threads (16 MiB, of which requests touch a page or two),
 * 64 KiB stack in use per thread, read_ahead and records (176 KiB), and a few hundred bytes per
 * request in flight (IO_POOL_QUEUE_MAX: 8 MiB), the open large files (OPEN_FILES_MAX: 3 MiB with
 * what was verified). What grows with the number of files is the preload's plan: 0.27 bytes each,
 * at most 8.6 MiB. Announced orders take what they bring (ORDER_MEMORY_BYTES, hard), 16 bytes for
 * each entry that waits (32 MiB for ORDER_RANGES_MAX, and ORDER_RANGES_LEAST for each list: 4 MiB),
 * 150 bytes for each of ORDER_PIECES_MAX pieces (5 MiB), and nothing while none is announced. A
 * sample takes 128 KiB. Mapped manifests are page cache.
 *
 * Threading: all of it may be used by many threads at once; init and deinit when nobody else does.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "common/error.h"
#include "fuse/block_source.h"
#include "fuse/brought_ahead.h"
#include "fuse/counters.h"
#include "fuse/file_sequence.h"
#include "fuse/listing_habit.h"
#include "fuse/device.h"
#include "fuse/io_pool.h"
#include "fuse/kernel_window.h"
#include "fuse/loader_pace.h"
#include "fuse/mount.h"
#include "fuse/mount_state.h"
#include "fuse/order.h"
#include "fuse/passthrough.h"
#include "fuse/preload.h"
#include "fuse/read_ahead.h"
#include "fuse/read_failures.h"
#include "fuse/record_stride.h"
#include "fuse/sample.h"
#include "fuse/snapshot_slots.h"
#include "fuse/thread_buffer.h"

#define FS_READ_TIMEOUT_MS 60000

struct fs_options {
	const char *dataset; /* copied */
	const char *job;     /* of the metrics; NULL for none */
	const char *origin;  /* URL without credentials; copied */
	uint32_t uid, gid;   /* of entries whose origin knows no owner */
	enum mount_mode mode;
	int64_t read_timeout_ms;     /* 0: FS_READ_TIMEOUT_MS */
	uint64_t order_memory_bytes; /* 0: ORDER_MEMORY_BYTES */
	uint32_t sample_ppm;	     /* of the dataset, that the page cache does not keep */
	struct mount_keep *keep;     /* NULL: what is kept ends with it */
};

struct fs {
	/* constant after init, but for `mode`, which INIT may change to MOUNT_MODE_OPEN */
	char *dataset, *origin;
	uint32_t uid, gid;
	int64_t read_timeout_ms;
	_Atomic(enum mount_mode) mode; /* never AUTO */
	struct block_source *source;   /* borrowed */
	struct mount_keep *keep;       /* borrowed, or own_keep */
	struct mount_keep own_keep;

	struct snapshot_slots slots;
	struct counters counters;
	struct listing_habits listings;
	struct read_ahead read_ahead;
	struct kernel_window window;
	struct file_sequence sequence;
	struct record_stride records;
	struct brought_ahead brought;
	struct read_failures read_failures;
	struct io_pool pool;
	struct device device;
	/* started and stopped by the session */
	struct preload preload;
	struct sample sample;
	struct passthrough passthrough;
	struct order order;
	struct loader_pace loaders;
	_Atomic(char *) order_path; /* of its socket, NULL without one; set once */
};

/* `first` is what it shows at first (a reference of its own); `source` outlives it. */
int fs_init(struct fs *fs, const struct fs_options *opts, struct manifest *first,
	struct block_source *source, struct error *err);
/* Ends the waiting reads with errors and joins the pool; the session must still take replies. */
void fs_stop(struct fs *fs);
void fs_deinit(struct fs *fs); /* after fs_stop */

const char *fs_mode_text(const struct fs *fs);

/* One entry of one snapshot, with a reference to its manifest. */
struct fs_node {
	struct manifest *manifest;
	uint32_t slot, index;
	struct manifest_entry entry;
};

#define FS_NODE_INIT {.manifest = NULL}

/* -ESTALE: of a snapshot that is no longer kept, or no node at all; -EIO: the manifest is damaged.
 */
int fs_node_get(struct fs *fs, uint64_t ino, struct fs_node *ret);
/* Another entry of the same snapshot. */
int fs_node_at(const struct fs_node *n, uint32_t index, struct fs_node *ret);
void fs_node_put(struct fs_node *n);
#define cleanup_fs_node __attribute__((cleanup(fs_node_put)))

uint64_t fs_node_ino(const struct fs_node *n);
void fs_node_stat(const struct fs *fs, const struct fs_node *n, struct stat *ret);
