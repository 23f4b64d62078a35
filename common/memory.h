/*
 * How much memory this process may still use: what the kernel calls available, within the limit of
 * the control groups around it (version 1 and 2; cgroups(7), the kernel's cgroup-v2.rst).
 */
#pragma once

#include <stdint.h>

/* In bytes; UINT64_MAX where neither says anything. Page cache counts as available. */
uint64_t memory_available_bytes(void);
/* The same with /proc and /sys below `root`, for tests. */
uint64_t memory_available_bytes_below(const char *root);
