#include "common/rpc/rpc_call.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/support/alloc.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/rpc/rpc_core.h"
#include "common/rpc/rpc_message.h"
#include "common/rpc/rpc_metrics.h"
#include "common/rpc/rpc_status.h"

/* How long a peer may leave us with bytes that it does not take, or a request that it does not
 * send, before the call is dropped; the call's own deadline usually comes first. */
#define STALL_MS 60000
#define CONTROL_STALL_MS 2000 /* one thread serves them all */
#define REQUEST_MS 10000

static void init_incoming(struct rpc_call *call)
{
	call->core = NULL;
	grpc_metadata_array_init(&call->metadata);
	grpc_call_details_init(&call->details);
}

static void deinit_incoming(struct rpc_call *call)
{
	grpc_metadata_array_destroy(&call->metadata);
	grpc_call_details_destroy(&call->details);
}

struct rpc_call *rpc_call_new(
	struct rpc_server *s, struct rpc_lane *lane, const struct rpc_method *only)
{
	struct rpc_call *call = calloc(1, sizeof(*call));

	if (!call)
		return NULL;
	call->server = s;
	call->lane = lane;
	call->only = only;
	call->queue = grpc_completion_queue_create_for_pluck(NULL);
	init_incoming(call);
	return call;
}

void rpc_call_free(struct rpc_call *call)
{
	if (!call)
		return;
	assert(!call->core);
	deinit_incoming(call);
	rpc_core_queue_free(call->queue);
	free(call);
}

static int64_t stall_ms(const struct rpc_call *call)
{
	return call->lane->quick ? CONTROL_STALL_MS : STALL_MS;
}

bool rpc_call_post(struct rpc_call *call)
{
	struct rpc_server *s = call->server;
	grpc_call_error e;

	if (call->only)
		e = grpc_server_request_registered_call(s->core, call->only->registered,
			&call->core, &call->only_deadline, &call->metadata, NULL, call->queue,
			call->lane->next, call);
	else
		e = grpc_server_request_call(s->core, &call->core, &call->details, &call->metadata,
			call->queue, call->lane->next, call);
	return e == GRPC_CALL_OK;
}

/* Starts the operations and waits for them. False when they failed: the peer is gone, or the call's
 * deadline has passed. */
static bool run_batch(struct rpc_call *call, const grpc_op *ops, size_t n, int64_t limit_ms)
{
	grpc_call_error e = grpc_call_start_batch(call->core, ops, n, &call->batch_tag, NULL);
	bool ok = false;

	assert(e == GRPC_CALL_OK);
	if (!rpc_core_pluck(call->queue, &call->batch_tag, clock_deadline_ms(limit_ms), &ok)) {
		grpc_call_cancel(call->core, NULL);
		rpc_core_pluck(call->queue, &call->batch_tag, CLOCK_NEVER, NULL);
		ok = false;
	}
	return ok;
}

void rpc_call_begin(struct rpc_call *call, bool *handler_detached)
{
	grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
	grpc_call_error e;

	call->deadline_ms =
		rpc_core_deadline_ms(call->only ? call->only_deadline : call->details.deadline);
	call->handler_detached = handler_detached;
	call->method = NULL;
	call->arrived_ns = clock_mono_ns();
	call->closed = call->initial_sent = call->broken = false;
	call->ended = call->detached = false;
	op.data.recv_close_on_server.cancelled = &call->close_cancelled;
	e = grpc_call_start_batch(call->core, &op, 1, &call->close_tag, NULL);
	assert(e == GRPC_CALL_OK);
}

void rpc_call_reset(struct rpc_call *call)
{
	assert(call->ended && call->closed);
	if (call->request)
		protobuf_c_message_free_unpacked(steal(&call->request), NULL);
	if (call->request_bytes)
		grpc_byte_buffer_destroy(steal(&call->request_bytes));
	grpc_call_unref(steal(&call->core));
	deinit_incoming(call);
	init_incoming(call);
}

bool rpc_call_ended(const struct rpc_call *call)
{
	return call->ended;
}

void rpc_call_path(const struct rpc_call *call, char text[RPC_PATH_TEXT_BYTES])
{
	if (call->only)
		snprintf(text, RPC_PATH_TEXT_BYTES, "%s", call->only->path);
	else
		snprintf(text, RPC_PATH_TEXT_BYTES, "%.*s",
			(int)GRPC_SLICE_LENGTH(call->details.method),
			(const char *)GRPC_SLICE_START_PTR(call->details.method));
}

bool rpc_call_has_path(const struct rpc_call *call, const char *path)
{
	return grpc_slice_str_cmp(call->details.method, path) == 0;
}

