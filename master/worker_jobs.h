/*
 * What of a worker's cumulative counters for each job was counted into the job already. The counters
 * go by the job's name and outlive it in the worker, so they are remembered with the worker.
 *
 * Threading: the caller's lock.
 */
#pragma once

#include <stdbool.h>

#include <uthash.h>

#include "granary/v1/cluster.pb-c.h"
#include "master/jobs.h"

#define WORKER_JOBS_MAX 4096 /* of one worker; more are not counted */

struct worker_job; /* uthash, by name */

/* Takes in a heartbeat. `baseline`: the worker was heard for the first time since the master started,
 * nobody knows what was counted, and counting begins here. */
void worker_jobs_heard(struct worker_job **table, struct jobs *jobs,
	const Granary__V1__WorkerHeartbeatRequest *request, bool baseline);
void worker_jobs_free(struct worker_job **table);
