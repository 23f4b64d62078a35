/*
 * Remote procedure calls: gRPC over C core behind a dozen functions. The only header of this folder
 * that others include, and this folder is the only code that includes <grpc/...>.
 *
 * Addresses are "unix:/path" or "HOST:PORT". Messages are protobuf-c. A server runs each handler
 * inline on one of its threads; a handler may block, within the call's deadline. A stream is a
 * sequence of replies to one request; nobody here needs the other kinds.
 *
 * Errors cross the wire as a status and come back as the same -errno and text (rpc_status.c has the
 * one table): -ENOENT NOT_FOUND, -EEXIST ALREADY_EXISTS, -EINVAL INVALID_ARGUMENT, -EACCES
 * UNAUTHENTICATED, -EPERM PERMISSION_DENIED, -ETIMEDOUT DEADLINE_EXCEEDED, -ECANCELED CANCELLED,
 * -ENOSPC RESOURCE_EXHAUSTED, -ESTALE FAILED_PRECONDITION, -EOPNOTSUPP UNIMPLEMENTED, -EAGAIN
 * UNAVAILABLE (nobody there, or connection lost), everything else -EIO INTERNAL. Some share a status
 * and come back as its errno above: -ENOMEM, -EDQUOT, -EMSGSIZE as -ENOSPC; -EBUSY, -ENOTEMPTY as
 * -ESTALE; -ERANGE, -ENAMETOOLONG as -EINVAL. A request too large to be sent is -EMSGSIZE.
 *
 * A server that listens on TCP wants `token`: calls without it in the metadata
 * ("authorization: Bearer TOKEN") get UNAUTHENTICATED before any handler runs. Unix sockets are
 * 0600 (0660 with a group); the kernel is the guard there.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "common/error.h"

#define RPC_MESSAGE_MAX_BYTES (8u << 20) /* larger messages are refused by both sides */

/* Process-wide; counted, so that each component may call the pair; servers and channels do so
 * themselves. The gRPC library, once up, has threads: fork into the background before. */
void rpc_init(void);
void rpc_deinit(void);

/* -EINVAL and what is wrong with the address. */
int rpc_address_check(const char *address, struct error *err);

/* ---- server ---------------------------------------------------------------------------------- */

struct rpc_server;
struct rpc_call;

/* Must end the call exactly once: rpc_call_reply, rpc_call_fail, or rpc_call_end or
 * rpc_call_end_bytes after sends. One thread at a time uses a call. A handler may call other servers
 * of the process; one that calls its own server waits for a thread of it, so enough of these wait for
 * each other until their deadlines. */
typedef void rpc_handler(struct rpc_call *call, void *arg);

struct rpc_server_options {
	unsigned threads;	  /* handlers that run at once, bounded ones apart; 0 is 16 */
	const char *token;	  /* required for a HOST:PORT address; copied */
	const char *socket_group; /* group of unix sockets, which makes them 0660; NULL for none */
};

int rpc_server_new(
	const struct rpc_server_options *opts, struct rpc_server **ret, struct error *err);
/* Before start. `path` is "/package.Service/Method", kept by reference (a literal). */
void rpc_server_add(struct rpc_server *s, const char *path, rpc_handler *handler, void *arg);
/* The same for calls that may wait long (for an origin, for a slow reader): at most max_running run
 * at once, on threads of their own. Further ones take no thread: they wait for their turn, in the
 * order in which they came, until their deadline. A server can have eight such methods. */
void rpc_server_add_bounded(struct rpc_server *s, const char *path, rpc_handler *handler, void *arg,
	unsigned max_running);
/* Before start, once or more. A stale unix socket in the way is removed, a live one is -EADDRINUSE.
 * ret_port (may be NULL) receives the port of a HOST:0 address. */
int rpc_server_listen(struct rpc_server *s, const char *address, int *ret_port, struct error *err);
int rpc_server_start(struct rpc_server *s, struct error *err);
/* Refuses new calls, gives the running ones grace_ms, cancels the rest, joins every thread. */
void rpc_server_stop(struct rpc_server *s, int64_t grace_ms);
void rpc_server_free(struct rpc_server *s); /* after stop, or never started; NULL is fine */

/* The parsed request, owned by the call; NULL after which the call has been failed already
 * (garbage on the wire): the handler just returns. */
const ProtobufCMessage *rpc_call_request(
	struct rpc_call *call, const ProtobufCMessageDescriptor *descriptor);
