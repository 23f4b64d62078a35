/*
 * Divides the origins' limits among workers and mounts, so that all that may be in use at any time
 * (origin_hold.h) is no more than the limits.
 *
 *  - Workers have parts of all limits, by their capacity. Of one that is silent half is given to the
 *    others after its lease, its base when it is forgotten: it may be at work. The base of one that is
 *    alone is all that it has: there is nobody to give it to.
 *  - Mounts read past the workers when none answers. For that all of them together are kept
 *    ORIGIN_DIRECT_RATIO of each limit, in equal parts, as long as any worker is registered. With none
 *    they have all of it: a job's share by its mounts, what is for readers without a job by theirs.
 *  - More than is free is given to nobody: who is to have more waits until others have less.
 *  - What may be in use is in the database, saved from time to time, and holders say it, too. Until
 *    the leases of the master before are over a new one gives no mount more than it had.
 *
 * Threading: under master.mu. Time is passed in, in milliseconds of the monotonic clock.
 */
#pragma once

#include "granary/v1/cluster.pb-c.h"
#include "master/master_state.h"

#define ORIGIN_DIRECT_RATIO 0.01

/* What workers may have of each limit, together: 0 when there are none. */
double origin_ledger_for_workers_locked(const struct master *m);

/* The part of all limits that is the worker's, which was heard just now; `has` and `has_base` are
 * what it says is in force. False: nothing is limited. *ret_settled: it has what it is to have. */
bool origin_ledger_worker_locked(struct master *m, struct worker *w, double has, double has_base,
	int64_t now_ms, Granary__V1__OriginLease *ret, bool *ret_settled);

/* What a mount of d may read past the workers; `has` and `has_base` are what it says is in force.
 * False: nothing limits its origin. */
bool origin_ledger_direct_locked(struct master *m, struct mount_peer *p, struct dataset *d,
	double has, double has_base, int64_t now_ms, Granary__V1__DirectShare *ret);
