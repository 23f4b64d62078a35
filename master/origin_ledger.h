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
 *  - What workers may be using is in the database, and they say it, too. Of mounts a new master does
 *    not know: until the leases of the one before are over it gives none more than it says it has.
 *
 * Threading: under master.mu.
 */
#pragma once

#include "granary/v1/cluster.pb-c.h"
#include "master/master_state.h"

#define ORIGIN_DIRECT_RATIO 0.01

/* What workers may have of each limit, together: 0 when there are none. */
double origin_ledger_for_workers_locked(const struct master *m);

/* The part of all limits that is the worker's, which was heard just now; `has` and `has_base` are what
 * it says is in force. False: nothing is limited. *ret_settled: it has what it is to have. */
bool origin_ledger_worker_locked(struct master *m, struct worker *w, double has, double has_base,
	Granary__V1__OriginLease *ret, bool *ret_settled);

/* What a mount of d may read past the workers; `has` and `has_base` are what it says is in force.
 * False: nothing limits its origin. */
bool origin_ledger_direct_locked(struct master *m, struct mount_peer *p, struct dataset *d,
	double has, double has_base, Granary__V1__DirectShare *ret);
