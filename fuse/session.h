/*
 * The connection to the kernel: mounts, negotiates, and runs the threads that take requests for one
 * struct fs.
 *
 * Where fs->keep has the device of a mount, it goes on with that in place of the client before
 * (device.h): nothing is mounted, and what that one left unanswered is answered.
 *
 * Calling sequence: start (the mount answers when it returns), wait (until the mount is gone or
 * stop was called), fs_stop, free. stop and invalidate from any thread in between.
 */
#pragma once

#include <stdbool.h>

#include "common/error.h"
#include "fuse/fs.h"

struct session;

struct session_options {
	const char *mountpoint; /* checked by mountpoint_prepare */
	bool allow_other;
	bool no_preload, no_passthrough;
};

int session_start(
	struct fs *fs, const struct session_options *opts, struct session **ret, struct error *err);
/* Blocks until the threads that took requests have ended. */
void session_wait(struct session *s);
/* Unmounts while requests are still answered, lazily when it is busy, and has the threads end. */
void session_stop(struct session *s);
/* Closes the connection: whoever still has the mount open gets ENOTCONN. NULL is fine. */
void session_free(struct session *s);

/* After fs->slots shows another snapshot than `old` (NULL: lost): makes the kernel ask for every
 * name and for the root anew. 0, or -errno when the kernel took less than all of it. */
int session_invalidate(struct session *s, struct manifest *old, struct error *err);

/* The way of kernels without epochs (before 6.16), a part of session_invalidate: node ids below the
 * root are of the old snapshot for good, so it is enough to have every name in the root looked up
 * again, those that were there and those that were not. */
int session_forget_root(struct session *s, struct manifest *old);
