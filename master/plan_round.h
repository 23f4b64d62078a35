/*
 * One round of planning: a copy of what the master knows, and its division. The planner publishes
 * what comes out; JobService/Plan only tells it.
 */
#pragma once

#include "master/allocate.h"
#include "master/master_state.h"

struct plan_round {
	struct plan_item *items; /* the oldest dataset first */
	size_t count;
	struct allocate_job *jobs; /* by id; one more may be added behind them */
	size_t job_count;
	struct allocate_cluster cluster; /* its limits in the order of the master's */
};

/* Copies; -ENOMEM. Whatever became of it, deinit follows. */
int plan_round_init_locked(struct master *m, struct plan_round *round);
void plan_round_deinit(struct plan_round *round);

/* NULL: its dataset cannot be read now. */
const struct allocate_job *plan_round_job(const struct plan_round *round, uint64_t id);

/* Grants of the items and shares of the jobs. -ENOMEM. */
int plan_round_divide(struct plan_round *round);

/* What can hit for some job, or how fast it could read, is not what the latest plan went by. */
bool plan_round_is_stale_locked(struct master *m);
/* The latest plan is to be one that goes by what is so now: right after init. */
void plan_round_went_by_locked(struct master *m);
