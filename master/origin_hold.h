/*
 * How much of a limit one holder, a worker or a mount, may be using at most, as far as the master can
 * know: what it was given and what it says, with the times after which it cannot be using it any
 * more.
 *
 * What is given is a lease. It begins, for the holder, when it asked, and ends ORIGIN_LEASE_MS later;
 * until ORIGIN_BASE_MS it has the base that came with it, and then nothing. The master heard it later
 * than it asked, so that counting from there is on the safe side, whatever becomes of messages. For
 * ORIGIN_SETTLE_MS more the origin may count what was sent before the end of a lease.
 *
 * A holder says in each heartbeat what it has, so that a reply which was lost, or an earlier
 * master's, makes no difference. One that has less than before frees the rest after
 * ORIGIN_SETTLE_MS.
 *
 * Pure; in any unit. Times are milliseconds of the monotonic clock, and passed in.
 */
#pragma once

#include <stdint.h>

#define ORIGIN_LEASE_MS 5000
#define ORIGIN_BASE_MS 590000 /* and settled before holders are forgotten */
#define ORIGIN_SETTLE_MS 1500

struct origin_hold {
	double most, base; /* in use at most: during the lease, and after it */
	int64_t heard_ms;  /* last; 0: never */
	/* It said that it has no more than this, ever since; 0: it did not. */
	int64_t less_since_ms;
	double less, less_base;
};

/* At most in use at this time. */
double origin_hold_in_use(const struct origin_hold *h, int64_t now_ms);
/* A heartbeat that says what is in force there. */
void origin_hold_heard(struct origin_hold *h, double has, double has_base, int64_t now_ms);
/* The reply gives so much; base <= part. */
void origin_hold_give(struct origin_hold *h, double part, double base);
