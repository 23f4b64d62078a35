/*
 * The kernel's device under a libfuse session, so that another process can go on with a connection
 * that the kernel believes to be in use without a break.
 *
 * The first client's INIT request is kept as it came. A later one has libfuse answer it again before
 * anything else: the same client negotiates the same, and the kernel, which had its answer, drops
 * this one. Then FUSE_NOTIFY_RESEND puts every request that the client before had read and not
 * answered back into the kernel's queue; such a one has DEVICE_UNIQUE_RESEND set in its number from
 * then on.
 *
 * Calling sequence: init; replay when it took over, before anything reads; receive. Threading: replay
 * alone, receive from any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"
#include "fuse/mount_state.h"

/* linux/fuse.h has it since 6.9. */
#define DEVICE_UNIQUE_RESEND ((uint64_t)1 << 63)

struct fuse_session;

struct device {
	struct mount_state *state;
	bool negotiated; /* INIT has come this far: set by the session */
};

void device_init(struct device *d, struct mount_state *state);
int device_replay(struct device *d, struct fuse_session *se, struct error *err);
/* The next request: its bytes; 0 at the end of the connection, or -errno. A cancellation point. */
ssize_t device_receive(struct device *d, int fd, void *buf, size_t len);
/* The number of the request that this thread is at. */
uint64_t device_request(void);
void device_set_request(const void *request);
/* Puts what was read and not answered back into the kernel's queue; 0 or -errno. */
int device_resend(int fd);
/* Where nobody goes on with a connection: whoever waits gets ENOTCONN, until nobody does or the
 * deadline comes. Closing the device does the same, but for a process that is kept from closing its
 * own. */
void device_refuse(int fd, int64_t deadline_ms);
/* Whether the kernel of that INIT can resend (6.9): without, what a dead client had read is lost. */
bool device_can_resend(const struct mount_state *state);
