/*
 * The fractional knapsack: a byte of cache saves sum f* / d bytes/s of bandwidth wherever it is in
 * the dataset, so filling the dearest datasets first leaves the least to fetch.
 */
#include "scheduler/partition.h"

static bool grant_what_fits(struct share *s, uint64_t *left)
{
	uint64_t room = s->granted < s->most ? s->most - s->granted : 0;
	uint64_t more = room < *left ? room : *left;

	s->granted += more;
	*left -= more;
	return *left > 0;
}

int cache_greedy_divide(struct partition *p)
{
	return partition_grant_by_worth(p, grant_what_fits);
}
