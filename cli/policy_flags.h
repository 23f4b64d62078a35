/*
 * --policy and --storage as the scheduler's numbers. The command table has checked the names.
 */
#pragma once

#include "cli/command.h"
#include "scheduler/problem.h"

/* GPU_POLICIES and STORAGE_POLICIES stand for "all". */
enum gpu_policy policy_flag(const struct invocation *inv);
enum storage_policy storage_flag(const struct invocation *inv);
