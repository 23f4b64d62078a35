/*
 * A worker's side of living with the master: once an interval it says what it has, and takes what
 * it should hold.
 *
 * The data path never waits for the master. While it is away the last plan stays in force, but of the
 * origins' limited bandwidth a base only is left after the lease (origin_queue.h); reads of datasets
 * that no plan has named yet fail with -EAGAIN until the first one has come.
 *
 * Threading: a thread of its own between start and stop; refresh from any thread.
 */
#pragma once

#include <stdint.h>

#include "common/error.h"
#include "common/rpc/rpc.h"
#include "granary/v1/cluster.pb-c.h"
#include "store/store.h"
#include "worker/dataset_table.h"
#include "worker/origin_queue.h"
#include "worker/plan.h"

#define HEARTBEAT_INTERVAL_MS 1000
#define HEARTBEAT_INTERVAL_MIN_MS 50
#define HEARTBEAT_INTERVAL_MAX_MS 60000
#define HEARTBEAT_TIMEOUT_MS 3000

struct heartbeat;

struct heartbeat_options {
	struct rpc_channel *master;
	struct store *store;
	struct dataset_table *datasets;
	struct origin_queue *origins;
	struct plan *plan;
	/* All copied. */
	const char *master_address; /* for texts */
	const char *address;
	const char *local_address; /* "unix:PATH", there when the thread starts; NULL for none */
	const char *lease_socket;  /* NULL for none */
	/* Called after every beat; NULL for none. */
	void (*tick)(void *arg);
	void *arg;
};

int heartbeat_new(const struct heartbeat_options *opts, struct heartbeat **ret, struct error *err);
int heartbeat_start(struct heartbeat *h, struct error *err);
void heartbeat_stop(struct heartbeat *h); /* joins; fine when never started */
void heartbeat_free(struct heartbeat *h); /* NULL is fine */

/* Beats now and waits until that beat is over and its plan in force: 0, -ETIMEDOUT, -EAGAIN (the
 * master did not answer). */
int heartbeat_refresh(struct heartbeat *h, int64_t deadline_ms);
