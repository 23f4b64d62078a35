/*
 * Messages between protobuf-c and the transport's buffers.
 */
#pragma once

#include <grpc/byte_buffer.h>
#include <grpc/slice.h>

#include <protobuf-c/protobuf-c.h>

struct rpc_message;

/* Takes the buffer. NULL when memory is short (the buffer is destroyed). */
struct rpc_message *rpc_message_new(grpc_byte_buffer *bytes);

/* The packed message in one buffer; NULL when it is larger than RPC_MESSAGE_MAX_BYTES. */
grpc_byte_buffer *rpc_message_pack(const ProtobufCMessage *m);

/* head packed, then the bytes field `field` made of `data`, whose reference the buffer shares.
 * NULL when the whole is larger than RPC_MESSAGE_MAX_BYTES. */
grpc_byte_buffer *rpc_message_pack_bytes(
	const ProtobufCMessage *head, unsigned field, grpc_slice data);

/* The message in `bytes`; NULL when it is malformed, or would unpack to more memory than max_bytes:
 * two bytes on the wire can become a hundred in memory. */
#define RPC_REQUEST_UNPACKED_MAX_BYTES (16u << 20)
#define RPC_REPLY_UNPACKED_MAX_BYTES (64u << 20)
ProtobufCMessage *rpc_message_unpack_within(
	grpc_byte_buffer *bytes, const ProtobufCMessageDescriptor *type, size_t max_bytes);
/* With the limit of replies. */
ProtobufCMessage *rpc_message_unpack_buffer(
	grpc_byte_buffer *bytes, const ProtobufCMessageDescriptor *type);
