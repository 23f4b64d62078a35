/*
 * Messages from the wire, cut into slices anywhere: each type unpacks or is refused, and the bytes
 * field that is copied past protobuf-c is what protobuf-c sees in it.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/byte_buffer.h>
#include <grpc/slice.h>

#include "common/rpc/rpc.h"
#include "common/rpc/rpc_message.h"
#include "granary/v1/block.pb-c.h"
#include "granary/v1/cluster.pb-c.h"
#include "granary/v1/host.pb-c.h"

#define DATA_FIELD 2
#define ROOM ((size_t)1 << 16)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const ProtobufCMessageDescriptor *const types[] = {
	&granary__v1__read_block_request__descriptor,
	&granary__v1__read_block_chunk__descriptor,
	&granary__v1__add_dataset_request__descriptor,
	&granary__v1__import_progress__descriptor,
	&granary__v1__worker_heartbeat_request__descriptor,
	&granary__v1__worker_heartbeat_reply__descriptor,
	&granary__v1__mount_heartbeat_request__descriptor,
	&granary__v1__open_mount_reply__descriptor,
	&granary__v1__status_reply__descriptor,
	&granary__v1__host_mount_request__descriptor,
};

/* The input as a message of slices of `step` bytes. */
static grpc_byte_buffer *sliced(const uint8_t *data, size_t len, size_t step)
{
	grpc_slice slices[64];
	grpc_byte_buffer *buffer;
	size_t count = 0;

	while (len > 0 && count < 63) {
		size_t n = count == 62 || len < step ? len : step;

		slices[count++] = grpc_slice_from_copied_buffer((const char *)data, n);
		data += n;
		len -= n;
	}
	buffer = grpc_raw_byte_buffer_create(slices, count);
	for (size_t i = 0; i < count; i++)
		grpc_slice_unref(slices[i]);
	return buffer;
}

static void try_types(const uint8_t *data, size_t len, size_t step)
{
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		grpc_byte_buffer *buffer = sliced(data, len, step);
		ProtobufCMessage *m = rpc_message_unpack_buffer(buffer, types[i]);

		if (m) {
			assert(protobuf_c_message_check(m));
			protobuf_c_message_free_unpacked(m, NULL);
		}
		grpc_byte_buffer_destroy(buffer);
	}
}

static void try_bytes(const uint8_t *data, size_t len, size_t step)
{
	static uint8_t dst[ROOM];
	struct rpc_message *m = rpc_message_new(sliced(data, len, step));
	Granary__V1__ReadBlockChunk *whole;
	ProtobufCMessage *head = NULL;
	size_t got = 0;
	int r;

	assert(m);
	whole = (void *)rpc_message_unpack(m, &granary__v1__read_block_chunk__descriptor);
	r = rpc_message_bytes(
		m, DATA_FIELD, dst, ROOM, &got, &granary__v1__read_block_chunk__descriptor, &head);
	assert(r == 0 || r == -EPROTO || r == -ENOMEM);
	if (r == 0 && whole)
		assert(got == whole->data.len &&
			(got == 0 || memcmp(dst, whole->data.data, got) == 0));
	if (head)
		protobuf_c_message_free_unpacked(head, NULL);
	if (whole)
		granary__v1__read_block_chunk__free_unpacked(whole, NULL);
	rpc_message_free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	size_t step;

	if (len < 1 || len > ROOM)
		return 0;
	step = (size_t)data[0] + 1;
	try_types(data + 1, len - 1, step);
	try_bytes(data + 1, len - 1, step);
	return 0;
}
