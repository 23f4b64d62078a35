/*
 * One connection to a worker, and whether anybody lives at its other end.
 *
 * A worker may take as long as its origin does; one that hangs, or whose host is gone, must not be
 * waited for as long. A reader who has heard nothing for PEER_LINE_QUIET_MS therefore has a health
 * check sent on the same connection: a worker answers it from a thread of its own, however busy or
 * slow its reads are. One that does not within PEER_LINE_ANSWER_MS is silent.
 *
 * Nobody waits for a check: whoever waits for bytes, or comes with the next read, looks whether it
 * was answered.
 *
 * Threading: any number of threads; init and deinit when nobody else uses it.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "common/rpc/rpc.h"

#define PEER_LINE_QUIET_MS 500
#define PEER_LINE_ANSWER_MS 1500
#define PEER_LINE_LOOK_MS 50	/* how often a waiting reader looks for the answer */
#define PEER_LINE_CHECK_MS 1000 /* no more than one check in that time */

struct peer_line {
	struct rpc_channel *channel;
	_Atomic int64_t heard_ms;  /* the last sign of life */
	_Atomic int64_t silent_ms; /* when a check was last found unanswered */
	atomic_flag looking;
	/* owned by whoever set `looking` */
	struct rpc_stream *check; /* NULL: none is under way */
	int64_t sent_ms;	  /* the newest */
};

/* Connects at the first call. */
int peer_line_init(struct peer_line *l, const char *address, const char *token, struct error *err);
void peer_line_deinit(struct peer_line *l); /* zeroed memory is fine */

enum peer_line_state { PEER_LINE_ASKED, PEER_LINE_ALIVE, PEER_LINE_SILENT };
/* Sends a check unless one is under way, and takes the outcome of one that was sent since then (an
 * older one says nothing of now). Waits for nothing. */
enum peer_line_state peer_line_look(struct peer_line *l, int64_t since_ms);

/* As rpc_stream_next of a stream of this connection, but -EAGAIN once it is silent, and -ETIMEDOUT at
 * the deadline. */
int peer_line_next(struct peer_line *l, struct rpc_stream *stream, int64_t deadline_ms,
	struct rpc_message **ret, struct error *err);

/* Waits for one check: 0, or what the worker, or the transport, said. */
int peer_line_ask(struct peer_line *l);
