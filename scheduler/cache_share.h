/*
 * How cache is divided among datasets while no job model is in force: quotas first, in full; what
 * they leave goes to the datasets without one, mounted before unmounted, smallest satisfied first
 * (max-min fair over bytes, nobody gets more than its size). Pure: no IO, no threads, no state.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CACHE_SHARE_UNLIMITED UINT64_MAX

struct cache_share {
	uint64_t dataset_bytes;
	uint64_t quota_bytes; /* CACHE_SHARE_UNLIMITED: none set */
	bool mounted;
	uint64_t granted_bytes; /* out: <= dataset_bytes */
};

/* Quotas beyond the capacity are cut in the order of the array. Returns the bytes left. */
uint64_t cache_share_solve(struct cache_share *shares, size_t count, uint64_t capacity_bytes);
