#include "scheduler/cache_share.h"

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static bool is_in_turn(const struct cache_share *s, bool mounted)
{
	return s->quota_bytes == CACHE_SHARE_UNLIMITED && s->mounted == mounted;
}

static bool level_fits(
	const struct cache_share *shares, size_t count, bool mounted, uint64_t level, uint64_t left)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t taken = least(shares[i].dataset_bytes, level);

		if (!is_in_turn(&shares[i], mounted))
			continue;
		if (taken > left)
			return false;
		left -= taken;
	}
	return true;
}

/* Max-min fairness is one water level for all: the highest that the bytes reach, each dataset
 * taking up to it. The remainder, less than a byte for each that could use it, goes by the array's
 * order. */
static uint64_t fill(struct cache_share *shares, size_t count, bool mounted, uint64_t left)
{
	uint64_t low = 0, high = left;

	while (low < high) {
		uint64_t level = high - (high - low) / 2;

		if (level_fits(shares, count, mounted, level, left))
			low = level;
		else
			high = level - 1;
	}
	for (size_t i = 0; i < count; i++) {
		if (!is_in_turn(&shares[i], mounted))
			continue;
		shares[i].granted_bytes = least(shares[i].dataset_bytes, low);
		left -= shares[i].granted_bytes;
	}
	for (size_t i = 0; i < count && left > 0; i++) {
		if (!is_in_turn(&shares[i], mounted) ||
			shares[i].granted_bytes == shares[i].dataset_bytes)
			continue;
		shares[i].granted_bytes++;
		left--;
	}
	return left;
}

uint64_t cache_share_solve(struct cache_share *shares, size_t count, uint64_t capacity_bytes)
{
	uint64_t left = capacity_bytes;

	for (size_t i = 0; i < count; i++) {
		struct cache_share *s = &shares[i];

		s->granted_bytes = 0;
		if (s->quota_bytes == CACHE_SHARE_UNLIMITED)
			continue;
		s->granted_bytes = least(least(s->quota_bytes, s->dataset_bytes), left);
		left -= s->granted_bytes;
	}
	left = fill(shares, count, true, left);
	return fill(shares, count, false, left);
}
