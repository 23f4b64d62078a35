/*
 * Brings the store in line with the master's plan: grants, thresholds, which blocks the current
 * snapshots have, datasets that are no more.
 *
 * That may scan millions of blocks or fetch a manifest, so it is done by a thread of its own, from
 * the newest plan only; heartbeats and reads go on meanwhile. What fails (the manifest cannot be
 * fetched now) is tried again.
 *
 * Threading: any thread may give a plan. Blocks of the store are dropped only by the plan's thread.
 */
#pragma once

#include "cluster/manifest_cache.h"
#include "common/error.h"
#include "granary/v1/cluster.pb-c.h"
#include "store/store.h"

#define PLAN_RETRY_MS 2000
#define PLAN_MANIFEST_TIMEOUT_MS 600000

struct plan;

int plan_new(struct store *store, struct manifest_cache *manifests, struct rpc_channel *master,
	struct plan **ret, struct error *err);
int plan_start(struct plan *p, struct error *err);
/* Joins, and ends all fetches of manifests; fine when never started. */
void plan_stop(struct plan *p);
void plan_free(struct plan *p); /* NULL is fine */

/* Grants that need no scan, because the store has no block of the dataset yet: done at once, so
 * that the first reads of a new dataset find their place. Waits for no scan of the plan's thread. */
void plan_announce(struct plan *p, const Granary__V1__WorkerHeartbeatReply *reply);
/* Takes the reply (a complete plan). */
void plan_take(struct plan *p, Granary__V1__WorkerHeartbeatReply *reply);
/* True when the store is what the newest plan says. */
bool plan_settled(struct plan *p);
