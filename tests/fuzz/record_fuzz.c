/* Records of the store's index: what decodes encodes to the same bytes, nothing else is taken. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "store/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* As the mutator cannot guess checksums, half of the inputs describe a record to be encoded. */
static void round_trip(const uint8_t *data, size_t len)
{
	struct record_bytes bytes;
	struct record in, out;

	memset(&in, 0, sizeof(in));
	if (len < 1 + sizeof(in))
		return;
	memcpy(&in, data + 1, sizeof(in));
	in.kind = (enum record_kind)(RECORD_STORE + data[0] % 5);
	record_encode(&in, false, &bytes);
	assert(bytes.key_len <= RECORD_KEY_BYTES && bytes.value_len <= RECORD_VALUE_BYTES);
	if (record_decode(bytes.key, bytes.key_len, bytes.value, bytes.value_len, &out) == 0) {
		struct record_bytes again;

		record_encode(&out, false, &again);
		assert(again.key_len == bytes.key_len && again.value_len == bytes.value_len);
		assert(memcmp(again.key, bytes.key, bytes.key_len) == 0);
		assert(memcmp(again.value, bytes.value, bytes.value_len) == 0);
	}
	bytes.value[data[0] % bytes.value_len] ^= 0x10;
	assert(record_decode(bytes.key, bytes.key_len, bytes.value, bytes.value_len, &out) ==
		-EBADMSG);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct record out;
	size_t key_len;
	int r;

	if (len == 0)
		return 0;
	key_len = data[0] % 32;
	if (key_len < len) {
		r = record_decode(data + 1, key_len < len - 1 ? key_len : len - 1,
			data + 1 + key_len, len - 1 - key_len, &out);
		assert(r == 0 || r == -EBADMSG);
	}
	round_trip(data, len);
	return 0;
}
