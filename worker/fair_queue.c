#include "worker/fair_queue.h"

#include <assert.h>
#include <stddef.h>

#include <utlist.h>

static struct fair_group *group_of(struct fair_queue *q, const struct fair_flow *f)
{
	return f->group ? f->group : &q->ungrouped;
}

/* After a change of its turns or memory. */
static void note_busy(struct fair_queue *q, struct fair_group *g)
{
	bool busy = g->queued > 0 || g->held_bytes > 0;

	if (g == &q->ungrouped || g->busy == busy)
		return;
	g->busy = busy;
	if (busy)
		q->busy_groups++;
	else
		q->busy_groups--;
}

static void hold(struct fair_queue *q, struct fair_flow *f, uint32_t bytes)
{
	struct fair_group *g = group_of(q, f);

	f->held_bytes += bytes;
	g->held_bytes += bytes;
	q->held_bytes += bytes;
	note_busy(q, g);
}

static void let_go(struct fair_queue *q, struct fair_flow *f, uint32_t bytes)
{
	struct fair_group *g = group_of(q, f);

	f->held_bytes -= bytes;
	g->held_bytes -= bytes;
	q->held_bytes -= bytes;
	note_busy(q, g);
}

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
	struct fair_group *g = group_of(q, f);

	assert(!t->queued);
	if (!f->turns[class] && f->start_s[class] < g->now_s[class] - FAIR_LAG_S)
		f->start_s[class] = g->now_s[class] - FAIR_LAG_S;
	t->class = class;
	t->queued = true;
	insert(f, t);
	if (f->queued++ == 0)
		DL_APPEND(q->waiting, f);
	q->queued++;
	g->queued++;
	note_busy(q, g);
}

void fair_queue_remove(struct fair_queue *q, struct fair_turn *t)
{
	struct fair_flow *f = t->flow;
	struct fair_group *g = group_of(q, f);

	assert(t->queued && f->queued > 0);
	t->queued = false;
	DL_DELETE(f->turns[t->class], t);
	if (--f->queued == 0)
		DL_DELETE(q->waiting, f);
	q->queued--;
	g->queued--;
	note_busy(q, g);
}

static bool group_has_memory(const struct fair_queue *q, const struct fair_turn *t)
{
	const struct fair_group *g = t->flow->group;

	return !g || g->held_bytes == 0 ||
	       g->held_bytes + t->hold_bytes <= q->held_max_bytes / 2 / q->busy_groups;
}

static bool has_memory(const struct fair_queue *q, const struct fair_turn *t)
{
	const struct fair_flow *f = t->flow;
	bool alone = q->waiting == f && !f->next;

	if (t->begun || q->held_bytes == 0)
		return true;
	if (q->held_bytes + t->hold_bytes > q->held_max_bytes || !group_has_memory(q, t))
		return false;
	return alone || f->held_bytes == 0 || f->held_bytes + t->hold_bytes <= q->flow_max_bytes;
}

static struct fair_turn *next_of_class(const struct fair_queue *q, enum fair_class class)
{
	struct fair_turn *best = NULL;
	double best_tag_s = 0;
	struct fair_flow *f;

	DL_FOREACH (q->waiting, f) {
		const struct fair_group *g = f->group ? f->group : &q->ungrouped;
		struct fair_turn *t = f->turns[class];
		double tag_s = f->start_s[class] + g->offset_s[class];

		if (!t || g->blocked || (best && tag_s >= best_tag_s) || !has_memory(q, t))
			continue;
		best = t;
		best_tag_s = tag_s;
	}
	return best;
}

struct fair_turn *fair_queue_next(const struct fair_queue *q)
{
	struct fair_turn *t = next_of_class(q, FAIR_URGENT);

	return t ? t : next_of_class(q, FAIR_IDLE);
}

/* Moves the virtual times on to a flow that is served. */
static void move_time(struct fair_queue *q, struct fair_flow *f, enum fair_class c)
{
	struct fair_group *g = group_of(q, f);

	/* One that waited for memory has fallen behind by its own doing. */
	if (f->start_s[c] < g->now_s[c] - FAIR_LAG_S)
		f->start_s[c] = g->now_s[c] - FAIR_LAG_S;
	if (f->start_s[c] > g->now_s[c])
		g->now_s[c] = f->start_s[c];
	if (f->start_s[c] + g->offset_s[c] < q->now_s[c] - FAIR_LAG_S)
		g->offset_s[c] = q->now_s[c] - FAIR_LAG_S - f->start_s[c];
	if (f->start_s[c] + g->offset_s[c] > q->now_s[c])
		q->now_s[c] = f->start_s[c] + g->offset_s[c];
}

void fair_queue_take(struct fair_queue *q, struct fair_turn *t)
{
	move_time(q, t->flow, t->class);
	if (!t->begun)
		hold(q, t->flow, t->hold_bytes);
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
	const struct fair_group *g = group_of(q, f);

	for (int c = 0; c < FAIR_CLASSES; c++)
		f->start_s[c] = g->now_s[c] + (f->start_s[c] - g->now_s[c]) / factor;
}

void fair_queue_move(struct fair_queue *q, struct fair_turn *t, struct fair_flow *to)
{
	assert(!t->queued);
	if (t->begun) {
		let_go(q, t->flow, t->hold_bytes);
		hold(q, to, t->hold_bytes);
	}
	t->flow = to;
}

void fair_queue_end(struct fair_queue *q, struct fair_turn *t)
{
	assert(!t->queued);
	if (!t->begun)
		return;
	t->begun = false;
	let_go(q, t->flow, t->hold_bytes);
}
