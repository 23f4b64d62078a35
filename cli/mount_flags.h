/*
 * The flags that `up` and `mount` share.
 */
#pragma once

#include "cli/command.h"
#include "fuse/mount.h"

/* Fills ret from --job, --allow-other, --uid, --gid, --mode, --no-preload, --no-passthrough,
 * --order-memory, --sample, --read-timeout; the mount point becomes absolute. Master and manifest
 * directory are the caller's. */
int mount_flags_read(const struct invocation *inv, const char *dataset, const char *mountpoint,
	struct mount_options *ret, struct error *err);
void mount_flags_free(struct mount_options *opts);
