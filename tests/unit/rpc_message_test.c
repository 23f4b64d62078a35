/* The decoding of messages that come in arbitrary slices, against protobuf-c as the judge. */
#include "tests/unit/rpc_fixture.h"

#include <errno.h>

#include <grpc/byte_buffer.h>
#include <grpc/slice.h>

#include "common/rpc/rpc_message.h"
#include "common/rpc/rpc_wire.h"
#include "granary/v1/cluster.pb-c.h"
#include "granary/v1/dataset.pb-c.h"

#define CHUNK_TYPE (&granary__v1__read_block_chunk__descriptor)

/* A message whose bytes lie in slices of `step` bytes, with an empty one after each. */
static struct rpc_message *sliced(const void *data, size_t len, size_t step)
{
	grpc_slice slices[512];
	size_t n = 0, at = 0;
	grpc_byte_buffer *bytes;
	struct rpc_message *m;

	while (at < len) {
		size_t part = len - at < step ? len - at : step;

		assert_true(n + 2 <= 512);
		slices[n++] = grpc_slice_from_copied_buffer((const char *)data + at, part);
		slices[n++] = grpc_empty_slice();
		at += part;
	}
	bytes = grpc_raw_byte_buffer_create(slices, n);
	while (n > 0)
		grpc_slice_unref(slices[--n]);
	m = rpc_message_new(bytes);
	assert_non_null(m);
	return m;
}

static int scan(const void *data, size_t len, size_t step, void *dst, size_t room, size_t *ret_len,
	ProtobufCMessage **ret_head)
{
	struct rpc_message *m = sliced(data, len, step);
	int r = rpc_message_bytes(m, 2, dst, room, ret_len, CHUNK_TYPE, ret_head);

	rpc_message_free(m);
	return r;
}

static void the_field_is_found_in_slices_of_any_size(void **state)
{
	Granary__V1__ReadBlockChunk chunk = GRANARY__V1__READ_BLOCK_CHUNK__INIT;
	uint8_t data[200], packed[256], dst[200];
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 3);
	chunk.source = GRANARY__V1__READ_BLOCK_CHUNK__SOURCE__SOURCE_ORIGIN;
	chunk.data.data = data;
	chunk.data.len = sizeof(data);
	len = protobuf_c_message_pack(&chunk.base, packed);
	for (size_t step = 1; step <= len; step++) {
		Granary__V1__ReadBlockChunk *head;
		size_t got = 0;

		memset(dst, 0, sizeof(dst));
		assert_int_equal(
			scan(packed, len, step, dst, sizeof(dst), &got, (ProtobufCMessage **)&head),
			0);
		assert_int_equal(got, sizeof(data));
		assert_memory_equal(dst, data, sizeof(data));
		assert_int_equal(head->source, chunk.source);
		assert_int_equal(head->data.len, 0);
		protobuf_c_message_free_unpacked(&head->base, NULL);
	}
}

static void the_head_is_optional(void **state)
{
	static const uint8_t packed[] = {0x08, 0x01, 0x12, 0x03, 'a', 'b', 'c'};
	char dst[3];
	size_t got = 0;

	(void)state;
	assert_int_equal(scan(packed, sizeof(packed), 2, dst, 3, &got, NULL), 0);
	assert_int_equal(got, 3);
	assert_memory_equal(dst, "abc", 3);
}

static void a_missing_field_is_no_bytes(void **state)
{
	static const uint8_t packed[] = {0x08, 0x01};
	size_t got = 9;
	ProtobufCMessage *head;
	char dst[1];

	(void)state;
	assert_int_equal(scan(packed, sizeof(packed), 1, dst, 1, &got, NULL), 0);
	assert_int_equal(got, 0);
	got = 9;
	assert_int_equal(scan("", 0, 1, dst, 1, &got, &head), 0);
	assert_int_equal(got, 0);
	protobuf_c_message_free_unpacked(head, NULL);
}

static void the_last_of_two_values_counts(void **state)
{
	static const uint8_t packed[] = {0x12, 0x03, 'a', 'b', 'c', 0x12, 0x02, 'd', 'e'};
	char dst[3];
	size_t got = 0;

	(void)state;
	assert_int_equal(scan(packed, sizeof(packed), 3, dst, 3, &got, NULL), 0);
	assert_int_equal(got, 2);
	assert_memory_equal(dst, "de", 2);
}

