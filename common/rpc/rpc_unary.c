#include <assert.h>
#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "common/rpc/rpc.h"
#include "common/rpc/rpc_channel.h"
#include "common/rpc/rpc_core.h"
#include "common/rpc/rpc_message.h"

int rpc_unary(struct rpc_channel *ch, const char *path, const ProtobufCMessage *request,
	const ProtobufCMessageDescriptor *reply_type, ProtobufCMessage **ret_reply,
	int64_t deadline_ms, struct error *err)
{
	grpc_byte_buffer *bytes = NULL;
	struct rpc_outgoing o;
	grpc_op ops[6];
	grpc_call_error e;
	int r;

	r = rpc_outgoing_init(&o, ch, path, request, deadline_ms, err);
	if (r < 0)
		return r;
	memset(ops, 0, sizeof(ops));
	rpc_outgoing_send_ops(&o, ops);
	ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
	ops[3].data.recv_initial_metadata.recv_initial_metadata = &o.initial;
	ops[4].op = GRPC_OP_RECV_MESSAGE;
	ops[4].data.recv_message.recv_message = &bytes;
	rpc_outgoing_status_op(&o, &ops[5]);
	e = grpc_call_start_batch(o.call, ops, 6, &o, NULL);
	assert(e == GRPC_CALL_OK);
	/* The library ends the call at its deadline. */
	rpc_core_pluck(o.queue, &o, CLOCK_NEVER, NULL);
	r = rpc_outgoing_result(&o, err);
	if (r == 0) {
		ProtobufCMessage *reply = NULL;

		if (bytes)
			reply = rpc_message_unpack_buffer(bytes, reply_type);
		if (reply)
			*ret_reply = reply;
		else
			r = error_set(err, -EIO, "%s: the reply is malformed", path);
	}
	if (bytes)
		grpc_byte_buffer_destroy(bytes);
	rpc_outgoing_deinit(&o);
	return r;
}
