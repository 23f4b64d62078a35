/*
 * The process that `granary up` leaves running: one server with every service of this host (master,
 * worker, health, and HostService for a second `up`), and the mounts.
 *
 * Calling sequence: new, start, mount any number of times, wait, free. Threading: mount and unmount
 * may come from any thread (HostService); the rest belongs to the main thread.
 */
#pragma once

#include "cli/host_settings.h"
#include "cli/paths.h"
#include "cli/policy_flags.h"
#include "fuse/mount.h"

struct host;

enum host_part { HOST_MASTER = 1, HOST_WORKER = 2, HOST_MOUNTS = 4 };

struct host_options {
	unsigned parts; /* enum host_part */
	const struct paths *paths;
	struct cache_limits limits; /* HOST_WORKER */
	struct sharing sharing;	    /* HOST_MASTER */
	const char *listen;	    /* HOST:PORT, besides the unix socket; NULL for none */
	const char *advertise;	    /* how others reach it; NULL: as listen says */
	const char *token;	    /* for listen and for a remote master */
	const char *master_address; /* NULL: this host's own socket */
	const char *socket_group;
	const struct host_settings *settings; /* HOST_MOUNTS; read as long as the host lives */
	const char *log_file;		      /* NULL: the log stays on stderr */
	/* What host_new made, also when it fails: for paths_discard once the host is freed. */
	struct paths_made *made;
};

/* -EBUSY: another process uses these directories. */
int host_new(const struct host_options *opts, struct host **ret, struct error *err);
/* metrics_address: HOST:PORT besides the unix socket that is always there; NULL for none. */
int host_start(struct host *h, const char *metrics_address, struct error *err);
struct host_mounted {
	char mountpoint[PATH_MAX];
	const char *mode; /* static */
};
int host_mount(struct host *h, const struct mount_options *opts, struct host_mounted *ret,
	struct error *err);
/* Serves until a signal, or, with HOST_MOUNTS, until the last mount has ended. */
void host_wait(struct host *h);
void host_free(struct host *h); /* unmounts and stops everything; NULL is fine */

/* The address of this host's own server. */
const char *host_address(const struct host *h);
