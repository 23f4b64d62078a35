/*
 * The protocol of announced orders, for a stream socket (docs/order.md is its description): frames
 * of a head and at most ORDER_FRAME_MAX_BYTES; all numbers little endian.
 */
#pragma once

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ORDER_PROTO_VERSION 1u
#define ORDER_FRAME_HEAD_BYTES 8u /* u32 kind, u32 length of what follows */
#define ORDER_FRAME_MAX_BYTES ((uint32_t)64 << 10)
#define ORDER_TEXT_MAX_BYTES 256u

enum order_frame {
	ORDER_BEGIN = 1,   /* u32 version, u32 flags, u64 list that it replaces or 0 */
	ORDER_PATHS = 2,   /* any number of: u16 length, path */
	ORDER_RECORDS = 3, /* any number of: u64 offset, u64 bytes, u16 length, path */
	ORDER_END = 4,
	ORDER_STEP = 5,	  /* u64 list, u64 step, u64 entries that are read */
	ORDER_STATUS = 6, /* u64 list, or 0 for the newest */
	ORDER_DROP = 7,	  /* u64 list */
	/* u64 steps, samples, bytes (0: not known), us waited for data, us computed, all since the
	 * connection began, u32 processes that read, u32 0 */
	ORDER_PACE = 8,

	ORDER_FAILED = 100, /* u32 errno, text; the connection ends */
	ORDER_BEGUN = 101,  /* u64 list, u64 snapshot */
	ORDER_ENDED = 102,  /* u64 accepted, u64 unknown, the first unknown path */
	ORDER_STATE = 103,  /* ORDER_STATE_FIELDS x u64: struct order_stat */
};

#define ORDER_BEGIN_BYTES 16u
#define ORDER_STEP_BYTES 24u
#define ORDER_ID_BYTES 8u
#define ORDER_PACE_BYTES 48u
#define ORDER_STATE_FIELDS 9u
#define ORDER_TIED 1u /* flag: the list goes with the connection */

static inline uint16_t order_get16(const unsigned char *at)
{
	uint16_t v;

	memcpy(&v, at, sizeof(v));
	return le16toh(v);
}

static inline uint32_t order_get32(const unsigned char *at)
{
	uint32_t v;

	memcpy(&v, at, sizeof(v));
	return le32toh(v);
}

static inline uint64_t order_get64(const unsigned char *at)
{
	uint64_t v;

	memcpy(&v, at, sizeof(v));
	return le64toh(v);
}

static inline unsigned char *order_put16(unsigned char *at, uint16_t v)
{
	v = htole16(v);
	memcpy(at, &v, sizeof(v));
	return at + sizeof(v);
}

static inline unsigned char *order_put32(unsigned char *at, uint32_t v)
{
	v = htole32(v);
	memcpy(at, &v, sizeof(v));
	return at + sizeof(v);
}

static inline unsigned char *order_put64(unsigned char *at, uint64_t v)
{
	v = htole64(v);
	memcpy(at, &v, sizeof(v));
	return at + sizeof(v);
}
