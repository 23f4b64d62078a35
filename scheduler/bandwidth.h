/*
 * How a partition's bandwidth goes to its jobs once their miss ratios are known. Nobody gets more
 * than f* * miss, those with a promised least come first, and the sum never passes the partition's.
 */
#pragma once

#include "scheduler/partition.h"

/* Each its need, in the order of the GPU policy, until nothing is left. */
void bandwidth_in_order(struct partition *p);
/* Max-min fair over what each needs. */
void bandwidth_fair(struct partition *p);
/* Max-min fair over the rates that it makes possible, each in units of its own pace. */
void bandwidth_by_pace(struct partition *p);
