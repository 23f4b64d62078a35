/*
 * The directory that is mounted on: is it fit, is something dead in the way, and taking a mount
 * away again, with privileges or through fusermount3.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

/* The mountpoint as an absolute path without links in room of PATH_MAX, after having detached dead
 * mounts. The texts say what to do.
 * -ENOENT, -ENOTDIR, -ENOTEMPTY, -EBUSY (a live Granary mount), -EACCES, -EPERM, -ENODEV (no FUSE
 * here), and what the system says. */
int mountpoint_prepare(
	const char *path, bool allow_other, char ret_path[static 4096], struct error *err);

/* Whether that mount is there, of a unique id (STATX_MNT_ID_UNIQUE); asks no server. */
bool mountpoint_is(const char *path, uint64_t mount_id);

/* Takes away the mount at `path`; lazily when it is busy. -EINVAL: nothing is mounted there. */
int mountpoint_unmount(const char *path, struct error *err);
