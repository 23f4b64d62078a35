#include "worker/fill_queue.h"

#include <assert.h>
#include <stddef.h>

#include <utlist.h>

#include "manifest/block.h"

/* The rest is for blocks that readers wait for, and for those that come whole. */
#define MEMORY_PART 4

void fill_queue_init(struct fill_queue *q, uint64_t memory_bytes)
{
	uint64_t blocks = memory_bytes / MEMORY_PART / BLOCK_BYTES;

	*q = (struct fill_queue){
		.most = blocks < FILL_QUEUE_MOST ? (unsigned)blocks : FILL_QUEUE_MOST};
}

bool fill_queue_admit(struct fill_queue *q, struct fill *f)
{
	assert(f->state == FILL_NONE);
	if (q->begun >= q->most)
		return false;
	q->begun++;
	f->state = FILL_BEGUN;
	return true;
}

void fill_queue_add(struct fill_queue *q, struct fill *f)
{
	assert(f->state == FILL_BEGUN);
	f->state = FILL_WAITS;
	DL_APPEND(q->waiting, f);
}

struct fill *fill_queue_next(struct fill_queue *q)
{
	struct fill *f = q->waiting;

	if (!f || q->running >= FILL_QUEUE_AT_ONCE)
		return NULL;
	DL_DELETE(q->waiting, f);
	f->state = FILL_RUNS;
	q->running++;
	return f;
}

bool fill_queue_hurry(struct fill_queue *q, struct fill *f)
{
	if (f->state != FILL_WAITS)
		return false;
	DL_DELETE(q->waiting, f);
	f->state = FILL_BEGUN;
	return true;
}

void fill_queue_end(struct fill_queue *q, struct fill *f)
{
	if (f->state == FILL_NONE)
		return;
	if (f->state == FILL_WAITS)
		DL_DELETE(q->waiting, f);
	if (f->state == FILL_RUNS)
		q->running--;
	q->begun--;
	f->state = FILL_NONE;
}
