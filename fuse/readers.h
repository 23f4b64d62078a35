/*
 * Who reads, and how long their reads were under way: for the share of their time that readers wait.
 *
 * A reader is a thread that asked twice at least, with half of the time looked at between. So threads
 * that come for one file each are not taken for many readers that hardly wait: too few are counted
 * rather than too many, and the share comes out too large rather than too small.
 *
 * Threading: any thread, without a lock. Time is passed in.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#define READERS_MAX 256 /* threads told apart, a power of two */

struct readers {
	_Atomic uint64_t waited_ns; /* cumulative, summed over reads */
	struct readers_entry {
		_Atomic int32_t thread; /* 0: free */
		_Atomic int64_t first_ms, last_ms;
	} table[READERS_MAX];
};

/* A read of `thread` was answered, `waited_ns` after it came. */
void readers_note(struct readers *r, int32_t thread, int64_t waited_ns, int64_t now_ms);
/* Of `ms` since readers_forget; 1 at least. */
unsigned readers_count(const struct readers *r, int64_t ms);
void readers_forget(struct readers *r);
