#include "fuse/order_pace.h"

#include <string.h>

#define ROUND_MIN_MS 100
#define HELD_ROUNDS 8
#define GROWTH 1.1 /* what a doubling has to bring */
#define VAIN_ROUNDS 2
#define GAIN 1.05
#define LOSS 1.03

void order_pace_init(struct order_pace *p, unsigned most)
{
	memset(p, 0, sizeof(*p));
	p->most = most;
	p->limit = p->settled = ORDER_PACE_FIRST < most ? ORDER_PACE_FIRST : most;
}

static void set_limit(struct order_pace *p, unsigned limit)
{
	unsigned least = ORDER_PACE_LEAST < p->most ? ORDER_PACE_LEAST : p->most;
	unsigned before = p->limit;

	p->limit = limit < least ? least : limit > p->most ? p->most : limit;
	p->changed = p->limit != before;
}

static void settle(struct order_pace *p, unsigned limit, double rate)
{
	set_limit(p, limit);
	p->settled = p->limit;
	p->rate = rate;
	p->held = 0;
	p->state = ORDER_PACE_HOLDS;
}

static void grow(struct order_pace *p, double rate)
{
	if (p->rate > 0 && rate < p->rate * GROWTH) {
		if (++p->in_vain == VAIN_ROUNDS)
			settle(p, p->settled, p->rate);
		return;
	}
	p->in_vain = 0;
	p->settled = p->limit;
	p->rate = rate;
	set_limit(p, p->limit * 2);
	if (p->limit == p->settled)
		settle(p, p->limit, rate);
}

static void hold(struct order_pace *p, double rate)
{
	/* What the origin gives changes; the newest rounds count most. */
	p->rate += (rate - p->rate) / 4;
	if (++p->held < HELD_ROUNDS)
		return;
	set_limit(p, p->less ? p->limit - p->limit / 4 : p->limit + (p->limit + 3) / 4);
	p->less = !p->less;
	p->held = 0;
	if (p->limit != p->settled)
		p->state = ORDER_PACE_TRIES;
}

static void judge_try(struct order_pace *p, double rate)
{
	bool more = p->limit > p->settled;
	bool keep = more ? rate > p->rate * GAIN : rate * LOSS > p->rate;

	settle(p, keep ? p->limit : p->settled, keep ? rate : p->rate);
}

static void end_round(struct order_pace *p, double rate)
{
	switch (p->state) {
	case ORDER_PACE_GROWS:
		grow(p, rate);
		break;
	case ORDER_PACE_HOLDS:
		hold(p, rate);
		break;
	case ORDER_PACE_TRIES:
		judge_try(p, rate);
		break;
	}
}

static void begin_round(struct order_pace *p, int64_t now_ms)
{
	p->began_ms = now_ms;
	p->bytes = 0;
	p->gets = 0;
	p->short_of_work = false;
}

void order_pace_done(struct order_pace *p, uint64_t bytes, int64_t now_ms)
{
	if (p->began_ms == 0 || p->short_of_work) {
		begin_round(p, now_ms);
		return;
	}
	p->bytes += bytes;
	p->gets++;
	if (p->gets < 2 * p->limit || now_ms - p->began_ms < ROUND_MIN_MS)
		return;
	if (p->changed)
		p->changed = false;
	else
		end_round(p, (double)p->bytes / (double)(now_ms - p->began_ms));
	begin_round(p, now_ms);
}

void order_pace_failed(struct order_pace *p)
{
	settle(p, p->limit / 2, p->rate);
	p->began_ms = 0;
}

void order_pace_short(struct order_pace *p)
{
	p->short_of_work = true;
}
