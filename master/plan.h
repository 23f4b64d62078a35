/*
 * What each dataset is granted of the cache: quotas and max-min shares (scheduler/cache_share.h)
 * with the store's overhead allowed for. Pure.
 *
 * A store charges whole 4 KiB units, so a dataset of `bytes` in `blocks` takes up to
 * bytes + 4 KiB * blocks of a disk. The division is made in charged bytes, over
 * PLAN_CAPACITY_PERCENT of the capacity, and scaled back to the bytes of objects, in which grants
 * and quotas are counted.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "manifest/manifest.h"

#define PLAN_CAPACITY_PERCENT 97
#define PLAN_CHARGE_BYTES 4096 /* at most, lost by a block to alignment */

struct allocate_limit;

struct plan_item {
	uint64_t dataset_id;
	int64_t created_s;
	char digest[MANIFEST_DIGEST_TEXT_BYTES];
	uint64_t bytes, blocks; /* of the current snapshot */
	bool quota_limited;
	uint64_t quota_bytes;
	bool mounted;
	struct allocate_limit *limit; /* of its origin alone (allocate.h); NULL: none */
	uint64_t granted_bytes;	      /* out: of objects, <= bytes */
	bool elastic; /* out: what is not pinned is kept as an LRU cache keeps it (allocate.h) */

	/* The planner's: threshold and the bytes under it, and whether they are known already. */
	uint64_t threshold, pin_target_bytes;
	bool known;
};

/* In charged bytes: all of an item, and its quota, rounded up so that one that fits is granted to the
 * byte. */
uint64_t plan_charged_bytes(const struct plan_item *i);
uint64_t plan_charged_quota(const struct plan_item *i);
/* So many bytes of its objects, in charged ones. */
uint64_t plan_charged_part(const struct plan_item *i, uint64_t bytes);
/* The bytes of objects that so many charged ones hold. */
uint64_t plan_uncharged_bytes(const struct plan_item *i, uint64_t charged_bytes);
/* What of a capacity is divided. */
uint64_t plan_usable_bytes(uint64_t capacity_bytes);

/* As plan_grant, of what plan_usable_bytes gave or what is left of it. */
int plan_grant_charged(struct plan_item *items, size_t count, uint64_t usable_bytes);
/* -ENOMEM. Where quotas exceed the capacity the last items are cut: the newest datasets. */
int plan_grant(struct plan_item *items, size_t count, uint64_t capacity_bytes);
