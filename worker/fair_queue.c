#include "worker/fair_queue.h"

#include <assert.h>
#include <stddef.h>

#include <utlist.h>

static void insert(struct fair_flow *f, struct fair_turn *t)
{
	struct fair_turn *at;

	if (!t->begun) {
		DL_APPEND(f->turns[t->class], t);
		return;
	}
	DL_FOREACH (f->turns[t->class], at)
		if (!at->begun)
			break;
	if (at)
		DL_PREPEND_ELEM(f->turns[t->class], at, t);
	else
		DL_APPEND(f->turns[t->class], t);
}

void fair_queue_add(struct fair_queue *q, struct fair_turn *t, enum fair_class class)
{
	struct fair_flow *f = t->flow;

	assert(!t->queued);
	if (!f->turns[class] && f->start_s[class] < q->now_s[class] - FAIR_LAG_S)
		f->start_s[class] = q->now_s[class] - FAIR_LAG_S;
	t->class = class;
	t->queued = true;
	insert(f, t);
	if (f->queued++ == 0)
		DL_APPEND(q->waiting, f);
	q->queued++;
}

void fair_queue_remove(struct fair_queue *q, struct fair_turn *t)
{
	struct fair_flow *f = t->flow;

	assert(t->queued && f->queued > 0);
	t->queued = false;
	DL_DELETE(f->turns[t->class], t);
	if (--f->queued == 0)
		DL_DELETE(q->waiting, f);
	q->queued--;
}

static bool has_memory(const struct fair_queue *q, const struct fair_turn *t)
{
	const struct fair_flow *f = t->flow;
	bool alone = q->waiting == f && !f->next;

	if (t->begun || q->held_bytes == 0)
		return true;
	if (q->held_bytes + t->hold_bytes > q->held_max_bytes)
		return false;
	return alone || f->held_bytes == 0 || f->held_bytes + t->hold_bytes <= q->flow_max_bytes;
}

static struct fair_turn *next_of_class(const struct fair_queue *q, enum fair_class class)
{
	struct fair_turn *best = NULL;
	struct fair_flow *f;

	DL_FOREACH (q->waiting, f) {
		struct fair_turn *t = f->turns[class];

		if (!t || !has_memory(q, t))
			continue;
		if (!best || f->start_s[class] < best->flow->start_s[class])
			best = t;
	}
	return best;
}

struct fair_turn *fair_queue_next(const struct fair_queue *q)
{
	struct fair_turn *t = next_of_class(q, FAIR_URGENT);

	return t ? t : next_of_class(q, FAIR_IDLE);
}

void fair_queue_take(struct fair_queue *q, struct fair_turn *t)
{
	struct fair_flow *f = t->flow;

	/* One that waited for memory has fallen behind by its own doing. */
	if (f->start_s[t->class] < q->now_s[t->class] - FAIR_LAG_S)
		f->start_s[t->class] = q->now_s[t->class] - FAIR_LAG_S;
	if (f->start_s[t->class] > q->now_s[t->class])
		q->now_s[t->class] = f->start_s[t->class];
	if (!t->begun) {
		f->held_bytes += t->hold_bytes;
		q->held_bytes += t->hold_bytes;
	}
	t->begun = true;
	if (t->queued)
		fair_queue_remove(q, t);
}

void fair_queue_charge(struct fair_flow *f, enum fair_class class, double seconds)
{
	f->start_s[class] += seconds;
}

void fair_queue_reweigh(struct fair_queue *q, struct fair_flow *f, double factor)
{
	for (int c = 0; c < FAIR_CLASSES; c++)
		f->start_s[c] = q->now_s[c] + (f->start_s[c] - q->now_s[c]) / factor;
}

void fair_queue_move(struct fair_turn *t, struct fair_flow *to)
{
	assert(!t->queued);
	if (t->begun) {
		t->flow->held_bytes -= t->hold_bytes;
		to->held_bytes += t->hold_bytes;
	}
	t->flow = to;
}

void fair_queue_end(struct fair_queue *q, struct fair_turn *t)
{
	assert(!t->queued);
	if (!t->begun)
		return;
	t->begun = false;
	t->flow->held_bytes -= t->hold_bytes;
	q->held_bytes -= t->hold_bytes;
}
