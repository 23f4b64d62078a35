/*
 * Memory for block bytes on their way: a hard budget, handed out in buffers of 64 KiB to 4 MiB
 * (powers of two, page aligned). Returned buffers are kept for the next taker; those that nobody
 * needed between two trims go back to the system.
 *
 * Invariant: buffers out and buffers kept together never exceed the budget.
 *
 * When the budget is used up a taker first asks `reclaim` to let go of memory that is only useful
 * (read-ahead bytes that nobody has asked for yet), then waits until its deadline.
 *
 * Threading: any thread. `reclaim` is called without the pool's lock and may put buffers.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BUFFER_MIN_BYTES ((size_t)64 << 10)
#define BUFFER_MAX_BYTES ((size_t)4 << 20)

struct buffer_pool;

struct buffer {
	unsigned char *data;
	size_t room;
	struct buffer_pool *pool;
	struct buffer *next; /* of the pool's free list */
};

/* Lets go of at least one buffer; false when there is none to let go of. */
typedef bool buffer_reclaim_fn(void *arg);

/* NULL when memory is out. The budget is at least BUFFER_MAX_BYTES. */
struct buffer_pool *buffer_pool_new(uint64_t budget_bytes, buffer_reclaim_fn *reclaim, void *arg);
/* Buffers that a transport still holds stay good; the last one to come back ends the pool.
 * `reclaim` is not called any more. NULL is fine. */
void buffer_pool_free(struct buffer_pool *p);

/* What a buffer for len takes of the budget. */
size_t buffer_room(size_t len);
/* A buffer with room for len (1..BUFFER_MAX_BYTES): 0, -ETIMEDOUT, -ENOMEM. */
int buffer_pool_get(struct buffer_pool *p, size_t len, int64_t deadline_ms, struct buffer **ret);
void buffer_put(struct buffer *b);

/* Once in a while: frees what was not needed since the last time. */
void buffer_pool_trim(struct buffer_pool *p);
uint64_t buffer_pool_used_bytes(struct buffer_pool *p);
