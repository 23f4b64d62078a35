/*
 * What the files of the master share. Not for other folders.
 *
 * Locks, in the order in which they are taken:
 *
 *	state_mu	orders changes of the durable state: it is held from the decision to the
 *			commit and its effect in memory, that is over a write of the database. Never
 *			taken by heartbeats, nor by anything that only reads.
 *	mu		all that is in memory. Never held over the disk, the origin or an RPC.
 *
 * The plan: whoever changes what grants depend on calls master_replan_locked; the planner thread
 * computes and publishes. plan_version names what workers are to know; it starts at a random
 * number, so that a restarted master never takes an old plan for its own.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/sync.h"
#include "master/allocate.h"
#include "master/dataset_registry.h"
#include "master/jobs.h"
#include "master/manifest_store.h"
#include "master/master.h"
#include "master/mounts.h"
#include "master/namespace_db.h"
#include "master/workers.h"
#include "scheduler/problem.h"

#define MASTER_IMPORTS_MAX 4 /* at once; each holds a thread of the server */
#define MASTER_HEARTBEAT_MS 1000
#define MASTER_TICK_MS 1000
#define MASTER_SAVE_MS 5000 /* counters are written at most so often */
#define MASTER_SNAPSHOT_GRACE_MS 60000

/* Sums of what may be in use of the origins' limits (origin_ledger.c): no less than it is. */
struct origin_ledger {
	int64_t summed_ms; /* 0: to be summed anew */
	/* Workers: parts of 1, of all and of the silent; capacity of the others. */
	double workers_part, silent_part, capacity;
	/* What mounts may be reading past them, of all origins and of those with limits of their
	 * own. */
	double mounts_bytes_per_s;
	double own_bytes_per_s[ORIGIN_LIMITS_MAX];
};

struct master {
	struct namespace_db *db;
	struct manifest_store *manifests;
	int64_t started_s, started_ms;

	struct mutex state_mu;
	struct mutex mu;

	/* guarded by mu */
	struct cond work;    /* the planner has work, or must stop */
	struct cond planned; /* plan_done moved */
	struct cond tick;    /* the housekeeper must stop */
	struct dataset_registry datasets;
	struct workers workers;
	struct mounts mounts;
	struct jobs jobs;
	struct master_cluster {
		/* as configured */
		struct origin_limits origins;
		enum gpu_policy policy;
		enum storage_policy storage;
		/* as the latest plan left it */
		uint64_t cache_bytes, cache_bytes_left;
		size_t others; /* mounts without a job */
		double origin_bytes_per_s_left, other_bytes_per_s;
		struct allocate_limit limits[ORIGIN_LIMITS_MAX]; /* of origins.list */
	} cluster;
	struct origin_ledger ledger;
	uint64_t plan_version;
	uint64_t plan_wanted, plan_done;
	uint64_t planned_capacity; /* that the latest round went by */
	unsigned imports;
	bool stopping;

	/* guarded by state_mu */
	int64_t saved_ms; /* when the counters were written last */

	/* owned by master_new, master_start and master_free */
	pthread_t planner, housekeeper;
	bool planner_runs, housekeeper_runs;
	struct master_metrics *metrics;
};

/* Grants may have to change. */
void master_replan_locked(struct master *m);
/* Workers have to be told. */
void master_tell_locked(struct master *m);
/* True when every change asked for until now is in the plan. */
bool master_is_planned_locked(const struct master *m);
/* Waits for that; false when the deadline passed or the master stops. */
bool master_wait_planned_locked(struct master *m, int64_t deadline_ms);

/* 1 and the index of its origin's own limit among cluster.origins.list; 0: none. Found once and
 * kept in d->limit, by which mounts are counted: before the first of its mounts is. */
size_t master_limit_locked(const struct master *m, struct dataset *d);

uint64_t master_random_id(void); /* never 0 */

/* planner.c */
void *planner_main(void *arg);
/* One round: computes grants and thresholds and publishes them. Not under mu. -ENOMEM. */
int planner_run(struct master *m);

/* housekeeping.c */
void *housekeeping_main(void *arg);
/* One round as of now_ms: the lost, the dead, snapshots nobody needs, counters. Not under mu. */
void housekeeping_run(struct master *m, int64_t now_ms);
/* Writes what counters are behind. */
void housekeeping_save(struct master *m);

/* dataset_service.c, cluster_service.c */
/* All datasets, for List and Status. -ENOMEM; what is in *ret is the caller's also then. */
int dataset_list_message(struct master *m, Granary__V1__Dataset ***ret, size_t *ret_count);
void dataset_service_add(struct master *m, struct rpc_server *server);
void cluster_service_add(struct master *m, struct rpc_server *server);
/* job_service.c */
void job_service_add(struct master *m, struct rpc_server *server);
/* job_plan.c: job_service_add does it */
void job_plan_add(struct master *m, struct rpc_server *server);
/* mount_calls.c: cluster_service_add does it */
void mount_calls_add(struct master *m, struct rpc_server *server);