int64_t rpc_call_deadline_ms(struct rpc_call *call);
/* The client has gone or given up, or the deadline has passed; cheap enough to ask often. */
bool rpc_call_cancelled(struct rpc_call *call);
/* True for a unix-socket peer: secrets may be told to it. */
bool rpc_call_is_local(struct rpc_call *call);

void rpc_call_reply(struct rpc_call *call, const ProtobufCMessage *reply);
void rpc_call_fail(struct rpc_call *call, int code, const char *text);

/* Streams. A send waits until the transport took the message; negative once the peer is gone, or
 * took nothing for a minute. */
int rpc_call_send(struct rpc_call *call, const ProtobufCMessage *message);
/* Sends `head` packed, followed by a bytes field `field` that holds [data, data+len) without copying
 * it. On the wire this is an ordinary message of head's type. `release(arg)` is called exactly once,
 * when the transport no longer needs the bytes, also on failure: on any thread, inside the library,
 * so it must neither wait long nor use this header. rpc_server_stop waits for the last one. */
int rpc_call_send_bytes(struct rpc_call *call, const ProtobufCMessage *head, unsigned field,
	const void *data, size_t len, void (*release)(void *arg), void *arg);
/* After a send that failed, or past the deadline, the client gets a failure instead of an end that
 * looks complete. */
void rpc_call_end(struct rpc_call *call);
/* As rpc_call_send_bytes of the last message and rpc_call_end, which costs a packet and a wakeup of
 * either side less. The call has ended, whatever comes of it. */
int rpc_call_end_bytes(struct rpc_call *call, const ProtobufCMessage *head, unsigned field,
	const void *data, size_t len, void (*release)(void *arg), void *arg);

/* ---- client ---------------------------------------------------------------------------------- */

struct rpc_channel;
struct rpc_stream;

/* Lazy: connects at the first call and again after losses. token may be NULL. */
int rpc_channel_new(
	const char *address, const char *token, struct rpc_channel **ret, struct error *err);
void rpc_channel_free(struct rpc_channel *ch);

/* ret_reply is freed by protobuf_c_message_free_unpacked(reply, NULL). A deadline that has passed
 * already is -ETIMEDOUT and sends nothing. */
int rpc_unary(struct rpc_channel *ch, const char *path, const ProtobufCMessage *request,
	const ProtobufCMessageDescriptor *reply_type, ProtobufCMessage **ret_reply,
	int64_t deadline_ms, struct error *err);

int rpc_stream_open(struct rpc_channel *ch, const char *path, const ProtobufCMessage *request,
	int64_t deadline_ms, struct rpc_stream **ret, struct error *err);
/* The raw bytes of the next message: 0 and a message, RPC_STREAM_END after the last one of a call
 * that succeeded, or a negative status. Unpack it with protobuf-c, or, for the bytes field of a
 * block, read it in place with rpc_message_bytes. */
#define RPC_STREAM_END 1
struct rpc_message;
int rpc_stream_next(struct rpc_stream *st, struct rpc_message **ret, struct error *err);
/* Waits, at most until `until_ms`, for what next returns at once after it: 0, or -ETIMEDOUT. A time
 * that has passed only looks. */
int rpc_stream_wait(struct rpc_stream *st, int64_t until_ms);
/* From any thread: makes a waiting next return -ECANCELED. */
void rpc_stream_cancel(struct rpc_stream *st);
void rpc_stream_close(struct rpc_stream *st); /* cancels what is left; NULL is fine */

ProtobufCMessage *rpc_message_unpack(
	const struct rpc_message *m, const ProtobufCMessageDescriptor *type); /* NULL: garbage */
/* Copies the bytes field `field` of the message straight from the transport's buffers to dst (at
 * most `room`); -EPROTO when the message is malformed or the field exceeds room. A message without
 * the field gives 0 bytes. All its other fields come unpacked in ret_head (free it; may be NULL). */
int rpc_message_bytes(const struct rpc_message *m, unsigned field, void *dst, size_t room,
	size_t *ret_len, const ProtobufCMessageDescriptor *type, ProtobufCMessage **ret_head);
void rpc_message_free(struct rpc_message *m);

/* ---- health ---------------------------------------------------------------------------------- */

/* Adds grpc.health.v1.Health (Check and Watch); "" is the server as a whole, not serving until set.
 * Served by a thread of its own: it answers while every handler is busy. Over TCP it wants the token
 * like any call; probes that have none ask /healthz (common/metrics_http.h). */
struct rpc_health;
int rpc_health_new(struct rpc_server *s, struct rpc_health **ret, struct error *err);
void rpc_health_set(struct rpc_health *h, const char *service, bool serving);
void rpc_health_free(struct rpc_health *h); /* after the server is stopped */
