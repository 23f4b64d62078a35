#include "scheduler/partition.h"

#include <errno.h>
#include <stdlib.h>

#include "scheduler/level.h"
#include "scheduler/model.h"

uint64_t partition_grant_least(struct partition *p)
{
	uint64_t left = p->cache_bytes;

	for (size_t i = 0; i < p->share_count; i++) {
		struct share *s = &p->shares[i];

		s->granted = s->least < left ? s->least : left;
		left -= s->granted;
	}
	return left;
}

void partition_apply_uniform(struct partition *p)
{
	for (size_t i = 0; i < p->demand_count; i++) {
		struct demand *d = &p->demands[i];
		const struct share *s = &p->shares[d->dataset];
		double miss = model_uniform_miss((double)s->granted, (double)s->bytes);

		d->cache_bytes = s->granted;
		d->miss = level_most(miss, d->least_miss);
	}
}

/* `worth` of every dataset: the bytes of bandwidth saved by a byte of cache. */
static void weigh_ideal(struct partition *p)
{
	for (size_t i = 0; i < p->share_count; i++)
		p->shares[i].worth = 0;
	for (size_t i = 0; i < p->demand_count; i++) {
		struct share *s = &p->shares[p->demands[i].dataset];

		if (s->bytes)
			s->worth += p->demands[i].ideal / (double)s->bytes;
	}
}

uint64_t partition_cache_used(const struct partition *p)
{
	uint64_t used = 0;

	for (size_t i = 0; i < p->share_count; i++)
		used += p->shares[i].granted;
	return used;
}

double partition_remote_used(const struct partition *p)
{
	double used = 0;

	for (size_t i = 0; i < p->demand_count; i++)
		used += p->demands[i].remote;
	return used;
}

static int by_worth(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;

	if (x->worth != y->worth)
		return x->worth > y->worth ? -1 : 1;
	return x->share < y->share ? -1 : x->share > y->share;
}

void partition_sort(struct ranked *ranked, size_t count)
{
	qsort(ranked, count, sizeof(*ranked), by_worth);
}

struct ranked *partition_rank(const struct partition *p, size_t *ret_count)
{
	struct ranked *ranked = malloc((p->share_count + 1) * sizeof(*ranked));
	size_t count = 0;

	if (!ranked)
		return NULL;
	for (size_t i = 0; i < p->share_count; i++) {
		if (p->shares[i].worth > 0)
			ranked[count++] = (struct ranked){p->shares[i].worth, i};
	}
	partition_sort(ranked, count);
	*ret_count = count;
	return ranked;
}

int partition_grant_by_worth(struct partition *p, bool (*grant)(struct share *s, uint64_t *left))
{
	uint64_t left = partition_grant_least(p);
	struct ranked *ranked;
	size_t count;

	weigh_ideal(p);
	ranked = partition_rank(p, &count);
	if (!ranked)
		return -ENOMEM;
	for (size_t i = 0; i < count && grant(&p->shares[ranked[i].share], &left); i++)
		;
	free(ranked);
	partition_apply_uniform(p);
	return 0;
}
