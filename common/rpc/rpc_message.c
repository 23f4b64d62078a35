#include "common/rpc/rpc_message.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>

#include "common/cleanup.h"
#include "common/rpc/rpc.h"
#include "common/rpc/rpc_wire.h"

struct rpc_message {
	grpc_byte_buffer *bytes;
};

/* ---- packing --------------------------------------------------------------------------------- */

grpc_byte_buffer *rpc_message_pack(const ProtobufCMessage *m)
{
	size_t len = protobuf_c_message_get_packed_size(m);
	grpc_byte_buffer *bytes;
	grpc_slice slice;

	if (len > RPC_MESSAGE_MAX_BYTES)
		return NULL;
	slice = grpc_slice_malloc(len);
	protobuf_c_message_pack(m, GRPC_SLICE_START_PTR(slice));
	bytes = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_slice_unref(slice);
	return bytes;
}

grpc_byte_buffer *rpc_message_pack_bytes(
	const ProtobufCMessage *head, unsigned field, grpc_slice data)
{
	size_t head_len = protobuf_c_message_get_packed_size(head);
	size_t len = GRPC_SLICE_LENGTH(data);
	uint8_t prefix[2 * RPC_WIRE_VARINT_BYTES];
	grpc_byte_buffer *bytes;
	grpc_slice slices[2];
	size_t at;

	at = rpc_wire_put_varint(prefix, (uint64_t)field << 3 | RPC_WIRE_BYTES);
	at += rpc_wire_put_varint(prefix + at, len);
	if (head_len > RPC_MESSAGE_MAX_BYTES || len > RPC_MESSAGE_MAX_BYTES ||
		head_len + at + len > RPC_MESSAGE_MAX_BYTES)
		return NULL;
	slices[0] = grpc_slice_malloc(head_len + at);
	protobuf_c_message_pack(head, GRPC_SLICE_START_PTR(slices[0]));
	memcpy(GRPC_SLICE_START_PTR(slices[0]) + head_len, prefix, at);
	slices[1] = data;
	bytes = grpc_raw_byte_buffer_create(slices, 2);
	grpc_slice_unref(slices[0]);
	return bytes;
}

/* ---- unpacking ------------------------------------------------------------------------------- */

struct budget {
	size_t left;
};

static void *budget_alloc(void *arg, size_t len)
{
	struct budget *b = arg;

	if (len > b->left)
		return NULL;
	b->left -= len;
	return malloc(len);
}

static void budget_free(void *arg, void *p)
{
	(void)arg;
	free(p);
}

/* The allocator's free is free(), so that the caller may release with the default allocator. */
static ProtobufCMessage *unpack_bounded(
	const ProtobufCMessageDescriptor *type, size_t len, const uint8_t *data, size_t max_bytes)
{
	struct budget budget = {.left = max_bytes};
	ProtobufCAllocator allocator = {
		.alloc = budget_alloc, .free = budget_free, .allocator_data = &budget};

	return protobuf_c_message_unpack(type, &allocator, len, data);
}

ProtobufCMessage *rpc_message_unpack_within(
	grpc_byte_buffer *bytes, const ProtobufCMessageDescriptor *type, size_t max_bytes)
{
	grpc_byte_buffer_reader reader;
	ProtobufCMessage *m;
	grpc_slice whole;

	if (grpc_byte_buffer_length(bytes) > RPC_MESSAGE_MAX_BYTES)
		return NULL;
	if (!grpc_byte_buffer_reader_init(&reader, bytes))
		return NULL;
	whole = grpc_byte_buffer_reader_readall(&reader);
	m = unpack_bounded(type, GRPC_SLICE_LENGTH(whole), GRPC_SLICE_START_PTR(whole), max_bytes);
	grpc_slice_unref(whole);
	grpc_byte_buffer_reader_destroy(&reader);
	return m;
}

ProtobufCMessage *rpc_message_unpack_buffer(
	grpc_byte_buffer *bytes, const ProtobufCMessageDescriptor *type)
{
	return rpc_message_unpack_within(bytes, type, RPC_REPLY_UNPACKED_MAX_BYTES);
}

struct rpc_message *rpc_message_new(grpc_byte_buffer *bytes)
{
	struct rpc_message *m = malloc(sizeof(*m));

	if (m)
		m->bytes = bytes;
	else
		grpc_byte_buffer_destroy(bytes);
	return m;
}

void rpc_message_free(struct rpc_message *m)
{
	if (!m)
		return;
	grpc_byte_buffer_destroy(m->bytes);
	free(m);
}

ProtobufCMessage *rpc_message_unpack(
	const struct rpc_message *m, const ProtobufCMessageDescriptor *type)
{
	return rpc_message_unpack_buffer(m->bytes, type);
}

/* What scanning a message for one bytes field fills. */
struct bytes_scan {
	unsigned field;
	uint8_t *dst;
	size_t room;
	size_t len;
	bool collect; /* the other fields go to head */
	struct buf head;
};

/* One field, from its tag (already read) to its end. */
static int scan_field(struct rpc_wire *w, uint64_t tag, struct bytes_scan *scan)
{
	uint64_t len;
	int r;

	if (tag != ((uint64_t)scan->field << 3 | RPC_WIRE_BYTES))
		return rpc_wire_copy_field(w, tag, scan->collect ? &scan->head : NULL);
	r = rpc_wire_varint(w, &len);
	if (r < 0)
		return r;
	if (len > scan->room)
		return -EPROTO;
	/* A field that comes twice has the last value, says protobuf. */
	scan->len = (size_t)len;
	return rpc_wire_read(w, scan->dst, (size_t)len);
}

int rpc_message_bytes(const struct rpc_message *m, unsigned field, void *dst, size_t room,
	size_t *ret_len, const ProtobufCMessageDescriptor *type, ProtobufCMessage **ret_head)
{
	struct bytes_scan scan = {.field = field, .dst = dst, .room = room, .head = BUF_INIT};
	ProtobufCMessage *head = NULL;
	struct rpc_wire w;
	uint64_t tag;
	int r = 0;

	scan.collect = ret_head != NULL;
	rpc_wire_init(&w, m->bytes);
	while (r == 0 && !rpc_wire_at_end(&w)) {
		r = rpc_wire_varint(&w, &tag);
		if (r == 0)
			r = scan_field(&w, tag, &scan);
	}
	if (r == 0 && ret_head) {
		head = unpack_bounded(type, scan.head.len, (const uint8_t *)scan.head.data,
			RPC_REPLY_UNPACKED_MAX_BYTES);
		if (!head)
			r = -EPROTO;
	}
	buf_deinit(&scan.head);
	if (r < 0)
		return r;
	*ret_len = scan.len;
	if (ret_head)
		*ret_head = head;
	return 0;
}
