/*
 * Whole datasets by benefit per byte until the next one does not fit (Quiver-like). Only a user's
 * bounds leave a dataset in part.
 */
#include "scheduler/partition.h"

static bool grant_whole(struct share *s, uint64_t *left)
{
	uint64_t missing = s->bytes - s->granted;

	/* Its bound keeps it from ever being whole: no candidate. */
	if (s->most < s->bytes)
		return true;
	if (missing > *left)
		return false;
	*left -= missing;
	s->granted = s->bytes;
	return true;
}

int cache_whole_divide(struct partition *p)
{
	return partition_grant_by_worth(p, grant_whole);
}
