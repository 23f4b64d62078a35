/*
 * Whole datasets by benefit per byte until the next one does not fit (Quiver-like). Only a user's
 * bounds leave a dataset in part.
 */
#include <errno.h>
#include <stdlib.h>

#include "scheduler/partition.h"

int cache_whole_divide(struct partition *p)
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

		/* Its bound keeps it from ever being whole: no candidate. */
		if (s->most < s->bytes)
			continue;
		if (s->bytes - s->granted > left)
			break;
		left -= s->bytes - s->granted;
		s->granted = s->bytes;
	}
	free(ranked);
	partition_apply_uniform(p);
	return 0;
}
