#include "master/origin_hold.h"

#include <math.h>

static double most(double a, double b)
{
	return a > b ? a : b;
}

static double sane(double part)
{
	return isfinite(part) && part > 0 ? part : 0;
}

double origin_hold_in_use(const struct origin_hold *h, int64_t now_ms)
{
	int64_t silent_ms = now_ms - h->heard_ms;

	if (silent_ms <= ORIGIN_LEASE_MS + ORIGIN_SETTLE_MS)
		return h->most;
	return silent_ms <= ORIGIN_BASE_MS + ORIGIN_SETTLE_MS ? h->base : 0;
}

static void note_less(struct origin_hold *h, double has, double has_base, int64_t now_ms)
{
	if (h->less_since_ms == 0) {
		h->less_since_ms = now_ms;
		h->less = has;
		h->less_base = has_base;
		return;
	}
	h->less = most(h->less, has);
	h->less_base = most(h->less_base, has_base);
	if (now_ms - h->less_since_ms < ORIGIN_SETTLE_MS)
		return;
	h->most = h->less;
	h->base = h->less_base;
	h->less_since_ms = 0;
}

void origin_hold_heard(struct origin_hold *h, double has, double has_base, int64_t now_ms)
{
	double in_use = origin_hold_in_use(h, now_ms);
	double base_in_use = h->base < in_use ? h->base : in_use;

	has = sane(has);
	has_base = sane(has_base);
	h->heard_ms = now_ms;
	h->most = most(in_use, has);
	h->base = most(base_in_use, has_base);
	if (has < in_use || has_base < base_in_use)
		note_less(h, has, has_base, now_ms);
	else
		h->less_since_ms = 0;
}

void origin_hold_give(struct origin_hold *h, double part, double base)
{
	if (part > h->most || base > h->base)
		h->less_since_ms = 0;
	h->most = most(h->most, part);
	h->base = most(h->base, base);
}
