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

uint64_t plan_charged_bytes(const struct plan_item *i)
{
	uint64_t charged;

	if (__builtin_mul_overflow(i->blocks, (uint64_t)PLAN_CHARGE_BYTES, &charged) ||
		__builtin_add_overflow(charged, i->bytes, &charged))
		return UINT64_MAX - 1;
	return charged;
}

uint64_t plan_charged_quota(const struct plan_item *i)
{
	uint64_t charged = plan_charged_bytes(i);

	if (i->quota_bytes >= i->bytes)
		return charged;
	return scale(i->quota_bytes, charged, i->bytes) + 1;
}

uint64_t plan_charged_part(const struct plan_item *i, uint64_t bytes)
{
	uint64_t all = plan_charged_bytes(i);

	return bytes >= i->bytes ? all : scale(bytes, all, i->bytes);
}

uint64_t plan_uncharged_bytes(const struct plan_item *i, uint64_t charged_bytes)
{
	uint64_t all = plan_charged_bytes(i);

	return charged_bytes >= all ? i->bytes : scale(charged_bytes, i->bytes, all);
}

uint64_t plan_usable_bytes(uint64_t capacity_bytes)
{
	return scale(capacity_bytes, PLAN_CAPACITY_PERCENT, 100);
}

int plan_grant_charged(struct plan_item *items, size_t count, uint64_t usable_bytes)
{
	struct cache_share *shares = calloc(count + 1, sizeof(*shares));

	if (!shares)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		shares[i].dataset_bytes = plan_charged_bytes(&items[i]);
		shares[i].quota_bytes = items[i].quota_limited ? plan_charged_quota(&items[i])
							       : CACHE_SHARE_UNLIMITED;
		shares[i].mounted = items[i].mounted;
	}
	cache_share_solve(shares, count, usable_bytes);
	for (size_t i = 0; i < count; i++) {
		struct plan_item *item = &items[i];

		item->granted_bytes = plan_uncharged_bytes(item, shares[i].granted_bytes);
		if (item->quota_limited && item->granted_bytes > item->quota_bytes)
			item->granted_bytes = item->quota_bytes;
	}
	free(shares);
	return 0;
}

int plan_grant(struct plan_item *items, size_t count, uint64_t capacity_bytes)
{
	return plan_grant_charged(items, count, plan_usable_bytes(capacity_bytes));
}
