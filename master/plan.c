#include "master/plan.h"

#include <errno.h>
#include <stdlib.h>

#include "scheduler/cache_share.h"

/* a * b / c, rounded down; what exceeds 64 bits is cut. */
static uint64_t scale(uint64_t a, uint64_t b, uint64_t c)
{
	unsigned __int128 product = (unsigned __int128)a * b / c;

	return product > UINT64_MAX - 1 ? UINT64_MAX - 1 : (uint64_t)product;
}

static uint64_t charged_bytes(const struct plan_item *i)
{
	uint64_t charged;

	if (__builtin_mul_overflow(i->blocks, (uint64_t)PLAN_CHARGE_BYTES, &charged) ||
		__builtin_add_overflow(charged, i->bytes, &charged))
		return UINT64_MAX - 1;
	return charged;
}

/* Rounded up, so that a quota that fits is granted to the byte. */
static uint64_t charged_quota(const struct plan_item *i, uint64_t charged)
{
	if (!i->quota_limited)
		return CACHE_SHARE_UNLIMITED;
	if (i->quota_bytes >= i->bytes)
		return charged;
	return scale(i->quota_bytes, charged, i->bytes) + 1;
}

int plan_grant(struct plan_item *items, size_t count, uint64_t capacity_bytes)
{
	struct cache_share *shares = calloc(count + 1, sizeof(*shares));

	if (!shares)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		shares[i].dataset_bytes = charged_bytes(&items[i]);
		shares[i].quota_bytes = charged_quota(&items[i], shares[i].dataset_bytes);
		shares[i].mounted = items[i].mounted;
	}
	cache_share_solve(shares, count, scale(capacity_bytes, PLAN_CAPACITY_PERCENT, 100));
	for (size_t i = 0; i < count; i++) {
		struct plan_item *item = &items[i];

		if (shares[i].granted_bytes >= shares[i].dataset_bytes)
			item->granted_bytes = item->bytes;
		else
			item->granted_bytes = scale(
				shares[i].granted_bytes, item->bytes, shares[i].dataset_bytes);
		if (item->quota_limited && item->granted_bytes > item->quota_bytes)
			item->granted_bytes = item->quota_bytes;
	}
	free(shares);
	return 0;
}
