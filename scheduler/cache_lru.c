/*
 * One LRU cache for all. What it holds of a dataset is in proportion to the rate at which the dataset
 * is read, the rates depend on the hit ratios, and these on what is held: the fixed point that
 * is reached from every job at f*, with bandwidth fair among who asks. There can be others: who has
 * more reads faster and gets more. Of 220,000 random problems one does not settle in the rounds
 * that it is given, next to a dataset that is just whole; it is 0.4 % away.
 */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "scheduler/bandwidth.h"
#include "scheduler/level.h"
#include "scheduler/model.h"
#include "scheduler/partition.h"

#define ROUNDS_MAX 2000
#define SETTLED 1e-9 /* relative change of every rate in a round */
#define ROUNDING 1e-12
/* Strides are halved where the change is not below PROGRESS of what it was PATIENCE rounds before. */
#define PATIENCE 80
#define PROGRESS 0.9
#define STRIDE_MIN 0x1p-8
/* Near the end each step is the same multiple of the one before. Once steps are SMALL and that factor
 * changes by less than STEADY of what it lacks to 1, the rest of the way is taken at once. */
#define SMALL 1e-2
#define STEADY 0.1
#define STEADY_ROUNDS 2

/* The rate that changes most in a round. */
struct step {
	size_t job;
	double change;
};

struct lru {
	struct partition *p;
	double *rates;	/* of the demands */
	double *before; /* the rates of the round before */
	double *held;	/* bytes of the shares, before rounding */
	double *misses; /* of the shares */
	double level;	/* of the cache, in the round before */
};

static double held_at(const struct share *s, double level)
{
	double held = s->worth > 0 ? level * s->worth : 0;

	return level_least(level_most(held, (double)s->granted),
		level_most((double)s->most, (double)s->granted));
}

/* `worth` is the rate at which a dataset is read, `granted` its least. */
static double held_total(void *arg, double level, double *ret_slope)
{
	const struct partition *p = arg;
	double total = 0;

	*ret_slope = 0;
	for (size_t i = 0; i < p->share_count; i++) {
		const struct share *s = &p->shares[i];
		double held = s->worth > 0 ? level * s->worth : 0;

		total += held_at(s, level);
		if (s->worth > 0 && held >= (double)s->granted && held < (double)s->most)
			*ret_slope += s->worth;
	}
	return total;
}

static void hold(struct lru *l)
{
	struct partition *p = l->p;
	double top = 0;

	for (size_t i = 0; i < p->share_count; i++)
		p->shares[i].worth = 0;
	for (size_t i = 0; i < p->demand_count; i++)
		p->shares[p->demands[i].dataset].worth += l->rates[i];
	for (size_t i = 0; i < p->share_count; i++) {
		if (p->shares[i].worth > 0)
			top = level_most(top, (double)p->shares[i].most / p->shares[i].worth);
	}
	l->level = level_solve(held_total, p, top, (double)p->cache_bytes, l->level);
	for (size_t i = 0; i < p->share_count; i++)
		l->held[i] = held_at(&p->shares[i], l->level);
}

static void set_misses(struct lru *l)
{
	for (size_t i = 0; i < l->p->share_count; i++)
		l->misses[i] = model_lru_miss(l->held[i], (double)l->p->shares[i].bytes);
	for (size_t i = 0; i < l->p->demand_count; i++) {
		struct demand *d = &l->p->demands[i];

		d->miss = level_most(l->misses[d->dataset], d->least_miss);
	}
}

/* Goes the share `stride` of the way to the rates that the cache now makes possible. Returns the
 * relative distance, with its sign, of the rate that is farthest from there. */
static struct step set_rates(struct lru *l, double stride)
{
	struct step largest = {0};

	for (size_t i = 0; i < l->p->demand_count; i++) {
		const struct demand *d = &l->p->demands[i];
		double rate = model_perf(d->ideal, d->remote, d->miss);
		double change = (rate - l->rates[i]) / level_most(rate, 1e-9);

		if (fabs(change) > fabs(largest.change))
			largest = (struct step){i, change};
		l->before[i] = l->rates[i];
		l->rates[i] += stride * (rate - l->rates[i]);
	}
	return largest;
}

