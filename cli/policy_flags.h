/*
 * --policy, --storage and --origin-limit as the scheduler has them. The command table has checked the
 * names.
 */
#pragma once

#include "cli/command.h"
#include "origin/limits.h"
#include "scheduler/problem.h"

/* GPU_POLICIES and STORAGE_POLICIES stand for "all". */
enum gpu_policy policy_flag(const struct invocation *inv);
enum storage_policy storage_flag(const struct invocation *inv);

/* How a master divides cache and bandwidth. */
struct sharing {
	struct origin_limits origins;
	enum gpu_policy policy;
	enum storage_policy storage;
};

/* -EINVAL: limits that contradict each other, or too many. */
int sharing_flags(const struct invocation *inv, struct sharing *ret, struct error *err);
/* Of the flag --origin-limit. */
int origin_limits_flag(const struct invocation *inv, struct origin_limits *ret, struct error *err);
