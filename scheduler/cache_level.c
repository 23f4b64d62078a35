/*
 * Max-min fairness over cache and bandwidth together: the highest level t at which every job j can
 * run at r_j = min(f*_j, t * pace_j). No LP is needed: for given rates the cheapest cache is again
 * the knapsack, now by sum r_j / d, so the bandwidth that the rates need is one sort away.
 *
 *   R(t) = min over c of sum_j r_j(t) (1 - c/d)
 *
 * R is a minimum of concave functions of t, so it is concave and meets B once. At that level the
 * bandwidth is spent: nobody can rise but the jobs of datasets that are cached whole, who need none
 * and go on to f*. That is where progressive filling ends, after one level.
 *
 * A promised least bandwidth m makes a floor m / miss under a job's rate, which depends on the
 * cache. The floor of the round before is used until the cache no longer moves: it depends on the
 * order of the datasets alone, and whoever gets cache has his floor raised and so keeps his place.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/level.h"
#include "scheduler/model.h"
#include "scheduler/partition.h"

#define FLOOR_ROUNDS_MAX 16

struct levels {
	struct partition *p;
	uint64_t *least;       /* of the shares, granted before anything else */
	uint64_t *before;      /* what the round before granted */
	double *floors;	       /* under the demands' rates, bytes/s */
	struct ranked *ranked; /* the shares that a demand reads */
	size_t ranked_count;
	uint64_t left; /* of the cache, beyond the least */
};

static double rate_at(const struct levels *l, size_t i, double level)
{
	const struct demand *d = &l->p->demands[i];

	return level_least(d->ideal, level_most(level * d->pace, l->floors[i]));
}

static double miss_of(const struct partition *p, const struct demand *d)
{
	const struct share *s = &p->shares[d->dataset];

	return model_uniform_miss((double)s->granted, (double)s->bytes);
}

static void weigh(struct levels *l, double level)
{
	struct share *shares = l->p->shares;

	for (size_t i = 0; i < l->ranked_count; i++)
		shares[l->ranked[i].share].worth = 0;
	for (size_t i = 0; i < l->p->demand_count; i++) {
		struct share *s = &shares[l->p->demands[i].dataset];

		if (s->bytes)
			s->worth += rate_at(l, i, level) / (double)s->bytes;
	}
	for (size_t i = 0; i < l->ranked_count; i++)
		l->ranked[i].worth = shares[l->ranked[i].share].worth;
}

static void grant_ranked(struct levels *l)
{
	uint64_t left = l->left;

	partition_sort(l->ranked, l->ranked_count);
	for (size_t i = 0; i < l->ranked_count; i++) {
		struct share *s = &l->p->shares[l->ranked[i].share];
		uint64_t room, more;

		s->granted = l->least[l->ranked[i].share];
		room = s->worth > 0 && s->granted < s->most ? s->most - s->granted : 0;
		more = room < left ? room : left;
		s->granted += more;
		left -= more;
	}
}

static double remote_needed(void *arg, double level, double *ret_slope)
{
	struct levels *l = arg;
	double total = 0;

	*ret_slope = 0;
	weigh(l, level);
	grant_ranked(l);
	for (size_t i = 0; i < l->p->demand_count; i++) {
		const struct demand *d = &l->p->demands[i];
		double miss = miss_of(l->p, d), rising = level * d->pace;

		total += rate_at(l, i, level) * miss;
		if (rising >= l->floors[i] && rising < d->ideal)
			*ret_slope += d->pace * miss;
	}
	return total;
}

static double top_level(const struct partition *p)
{
	double top = 0;

	for (size_t i = 0; i < p->demand_count; i++) {
		const struct demand *d = &p->demands[i];

		if (d->pace > 0)
			top = level_most(top, d->ideal / d->pace);
	}
	return top;
}

/* Promises beyond the bandwidth are cut in the demands' order. Returns their sum. */
static double set_floors(struct levels *l, bool first)
{
	double left = l->p->remote;

	for (size_t i = 0; i < l->p->demand_count; i++) {
		const struct demand *d = &l->p->demands[i];
		double miss = first ? 1 : miss_of(l->p, d);
		double usable = level_least(d->least_remote, model_remote_need(d->ideal, miss));
		double promised = level_least(usable, left);

		left -= promised;
		l->floors[i] = model_perf(d->ideal, promised, miss);
	}
	return l->p->remote - left;
}

static bool cache_moved(struct levels *l)
{
	bool moved = false;

	for (size_t i = 0; i < l->p->share_count; i++) {
		moved = moved || l->before[i] != l->p->shares[i].granted;
		l->before[i] = l->p->shares[i].granted;
	}
	return moved;
}

static void find_level(struct levels *l)
{
	double top = top_level(l->p), slope, promised = set_floors(l, true);

	for (int i = 0; i < FLOOR_ROUNDS_MAX; i++) {
		double level = level_solve(remote_needed, l, top, l->p->remote, 0);

		/* The solver's last probe need not be the level that it found. */
		remote_needed(l, level, &slope);
		if (!(promised > 0) || !cache_moved(l))
			break;
		set_floors(l, false);
	}
}

/* Without bandwidth only what is cached whole runs: first for those whose own share would hold
 * their dataset, then for whom it pays most. */
static void grant_whole(struct levels *l, bool with_pace)
{
	struct share *shares = l->p->shares;

	for (size_t i = 0; i < l->ranked_count; i++)
		shares[l->ranked[i].share].worth = 0;
	for (size_t i = 0; i < l->p->demand_count; i++) {
		const struct demand *d = &l->p->demands[i];
		struct share *s = &shares[d->dataset];

		if (s->bytes)
			s->worth += (with_pace ? d->pace : d->ideal) / (double)s->bytes;
	}
	for (size_t i = 0; i < l->ranked_count; i++)
		l->ranked[i].worth = shares[l->ranked[i].share].worth;
	partition_sort(l->ranked, l->ranked_count);
	for (size_t i = 0; i < l->ranked_count; i++) {
		struct share *s = &shares[l->ranked[i].share];
		uint64_t room = s->bytes - s->granted;

		if (s->worth > 0 && s->most == s->bytes && room <= l->left) {
			s->granted = s->bytes;
			l->left -= room;
		}
	}
}

static int levels_init(struct levels *l, struct partition *p)
{
	size_t shares = p->share_count + 1;

	*l = (struct levels){.p = p, .left = partition_grant_least(p)};
	l->least = calloc(shares, sizeof(*l->least));
	l->before = calloc(shares, sizeof(*l->before));
	l->floors = calloc(p->demand_count + 1, sizeof(*l->floors));
	for (size_t i = 0; i < p->share_count; i++)
		p->shares[i].worth = 0;
	for (size_t i = 0; i < p->demand_count; i++)
		p->shares[p->demands[i].dataset].worth = 1;
	l->ranked = partition_rank(p, &l->ranked_count);
	if (!l->least || !l->before || !l->floors || !l->ranked)
		return -ENOMEM;
	for (size_t i = 0; i < p->share_count; i++)
		l->least[i] = p->shares[i].granted;
	return 0;
}

static void levels_deinit(struct levels *l)
{
	free(l->least);
	free(l->before);
	free(l->floors);
	free(l->ranked);
}

int cache_level_divide(struct partition *p)
{
	struct levels l;
	int r = levels_init(&l, p);

	if (r == 0 && p->remote > 0) {
		find_level(&l);
	} else if (r == 0) {
		grant_whole(&l, true);
		grant_whole(&l, false);
	}
	if (r == 0)
		partition_apply_uniform(p);
	levels_deinit(&l);
	return r;
}