/* Where a sequence whose steps are each the same multiple of the one before ends. */
static void extrapolate(struct lru *l, double factor)
{
	for (size_t i = 0; i < l->p->demand_count; i++) {
		double step = l->rates[i] - l->before[i];
		double ahead = l->rates[i] + step * factor / (1 - factor);

		l->rates[i] = level_most(0, level_least(ahead, l->p->demands[i].ideal));
	}
}

/* The last two factors say that the end can be computed. */
static bool predictable(const struct step *now, double factor, double before)
{
	return fabs(now->change) < SMALL && fabs(factor) < 1 &&
	       fabs(factor - before) < STEADY * (1 - factor);
}

static void settle(struct lru *l)
{
	struct step now = {0, 1};
	double factor = 0, stride = 1, milestone = INFINITY;
	int steady = 0;

	for (int i = 0; i < ROUNDS_MAX && fabs(now.change) > SETTLED; i++) {
		struct step last = now;
		double last_factor = factor;

		hold(l);
		set_misses(l);
		bandwidth_fair(l->p);
		/* Cache for one frees bandwidth for others, who then take cache from it: whole
		 * strides can swing for ever. */
		if (i % PATIENCE == PATIENCE - 1) {
			if (fabs(now.change) > PROGRESS * milestone)
				stride = level_most(stride / 2, STRIDE_MIN);
			milestone = fabs(now.change);
		}
		now = set_rates(l, stride);
		factor = now.job == last.job ? now.change / last.change : INFINITY;
		steady = predictable(&now, factor, last_factor) ? steady + 1 : 0;
		if (steady == STEADY_ROUNDS && fabs(now.change) > SETTLED) {
			extrapolate(l, factor);
			steady = 0;
		}
	}
}

static uint64_t grant_up_to(struct share *s, uint64_t bytes, uint64_t left)
{
	uint64_t more = bytes > s->granted ? bytes - s->granted : 0;

	more = more < left ? more : left;
	s->granted += more;
	return left - more;
}

/* Down to whole bytes, but not by one more because of the last digit of a sum; what is whole stays
 * so. */
static void round_down(struct lru *l)
{
	struct partition *p = l->p;
	uint64_t left = p->cache_bytes - partition_cache_used(p);

	for (size_t i = 0; i < p->share_count; i++) {
		if (l->held[i] >= (double)p->shares[i].most)
			left = grant_up_to(&p->shares[i], p->shares[i].most, left);
	}
	for (size_t i = 0; i < p->share_count; i++) {
		double held = l->held[i] + level_least(0.5, ROUNDING * l->held[i]);

		if (l->held[i] < (double)p->shares[i].most)
			left = grant_up_to(&p->shares[i], (uint64_t)held, left);
		l->held[i] = (double)p->shares[i].granted;
	}
	set_misses(l);
	for (size_t i = 0; i < p->demand_count; i++)
		p->demands[i].cache_bytes = p->shares[p->demands[i].dataset].granted;
}

int cache_lru_divide(struct partition *p)
{
	struct lru l = {.p = p};
	int r = -ENOMEM;

	l.rates = calloc(p->demand_count + 1, sizeof(double));
	l.before = calloc(p->demand_count + 1, sizeof(double));
	l.held = calloc(p->share_count + 1, sizeof(double));
	l.misses = calloc(p->share_count + 1, sizeof(double));
	if (l.rates && l.before && l.held && l.misses) {
		partition_grant_least(p);
		for (size_t i = 0; i < p->demand_count; i++)
			l.rates[i] = p->demands[i].ideal;
		settle(&l);
		round_down(&l);
		r = 0;
	}
	free(l.rates);
	free(l.before);
	free(l.held);
	free(l.misses);
	return r;
}
