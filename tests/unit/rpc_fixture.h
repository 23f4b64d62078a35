/*
 * A server and a channel over real sockets in a private directory, for the rpc tests. The messages
 * are those of the block service: their meaning does not matter here.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/rpc/rpc.h"
#include "granary/v1/block.pb-c.h"

#define FIXTURE_TOKEN "correct horse battery staple"

struct fixture {
	char dir[64];
	char address[128];
	char tcp_address[64];
	struct rpc_server *server;
	struct rpc_channel *channel;
};

static inline void fixture_dir(struct fixture *f)
{
	strcpy(f->dir, "/tmp/rpc-test-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->address, sizeof(f->address), "unix:%s/socket", f->dir);
}

static inline void fixture_new_server(struct fixture *f, unsigned threads, const char *token)
{
	struct rpc_server_options opts = {.threads = threads, .token = token};
	struct error err = ERROR_INIT;

	fixture_dir(f);
	assert_int_equal(rpc_server_new(&opts, &f->server, &err), 0);
}

static inline void fixture_start(struct fixture *f, bool tcp)
{
	struct error err = ERROR_INIT;
	int port = 0;

	assert_int_equal(rpc_server_listen(f->server, f->address, NULL, &err), 0);
	if (tcp) {
		assert_int_equal(rpc_server_listen(f->server, "127.0.0.1:0", &port, &err), 0);
		assert_true(port > 0);
		snprintf(f->tcp_address, sizeof(f->tcp_address), "127.0.0.1:%d", port);
	}
	assert_int_equal(rpc_server_start(f->server, &err), 0);
	assert_int_equal(rpc_channel_new(f->address, NULL, &f->channel, &err), 0);
}

static inline void fixture_stop(struct fixture *f)
{
	rpc_channel_free(f->channel);
	rpc_server_stop(f->server, 1000);
	rpc_server_free(f->server);
	/* Also proves that the server left nothing there. */
	assert_int_equal(rmdir(f->dir), 0);
}

/* One Cached call: the result, and on success *ret_value (may be NULL). */
static inline int fixture_call(struct rpc_channel *ch, const char *path, uint64_t value,
	int64_t timeout_ms, uint64_t *ret_value, struct error *err)
{
	Granary__V1__CachedRequest req = GRANARY__V1__CACHED_REQUEST__INIT;
	ProtobufCMessage *reply;
	int r;

	req.dataset_id = value;
	r = rpc_unary(ch, path, &req.base, &granary__v1__cached_reply__descriptor, &reply,
		clock_deadline_ms(timeout_ms), err);
	if (r == 0) {
		if (ret_value)
			*ret_value = ((Granary__V1__CachedReply *)reply)->cached_bytes;
		protobuf_c_message_free_unpacked(reply, NULL);
	}
	return r;
}

static inline void fixture_reply(struct rpc_call *call, uint64_t value)
{
	Granary__V1__CachedReply reply = GRANARY__V1__CACHED_REPLY__INIT;

	reply.cached_bytes = value;
	rpc_call_reply(call, &reply.base);
}

/* A handler: the request's value plus one. */
static inline void fixture_increment(struct rpc_call *call, void *arg)
{
	const Granary__V1__CachedRequest *req =
		(const Granary__V1__CachedRequest *)rpc_call_request(
			call, &granary__v1__cached_request__descriptor);

	(void)arg;
	if (req)
		fixture_reply(call, req->dataset_id + 1);
}
