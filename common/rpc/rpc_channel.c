#include "common/rpc/rpc_channel.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/rpc/rpc_address.h"
#include "common/rpc/rpc_core.h"
#include "common/rpc/rpc_message.h"
#include "common/rpc/rpc_status.h"
#include "common/sync.h"

#define QUEUE_POOL_MAX 64
/* A peer that does not answer a connection attempt at all; one that refuses is known at once. */
#define CONNECT_TIMEOUT_MS 3000
#define RECONNECT_FIRST_MS 100
#define RECONNECT_MAX_MS 1000
#define KEEPALIVE_MS 20000

struct rpc_channel {
	grpc_channel *core;
	char *address;
	char *bearer; /* "Bearer TOKEN", or NULL */

	struct mutex mu;
	/* guarded by mu */
	grpc_completion_queue *pool[QUEUE_POOL_MAX];
	unsigned pooled;
	unsigned calls;
};

static grpc_arg int_arg(const char *key, int value)
{
	return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)key, .value.integer = value};
}

static grpc_channel *create_core(const struct address *a)
{
	char target[RPC_ADDRESS_TARGET_BYTES];
	grpc_channel_credentials *creds;
	grpc_channel *core;
	grpc_arg args[] = {
		int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, RPC_MESSAGE_MAX_BYTES),
		int_arg(GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, RPC_MESSAGE_MAX_BYTES),
		/* Only the identity: a small message must not inflate to a large one. */
		int_arg(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1),
		/* Peers are near; a proxy of the environment is for the origin. */
		int_arg(GRPC_ARG_ENABLE_HTTP_PROXY, 0),
		/* Each channel has its own connection: a stream of blocks must not delay
		 * a heartbeat that another part of the process sends. */
		int_arg(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1),
		int_arg(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1),
		/* Callers know what may be tried again. */
		int_arg(GRPC_ARG_ENABLE_RETRIES, 0),
		int_arg(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, RECONNECT_FIRST_MS),
		int_arg(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, RECONNECT_MAX_MS),
		int_arg(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, CONNECT_TIMEOUT_MS),
		int_arg(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, RECONNECT_MAX_MS),
		int_arg(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
		/* The last one only on TCP: the kernel tells when a unix peer is gone. */
		int_arg(GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_MS),
	};
	grpc_channel_args all = {.num_args = sizeof(args) / sizeof(args[0]), .args = args};

	if (a->kind == ADDRESS_UNIX)
		all.num_args--;
	rpc_address_target(a, target);
	creds = grpc_insecure_credentials_create();
	core = grpc_channel_create(target, creds, &all);
	grpc_channel_credentials_release(creds);
	return core;
}

static int make_bearer(const char *token, char **ret, struct error *err)
{
	grpc_slice slice;
	bool legal;

	*ret = NULL;
	if (!token)
		return 0;
	if (asprintf(ret, "Bearer %s", token) < 0) {
		*ret = NULL;
		return error_set(err, -ENOMEM, "out of memory");
	}
	slice = grpc_slice_from_copied_string(*ret);
	legal = grpc_header_nonbin_value_is_legal(slice) != 0;
	grpc_slice_unref(slice);
	if (legal)
		return 0;
	free(steal(ret));
	return error_set(err, -EINVAL, "the token holds characters that cannot be sent");
}

int rpc_channel_new(
	const char *address, const char *token, struct rpc_channel **ret, struct error *err)
{
	struct rpc_channel *ch;
	struct address a;
	char *bearer;
	int r;

	r = address_parse(address, &a, err);
	if (r < 0)
		return r;
	if (a.kind != ADDRESS_UNIX && a.port == 0)
		return error_set(
			err, -EINVAL, "address \"%s\": port 0 is only for listening", address);
	rpc_init();
	r = make_bearer(token, &bearer, err);
	if (r < 0) {
		rpc_deinit();
		return r;
	}
	ch = calloc(1, sizeof(*ch));
	if (!ch || !(ch->address = strdup(address))) {
		free(ch);
		free(bearer);
		rpc_deinit();
		return error_set(err, -ENOMEM, "out of memory");
	}
	mutex_init(&ch->mu);
	ch->bearer = bearer;
	ch->core = create_core(&a);
	*ret = ch;
	return 0;
}

void rpc_channel_free(struct rpc_channel *ch)
{
	if (!ch)
		return;
	assert(ch->calls == 0);
	grpc_channel_destroy(ch->core);
	while (ch->pooled > 0)
		rpc_core_queue_free(ch->pool[--ch->pooled]);
	mutex_deinit(&ch->mu);
	free(ch->address);
	free(ch->bearer);
	free(ch);
	rpc_deinit();
}

