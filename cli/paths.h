/*
 * Where things are when nobody says otherwise: as root /var/cache/granary and /var/lib/granary,
 * else the XDG folders; and how large the cache may be.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "cli/command.h"

struct paths {
	char state_dir[PATH_MAX];
	char cache_dir[PATH_MAX];
	char manifest_dir[PATH_MAX]; /* state_dir/manifests */
	char socket[PATH_MAX];	     /* "unix:STATE/granary.sock": every service of this host */
	char lease_socket[PATH_MAX]; /* CACHE/lease.sock: the local short circuit */
};

/* Without a trailing slash, into PATH_MAX bytes: a daemon's working directory is /. */
int paths_absolute(const char *text, char *ret, struct error *err);

/* From --state-dir and --cache-dir where the command has them. Makes nothing. */
int paths_find(const struct invocation *inv, struct paths *ret, struct error *err);

/* Marks a folder as ours: nothing else is taken over, made private or purged. */
#define PATHS_CACHE_MARKER "CACHEDIR.TAG"
#define PATHS_STATE_MARKER "lock"

/* Locked while in use; `granary purge` looks at all of them and at the markers. */
#define PATHS_WORKER_LOCK "worker.lock"
#define PATHS_MOUNTS_LOCK "mounts.lock" /* shared by the mounts of a state directory */

/* Makes a directory of mode 0700 with its parents (1), or takes an empty one or one that has the
 * marker (0); refuses others' directories and folders with other things in them. */
int paths_make_private(const char *dir, const char *marker, struct error *err);
/* Lets a group reach the sockets in a private directory by name (0710), and nothing else. */
int paths_admit_group(const char *dir, const char *group, struct error *err);

/* Removes a folder of ours with all that is in it, locked meanwhile. -EINVAL when it has no marker,
 * -EBUSY when a process uses it; 1 when it is not there. With `only_look` it stays. */
struct paths_removed {
	uint64_t files, bytes;
};
int paths_remove(const char *dir, const char *marker, bool only_look, struct paths_removed *ret,
	struct error *err);

/* Which directories a command made: they go again when nothing comes of it. */
struct paths_made {
	bool state, cache;
};
void paths_discard(const struct paths *paths, const struct paths_made *made);

/* The folder, or its closest parent that is there. */
void paths_existing(const char *dir, char ret[PATH_MAX]);

struct cache_limits {
	uint64_t capacity_bytes;
	uint64_t free_floor_bytes;
	uint64_t scrub_bytes_per_s; /* as in store.h */
};
/* From --cache-size, --free-floor and --scrub-rate; defaults: 80 % of what is free (what the cache
 * holds already counts as free), floor 5 % of the filesystem but at most half of what that leaves,
 * all that is stored scrubbed once a week. The directory need not be there yet. */
int paths_cache_limits(const struct invocation *inv, const char *cache_dir,
	struct cache_limits *ret, struct error *err);

/* The whole file, trailing white space cut, into ret (free it); NULL path gives NULL. */
int paths_read_token(const char *path, char **ret_token, struct error *err);
