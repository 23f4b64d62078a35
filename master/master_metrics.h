/*
 * What the master knows of the cluster, as metrics: how many datasets, workers and mounts, and for
 * each of the first MASTER_METRICS_DATASETS_MAX datasets what it is, what it is granted, where its
 * bytes are and what was counted.
 */
#pragma once

#define MASTER_METRICS_DATASETS_MAX 256
#define MASTER_METRICS_JOBS_MAX 256

struct master;
struct master_metrics;

struct master_metrics *master_metrics_start(struct master *m); /* NULL: no memory */
void master_metrics_stop(struct master_metrics *mm);	       /* NULL is fine; before m goes */
