/*
 * Every job owns a never-evicted share of the cache in proportion to its GPUs (CoorDL-like). Jobs on
 * one dataset hold a copy each; what a job cannot use stays unused. The least cache of a dataset is
 * set aside first and divided among its own jobs; the most bounds the sum of the copies.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "scheduler/level.h"
#include "scheduler/model.h"
#include "scheduler/partition.h"

/* floor(bytes * part / whole) without overflow; 0 of nothing. */
static uint64_t portion(uint64_t bytes, uint64_t part, uint64_t whole)
{
	return whole ? (uint64_t)((unsigned __int128)bytes * part / whole) : 0;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Parts are differences of running sums, so that they add to the whole exactly. */
struct claim {
	uint64_t total, seen;	  /* of the dataset's jobs: GPUs, or 1 each where there are none */
	uint64_t copies, settled; /* bytes; of all, and of those that are within the limit */
};

static uint64_t weight_of(const struct demand *d)
{
	/* Jobs without GPUs count where they have a dataset for themselves. */
	return d->gpus ? d->gpus : 1;
}

static uint64_t reserved_part(struct claim *c, const struct demand *d, uint64_t reserved)
{
	uint64_t before = portion(reserved, c->seen, c->total);

	c->seen += weight_of(d);
	return portion(reserved, c->seen, c->total) - before;
}

/* Copies together keep the user's most; what is set aside for a dataset without jobs stays so. */
static void settle(struct partition *p, struct claim *claims)
{
	for (size_t i = 0; i < p->share_count; i++) {
		if (claims[i].total)
			p->shares[i].granted = 0;
	}
	for (size_t i = 0; i < p->demand_count; i++) {
		struct demand *d = &p->demands[i];
		struct share *s = &p->shares[d->dataset];
		struct claim *c = &claims[d->dataset];
		uint64_t before = c->settled;

		c->settled += d->cache_bytes;
		if (c->copies > s->limit)
			d->cache_bytes = portion(s->limit, c->settled, c->copies) -
					 portion(s->limit, before, c->copies);
		s->granted += d->cache_bytes;
		d->miss = level_most(model_uniform_miss((double)d->cache_bytes, (double)s->bytes),
			d->least_miss);
	}
}

int cache_private_divide(struct partition *p)
{
	struct claim *claims = calloc(p->share_count + 1, sizeof(*claims));
	uint64_t left = partition_grant_least(p), gpus = 0;

	if (!claims)
		return -ENOMEM;
	for (size_t i = 0; i < p->demand_count; i++) {
		gpus += p->demands[i].gpus;
		claims[p->demands[i].dataset].total += weight_of(&p->demands[i]);
	}
	for (size_t i = 0; i < p->demand_count; i++) {
		struct demand *d = &p->demands[i];
		struct share *s = &p->shares[d->dataset];
		uint64_t own = reserved_part(&claims[d->dataset], d, s->granted);

		d->cache_bytes = least(s->bytes, own + portion(left, d->gpus, gpus));
		/* Who does not read at all has no use for a copy. */
		if (!(d->ideal > 0))
			d->cache_bytes = own;
		claims[d->dataset].copies += d->cache_bytes;
	}
	settle(p, claims);
	free(claims);
	return 0;
}
