#include "store/checks.h"

#include <endian.h>
#include <string.h>

#include "store/hash.h"

#define CHECKS_MAGIC 0x316b6c4272417267ull /* "grArBlk1" */

static void put64(uint8_t *at, uint64_t v)
{
	v = htole64(v);
	memcpy(at, &v, sizeof(v));
}

static uint64_t get64(const uint8_t *at)
{
	uint64_t v;

	memcpy(&v, at, sizeof(v));
	return le64toh(v);
}

static uint64_t chunk_hash(const void *data, uint32_t len, uint32_t chunk)
{
	uint32_t at = chunk * (uint32_t)BLOCK_CHECK_BYTES;
	uint32_t left = len - at;

	return XXH3_64bits(
		(const char *)data + at, left < BLOCK_CHECK_BYTES ? left : BLOCK_CHECK_BYTES);
}

void checks_make(const struct block_id *id, const void *data, uint32_t len,
	uint8_t ret[static CHECKS_BYTES_MAX])
{
	uint32_t count = checks_count(len);

	put64(ret, CHECKS_MAGIC);
	put64(ret + 8, id->hi);
	put64(ret + 16, id->lo);
	put64(ret + 24, len | (uint64_t)count << 32);
	for (uint32_t i = 0; i < count; i++)
		put64(ret + 32 + 8 * i, chunk_hash(data, len, i));
	put64(ret + 32 + 8 * count, XXH3_64bits(ret, 32 + 8 * count));
}

bool checks_match(const uint8_t *checks, const struct block_id *id, uint32_t len)
{
	uint32_t count = checks_count(len);

	return get64(checks) == CHECKS_MAGIC && get64(checks + 8) == id->hi &&
	       get64(checks + 16) == id->lo &&
	       get64(checks + 24) == (len | (uint64_t)count << 32) &&
	       get64(checks + 32 + 8 * count) == XXH3_64bits(checks, 32 + 8 * count);
}

bool checks_verify(const uint8_t *checks, const struct block_id *id, const void *data, uint32_t len)
{
	if (!checks_match(checks, id, len))
		return false;
	for (uint32_t i = 0; i < checks_count(len); i++) {
		if (chunk_hash(data, len, i) != checks_sum(checks, i))
			return false;
	}
	return true;
}

uint64_t checks_sum(const uint8_t *checks, uint32_t chunk)
{
	return get64(checks + 32 + 8 * chunk);
}
