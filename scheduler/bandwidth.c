#include "scheduler/bandwidth.h"

#include "scheduler/level.h"
#include "scheduler/model.h"

static double need_of(const struct demand *d)
{
	return model_remote_need(d->ideal, d->miss);
}

/* What is promised, in `remote`; returns what it leaves. */
static double grant_promised(struct partition *p)
{
	double left = p->remote;

	for (size_t i = 0; i < p->demand_count; i++) {
		struct demand *d = &p->demands[i];

		d->remote = level_least(level_least(d->least_remote, need_of(d)), left);
		left -= d->remote;
	}
	return left;
}

void bandwidth_in_order(struct partition *p)
{
	double left = grant_promised(p);

	for (size_t i = 0; i < p->demand_count; i++) {
		struct demand *d = &p->demands[i];
		double more = level_least(need_of(d) - d->remote, left);

		d->remote += more;
		left -= more;
	}
}

static double taken(const struct asking *a, double level)
{
	return level_least(a->need, level_most(level * a->speed, a->promised));
}

static double asked_total(void *arg, double level, double *ret_slope)
{
	const struct partition *p = arg;
	double total = 0, slope = 0;

	for (size_t i = 0; i < p->demand_count; i++) {
		const struct asking *a = &p->asking[i];
		double rising = level * a->speed;

		total += taken(a, level);
		slope += rising >= a->promised && rising < a->need ? a->speed : 0;
	}
	*ret_slope = slope;
	return total;
}

static double ask(struct partition *p, bool by_pace)
{
	double top = 0;

	for (size_t i = 0; i < p->demand_count; i++) {
		const struct demand *d = &p->demands[i];
		struct asking *a = &p->asking[i];

		a->need = need_of(d);
		a->promised = d->remote;
		a->speed = by_pace ? d->pace * d->miss : 1;
		if (a->need > top * a->speed && a->speed > 0)
			top = a->need / a->speed;
	}
	return top;
}

static void fill(struct partition *p, bool by_pace)
{
	double top, left = p->remote;

	grant_promised(p);
	top = ask(p, by_pace);
	p->level = level_solve(asked_total, p, top, p->remote, p->level);
	/* Rounding must not make the sum larger than what there is. */
	for (size_t i = 0; i < p->demand_count; i++) {
		struct demand *d = &p->demands[i];

		d->remote = level_least(taken(&p->asking[i], p->level), left);
		left -= d->remote;
	}
}

void bandwidth_fair(struct partition *p)
{
	fill(p, false);
}

void bandwidth_by_pace(struct partition *p)
{
	fill(p, true);
}
