/*
 * One incoming call and the slot that it lives in. See rpc_server.h.
 */
#pragma once

#include <grpc/grpc.h>

#include "common/rpc/rpc.h"
#include "common/rpc/rpc_server.h"

struct rpc_call {
	struct rpc_server *server;
	struct rpc_lane *lane;
	const struct rpc_method *only; /* that the slot serves; NULL in the main lane: any */
	grpc_completion_queue *queue;  /* of this slot alone */

	/* filled by the library when a call arrives */
	grpc_call *core;
	grpc_call_details details;
	gpr_timespec only_deadline;
	grpc_metadata_array metadata;

	const struct rpc_method *method; /* NULL until one is found */
	int64_t arrived_ns;
	int64_t deadline_ms;
	grpc_byte_buffer *request_bytes;
	ProtobufCMessage *request;
	int close_cancelled;
	bool closed;	   /* the close has been received */
	bool initial_sent; /* the initial metadata */
	bool broken;	   /* a send has failed: what the client has is not the whole stream */
	bool ended;
	bool detached;
	bool *handler_detached; /* tells the thread that runs the handler; gone when that returned
				 */
	char close_tag, batch_tag;
};

struct rpc_call *rpc_call_new(
	struct rpc_server *s, struct rpc_lane *lane, const struct rpc_method *only);
void rpc_call_free(struct rpc_call *call);

/* Offers the slot to the library. False when the server is shutting down: nothing will arrive. */
bool rpc_call_post(struct rpc_call *call);
/* A call has arrived. */
void rpc_call_begin(struct rpc_call *call, bool *handler_detached);
bool rpc_call_ended(const struct rpc_call *call);
/* Drops the ended call; the slot may be posted again. */
void rpc_call_reset(struct rpc_call *call);
bool rpc_call_has_path(const struct rpc_call *call, const char *path);
#define RPC_PATH_TEXT_BYTES 128
void rpc_call_path(const struct rpc_call *call, char text[RPC_PATH_TEXT_BYTES]);
bool rpc_call_has_token(const struct rpc_call *call, const char *token);

/* The handler will return without having ended the call: rpc_call_reply, _fail or _end comes later,
 * from any one thread, and frees the call. Detach before another thread can see it. */
void rpc_call_detach(struct rpc_call *call);
/* In rpc_server.c: posts a slot in the place of one that its call keeps; drops an ended call. */
void rpc_server_replace_detached(struct rpc_call *call);
void rpc_server_finish_detached(struct rpc_call *call);
