#include "fuse/listing_habit.h"

#include <stddef.h>

#define WANTS_SHARE 4

static struct listing_habit *slot_of(struct listing_habits *h, pid_t pid)
{
	return &h->of[(uint32_t)pid % LISTING_HABITS];
}

static struct listing_habit *find(struct listing_habits *h, pid_t pid)
{
	struct listing_habit *l = slot_of(h, pid);

	return atomic_load_explicit(&l->pid, memory_order_relaxed) == pid ? l : NULL;
}

static uint32_t read(const _Atomic uint32_t *count)
{
	return atomic_load_explicit(count, memory_order_relaxed);
}

bool listing_habit_wants_attributes(struct listing_habits *h, pid_t pid, bool begins)
{
	const struct listing_habit *l = find(h, pid);
	uint32_t listed = l ? read(&l->listed) : 0;

	if (listed == 0)
		return begins;
	return (uint64_t)read(&l->looked_up) * WANTS_SHARE >= listed;
}

void listing_habit_listed(struct listing_habits *h, pid_t pid, uint32_t names)
{
	struct listing_habit *l = slot_of(h, pid);

	if (atomic_exchange_explicit(&l->pid, pid, memory_order_relaxed) != pid) {
		atomic_store_explicit(&l->listed, 0, memory_order_relaxed);
		atomic_store_explicit(&l->looked_up, 0, memory_order_relaxed);
	}
	atomic_fetch_add_explicit(&l->listed, names, memory_order_relaxed);
}

void listing_habit_looked_up(struct listing_habits *h, pid_t pid)
{
	struct listing_habit *l = find(h, pid);

	if (l)
		atomic_fetch_add_explicit(&l->looked_up, 1, memory_order_relaxed);
}
