/*
 * Calling off a read that waits: for the reader who was interrupted, and for a mount that stops.
 *
 * One is made per request. Whoever waits for something that does not look at `fired` by itself
 * attaches what it waits on for as long as it waits. Firing is final, and may happen before, during
 * or after the wait, from any thread.
 *
 * It also says how long the read has waited for its job's share of the origins' bandwidth: by that
 * its deadline moves on, whoever looks at it. And how long it was with workers that gave nothing.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "common/rpc/rpc.h"
#include "common/sync.h"
#include "fuse/throttle.h"

struct read_cancel {
	atomic_bool fired;
	struct mutex mu;
	struct rpc_stream *stream; /* guarded by mu */
	_Atomic int64_t waited_ms, lost_ms;
	struct throttle *throttle; /* of the mount, told of it too; NULL for none */
};

void read_cancel_init(struct read_cancel *c);
void read_cancel_deinit(struct read_cancel *c);
void read_cancel_fire(struct read_cancel *c);
/* -ECANCELED when it has been fired already; then nothing is attached. */
int read_cancel_attach(struct read_cancel *c, struct rpc_stream *stream);
void read_cancel_detach(struct read_cancel *c);

/* The read has waited for the last `ms`. */
void read_cancel_waited(struct read_cancel *c, int64_t ms);
/* A worker was asked for that long, and gave nothing. */
void read_cancel_lost(struct read_cancel *c, int64_t ms);
/* Another read begins under the same cancel. */
void read_cancel_restart(struct read_cancel *c);
/* `deadline_ms`, moved on by what was waited. */
int64_t read_cancel_deadline_ms(const struct read_cancel *c, int64_t deadline_ms);