/* Takes the same time wherever the two differ; the length of a token is no secret. */
static bool equal_in_constant_time(const uint8_t *a, const uint8_t *b, size_t len)
{
	volatile uint8_t differs = 0;

	for (size_t i = 0; i < len; i++)
		differs |= a[i] ^ b[i];
	return differs == 0;
}

bool rpc_call_has_token(const struct rpc_call *call, const char *token)
{
	static const char scheme[] = "Bearer ";
	size_t scheme_len = strlen(scheme);
	size_t token_len = strlen(token);

	for (size_t i = 0; i < call->metadata.count; i++) {
		const grpc_metadata *m = &call->metadata.metadata[i];
		const uint8_t *value = GRPC_SLICE_START_PTR(m->value);

		if (grpc_slice_str_cmp(m->key, "authorization") != 0)
			continue;
		if (GRPC_SLICE_LENGTH(m->value) != scheme_len + token_len)
			return false;
		return memcmp(value, scheme, scheme_len) == 0 &&
		       equal_in_constant_time(
			       value + scheme_len, (const uint8_t *)token, token_len);
	}
	return false;
}

void rpc_call_detach(struct rpc_call *call)
{
	assert(!call->ended && !call->detached);
	call->detached = true;
	*call->handler_detached = true;
	call->handler_detached = NULL;
	rpc_server_replace_detached(call);
}

const ProtobufCMessage *rpc_call_request(
	struct rpc_call *call, const ProtobufCMessageDescriptor *descriptor)
{
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};

	assert(!call->ended);
	if (call->request) {
		assert(call->request->descriptor == descriptor);
		return call->request;
	}
	op.data.recv_message.recv_message = &call->request_bytes;
	if (!run_batch(call, &op, 1, call->lane->quick ? CONTROL_STALL_MS : REQUEST_MS)) {
		rpc_call_fail(call, -ECANCELED, "the request did not arrive");
		return NULL;
	}
	if (!call->request_bytes) {
		rpc_call_fail(call, -EINVAL, "the call has no request message");
		return NULL;
	}
	call->request = rpc_message_unpack_within(
		call->request_bytes, descriptor, RPC_REQUEST_UNPACKED_MAX_BYTES);
	grpc_byte_buffer_destroy(steal(&call->request_bytes));
	if (!call->request)
		rpc_call_fail(call, -EINVAL, "the request message is malformed");
	return call->request;
}

int64_t rpc_call_deadline_ms(struct rpc_call *call)
{
	return call->deadline_ms;
}

bool rpc_call_cancelled(struct rpc_call *call)
{
	if (!call->closed)
		call->closed = rpc_core_pluck(call->queue, &call->close_tag, 0, NULL);
	return (call->closed && call->close_cancelled) || clock_passed(call->deadline_ms);
}

bool rpc_call_is_local(struct rpc_call *call)
{
	char *peer;
	bool local;

	if (!call->server->has_tcp)
		return true;
	peer = grpc_call_get_peer(call->core);
	local = peer && strncmp(peer, "unix:", 5) == 0;
	gpr_free(peer);
	return local;
}

/* Initial metadata has to go out once; with the first message or the status it costs no packet. */
static size_t put_initial(struct rpc_call *call, grpc_op *ops)
{
	if (call->initial_sent)
		return 0;
	call->initial_sent = true;
	ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
	return 1;
}

static void finish(struct rpc_call *call, grpc_byte_buffer *reply, int code, const char *text)
{
	grpc_slice details = grpc_empty_slice();
	grpc_op ops[3];
	size_t n;

	assert(!call->ended);
	call->ended = true;
	memset(ops, 0, sizeof(ops));
	n = put_initial(call, ops);
	if (reply) {
		ops[n].op = GRPC_OP_SEND_MESSAGE;
		ops[n++].data.send_message.send_message = reply;
	}
	ops[n].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
	if (code < 0) {
		details = grpc_slice_from_copied_buffer(
			text ? text : "", text ? strnlen(text, ERROR_TEXT_BYTES) : 0);
		ops[n].data.send_status_from_server.status = rpc_status_of_errno(code);
		ops[n].data.send_status_from_server.status_details = &details;
	}
	run_batch(call, ops, n + 1, stall_ms(call));
	if (!call->closed && !rpc_core_pluck(call->queue, &call->close_tag,
				     clock_deadline_ms(stall_ms(call)), NULL)) {
		grpc_call_cancel(call->core, NULL);
		rpc_core_pluck(call->queue, &call->close_tag, CLOCK_NEVER, NULL);
	}
	call->closed = true;
	grpc_slice_unref(details);
	if (reply)
		grpc_byte_buffer_destroy(reply);
	rpc_metrics_count(call->method ? call->method->path : "unknown",
		code < 0 ? rpc_status_of_errno(code) : GRPC_STATUS_OK,
		clock_mono_ns() - call->arrived_ns);
	if (call->detached)
		rpc_server_finish_detached(call);
}

