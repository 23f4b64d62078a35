/*
 * A mount: one dataset shown as local files through libfuse's low-level API.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cluster/embedded_worker.h"
#include "common/error.h"

struct mount;
struct mount_keep;

/* What announced orders may hold: the default, and the bounds of order_memory_bytes. */
#define ORDER_MEMORY_BYTES ((uint64_t)64 << 20)
#define ORDER_MEMORY_LEAST_BYTES ((uint64_t)16 << 20)
#define ORDER_MEMORY_MOST_BYTES ((uint64_t)16 << 30)

enum mount_mode { MOUNT_MODE_AUTO, MOUNT_MODE_NO_OPEN, MOUNT_MODE_OPEN };

/* "auto" or "", "no-open", "open"; -EINVAL for anything else. */
int mount_mode_parse(const char *text, enum mount_mode *ret);

struct mount_options {
	const char *dataset;
	const char *job; /* for whom it reads; NULL: for none */
	const char *mountpoint;
	const char *master_address;
	const char *master_token;
	const char *manifest_dir; /* cache of manifests */
	const char *socket_dir;	  /* for the socket of announced orders; NULL: there is none */
	const char *socket_group; /* may announce, too; NULL: only the owner */
	const struct embedded_worker
		*worker; /* of this process; outlives the mount; NULL for none */
	bool allow_other;
	uint32_t uid, gid; /* of entries whose origin knows no owner */
	enum mount_mode mode;
	bool no_preload;	     /* the kernel gets nothing that nobody asked for */
	uint64_t order_memory_bytes; /* for what is brought ahead; 0: ORDER_MEMORY_BYTES */
	uint32_t
		sample_ppm; /* of the dataset, that the page cache does not keep (sample.h); 0: none */
	bool no_passthrough;	 /* the kernel reads no file of the store by itself */
	int64_t read_timeout_ms; /* 0: 60,000; a read that is not answered by then gives EIO */
	/* What outlives this process; with a device in it the mount is there, and this process goes
	 * on with it in place of another. NULL: nothing does. Borrowed, but for its descriptors. */
	struct mount_keep *keep;
};

/* Mounts and serves in threads of its own; returns once the mount answers. A dead mount in the way
 * (ENOTCONN) is detached first. One that cannot go on with another's mount leaves that as it is, and
 * this process has to end, with all that it has begun. */
int mount_start(const struct mount_options *opts, struct mount **ret, struct error *err);
/* Blocks until somebody unmounted it, or mount_stop was called. */
void mount_wait(struct mount *m);
/* Unmounts; lazily when busy. Any thread. */
void mount_stop(struct mount *m);
void mount_free(struct mount *m); /* after mount_wait */
const char *mount_mountpoint(const struct mount *m);

/* Right before the process ends for another one: what was counted goes on there. */
void mount_keep_counters(struct mount *m);

/* What it shows and counted. Texts live as long as the mount. */
struct mount_stat {
	uint64_t hit_bytes, miss_bytes, failed_reads, requests;
	uint64_t snapshot, files, bytes;
	const char *mode, *origin;
};
void mount_stat(struct mount *m, struct mount_stat *ret);
