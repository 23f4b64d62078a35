/*
 * The pace of what a mount reads past every worker, where its origin is limited: so many bytes a
 * second in all, as the master says, and in no second more than origin/window.h has it.
 *
 * What the master allows is a lease: when it is not renewed a base is left, and in the end next to
 * nothing (ORIGIN_RATE_MIN_BYTES_PER_S), since by then the master has given the rest to others.
 *
 * A read is made in pieces: begin waits for the turn of the next one, in order of arrival, end says
 * what came. Waiting counts towards no deadline (read_cancel_waited). Without a limit begin gives all
 * at once.
 *
 * Threading: any thread.
 */
#pragma once

#include <stdint.h>

#include "common/sync.h"
#include "fuse/read_cancel.h"
#include "origin/window.h"

struct direct_wait;

struct direct_pace {
	struct mutex mu;
	/* guarded by mu */
	struct cond changed;
	struct origin_window window;
	int64_t until_ms, base_until_ms; /* CLOCK_NEVER: no limit */
	double base_bytes_per_s;
	struct direct_wait *waiting; /* the first is served next */
};

void direct_pace_init(struct direct_pace *p);
void direct_pace_deinit(struct direct_pace *p); /* nobody waits */
void direct_pace_free(struct direct_pace *p);	/* no limit from now on */
/* From now on until until_ms, then base_bytes_per_s until base_until_ms. */
void direct_pace_lease(struct direct_pace *p, double bytes_per_s, int64_t until_ms,
	double base_bytes_per_s, int64_t base_until_ms);
double direct_pace_rate(struct direct_pace *p); /* now; 0: no limit */

/* How many of `want` bytes may be got now, after having waited for them: all of them when `whole`.
 * 0: it was called off, and end must not follow. */
uint32_t direct_pace_begin(struct direct_pace *p, struct origin_pass *pass, uint32_t want,
	bool whole, struct read_cancel *cancel);
/* `bytes` came in truth. */
void direct_pace_end(struct direct_pace *p, struct origin_pass *pass, uint64_t bytes);
