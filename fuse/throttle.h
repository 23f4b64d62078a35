/*
 * How long reads of this mount have waited for their job's share of the origins' bandwidth, in time
 * of the clock on the wall: a second in which many wait is one second.
 *
 * A read that waits for its share has its own deadline moved on by that (read_cancel.h). Who waits
 * for such a read, in the queue behind it or for the bytes that it brings, goes by this one:
 * throttled is never failed.
 *
 * Threading: any thread.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "common/clock.h"

struct throttle {
	_Atomic int64_t waited_ms;
	_Atomic int64_t counted_until_ms;
};

/* Somebody has waited for the last `ms`. */
static inline void throttle_note(struct throttle *t, int64_t ms)
{
	int64_t now_ms = clock_mono_ms();
	int64_t from_ms = atomic_exchange(&t->counted_until_ms, now_ms);

	if (from_ms < now_ms - ms)
		from_ms = now_ms - ms;
	if (from_ms < now_ms)
		atomic_fetch_add(&t->waited_ms, now_ms - from_ms);
}

static inline int64_t throttle_ms(struct throttle *t)
{
	return atomic_load(&t->waited_ms);
}
