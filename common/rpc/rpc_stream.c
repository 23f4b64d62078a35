#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/rpc/rpc.h"
#include "common/rpc/rpc_channel.h"
#include "common/rpc/rpc_core.h"
#include "common/rpc/rpc_message.h"

/*
 * Three operations are under way at most: the opening one, the status (which completes last), and
 * the next message. The latter is asked for as soon as the one before it has been taken, so that
 * the transport can fill it while the caller copies.
 */
struct rpc_stream {
	struct rpc_outgoing out;
	atomic_bool cancelled;

	/* owned by the thread that calls next and close */
	grpc_byte_buffer *incoming;
	bool receiving;
	bool ended; /* the status has arrived */
	char open_tag, status_tag, message_tag;
};

static void start(struct rpc_stream *st, const grpc_op *ops, size_t n, void *tag)
{
	grpc_call_error e = grpc_call_start_batch(st->out.call, ops, n, tag, NULL);

	assert(e == GRPC_CALL_OK);
}

static void receive(struct rpc_stream *st)
{
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};

	assert(!st->receiving);
	st->incoming = NULL;
	op.data.recv_message.recv_message = &st->incoming;
	st->receiving = true;
	start(st, &op, 1, &st->message_tag);
}

int rpc_stream_open(struct rpc_channel *ch, const char *path, const ProtobufCMessage *request,
	int64_t deadline_ms, struct rpc_stream **ret, struct error *err)
{
	struct rpc_stream *st = calloc(1, sizeof(*st));
	grpc_op ops[4];
	int r;

	if (!st)
		return error_set(err, -ENOMEM, "out of memory");
	r = rpc_outgoing_init(&st->out, ch, path, request, deadline_ms, err);
	if (r < 0) {
		free(st);
		return r;
	}
	rpc_outgoing_status_op(&st->out, ops);
	start(st, ops, 1, &st->status_tag);
	memset(ops, 0, sizeof(ops));
	rpc_outgoing_send_ops(&st->out, ops);
	ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
	ops[3].data.recv_initial_metadata.recv_initial_metadata = &st->out.initial;
	start(st, ops, 4, &st->open_tag);
	receive(st);
	*ret = st;
	return 0;
}

static void await(struct rpc_stream *st, void *tag)
{
	/* Ends by the call's deadline, which the library keeps. */
	rpc_core_pluck(st->out.queue, tag, CLOCK_NEVER, NULL);
}

int rpc_stream_wait(struct rpc_stream *st, int64_t until_ms)
{
	if (st->receiving) {
		if (!rpc_core_pluck(st->out.queue, &st->message_tag, until_ms, NULL))
			return -ETIMEDOUT;
		st->receiving = false;
	}
	if (!st->incoming && !st->ended) {
		if (!rpc_core_pluck(st->out.queue, &st->status_tag, until_ms, NULL))
			return -ETIMEDOUT;
		st->ended = true;
	}
	return 0;
}

int rpc_stream_next(struct rpc_stream *st, struct rpc_message **ret, struct error *err)
{
	int r;

	rpc_stream_wait(st, CLOCK_NEVER);
	if (st->incoming) {
		struct rpc_message *m = rpc_message_new(st->incoming);

		st->incoming = NULL;
		if (!m) {
			grpc_call_cancel(st->out.call, NULL);
			return error_set(err, -ENOMEM, "out of memory");
		}
		receive(st);
		*ret = m;
		return 0;
	}
	if (atomic_load(&st->cancelled))
		return error_set(err, -ECANCELED, "%s: cancelled", st->out.path);
	r = rpc_outgoing_result(&st->out, err);
	return r < 0 ? r : RPC_STREAM_END;
}

void rpc_stream_cancel(struct rpc_stream *st)
{
	atomic_store(&st->cancelled, true);
	grpc_call_cancel(st->out.call, NULL);
}

void rpc_stream_close(struct rpc_stream *st)
{
	if (!st)
		return;
	if (!st->ended)
		grpc_call_cancel(st->out.call, NULL);
	await(st, &st->open_tag);
	if (st->receiving)
		await(st, &st->message_tag);
	if (st->incoming)
		grpc_byte_buffer_destroy(st->incoming);
	if (!st->ended)
		await(st, &st->status_tag);
	rpc_outgoing_deinit(&st->out);
	free(st);
}
