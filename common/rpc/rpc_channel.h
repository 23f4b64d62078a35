/*
 * What unary calls and streams share of a channel: its calls, and a pool of the private queues that
 * calls wait on.
 */
#pragma once

#include <grpc/grpc.h>

#include "common/error.h"
#include "common/rpc/rpc.h"

/* One outgoing call. The buffers outlive every operation that was started with them. */
struct rpc_outgoing {
	struct rpc_channel *channel;
	grpc_call *call;
	grpc_completion_queue *queue;
	grpc_byte_buffer *request;
	grpc_metadata auth;
	grpc_metadata_array initial;
	grpc_metadata_array trailing;
	grpc_status_code status;
	grpc_slice details;
	int64_t deadline_ms;
	int64_t started_ms;
	char path[128];
};

/* Creates the call; nothing is sent yet. */
int rpc_outgoing_init(struct rpc_outgoing *o, struct rpc_channel *ch, const char *path,
	const ProtobufCMessage *request, int64_t deadline_ms, struct error *err);
/* Every operation must have completed. */
void rpc_outgoing_deinit(struct rpc_outgoing *o);

/* Fills ops[0..2]: initial metadata, request, close. Returns how many. */
size_t rpc_outgoing_send_ops(struct rpc_outgoing *o, grpc_op *ops);
/* Fills one op that receives the status into o. */
void rpc_outgoing_status_op(struct rpc_outgoing *o, grpc_op *op);
/* The received status as a result: 0 or negative with a text. */
int rpc_outgoing_result(struct rpc_outgoing *o, struct error *err);
