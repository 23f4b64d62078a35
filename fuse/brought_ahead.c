#include "fuse/brought_ahead.h"

#include "manifest/block.h"

static uint64_t hash(uint64_t ino, uint64_t block)
{
	uint64_t h = (ino * UINT64_C(0x9e3779b97f4a7c15)) ^ (block * UINT64_C(0xc2b2ae3d27d4eb4f));

	h ^= h >> 29;
	return h ? h : 1;
}

static unsigned place(uint64_t h)
{
	return (unsigned)((h >> 32) % BROUGHT_AHEAD_BLOCKS);
}

static bool holds(const struct brought_ahead *b, uint64_t h)
{
	return atomic_load_explicit(&b->blocks[place(h)], memory_order_relaxed) == h;
}

void brought_ahead_note(struct brought_ahead *b, uint64_t ino, uint64_t block)
{
	uint64_t h = hash(ino, block);

	atomic_store_explicit(&b->blocks[place(h)], h, memory_order_relaxed);
}

void brought_ahead_forget(struct brought_ahead *b, uint64_t ino, uint64_t block)
{
	uint64_t h = hash(ino, block), expected = h;

	atomic_compare_exchange_strong_explicit(
		&b->blocks[place(h)], &expected, 0, memory_order_relaxed, memory_order_relaxed);
}

bool brought_ahead_has(const struct brought_ahead *b, uint64_t ino, uint64_t block)
{
	return holds(b, hash(ino, block));
}

bool brought_ahead_read(
	struct brought_ahead *b, uint64_t ino, uint64_t offset, uint32_t len, uint64_t size)
{
	uint64_t block = offset / BLOCK_BYTES;

	if (!brought_ahead_has(b, ino, block))
		return false;
	if (offset + len >= block * BLOCK_BYTES + block_len(size, block))
		brought_ahead_forget(b, ino, block);
	return true;
}
