#include "common/rpc/rpc_wire.h"

#include <errno.h>
#include <string.h>

#include <grpc/byte_buffer.h>
#include <grpc/slice.h>

void rpc_wire_init(struct rpc_wire *w, grpc_byte_buffer *bytes)
{
	memset(w, 0, sizeof(*w));
	if (grpc_byte_buffer_reader_init(&w->reader, bytes))
		w->left = grpc_byte_buffer_length(bytes);
}

bool rpc_wire_at_end(const struct rpc_wire *w)
{
	return w->left == 0;
}

/* Makes at least one byte available at `at`; empty slices are legal. */
static int fill(struct rpc_wire *w)
{
	grpc_slice *slice;

	while (w->at == w->end) {
		if (w->left == 0 || !grpc_byte_buffer_reader_peek(&w->reader, &slice))
			return -EPROTO;
		w->at = GRPC_SLICE_START_PTR(*slice);
		w->end = w->at + GRPC_SLICE_LENGTH(*slice);
	}
	return 0;
}

int rpc_wire_read(struct rpc_wire *w, uint8_t *dst, size_t len)
{
	if (len > w->left)
		return -EPROTO;
	while (len > 0) {
		size_t part;
		int r = fill(w);

		if (r < 0)
			return r;
		part = (size_t)(w->end - w->at);
		if (part > len)
			part = len;
		if (dst) {
			memcpy(dst, w->at, part);
			dst += part;
		}
		w->at += part;
		w->left -= part;
		len -= part;
	}
	return 0;
}

int rpc_wire_varint(struct rpc_wire *w, uint64_t *ret)
{
	uint64_t value = 0;
	uint8_t byte;

	for (unsigned i = 0; i < RPC_WIRE_VARINT_BYTES; i++) {
		int r = rpc_wire_read(w, &byte, 1);

		if (r < 0)
			return r;
		/* The tenth byte has room for one bit. */
		if (i == RPC_WIRE_VARINT_BYTES - 1 && byte > 1)
			return -EPROTO;
		value |= (uint64_t)(byte & 0x7f) << (7 * i);
		if (!(byte & 0x80)) {
			*ret = value;
			return 0;
		}
	}
	return -EPROTO;
}

/* len bytes to the end of `out`, or skipped. */
static int copy_run(struct rpc_wire *w, size_t len, struct buf *out)
{
	int r;

	if (!out)
		return rpc_wire_read(w, NULL, len);
	if (len > w->left)
		return -EPROTO;
	r = buf_reserve(out, len);
	if (r < 0)
		return r;
	r = rpc_wire_read(w, (uint8_t *)out->data + out->len, len);
	if (r == 0) {
		out->len += len;
		out->data[out->len] = '\0';
	}
	return r;
}

static int put_varint(struct buf *out, uint64_t value)
{
	uint8_t bytes[RPC_WIRE_VARINT_BYTES];

	return out ? buf_append(out, bytes, rpc_wire_put_varint(bytes, value)) : 0;
}

int rpc_wire_copy_field(struct rpc_wire *w, uint64_t tag, struct buf *out)
{
	uint64_t value;
	int r;

	if (tag >> 3 == 0 || tag > UINT32_MAX)
		return -EPROTO;
	r = put_varint(out, tag);
	if (r < 0)
		return r;
	switch (tag & 7) {
	case RPC_WIRE_64BIT:
		return copy_run(w, 8, out);
	case RPC_WIRE_32BIT:
		return copy_run(w, 4, out);
	case RPC_WIRE_VARINT:
	case RPC_WIRE_BYTES:
		r = rpc_wire_varint(w, &value);
		if (r < 0)
			return r;
		r = put_varint(out, value);
		if (r < 0 || (tag & 7) == RPC_WIRE_VARINT)
			return r;
		/* Before the narrowing to size_t, so that no length is lost. */
		return value > w->left ? -EPROTO : copy_run(w, (size_t)value, out);
	default:
		return -EPROTO;
	}
}

size_t rpc_wire_put_varint(uint8_t *dst, uint64_t value)
{
	size_t n = 0;

	while (value >= 0x80) {
		dst[n++] = (uint8_t)(value | 0x80);
		value >>= 7;
	}
	dst[n++] = (uint8_t)value;
	return n;
}
