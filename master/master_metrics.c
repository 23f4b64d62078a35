#include "master/master_metrics.h"

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/metrics.h"
#include "master/master_state.h"
#include "master/messages.h"

enum {
	DATASETS,
	WORKERS_ALIVE,
	MOUNTS,
	IMPORTS_RUNNING,
	JOBS,

	/* of a dataset */
	BYTES,
	GRANTED_BYTES,
	PIN_EXPECTED_BYTES,
	PINNED_BYTES,
	CACHED_BYTES,
	HIT_BYTES,
	MISS_BYTES,
	ORIGIN_BYTES,
	FAILED_READS,
	DATASET_MOUNTS,
	SNAPSHOT,
	SNAPSHOT_AGE,
	IMPORTING,

	/* of a job */
	JOB_MOUNTS,
	JOB_CACHE_BYTES,
	JOB_REMOTE,
	JOB_IDEAL,
	JOB_IDEAL_ERROR,
	JOB_PREDICTED,
	JOB_HIT_BYTES,
	JOB_MISS_BYTES,
	JOB_ORIGIN_BYTES,
	JOB_CONSUMED_BYTES,
	JOB_READ_WAIT,
	METRICS
};
#define FIRST_OF_DATASET BYTES

static struct metric metrics[METRICS] = {
	[DATASETS] = METRIC_GAUGE("granary_master_datasets", "Datasets."),
	[WORKERS_ALIVE] =
		METRIC_GAUGE("granary_master_workers_alive", "Workers that were heard lately."),
	[MOUNTS] = METRIC_GAUGE("granary_master_mounts", "Mounts that were heard lately."),
	[IMPORTS_RUNNING] =
		METRIC_GAUGE("granary_master_imports_running", "Origins that are being listed."),
	[BYTES] = METRIC_GAUGE("granary_master_dataset_bytes",
		"Bytes of the files of the current snapshot.", "dataset"),
	[GRANTED_BYTES] = METRIC_GAUGE("granary_master_dataset_granted_bytes",
		"Cache that the dataset is allotted.", "dataset"),
	[PIN_EXPECTED_BYTES] = METRIC_GAUGE("granary_master_dataset_pin_expected_bytes",
		"Bytes that the plan pins, without those that full workers have no room for.",
		"dataset"),
	[PINNED_BYTES] = METRIC_GAUGE("granary_master_dataset_pinned_bytes",
		"Pinned bytes in the stores of living workers.", "dataset"),
	[CACHED_BYTES] = METRIC_GAUGE("granary_master_dataset_cached_bytes",
		"Bytes in the stores of living workers: pinned, filler and elastic.", "dataset"),
	[HIT_BYTES] = METRIC_COUNTER("granary_master_dataset_hit_bytes_total",
		"Bytes that mounts read and a store had.", "dataset"),
	[MISS_BYTES] = METRIC_COUNTER("granary_master_dataset_miss_bytes_total",
		"Bytes that mounts read and that came from the origin.", "dataset"),
	[ORIGIN_BYTES] = METRIC_COUNTER("granary_master_dataset_origin_bytes_total",
		"Bytes of objects that were read from the origin.", "dataset"),
	[FAILED_READS] = METRIC_COUNTER("granary_master_dataset_failed_reads_total",
		"Reads of mounts that were answered with an error.", "dataset"),
	[DATASET_MOUNTS] = METRIC_GAUGE("granary_master_dataset_mounts",
		"Mounts of the dataset that were heard lately.", "dataset"),
	[SNAPSHOT] = METRIC_GAUGE(
		"granary_master_dataset_snapshot", "Number of the current snapshot.", "dataset"),
	[SNAPSHOT_AGE] = METRIC_GAUGE("granary_master_dataset_snapshot_age_seconds",
		"Time since the current snapshot was made.", "dataset"),
	[IMPORTING] = METRIC_GAUGE("granary_master_dataset_importing",
		"1 while the origin of the dataset is being listed.", "dataset"),
	[JOBS] = METRIC_GAUGE("granary_master_jobs", "Training jobs."),
	[JOB_MOUNTS] = METRIC_GAUGE(
		"granary_master_job_mounts", "Mounts of the job that were heard lately.", "job"),
	[JOB_CACHE_BYTES] = METRIC_GAUGE(
		"granary_master_job_cache_bytes", "Cache that its dataset is allotted.", "job"),
	[JOB_REMOTE] = METRIC_GAUGE("granary_master_job_origin_share_bytes_per_second",
		"What it is allotted of limited origins.", "job"),
	[JOB_IDEAL] = METRIC_GAUGE("granary_master_job_ideal_bytes_per_second",
		"How fast it could read if nothing waited, and who says so: declared, steps or "
		"sampled; no series while that is not known.",
		"job", "source"),
	[JOB_IDEAL_ERROR] = METRIC_GAUGE("granary_master_job_ideal_error_ratio",
		"Standard deviation of that rate, to the rate; 0 unless it was sampled.", "job"),
	[JOB_PREDICTED] = METRIC_GAUGE("granary_master_job_predicted_bytes_per_second",
		"How fast it can read with what it was allotted; no series while its ideal is not "
		"known.",
		"job"),
	[JOB_HIT_BYTES] = METRIC_COUNTER("granary_master_job_hit_bytes_total",
		"Bytes that its mounts read and a store had.", "job"),
	[JOB_MISS_BYTES] = METRIC_COUNTER("granary_master_job_miss_bytes_total",
		"Bytes that its mounts read and that came from the origin.", "job"),
	[JOB_ORIGIN_BYTES] = METRIC_COUNTER("granary_master_job_origin_bytes_total",
		"Bytes of objects that were read from origins for it.", "job"),
	[JOB_CONSUMED_BYTES] = METRIC_COUNTER("granary_master_job_consumed_bytes_total",
		"Bytes that it read, the page cache's answers included, as a sample shows; 0 without "
		"one.",
		"job"),
	[JOB_READ_WAIT] = METRIC_SECONDS_COUNTER("granary_master_job_read_wait_seconds_total",
		"For what reads of its mounts waited, as these have it.", "job", "cause"),
};

