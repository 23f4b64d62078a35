/*
 * The threads that take the kernel's requests: one at first, another one whenever all are at work,
 * up to LOOP_THREADS_MAX. All share one descriptor: a clone of the device that is closed aborts its
 * requests.
 *
 * Why not libfuse's: its threads read into memory that is not there yet when a thread is new, and a
 * process that was killed faults nothing in, so the kernel answers the request that it was about to
 * copy with EIO instead of keeping it for the next client (device.h).
 *
 * Calling sequence: init, attach, run on a thread of its own, stop from any other, deinit.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "common/sync.h"
#include "fuse/device.h"

#define LOOP_THREADS_MAX 16u

struct loop {
	struct fuse_session *se;
	struct device *device;
	atomic_uint idle; /* threads that wait for a request, or are about to */

	struct mutex mu;
	struct cond changed;
	/* guarded by mu */
	bool ending;
	int result;
	unsigned started;
	struct loop_worker {
		struct loop *loop;
		pthread_t thread;
		void *buffer;
	} workers[LOOP_THREADS_MAX];
};

void loop_init(struct loop *l);
void loop_deinit(struct loop *l);
void loop_attach(struct loop *l, struct fuse_session *se, struct device *device);
/* Until stop, or the end of the connection: 0, or -errno when it broke. No thread is left then. */
int loop_run(struct loop *l);
void loop_stop(struct loop *l);
