/*
 * --policy, --storage and --origin-limit as the scheduler has them. The command table has checked the
 * names.
 */
#pragma once

#include "cli/command.h"
#include "scheduler/problem.h"

/* GPU_POLICIES and STORAGE_POLICIES stand for "all". */
enum gpu_policy policy_flag(const struct invocation *inv);
enum storage_policy storage_flag(const struct invocation *inv);

/* How a master divides cache and bandwidth. */
struct sharing {
	uint64_t origin_bytes_per_s; /* 0: the origins are not limited */
	enum gpu_policy policy;
	enum storage_policy storage;
};

struct sharing sharing_flags(const struct invocation *inv);
