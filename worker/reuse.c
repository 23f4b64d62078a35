#include "worker/reuse.h"

#include <stdlib.h>

#include "common/sync.h"

#define STRETCH_BYTES 65536u
#define STRETCHES_MAX 64
#define WAYS 4
#define KEEP_OLD_OUT_OF 4 /* a full bucket takes one newcomer in so many */

static_assert(BLOCK_BYTES / STRETCH_BYTES <= STRETCHES_MAX, "a bit for each stretch");

struct record {
	uint64_t seen;	  /* a bit per stretch; 0: free */
	uint32_t tag;	  /* of the block id */
	uint32_t re_read; /* stretches */
};

struct bucket {
	struct record way[WAYS];
};

struct reuse {
	uint64_t buckets; /* a power of two */
	struct mutex mu;
	/* guarded by mu */
	struct bucket *table;
	uint64_t random;
};

struct reuse *reuse_new(uint64_t records)
{
	struct reuse *u = calloc(1, sizeof(*u));

	assert(records >= WAYS && (records & (records - 1)) == 0);
	if (!u)
		return NULL;
	u->buckets = records / WAYS;
	u->random = 0x9e3779b97f4a7c15;
	u->table = calloc(u->buckets, sizeof(*u->table));
	if (!u->table) {
		free(u);
		return NULL;
	}
	mutex_init(&u->mu);
	return u;
}

void reuse_free(struct reuse *u)
{
	if (!u)
		return;
	mutex_deinit(&u->mu);
	free(u->table);
	free(u);
}

/* xorshift64: good enough to pick victims. */
static uint64_t next_random(struct reuse *u)
{
	u->random ^= u->random << 13;
	u->random ^= u->random >> 7;
	u->random ^= u->random << 17;
	return u->random;
}

static struct record *find_locked(struct reuse *u, const struct block_id *id)
{
	struct bucket *b = &u->table[id->lo & (u->buckets - 1)];
	uint32_t tag = (uint32_t)id->hi;

	for (int i = 0; i < WAYS; i++)
		if (b->way[i].seen && b->way[i].tag == tag)
			return &b->way[i];
	return NULL;
}

/* A free record, or a random one when it is its turn, or NULL. */
static struct record *claim_locked(struct reuse *u, const struct block_id *id)
{
	struct bucket *b = &u->table[id->lo & (u->buckets - 1)];
	struct record *r = NULL;
	uint64_t dice;

	for (int i = 0; i < WAYS && !r; i++)
		if (!b->way[i].seen)
			r = &b->way[i];
	if (!r) {
		dice = next_random(u) >> 32;
		if (dice % KEEP_OLD_OUT_OF != 0)
			return NULL;
		r = &b->way[dice / KEEP_OLD_OUT_OF % WAYS];
	}
	*r = (struct record){.tag = (uint32_t)id->hi};
	return r;
}

/* The stretches whose first byte lies in [offset, offset+len). */
static uint64_t stretches_of(uint32_t offset, uint32_t len)
{
	unsigned first = (offset + STRETCH_BYTES - 1) / STRETCH_BYTES;
	unsigned end = (unsigned)(((uint64_t)offset + len + STRETCH_BYTES - 1) / STRETCH_BYTES);
	uint64_t below_end = end >= STRETCHES_MAX ? UINT64_MAX : ((uint64_t)1 << end) - 1;

	if (first >= end)
		return 0;
	return below_end & ~(((uint64_t)1 << first) - 1);
}

bool reuse_read(struct reuse *u, const struct block_id *id, uint32_t block_bytes, uint32_t offset,
	uint32_t len)
{
	uint64_t bits = stretches_of(offset, len);
	unsigned total = (block_bytes + STRETCH_BYTES - 1) / STRETCH_BYTES;
	struct record *r;
	uint64_t again;

	if (!bits)
		return false;
	mutex_guard(&u->mu);
	r = find_locked(u, id);
	if (!r)
		r = claim_locked(u, id);
	if (!r)
		return false;
	again = r->seen & bits;
	r->seen |= bits;
	r->re_read += (uint32_t)__builtin_popcountll(again);
	if (!again)
		return false;
	return (unsigned)__builtin_popcountll(r->seen) * 2 >= total || r->re_read >= total;
}

bool reuse_is_worth(struct reuse *u, const struct block_id *id, uint32_t block_bytes)
{
	unsigned total = (block_bytes + STRETCH_BYTES - 1) / STRETCH_BYTES;
	const struct record *r;

	mutex_guard(&u->mu);
	r = find_locked(u, id);
	return r && (unsigned)__builtin_popcountll(r->seen) * 2 >= total;
}

void reuse_forget(struct reuse *u, const struct block_id *id)
{
	struct record *r;

	mutex_guard(&u->mu);
	r = find_locked(u, id);
	if (r)
		*r = (struct record){.seen = 0};
}
