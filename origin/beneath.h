/*
 * Opening files below a directory without ever leaving it: no symlink is followed, ".." is refused.
 *
 * openat2(RESOLVE_BENEATH) where the kernel has it and a sandbox does not forbid it, component by
 * component otherwise and for paths too long for one call.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* A descriptor, or -errno. `path` is relative; "" opens the root itself again. O_NOFOLLOW and
 * O_CLOEXEC are added to flags. -ELOOP: a component is a symlink. -EINVAL: an odd component. */
int beneath_open(int root_fd, const char *path, size_t len, int flags);

/* Does the symlink at `path` with this target stay below the root, links in its way included? Also
 * true for one that leads nowhere without leaving. */
bool beneath_symlink_stays(int root_fd, const char *path, size_t len, const char *target);
