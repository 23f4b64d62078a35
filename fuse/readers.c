#include "fuse/readers.h"

#include <stdbool.h>

/* Two threads of one place: the second is not counted. */
static bool claim(struct readers_entry *entry, int32_t thread, int64_t now_ms)
{
	int32_t there = atomic_load_explicit(&entry->thread, memory_order_relaxed);

	if (there == 0 && atomic_compare_exchange_strong(&entry->thread, &there, thread)) {
		atomic_store_explicit(&entry->first_ms, now_ms, memory_order_relaxed);
		return true;
	}
	return there == thread;
}

void readers_note(struct readers *r, int32_t thread, int64_t waited_ns, int64_t now_ms)
{
	struct readers_entry *entry =
		&r->table[((uint32_t)thread * 0x9e3779b1u >> 16) % READERS_MAX];

	atomic_fetch_add_explicit(&r->waited_ns, (uint64_t)waited_ns, memory_order_relaxed);
	if (thread > 0 && claim(entry, thread, now_ms))
		atomic_store_explicit(&entry->last_ms, now_ms, memory_order_relaxed);
}

unsigned readers_count(const struct readers *r, int64_t ms)
{
	unsigned count = 0;

	for (unsigned i = 0; i < READERS_MAX; i++) {
		const struct readers_entry *entry = &r->table[i];

		count += atomic_load(&entry->thread) != 0 &&
			 atomic_load(&entry->last_ms) - atomic_load(&entry->first_ms) >= ms / 2;
	}
	return count > 0 ? count : 1;
}

void readers_forget(struct readers *r)
{
	for (unsigned i = 0; i < READERS_MAX; i++)
		atomic_store(&r->table[i].thread, 0);
}
