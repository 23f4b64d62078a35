#include "fuse/read_failures.h"

#include <stdatomic.h>
#include <string.h>

#include "manifest/block.h"

void read_failures_init(struct read_failures *f)
{
	memset(f, 0, sizeof(*f));
	mutex_init(&f->mu);
}

void read_failures_deinit(struct read_failures *f)
{
	mutex_deinit(&f->mu);
}

static struct read_failure *slot_locked(struct read_failures *f, uint64_t ino, uint64_t block)
{
	uint64_t hash = (ino * 0x9e3779b97f4a7c15 + block) * 0xbf58476d1ce4e5b9;

	return &f->slots[(hash >> 32) % READ_FAILURES_SLOTS];
}

void read_failures_note(
	struct read_failures *f, uint64_t ino, uint64_t offset, int64_t began_ms, int64_t now_ms)
{
	uint64_t block = offset / BLOCK_BYTES;

	if (now_ms - began_ms < READ_FAILURES_SLOW_MS)
		return;
	mutex_guard(&f->mu);
	*slot_locked(f, ino, block) = (struct read_failure){
		.ino = ino, .block = block, .until_ms = now_ms + READ_FAILURES_MS};
	atomic_store(&f->until_ms, now_ms + READ_FAILURES_MS);
}

bool read_failures_recent(struct read_failures *f, uint64_t ino, uint64_t offset, int64_t now_ms)
{
	uint64_t block = offset / BLOCK_BYTES;
	const struct read_failure *slot;

	if (now_ms >= atomic_load_explicit(&f->until_ms, memory_order_relaxed))
		return false;
	mutex_guard(&f->mu);
	slot = slot_locked(f, ino, block);
	return slot->ino == ino && slot->block == block && now_ms < slot->until_ms;
}
