/*
 * The fractional knapsack: a byte of cache saves sum f* / d bytes/s of bandwidth wherever it is in
 * the dataset, so filling the dearest datasets first leaves the least to fetch.
 */
#include <errno.h>
#include <stdlib.h>

#include "scheduler/partition.h"

int cache_greedy_divide(struct partition *p)
{
	uint64_t left = partition_grant_least(p);
	struct ranked *ranked;
	size_t count;

	partition_weigh_ideal(p);
	ranked = partition_rank(p, &count);
	if (!ranked)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		struct share *s = &p->shares[ranked[i].share];
		uint64_t room = s->granted < s->most ? s->most - s->granted : 0;
		uint64_t more = room < left ? room : left;

		s->granted += more;
		left -= more;
	}
	free(ranked);
	partition_apply_uniform(p);
	return 0;
}