void rpc_call_reply(struct rpc_call *call, const ProtobufCMessage *reply)
{
	grpc_byte_buffer *bytes = rpc_message_pack(reply);

	if (bytes)
		finish(call, bytes, 0, NULL);
	else
		finish(call, NULL, -ENOSPC, "the reply is larger than a message may be");
}

void rpc_call_fail(struct rpc_call *call, int code, const char *text)
{
	assert(code < 0);
	finish(call, NULL, code, text);
}

void rpc_call_end(struct rpc_call *call)
{
	/* A stream that was cut short must not look complete to a client that still listens. */
	if (clock_passed(call->deadline_ms))
		finish(call, NULL, -ETIMEDOUT, "the deadline passed before the last message");
	else if (call->broken || rpc_call_cancelled(call))
		finish(call, NULL, -ECANCELED, "the stream was cut short");
	else
		finish(call, NULL, 0, NULL);
}

static int send_bytes(struct rpc_call *call, grpc_byte_buffer *bytes)
{
	grpc_op ops[2];
	size_t n;
	bool ok;

	assert(!call->ended);
	memset(ops, 0, sizeof(ops));
	n = put_initial(call, ops);
	ops[n].op = GRPC_OP_SEND_MESSAGE;
	ops[n].data.send_message.send_message = bytes;
	ok = run_batch(call, ops, n + 1, stall_ms(call));
	grpc_byte_buffer_destroy(bytes);
	if (ok)
		return 0;
	call->broken = true;
	return clock_passed(call->deadline_ms) ? -ETIMEDOUT : -ECANCELED;
}

int rpc_call_send(struct rpc_call *call, const ProtobufCMessage *message)
{
	grpc_byte_buffer *bytes = rpc_message_pack(message);

	if (bytes)
		return send_bytes(call, bytes);
	call->broken = true;
	return -EMSGSIZE;
}

/* Bytes lent to the transport. */
struct loan {
	struct rpc_server *server;
	void (*release)(void *arg);
	void *arg;
	atomic_bool
		lent; /* orders the fields above before the return, which comes on another thread */
};

/* Runs inside the library, on any thread that polls. */
static void loan_return(void *p)
{
	struct loan *loan = p;
	bool lent = atomic_load(&loan->lent);
	struct rpc_server *s = loan->server;

	assert(lent);
	loan->release(loan->arg);
	free(loan);
	atomic_fetch_sub(&s->loans, 1);
}

/* -ENOMEM, -EMSGSIZE: the bytes have been given back then. */
static int lend_bytes(struct rpc_call *call, const ProtobufCMessage *head, unsigned field,
	const void *data, size_t len, void (*release)(void *arg), void *arg, grpc_byte_buffer **ret)
{
	struct loan *loan = malloc(sizeof(*loan));
	grpc_slice slice;

	if (!loan) {
		release(arg);
		return -ENOMEM;
	}
	*loan = (struct loan){.server = call->server, .release = release, .arg = arg};
	atomic_fetch_add(&call->server->loans, 1);
	atomic_store(&loan->lent, true);
	slice = grpc_slice_new_with_user_data((void *)data, len, loan_return, loan);
	*ret = rpc_message_pack_bytes(head, field, slice);
	grpc_slice_unref(slice);
	return *ret ? 0 : -EMSGSIZE;
}

int rpc_call_send_bytes(struct rpc_call *call, const ProtobufCMessage *head, unsigned field,
	const void *data, size_t len, void (*release)(void *arg), void *arg)
{
	grpc_byte_buffer *bytes;
	int r = lend_bytes(call, head, field, data, len, release, arg, &bytes);

	if (r == 0)
		return send_bytes(call, bytes);
	call->broken = true;
	return r;
}

int rpc_call_end_bytes(struct rpc_call *call, const ProtobufCMessage *head, unsigned field,
	const void *data, size_t len, void (*release)(void *arg), void *arg)
{
	grpc_byte_buffer *bytes;
	int r;

	if (call->broken || rpc_call_cancelled(call)) {
		release(arg);
		rpc_call_end(call);
		return -ECANCELED;
	}
	r = lend_bytes(call, head, field, data, len, release, arg, &bytes);
	if (r == 0)
		finish(call, bytes, 0, NULL);
	else
		rpc_call_fail(call, r, "the last message could not be made");
	return r;
}
