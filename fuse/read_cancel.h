/*
 * Calling off a read that waits: for the reader who was interrupted, and for a mount that stops.
 *
 * One is made per request. Whoever waits for something that does not look at `fired` by itself
 * attaches what it waits on for as long as it waits. Firing is final, and may happen before, during
 * or after the wait, from any thread.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "common/rpc/rpc.h"
#include "common/sync.h"

struct read_cancel {
	atomic_bool fired;
	struct mutex mu;
	struct rpc_stream *stream; /* guarded by mu */
};

void read_cancel_init(struct read_cancel *c);
void read_cancel_deinit(struct read_cancel *c);
void read_cancel_fire(struct read_cancel *c);
/* -ECANCELED when it has been fired already; then nothing is attached. */
int read_cancel_attach(struct read_cancel *c, struct rpc_stream *stream);
void read_cancel_detach(struct read_cancel *c);
