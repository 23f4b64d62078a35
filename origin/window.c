#include "origin/window.h"

#include <assert.h>
#include <stddef.h>

#include <utlist.h>

#define NS_PER_MS ((int64_t)1000000)
#define PIECES_MIN 16u /* of a second, where the limit is low */
#define PIECE_UNIT 4096u

static double budget_bytes(const struct origin_window *w)
{
	return w->bytes_per_s * ORIGIN_WINDOW_SLACK;
}

void origin_window_set(struct origin_window *w, double bytes_per_s)
{
	if (bytes_per_s > 0 && bytes_per_s < ORIGIN_RATE_MIN_BYTES_PER_S)
		bytes_per_s = ORIGIN_RATE_MIN_BYTES_PER_S;
	if (w->bytes_per_s == 0 || bytes_per_s < w->bytes_per_s) {
		w->ticks_used = 0;
		w->ended_bytes = 0;
		w->ready_ns = 0;
	}
	w->bytes_per_s = bytes_per_s;
}

uint32_t origin_window_piece(const struct origin_window *w)
{
	double budget = budget_bytes(w);
	unsigned pieces;

	if (w->bytes_per_s == 0 || w->bytes_per_s / 100 >= UINT32_MAX)
		return UINT32_MAX;
	if (w->bytes_per_s / 100 >= ORIGIN_PIECE_BYTES)
		return (uint32_t)(w->bytes_per_s / 100) / PIECE_UNIT * PIECE_UNIT;
	/* Few fit: so many that together they fill the second. */
	pieces = (unsigned)(budget / ORIGIN_PIECE_BYTES) + 1;
	if (pieces < PIECES_MIN)
		pieces = PIECES_MIN;
	if (budget / pieces < ORIGIN_PIECE_MIN_BYTES)
		pieces = (unsigned)(budget / ORIGIN_PIECE_MIN_BYTES);
	return (uint32_t)(budget / pieces);
}

/* A tick goes when its last nanosecond is a second ago. */
static int64_t tick_end_ns(const struct origin_tick *t)
{
	return (t->ms + 1) * NS_PER_MS + ORIGIN_WINDOW_NS;
}

static void forget_old(struct origin_window *w, int64_t now_ns)
{
	while (w->ticks_used > 0) {
		struct origin_tick *t = &w->ticks[w->first_tick];

		if (now_ns < tick_end_ns(t))
			return;
		w->ended_bytes -= t->bytes;
		w->first_tick = (w->first_tick + 1) % ORIGIN_WINDOW_TICKS;
		w->ticks_used--;
	}
}

static struct origin_pass *oldest_counted(struct origin_window *w)
{
	struct origin_pass *p;

	DL_FOREACH (w->begun, p)
		if (p->counted)
			return p;
	return NULL;
}

static void let_hanging_go(struct origin_window *w, int64_t now_ns)
{
	struct origin_pass *p;

	while ((p = oldest_counted(w)) && now_ns - p->begun_ns > ORIGIN_WINDOW_NS) {
		p->counted = false;
		w->begun_bytes -= p->bytes;
	}
}

int64_t origin_window_wait_ns(struct origin_window *w, uint32_t bytes, int64_t now_ns)
{
	int64_t look_ns = INT64_MAX;
	struct origin_pass *p;

	if (w->bytes_per_s == 0)
		return 0;
	if (now_ns < w->ready_ns)
		return w->ready_ns;
	forget_old(w, now_ns);
	let_hanging_go(w, now_ns);
	if ((double)(w->begun_bytes + w->ended_bytes + bytes) <= budget_bytes(w))
		return 0;
	if (w->ticks_used > 0)
		look_ns = tick_end_ns(&w->ticks[w->first_tick]);
	p = oldest_counted(w);
	if (p && p->begun_ns + ORIGIN_WINDOW_NS < look_ns)
		look_ns = p->begun_ns + ORIGIN_WINDOW_NS + 1;
	/* With nothing in the window the piece was cut under a higher limit. */
	return look_ns == INT64_MAX ? 0 : look_ns;
}

static int64_t time_of(const struct origin_window *w, double bytes)
{
	return (int64_t)(bytes / w->bytes_per_s * (double)ORIGIN_WINDOW_NS);
}

void origin_window_begin(
	struct origin_window *w, struct origin_pass *p, uint32_t bytes, int64_t now_ns)
{
	int64_t credit_ns = w->credit_ns ? w->credit_ns : ORIGIN_CREDIT_NS;

	p->begun_ns = now_ns;
	p->bytes = bytes;
	p->counted = true;
	p->paced = w->bytes_per_s > 0;
	DL_APPEND(w->begun, p);
	w->begun_bytes += bytes;
	if (!p->paced)
		return;
	if (w->ready_ns < now_ns - credit_ns)
		w->ready_ns = now_ns - credit_ns;
	w->ready_ns += time_of(w, bytes);
}

static void note_ended(struct origin_window *w, uint64_t bytes, int64_t now_ns)
{
	struct origin_tick *t;

	forget_old(w, now_ns);
	w->ended_bytes += bytes;
	t = &w->ticks[(w->first_tick + w->ticks_used + ORIGIN_WINDOW_TICKS - 1) %
		      ORIGIN_WINDOW_TICKS];
	if (w->ticks_used > 0 && t->ms == now_ns / NS_PER_MS) {
		t->bytes += bytes;
		return;
	}
	assert(w->ticks_used < ORIGIN_WINDOW_TICKS);
	t = &w->ticks[(w->first_tick + w->ticks_used++) % ORIGIN_WINDOW_TICKS];
	*t = (struct origin_tick){.ms = now_ns / NS_PER_MS, .bytes = bytes};
}

void origin_window_end(
	struct origin_window *w, struct origin_pass *p, uint64_t bytes, int64_t now_ns)
{
	DL_DELETE(w->begun, p);
	if (p->counted)
		w->begun_bytes -= p->bytes;
	if (w->bytes_per_s == 0)
		return;
	if (bytes > 0)
		note_ended(w, bytes, now_ns);
	/* What came beyond the turn is a debt; what did not come is given back. */
	if (p->paced)
		w->ready_ns += time_of(w, (double)bytes - (double)p->bytes);
}
