/*
 * What a worker shows on /metrics. Nothing is counted here: a collector reads what the parts count.
 *
 * Threading: start and stop once each; the collector runs on the threads that serve /metrics.
 */
#pragma once

#include "store/store.h"
#include "worker/dataset_table.h"
#include "worker/fetch_table.h"

struct worker_metrics;

/* All borrowed until stop. NULL when memory is out. */
struct worker_metrics *worker_metrics_start(struct store *store, struct dataset_table *datasets,
	struct fetch_table *fetches, struct origin_queue *origins);
void worker_metrics_stop(struct worker_metrics *m); /* NULL is fine */