struct numbers {
	char name[DATASET_NAME_MAX_BYTES + 1];
	struct workers_sum stored;
	uint64_t bytes, granted_bytes, pin_expected_bytes, hit_bytes, miss_bytes, origin_bytes,
		failed_reads, mounts, snapshot;
	int64_t age_s;
	bool importing;
};

struct job_numbers {
	char name[JOB_NAME_BYTES];
	size_t mounts;
	struct job_ideal ideal;
	struct job_share share;
	struct job_counters counters;
};

struct master_metrics {
	struct master *master;
	struct metrics_collection *collection;
};

/* ---- under the master's lock, copies only ---------------------------------------------------- */

static void copy_dataset_locked(
	const struct workers *workers, struct dataset *d, int64_t now_s, struct numbers *ret)
{
	const struct snapshot *s = dataset_current(d);

	*ret = (struct numbers){
		.stored = workers_sum(workers, d->id),
		.bytes = s ? s->state->bytes : 0,
		.granted_bytes = d->granted_bytes,
		.pin_expected_bytes = dataset_pin_expected_bytes(d, workers),
		.hit_bytes = d->hit_bytes,
		.miss_bytes = d->miss_bytes,
		.origin_bytes = d->origin_bytes,
		.failed_reads = d->failed_reads,
		.mounts = d->live_mounts,
		.snapshot = s ? s->number : 0,
		.importing = d->importing,
	};
	if (s && now_s > s->state->created_s)
		ret->age_s = now_s - s->state->created_s;
	strncpy(ret->name, d->config->msg->name, sizeof(ret->name) - 1);
}

struct totals {
	size_t datasets, workers_alive, mounts;
	unsigned imports;
};

/* At most `room` datasets; returns how many. */
static size_t copy(struct master *m, struct totals *totals, struct numbers *list, size_t room)
{
	int64_t now_s = clock_wall_s();
	struct worker *worker, *next_worker;
	struct dataset *d, *next;
	size_t n = 0;

	*totals = (struct totals){0};
	mutex_guard(&m->mu);
	totals->imports = m->imports;
	HASH_ITER (hh, m->workers.by_id, worker, next_worker)
		totals->workers_alive += worker->alive;
	HASH_ITER (by_id, m->datasets.by_id, d, next) {
		totals->mounts += d->live_mounts;
		if (!d->in_database)
			continue;
		totals->datasets++;
		if (n < room)
			copy_dataset_locked(&m->workers, d, now_s, &list[n++]);
	}
	return n;
}

/* At most `room` jobs; returns how many. */
static size_t copy_jobs(struct master *m, size_t *ret_all, struct job_numbers *list, size_t room)
{
	struct job *j, *next;
	size_t n = 0;

	mutex_guard(&m->mu);
	*ret_all = HASH_COUNT(m->jobs.by_name);
	HASH_ITER (hh, m->jobs.by_name, j, next) {
		if (n == room)
			break;
		list[n] = (struct job_numbers){.mounts = j->live_mounts,
			.ideal = job_ideal(j),
			.share = j->share,
			.counters = j->counters};
		memcpy(list[n++].name, j->name, sizeof(j->name));
	}
	return n;
}

