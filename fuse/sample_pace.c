#include "fuse/sample_pace.h"

#include <math.h>
#include <stdlib.h>

/* Of the median against the mean, for many normal deviates: sqrt(pi / 2). */
#define MEDIAN_ERROR 1.2533

static void keep(struct sample_pace *p, const struct sample_reading *now)
{
	const struct sample_reading *begin = &p->begin;
	double ms = (double)(now->seen_ms - begin->seen_ms);
	double waited =
		(now->waited_ms - begin->waited_ms) / (ms * (now->readers ? now->readers : 1));

	p->windows[p->next] = (struct sample_window){
		.bytes_per_s = (now->bytes - begin->bytes) / ms * 1000,
		.wait_ratio = waited,
		.reads = now->reads - begin->reads,
	};
	p->next = (p->next + 1) % SAMPLE_WINDOWS;
	if (p->count < SAMPLE_WINDOWS)
		p->count++;
}

bool sample_pace_tick(struct sample_pace *p, const struct sample_reading *now)
{
	if (!p->begun && now->reads == 0)
		return false;
	if (p->begun && !now->blind &&
		(now->seen_ms - p->begin.seen_ms < SAMPLE_WINDOW_MS ||
			now->reads - p->begin.reads < SAMPLE_LEAST))
		return false;
	if (p->begun && !now->blind)
		keep(p, now);
	p->begun = true;
	p->begin = *now;
	return true;
}

static int by_rate(const void *a, const void *b)
{
	const struct sample_window *x = a, *y = b;

	return (x->bytes_per_s > y->bytes_per_s) - (x->bytes_per_s < y->bytes_per_s);
}

void sample_pace_estimate(const struct sample_pace *p, struct sample_estimate *ret)
{
	struct sample_window unhindered[SAMPLE_WINDOWS];
	uint64_t reads = 0;
	unsigned n = 0;

	*ret = (struct sample_estimate){.windows = p->count};
	for (unsigned i = 0; i < p->count; i++) {
		if (p->windows[i].wait_ratio >= SAMPLE_WAITS_LITTLE)
			continue;
		unhindered[n++] = p->windows[i];
		reads += p->windows[i].reads;
	}
	if (n == 0)
		return;
	qsort(unhindered, n, sizeof(unhindered[0]), by_rate);
	/* Of two the higher: silence can only lower one. */
	ret->ideal_bytes_per_s = unhindered[n / 2].bytes_per_s;
	ret->error = (n > 2 ? MEDIAN_ERROR : 1) / sqrt((double)reads);
}
