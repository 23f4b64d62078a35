/*
 * The pace at which bytes may leave origins: evenly at the limit, and in no sliding second more than
 * ORIGIN_WINDOW_SLACK of it.
 *
 * Two accounts. The pace lets a get begin when the ones before it have had their time at the limit;
 * who wakes late may catch up ORIGIN_CREDIT_NS, or credit_ns where gets wait for something else, too.
 * The window holds the bytes that may be counted by an origin in the same second as the next get:
 * those of gets under way, and those of gets that ended within the last second. When a byte leaves
 * its origin is not known, only that it is between the two; so it counts from the begin of its get
 * to a second after the end. That makes the bound hold whatever the origins' delays are, and costs
 * what they are: a get that takes 100 ms leaves 93 % of the limit.
 *
 * A get that takes longer than a second hangs, or its origin is slower than the limit: it leaves the
 * window, so that a dead origin does not use up what the others' jobs may have, and counts again
 * when it ends.
 *
 * Time is passed in, in nanoseconds of the monotonic clock. Threading: the caller's lock.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define ORIGIN_WINDOW_NS ((int64_t)1000000000)
#define ORIGIN_WINDOW_SLACK 1.02
#define ORIGIN_CREDIT_NS ((int64_t)5000000)
#define ORIGIN_RATE_MIN_BYTES_PER_S 4096.0 /* no worker is cut off from its origins */
#define ORIGIN_PIECE_MIN_BYTES 4096u
#define ORIGIN_PIECE_BYTES 65536u      /* smaller only where a second has room for few of these */
#define ORIGIN_SKIPPED_MIN_BYTES 65536 /* beyond what was asked for: its origin gives no parts */
#define ORIGIN_WINDOW_TICKS 1024       /* milliseconds kept: more than a second of them */

/* Whether the origin of a get has sent all from the beginning, whatever part was asked for. */
static inline bool origin_ignores_ranges(uint64_t received, uint32_t asked)
{
	return received >= asked + (uint64_t)ORIGIN_SKIPPED_MIN_BYTES;
}

/* A get under way; a member of whoever makes it. */
struct origin_pass {
	struct origin_pass *prev, *next; /* in the order of their begin */
	int64_t begun_ns;
	uint32_t bytes;
	bool counted; /* in the window */
	bool paced;   /* its bytes were given their time */
};

struct origin_tick {
	int64_t ms;
	uint64_t bytes;
};

struct origin_window {
	double bytes_per_s; /* 0: no limit */
	int64_t ready_ns;   /* when the next get may begin, by the pace */
	int64_t credit_ns;  /* set by the owner; 0: ORIGIN_CREDIT_NS */
	uint64_t begun_bytes, ended_bytes;
	struct origin_pass *begun;
	struct origin_tick ticks[ORIGIN_WINDOW_TICKS]; /* a ring of those that ended */
	unsigned first_tick, ticks_used;
};

/* 0: no limit. What ended under a higher one is forgotten, what is under way is not. */
void origin_window_set(struct origin_window *w, double bytes_per_s);
/* The most that one get may have: about a hundredth of a second's bytes. */
uint32_t origin_window_piece(const struct origin_window *w);
/* 0 when a get of `bytes` may begin now, else when to look again (or after the end of a get). */
int64_t origin_window_wait_ns(struct origin_window *w, uint32_t bytes, int64_t now_ns);

void origin_window_begin(
	struct origin_window *w, struct origin_pass *p, uint32_t bytes, int64_t now_ns);
/* `bytes` have come in truth: fewer after a failure, more when some came twice. */
void origin_window_end(
	struct origin_window *w, struct origin_pass *p, uint64_t bytes, int64_t now_ns);
