#include "master/import_entry.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

struct packed_entry {
	uint64_t size;
	int64_t mtime_ns;
	uint32_t mode, uid, gid;
	uint16_t validator_len; /* followed by a NUL that it does not count */
	uint16_t target_len;
	uint8_t type;
	uint8_t reserved[7];
};

#define KEY_HEAD_BYTES 2
#define KEY_TAIL_BYTES (1 + sizeof(uint64_t))

int import_entry_key(const char *path, size_t path_len, uint64_t sequence, struct buf *ret)
{
	uint64_t big_sequence = htobe64(sequence);
	uint16_t depth = 0, big_depth;
	char *at;

	buf_clear(ret);
	if (buf_reserve(ret, KEY_HEAD_BYTES + path_len + KEY_TAIL_BYTES) < 0)
		return -ENOMEM;
	at = ret->data + KEY_HEAD_BYTES;
	for (size_t i = 0; i < path_len; i++) {
		depth += path[i] == '/';
		at[i] = path[i] == '/' ? '\0' : path[i];
	}
	big_depth = htobe16(depth);
	memcpy(ret->data, &big_depth, sizeof(big_depth));
	at[path_len] = '\0';
	memcpy(at + path_len + 1, &big_sequence, sizeof(big_sequence));
	ret->len = KEY_HEAD_BYTES + path_len + KEY_TAIL_BYTES;
	return 0;
}

int import_entry_value(const struct manifest_builder_entry *e, struct buf *ret)
{
	struct packed_entry packed = {
		.size = e->size,
		.mtime_ns = e->mtime_ns,
		.mode = e->mode,
		.uid = e->uid,
		.gid = e->gid,
		.validator_len = (uint16_t)strlen(e->validator),
		.target_len = (uint16_t)e->target_len,
		.type = (uint8_t)e->type,
	};

	buf_clear(ret);
	if (buf_append(ret, &packed, sizeof(packed)) < 0 ||
		buf_append(ret, e->validator, packed.validator_len + 1u) < 0)
		return -ENOMEM;
	return e->target_len ? buf_append(ret, e->target, e->target_len) : 0;
}

static int path_read(const char *key, size_t key_len, struct buf *ret_path, uint64_t *ret_sequence)
{
	size_t len;

	if (key_len <= KEY_HEAD_BYTES + KEY_TAIL_BYTES)
		return -EPROTO;
	len = key_len - KEY_HEAD_BYTES - KEY_TAIL_BYTES;
	memcpy(ret_sequence, key + key_len - sizeof(*ret_sequence), sizeof(*ret_sequence));
	*ret_sequence = be64toh(*ret_sequence);
	buf_clear(ret_path);
	if (buf_append(ret_path, key + KEY_HEAD_BYTES, len) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < len; i++)
		if (ret_path->data[i] == '\0')
			ret_path->data[i] = '/';
	return 0;
}

int import_entry_read(const char *key, size_t key_len, const char *value, size_t value_len,
	struct buf *ret_path, struct manifest_builder_entry *ret, uint64_t *ret_sequence)
{
	struct packed_entry packed;
	int r = path_read(key, key_len, ret_path, ret_sequence);

	if (r < 0)
		return r;
	if (value_len < sizeof(packed))
		return -EPROTO;
	memcpy(&packed, value, sizeof(packed));
	if (value_len != sizeof(packed) + packed.validator_len + 1u + packed.target_len ||
		value[sizeof(packed) + packed.validator_len] != '\0')
		return -EPROTO;
	*ret = (struct manifest_builder_entry){
		.path = ret_path->data,
		.path_len = ret_path->len,
		.type = (enum manifest_entry_type)packed.type,
		.size = packed.size,
		.mtime_ns = packed.mtime_ns,
		.validator = value + sizeof(packed),
		.mode = packed.mode,
		.uid = packed.uid,
		.gid = packed.gid,
		.target = value + sizeof(packed) + packed.validator_len + 1,
		.target_len = packed.target_len,
	};
	return 0;
}