static void unknown_fields_are_passed_over(void **state)
{
	static const uint8_t packed[] = {0x50, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0x01,			      /* 10: varint, max */
		0x59, 1, 2, 3, 4, 5, 6, 7, 8, /* 11: 64 bits */
		0x65, 1, 2, 3, 4,	      /* 12: 32 bits */
		0x6a, 0x02, 0x12, 0x09,	      /* 13: bytes like a field */
		0x12, 0x01, 'x'};
	char dst[4];
	size_t got = 0;
	ProtobufCMessage *head;

	(void)state;
	for (size_t step = 1; step <= sizeof(packed); step++) {
		assert_int_equal(scan(packed, sizeof(packed), step, dst, 4, &got, &head), 0);
		assert_int_equal(got, 1);
		assert_int_equal(dst[0], 'x');
		assert_int_equal(head->n_unknown_fields, 4);
		protobuf_c_message_free_unpacked(head, NULL);
	}
}

static void what_no_encoder_writes_is_refused(void **state)
{
	static const struct {
		const char *what;
		const char *bytes;
		size_t len;
	} bad[] = {
		{"a tag without its end", "\x80", 1},
		{"a field without its value", "\x08", 1},
		{"a varint of eleven bytes", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
			12},
		{"a varint of 65 bits", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11},
		{"bytes past the end",
			"\x12\x05"
			"abcd",
			6},
		{"another field's bytes past the end",
			"\x6a\x05"
			"abcd",
			6},
		{"a length of 2^63", "\x12\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11},
		{"another field's length of 2^63", "\x6a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
			11},
		{"a cut 64-bit field", "\x59\x01\x02\x03", 4},
		{"a cut 32-bit field", "\x65\x01\x02\x03", 4},
		{"a group", "\x5b\x5c", 2},
		{"wire type 6", "\x5e", 1},
		{"field number 0", "\x00\x01", 2},
		{"a tag beyond 32 bits", "\x88\x80\x80\x80\x10\x01", 6},
		{"the field as a number", "\x10\x01", 2},
	};
	char dst[16];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		for (size_t step = 1; step <= bad[i].len; step++) {
			ProtobufCMessage *head;
			size_t got = 7;

			if (scan(bad[i].bytes, bad[i].len, step, dst, sizeof(dst), &got, &head) !=
				-EPROTO)
				fail_msg("accepted %s", bad[i].what);
			assert_int_equal(got, 7);
		}
}

static void more_bytes_than_room_are_refused_without_a_write(void **state)
{
	static const uint8_t packed[] = {0x12, 0x04, 'a', 'b', 'c', 'd'};
	char dst[4] = "zzz";
	size_t got = 0;

	(void)state;
	assert_int_equal(scan(packed, sizeof(packed), 6, dst, 3, &got, NULL), -EPROTO);
	assert_memory_equal(dst, "zzz", 3);
}

/* Both ways of reading agree on random bytes, and neither crashes. */
static void random_bytes_are_judged_as_protobuf_c_judges_them(void **state)
{
	unsigned seed = 7, accepted = 0;
	uint8_t noise[24], dst[32];

	(void)state;
	for (int round = 0; round < 60000; round++) {
		size_t len = (size_t)rand_r(&seed) % sizeof(noise), got = 0;
		Granary__V1__ReadBlockChunk *want;
		struct rpc_message *m;
		int r;

		for (size_t i = 0; i < len; i++)
			noise[i] = (uint8_t)(rand_r(&seed) >> (rand_r(&seed) % 6));
		/* Half of them start plausibly. */
		if (len > 2 && round % 2) {
			noise[0] = 0x12;
			noise[1] %= 24;
		}
		m = sliced(noise, len, 1 + (size_t)round % 5);
		want = (Granary__V1__ReadBlockChunk *)rpc_message_unpack(m, CHUNK_TYPE);
		r = rpc_message_bytes(m, 2, dst, sizeof(dst), &got, CHUNK_TYPE, NULL);
		/* We are stricter than protobuf-c; what we accept it accepts, with the same bytes.
		 */
		if (r == 0 && want) {
			accepted++;
			assert_int_equal(got, want->data.len);
			assert_memory_equal(dst, want->data.data ? want->data.data : dst, got);
		}
		if (want)
			protobuf_c_message_free_unpacked(&want->base, NULL);
		rpc_message_free(m);
	}
	assert_true(accepted > 100);
}

static void a_message_that_would_swell_is_refused(void **state)
{
	/* Empty submessages: two bytes on the wire, a struct and a pointer each in memory. */
	size_t len = 4u << 20;
	uint8_t *packed = malloc(len);
	struct rpc_message *m;
	grpc_slice slice;
	grpc_byte_buffer *bytes;

	(void)state;
	assert_non_null(packed);
	for (size_t i = 0; i < len; i += 2) {
		packed[i] = 0x0a; /* ListDatasetsReply.datasets */
		packed[i + 1] = 0;
	}
	slice = grpc_slice_from_copied_buffer((char *)packed, len);
	bytes = grpc_raw_byte_buffer_create(&slice, 1);
	m = rpc_message_new(bytes);
	assert_null(rpc_message_unpack(m, &granary__v1__list_datasets_reply__descriptor));
	rpc_message_free(m);
	grpc_slice_unref(slice);
	free(packed);
}

static void a_large_but_honest_message_is_unpacked(void **state)
{
	Granary__V1__ListDatasetsReply reply = GRANARY__V1__LIST_DATASETS_REPLY__INIT, *got;
	Granary__V1__Dataset one = GRANARY__V1__DATASET__INIT, *all[5000];
	grpc_byte_buffer *bytes;

	(void)state;
	one.name = (char *)"a dataset with a name";
	one.origin = (char *)"s3://bucket/prefix/of/some/length";
	for (size_t i = 0; i < 5000; i++)
		all[i] = &one;
	reply.n_datasets = 5000;
	reply.datasets = all;
	bytes = rpc_message_pack(&reply.base);
	assert_non_null(bytes);
	got = (Granary__V1__ListDatasetsReply *)rpc_message_unpack_buffer(
		bytes, &granary__v1__list_datasets_reply__descriptor);
	assert_non_null(got);
	assert_int_equal(got->n_datasets, 5000);
	assert_string_equal(got->datasets[4999]->origin, one.origin);
	assert_null(rpc_message_unpack_within(
		bytes, &granary__v1__list_datasets_reply__descriptor, 1u << 20));
	protobuf_c_message_free_unpacked(&got->base, NULL);
	grpc_byte_buffer_destroy(bytes);
}

static void varints_are_written_as_they_are_read(void **state)
{
	static const uint64_t values[] = {0, 1, 127, 128, 300, UINT32_MAX, UINT64_MAX};

	(void)state;
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		uint8_t text[RPC_WIRE_VARINT_BYTES];
		size_t n = rpc_wire_put_varint(text, values[i]);
		grpc_slice slice = grpc_slice_from_copied_buffer((char *)text, n);
		grpc_byte_buffer *bytes = grpc_raw_byte_buffer_create(&slice, 1);
		struct rpc_wire w;
		uint64_t back = 1;

		rpc_wire_init(&w, bytes);
		assert_int_equal(rpc_wire_varint(&w, &back), 0);
		assert_true(back == values[i]);
		assert_true(rpc_wire_at_end(&w));
		grpc_byte_buffer_destroy(bytes);
		grpc_slice_unref(slice);
	}
}

static int setup(void **state)
{
	(void)state;
	rpc_init();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rpc_deinit();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_field_is_found_in_slices_of_any_size),
		cmocka_unit_test(the_head_is_optional),
		cmocka_unit_test(a_missing_field_is_no_bytes),
		cmocka_unit_test(the_last_of_two_values_counts),
		cmocka_unit_test(unknown_fields_are_passed_over),
		cmocka_unit_test(what_no_encoder_writes_is_refused),
		cmocka_unit_test(more_bytes_than_room_are_refused_without_a_write),
		cmocka_unit_test(random_bytes_are_judged_as_protobuf_c_judges_them),
		cmocka_unit_test(a_message_that_would_swell_is_refused),
		cmocka_unit_test(a_large_but_honest_message_is_unpacked),
		cmocka_unit_test(varints_are_written_as_they_are_read),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
