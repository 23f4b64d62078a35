/*
 * A cursor over a protobuf message that lies in the transport's slices. It exists so that the one
 * large bytes field of a block goes from the transport's buffers to its destination in one copy,
 * which protobuf-c, wanting contiguous memory and allocating every field, cannot do. Everything
 * else is left to protobuf-c: fields that are not that one are validated for their extent only and
 * collected for it.
 *
 * Reads return 0, or -EPROTO past the end and for what no encoder writes (a varint of more than ten
 * bytes, groups, field number 0).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>

#include "common/buf.h"

#define RPC_WIRE_VARINT_BYTES 10

enum rpc_wire_type {
	RPC_WIRE_VARINT = 0,
	RPC_WIRE_64BIT = 1,
	RPC_WIRE_BYTES = 2,
	RPC_WIRE_32BIT = 5,
};

struct rpc_wire {
	grpc_byte_buffer_reader reader;
	const uint8_t *at; /* within the current slice */
	const uint8_t *end;
	size_t left; /* in the message, the current slice included */
};

/* Borrows the buffer. */
void rpc_wire_init(struct rpc_wire *w, grpc_byte_buffer *bytes);
bool rpc_wire_at_end(const struct rpc_wire *w);

int rpc_wire_varint(struct rpc_wire *w, uint64_t *ret);
/* dst may be NULL: skips. */
int rpc_wire_read(struct rpc_wire *w, uint8_t *dst, size_t len);
/* Appends the field that starts with `tag`, which was just read, to `out` (NULL: skips it). */
int rpc_wire_copy_field(struct rpc_wire *w, uint64_t tag, struct buf *out);

/* Writes up to RPC_WIRE_VARINT_BYTES, returns how many. */
size_t rpc_wire_put_varint(uint8_t *dst, uint64_t value);