static grpc_completion_queue *take_queue(struct rpc_channel *ch)
{
	{
		mutex_guard(&ch->mu);
		ch->calls++;
		if (ch->pooled > 0)
			return ch->pool[--ch->pooled];
	}
	return grpc_completion_queue_create_for_pluck(NULL);
}

static void put_queue(struct rpc_channel *ch, grpc_completion_queue *queue)
{
	{
		mutex_guard(&ch->mu);
		assert(ch->calls > 0);
		ch->calls--;
		if (ch->pooled < QUEUE_POOL_MAX) {
			ch->pool[ch->pooled++] = queue;
			return;
		}
	}
	rpc_core_queue_free(queue);
}

int rpc_outgoing_init(struct rpc_outgoing *o, struct rpc_channel *ch, const char *path,
	const ProtobufCMessage *request, int64_t deadline_ms, struct error *err)
{
	grpc_slice method;

	if (clock_passed(deadline_ms))
		return error_set(
			err, -ETIMEDOUT, "no time was left for %s of %s", path, ch->address);
	memset(o, 0, sizeof(*o));
	o->request = rpc_message_pack(request);
	if (!o->request)
		return error_set(err, -EMSGSIZE, "%s: the request is larger than %u bytes", path,
			RPC_MESSAGE_MAX_BYTES);
	o->channel = ch;
	o->deadline_ms = deadline_ms;
	o->started_ms = clock_mono_ms();
	snprintf(o->path, sizeof(o->path), "%s", path);
	grpc_metadata_array_init(&o->initial);
	grpc_metadata_array_init(&o->trailing);
	o->status = GRPC_STATUS_UNKNOWN;
	o->details = grpc_empty_slice();
	if (ch->bearer) {
		o->auth.key = grpc_slice_from_static_string("authorization");
		o->auth.value = grpc_slice_from_static_string(ch->bearer);
	}
	o->queue = take_queue(ch);
	method = grpc_slice_from_copied_string(path);
	o->call = grpc_channel_create_call(ch->core, NULL, GRPC_PROPAGATE_DEFAULTS, o->queue,
		method, NULL, rpc_core_time(deadline_ms), NULL);
	grpc_slice_unref(method);
	return 0;
}

void rpc_outgoing_deinit(struct rpc_outgoing *o)
{
	grpc_call_unref(o->call);
	put_queue(o->channel, o->queue);
	grpc_byte_buffer_destroy(o->request);
	grpc_metadata_array_destroy(&o->initial);
	grpc_metadata_array_destroy(&o->trailing);
	grpc_slice_unref(o->details);
}

size_t rpc_outgoing_send_ops(struct rpc_outgoing *o, grpc_op *ops)
{
	memset(ops, 0, 3 * sizeof(*ops));
	ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
	if (o->channel->bearer) {
		ops[0].data.send_initial_metadata.count = 1;
		ops[0].data.send_initial_metadata.metadata = &o->auth;
	}
	ops[1].op = GRPC_OP_SEND_MESSAGE;
	ops[1].data.send_message.send_message = o->request;
	ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
	return 3;
}

void rpc_outgoing_status_op(struct rpc_outgoing *o, grpc_op *op)
{
	memset(op, 0, sizeof(*op));
	op->op = GRPC_OP_RECV_STATUS_ON_CLIENT;
	op->data.recv_status_on_client.trailing_metadata = &o->trailing;
	op->data.recv_status_on_client.status = &o->status;
	op->data.recv_status_on_client.status_details = &o->details;
}

int rpc_outgoing_result(struct rpc_outgoing *o, struct error *err)
{
	const char *text = (const char *)GRPC_SLICE_START_PTR(o->details);
	int text_len = (int)GRPC_SLICE_LENGTH(o->details);
	int code = rpc_status_to_errno(o->status);
	const char *address = o->channel->address;

	switch (o->status) {
	case GRPC_STATUS_OK:
		return 0;
	case GRPC_STATUS_UNAVAILABLE:
		return error_set(err, code, "no connection to %s: %.*s", address, text_len, text);
	case GRPC_STATUS_DEADLINE_EXCEEDED:
		/* The server's own, and not the call's. */
		if (o->deadline_ms == CLOCK_NEVER && text_len > 0)
			return error_set(err, code, "%.*s", text_len, text);
		return error_set(err, code, "%s did not answer %s within %" PRId64 " ms", address,
			o->path, o->deadline_ms - o->started_ms);
	default:
		if (text_len > 0)
			return error_set(err, code, "%.*s", text_len, text);
		return error_set(
			err, code, "%s failed %s with status %d", address, o->path, (int)o->status);
	}
}
