#include "store/record.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include <xxhash.h>

struct cursor {
	uint8_t *at;
};

static void add32(struct cursor *c, uint32_t v)
{
	v = htole32(v);
	memcpy(c->at, &v, sizeof(v));
	c->at += sizeof(v);
}

static void add64(struct cursor *c, uint64_t v)
{
	v = htole64(v);
	memcpy(c->at, &v, sizeof(v));
	c->at += sizeof(v);
}

/* Big-endian, so that keys sort by number. */
static void add64_sorted(struct cursor *c, uint64_t v)
{
	v = htobe64(v);
	memcpy(c->at, &v, sizeof(v));
	c->at += sizeof(v);
}

static uint32_t take32(const uint8_t **at)
{
	uint32_t v;

	memcpy(&v, *at, sizeof(v));
	*at += sizeof(v);
	return le32toh(v);
}

static uint64_t take64(const uint8_t **at)
{
	uint64_t v;

	memcpy(&v, *at, sizeof(v));
	*at += sizeof(v);
	return le64toh(v);
}

static uint64_t take64_sorted(const uint8_t **at)
{
	uint64_t v;

	memcpy(&v, *at, sizeof(v));
	*at += sizeof(v);
	return be64toh(v);
}

static uint64_t record_hash(const void *key, size_t key_len, const void *value, size_t value_len)
{
	return XXH3_64bits_withSeed(value, value_len, XXH3_64bits(key, key_len));
}

static void encode_key(const struct record *r, struct record_bytes *ret)
{
	struct cursor c = {.at = ret->key};

	*c.at++ = (uint8_t)r->kind;
	switch (r->kind) {
	case RECORD_STORE:
	case RECORD_SCRUB:
		break;
	case RECORD_DATASET:
		add64_sorted(&c, r->dataset.id);
		break;
	case RECORD_FILE:
		add64_sorted(&c, r->file.number);
		break;
	case RECORD_BLOCK:
		add64_sorted(&c, r->block.id.hi);
		add64_sorted(&c, r->block.id.lo);
		break;
	}
	ret->key_len = (uint8_t)(c.at - ret->key);
}

void record_encode(const struct record *r, bool remove, struct record_bytes *ret)
{
	struct cursor c = {.at = ret->value};

	encode_key(r, ret);
	ret->value_len = 0;
	if (remove)
		return;
	switch (r->kind) {
	case RECORD_STORE:
		add64(&c, r->store.id);
		add32(&c, r->store.next_file);
		break;
	case RECORD_DATASET:
		add64(&c, r->dataset.grant_bytes);
		add64(&c, r->dataset.threshold);
		break;
	case RECORD_FILE:
		add32(&c, r->file.kind);
		add64(&c, r->file.dataset_id);
		add64(&c, r->file.object.hi);
		add64(&c, r->file.object.lo);
		add64(&c, r->file.object_bytes);
		break;
	case RECORD_BLOCK:
		add32(&c, r->block.file);
		add32(&c, r->block.page);
		add32(&c, r->block.len);
		add32(&c, r->block.flags);
		break;
	case RECORD_SCRUB:
		add64(&c, r->scrub.at);
		break;
	}
	add64(&c, record_hash(ret->key, ret->key_len, ret->value, (size_t)(c.at - ret->value)));
	ret->value_len = (uint8_t)(c.at - ret->value);
	assert(ret->value_len <= sizeof(ret->value));
}

static const struct {
	uint8_t key, value;
} record_sizes[] = {
	[RECORD_STORE] = {1, 20},
	[RECORD_DATASET] = {9, 24},
	[RECORD_FILE] = {9, 44},
	[RECORD_BLOCK] = {17, 24},
	[RECORD_SCRUB] = {1, 16},
};

static void decode_fields(const uint8_t *k, const uint8_t *v, struct record *ret)
{
	switch (ret->kind) {
	case RECORD_STORE:
		ret->store.id = take64(&v);
		ret->store.next_file = take32(&v);
		break;
	case RECORD_DATASET:
		ret->dataset.id = take64_sorted(&k);
		ret->dataset.grant_bytes = take64(&v);
		ret->dataset.threshold = take64(&v);
		break;
	case RECORD_FILE:
		ret->file.number = (uint32_t)take64_sorted(&k);
		ret->file.kind = take32(&v);
		ret->file.dataset_id = take64(&v);
		ret->file.object.hi = take64(&v);
		ret->file.object.lo = take64(&v);
		ret->file.object_bytes = take64(&v);
		break;
	case RECORD_BLOCK:
		ret->block.id.hi = take64_sorted(&k);
		ret->block.id.lo = take64_sorted(&k);
		ret->block.file = take32(&v);
		ret->block.page = take32(&v);
		ret->block.len = take32(&v);
		ret->block.flags = take32(&v);
		break;
	case RECORD_SCRUB:
		ret->scrub.at = take64(&v);
		break;
	}
}

int record_decode(
	const void *key, size_t key_len, const void *value, size_t value_len, struct record *ret)
{
	const uint8_t *k = key, *v = value, *hash;
	struct record r = {0};

	if (key_len < 1 || k[0] < RECORD_STORE || k[0] > RECORD_SCRUB)
		return -EBADMSG;
	r.kind = (enum record_kind)k[0];
	if (key_len != record_sizes[r.kind].key || value_len != record_sizes[r.kind].value)
		return -EBADMSG;
	hash = v + value_len - 8;
	if (take64(&hash) != record_hash(key, key_len, value, value_len - 8))
		return -EBADMSG;
	decode_fields(k + 1, v, &r);
	*ret = r;
	return 0;
}
