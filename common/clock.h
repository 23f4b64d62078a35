/*
 * Time. Deadlines are absolute milliseconds of the monotonic clock; CLOCK_NEVER is none.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define CLOCK_NEVER INT64_MAX

static inline int64_t clock_mono_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static inline int64_t clock_mono_ms(void)
{
	return clock_mono_ns() / 1000000;
}

/* Wall-clock seconds since the epoch: for showing and storing, never for waiting. */
static inline int64_t clock_wall_s(void)
{
	return (int64_t)time(NULL);
}

static inline int64_t clock_deadline_ms(int64_t timeout_ms)
{
	return clock_mono_ms() + timeout_ms;
}

/* What is left until the deadline, 0 when it has passed. */
static inline int64_t clock_left_ms(int64_t deadline_ms)
{
	int64_t left;

	if (deadline_ms == CLOCK_NEVER)
		return CLOCK_NEVER;
	left = deadline_ms - clock_mono_ms();
	return left > 0 ? left : 0;
}

static inline bool clock_passed(int64_t deadline_ms)
{
	return deadline_ms != CLOCK_NEVER && clock_mono_ms() >= deadline_ms;
}