/* ---- without it ------------------------------------------------------------------------------ */

static void show(int which, const char *name, double value)
{
	metric_set(metric_with(&metrics[which], name), value);
}

static void count(int which, const char *name, uint64_t total)
{
	metric_set_total(metric_with(&metrics[which], name), total);
}

static void show_dataset(const struct numbers *n)
{
	show(BYTES, n->name, (double)n->bytes);
	show(GRANTED_BYTES, n->name, (double)n->granted_bytes);
	show(PIN_EXPECTED_BYTES, n->name, (double)n->pin_expected_bytes);
	show(PINNED_BYTES, n->name, (double)n->stored.pinned_bytes);
	show(CACHED_BYTES, n->name, (double)n->stored.cached_bytes);
	count(HIT_BYTES, n->name, n->hit_bytes);
	count(MISS_BYTES, n->name, n->miss_bytes);
	count(ORIGIN_BYTES, n->name, n->origin_bytes);
	count(FAILED_READS, n->name, n->failed_reads);
	show(DATASET_MOUNTS, n->name, (double)n->mounts);
	show(SNAPSHOT, n->name, (double)n->snapshot);
	show(SNAPSHOT_AGE, n->name, (double)n->age_s);
	show(IMPORTING, n->name, n->importing);
}

static void show_job(const struct job_numbers *j)
{
	show(JOB_MOUNTS, j->name, (double)j->mounts);
	show(JOB_CACHE_BYTES, j->name, (double)j->share.cache_bytes);
	show(JOB_REMOTE, j->name, j->share.remote_bytes_per_s);
	if (j->ideal.bytes_per_s > 0) {
		metric_set(metric_with(&metrics[JOB_IDEAL], j->name, j->ideal.source),
			j->ideal.bytes_per_s);
		show(JOB_IDEAL_ERROR, j->name, j->ideal.error);
		show(JOB_PREDICTED, j->name, j->share.predicted_bytes_per_s);
	}
	count(JOB_HIT_BYTES, j->name, j->counters.hit_bytes);
	count(JOB_MISS_BYTES, j->name, j->counters.miss_bytes);
	count(JOB_ORIGIN_BYTES, j->name, j->counters.origin_bytes);
	count(JOB_CONSUMED_BYTES, j->name, j->counters.consumed_bytes);
	for (int i = 0; i < JOB_WAITS; i++)
		metric_set(metric_with(&metrics[JOB_READ_WAIT], j->name, job_wait_names[i]),
			(double)j->counters.waits.us[i] / 1e6);
}

/* After the series of datasets and jobs were cleared. */
static void collect_jobs(struct master *m)
{
	cleanup_free struct job_numbers *list = calloc(MASTER_METRICS_JOBS_MAX, sizeof(*list));
	size_t all, n = copy_jobs(m, &all, list, list ? MASTER_METRICS_JOBS_MAX : 0);

	metric_set(metric_only(&metrics[JOBS]), (double)all);
	for (size_t i = 0; i < n; i++)
		show_job(&list[i]);
}

static void collect(void *arg)
{
	struct master_metrics *mm = arg;
	cleanup_free struct numbers *list = calloc(MASTER_METRICS_DATASETS_MAX, sizeof(*list));
	struct totals totals;
	size_t n = copy(mm->master, &totals, list, list ? MASTER_METRICS_DATASETS_MAX : 0);

	metric_set(metric_only(&metrics[DATASETS]), (double)totals.datasets);
	metric_set(metric_only(&metrics[WORKERS_ALIVE]), (double)totals.workers_alive);
	metric_set(metric_only(&metrics[MOUNTS]), (double)totals.mounts);
	metric_set(metric_only(&metrics[IMPORTS_RUNNING]), totals.imports);
	/* Datasets and jobs come and go. */
	for (int i = FIRST_OF_DATASET; i < METRICS; i++)
		metric_clear(&metrics[i]);
	for (size_t i = 0; i < n; i++)
		show_dataset(&list[i]);
	collect_jobs(mm->master);
}

struct master_metrics *master_metrics_start(struct master *m)
{
	struct master_metrics *mm = calloc(1, sizeof(*mm));

	if (!mm)
		return NULL;
	mm->master = m;
	metrics_register(metrics, METRICS);
	mm->collection = metrics_collect(collect, mm);
	return mm;
}

void master_metrics_stop(struct master_metrics *mm)
{
	if (!mm)
		return;
	metrics_collect_remove(mm->collection);
	free(mm);
}
