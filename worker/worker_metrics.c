#include "worker/worker_metrics.h"

#include <stdlib.h>

#include "common/cleanup.h"
#include "common/metrics.h"
#include "placement/pin.h"

enum {
	ORIGIN_BYTES,
	CACHED_BYTES,
	FAILED_FETCHES,
	CORRUPT_BLOCKS,
	JOB_LIMIT,
	JOB_WAITED,
	JOB_QUEUED_BYTES,
	SINGLE_LIMIT,
	SINGLE_BYTES,
	SINGLE_QUEUED_BYTES,
	ORIGIN_LIMIT,
	ORIGIN_PART,
	CAPACITY_BYTES,
	USED_BYTES,
	HELD_BYTES,
	FREE_FLOOR_BYTES,
	DEGRADED,
	PIN_CEILING,
	SCRUBBED_BYTES,
	SCRUB_DAMAGED_BLOCKS,
	FETCHES_RUNNING,
	FETCHES,
	FETCHES_SHARED,
	FETCH_MEMORY_BYTES,
	READ_AHEAD_BYTES,
	METRICS
};

static struct metric metrics[METRICS] = {
	[ORIGIN_BYTES] = METRIC_COUNTER("granary_worker_origin_bytes_total",
		"Bytes of objects that were read from the origin, by whom they were first asked "
		"for.",
		"dataset", "job"),
	[CACHED_BYTES] = METRIC_GAUGE("granary_worker_cached_bytes",
		"Bytes of objects in the store: pinned, filler (in room that pinned blocks have "
		"not taken), elastic.",
		"dataset", "class"),
	[FAILED_FETCHES] = METRIC_COUNTER("granary_worker_failed_fetches_total",
		"Reads from the origin that failed for good.", "dataset"),
	[CORRUPT_BLOCKS] = METRIC_COUNTER("granary_worker_corrupt_blocks_total",
		"Blocks of the store that were found damaged and dropped.", "dataset"),
	[JOB_LIMIT] = METRIC_GAUGE("granary_worker_job_granted_bytes_per_second",
		"What a job may get from origins here when others want all they are granted, too; 0: a "
		"part of what jobs without a grant share.",
		"job"),
	[JOB_WAITED] = METRIC_SECONDS_COUNTER("granary_worker_job_origin_wait_seconds_total",
		"How long reads from origins waited for their job's turn, summed over reads.",
		"job"),
	[JOB_QUEUED_BYTES] = METRIC_GAUGE("granary_worker_job_queued_bytes",
		"Bytes that wait for their job's turn to be read from origins.", "job"),
	[SINGLE_LIMIT] = METRIC_GAUGE("granary_worker_single_origin_limit_bytes_per_second",
		"The most that is read from the origins whose URL begins so.", "origin"),
	[SINGLE_BYTES] = METRIC_COUNTER("granary_worker_single_origin_bytes_total",
		"Bytes of objects that were read from them since they have a limit.", "origin"),
	[SINGLE_QUEUED_BYTES] = METRIC_GAUGE("granary_worker_single_origin_queued_bytes",
		"Bytes that wait for their turn to be read from them.", "origin"),
	[ORIGIN_LIMIT] = METRIC_GAUGE("granary_worker_origin_limit_bytes_per_second",
		"The most that is read from all origins together; 0: no limit."),
	[ORIGIN_PART] = METRIC_GAUGE("granary_worker_origin_part_ratio",
		"Of the limits of origins, the part that is this worker's now; 0 without limits."),
	[CAPACITY_BYTES] = METRIC_GAUGE(
		"granary_worker_capacity_bytes", "The most that the store may take of its disk."),
	[USED_BYTES] =
		METRIC_GAUGE("granary_worker_used_bytes", "What the store takes of its disk."),
	[HELD_BYTES] = METRIC_GAUGE("granary_worker_held_bytes",
		"Of the used bytes, those that were dropped and are still held by a reader."),
	[FREE_FLOOR_BYTES] = METRIC_GAUGE("granary_worker_free_floor_bytes",
		"Free space of the disk that the store leaves alone."),
	[DEGRADED] = METRIC_GAUGE("granary_worker_degraded",
		"1 while nothing is stored, because the disk fails or is full."),
	[PIN_CEILING] = METRIC_GAUGE("granary_worker_pin_ceiling_ratio",
		"Share of all blocks that is pinned at most, whatever the plan says: below 1 while "
		"the store is full."),
	[SCRUBBED_BYTES] = METRIC_COUNTER("granary_worker_scrubbed_bytes_total",
		"Bytes of stored objects that the scrubber has read and verified."),
	[SCRUB_DAMAGED_BLOCKS] = METRIC_COUNTER("granary_worker_scrub_damaged_blocks_total",
		"Of the damaged blocks, those that the scrubber found before a reader did."),
	[FETCHES_RUNNING] =
		METRIC_GAUGE("granary_worker_fetches_running", "Reads from origins under way."),
	[FETCHES] = METRIC_COUNTER("granary_worker_fetches_total", "Reads from origins."),
	[FETCHES_SHARED] = METRIC_COUNTER("granary_worker_fetches_shared_total",
		"Misses that found their bytes under way, or read ahead."),
	[FETCH_MEMORY_BYTES] =
		METRIC_GAUGE("granary_worker_fetch_memory_bytes", "Memory of blocks on their way."),
	[READ_AHEAD_BYTES] = METRIC_GAUGE("granary_worker_read_ahead_bytes",
		"Bytes that are read ahead and that nobody has asked for yet."),
};

struct worker_metrics {
	struct store *store;
	struct dataset_table *datasets;
	struct fetch_table *fetches;
	struct origin_queue *origins;
	struct metrics_collection *collection;
};

static void collect_store(const struct worker_metrics *m)
{
	char degraded[128];
	struct store_stat st;

	store_stat(m->store, &st);
	store_degraded(m->store, degraded);
	metric_set(metric_only(&metrics[CAPACITY_BYTES]), (double)st.capacity_bytes);
	metric_set(metric_only(&metrics[USED_BYTES]), (double)st.charged_bytes);
	metric_set(metric_only(&metrics[HELD_BYTES]), (double)st.held_bytes);
	metric_set(metric_only(&metrics[FREE_FLOOR_BYTES]), (double)st.free_floor_bytes);
	metric_set(metric_only(&metrics[DEGRADED]), degraded[0] ? 1 : 0);
	metric_set(metric_only(&metrics[PIN_CEILING]), (double)st.pin_ceiling / (double)PIN_ALL);
	metric_set_total(metric_only(&metrics[SCRUBBED_BYTES]), st.scrubbed_bytes);
	metric_set_total(metric_only(&metrics[SCRUB_DAMAGED_BLOCKS]), st.scrub_damaged_blocks);
}

static void collect_fetches(const struct worker_metrics *m)
{
	struct fetch_table_stat st;

	fetch_table_stat(m->fetches, &st);
	metric_set(metric_only(&metrics[FETCHES_RUNNING]), st.running);
	metric_set_total(metric_only(&metrics[FETCHES]), st.fetches);
	metric_set_total(metric_only(&metrics[FETCHES_SHARED]), st.joined);
	metric_set(metric_only(&metrics[FETCH_MEMORY_BYTES]), (double)st.memory_bytes);
	metric_set(metric_only(&metrics[READ_AHEAD_BYTES]), (double)st.ahead_bytes);
}

static void collect_stored(const char *name, const struct store_dataset_stat *s)
{
	metric_set(metric_with(&metrics[CACHED_BYTES], name, "pinned"), (double)s->pinned_bytes);
	metric_set(metric_with(&metrics[CACHED_BYTES], name, "filler"), (double)s->filler_bytes);
	metric_set(metric_with(&metrics[CACHED_BYTES], name, "elastic"), (double)s->elastic_bytes);
	metric_set_total(metric_with(&metrics[CORRUPT_BLOCKS], name), s->corrupt_blocks);
}

static void collect_dataset(
	struct dataset *d, const struct store_dataset_stat *stats, size_t stat_count)
{
	const struct store_dataset_stat none = {.dataset_id = d->id}, *found = &none;
	struct dataset_job jobs[DATASET_JOBS_MAX];
	size_t job_count = dataset_jobs(d, jobs);

	for (size_t i = 0; i < job_count; i++)
		metric_set_total(metric_with(&metrics[ORIGIN_BYTES], d->name, jobs[i].name),
			jobs[i].origin_bytes);
	metric_set_total(
		metric_with(&metrics[FAILED_FETCHES], d->name), atomic_load(&d->failed_fetches));
	for (size_t i = 0; i < stat_count; i++)
		if (stats[i].dataset_id == d->id)
			found = &stats[i];
	collect_stored(d->name, found);
}

static void collect_datasets(const struct worker_metrics *m)
{
	cleanup_free struct store_dataset_stat *stats = NULL;
	struct dataset **list;
	size_t count, room, stat_count;

	if (dataset_table_list(m->datasets, &list, &count) < 0)
		return;
	room = count + 64;
	stats = calloc(room, sizeof(*stats));
	stat_count = stats ? store_dataset_stats(m->store, stats, room) : 0;
	for (size_t i = 0; i < count; i++)
		collect_dataset(list[i], stats, stat_count < room ? stat_count : room);
	dataset_list_free(list, count);
}

static void collect_job(const char *name, const struct origin_job_stat *j)
{
	metric_set(metric_with(&metrics[JOB_LIMIT], name), j->granted_bytes_per_s);
	metric_set(metric_with(&metrics[JOB_WAITED], name), (double)j->waited_us / 1e6);
	metric_set(metric_with(&metrics[JOB_QUEUED_BYTES], name), (double)j->queued_bytes);
}

/* The last used have series of their own, the others one together. */
static void collect_jobs(const struct worker_metrics *m)
{
	cleanup_free struct origin_job_stat *jobs = NULL;
	struct origin_job_stat rest = {.granted_bytes_per_s = 0};
	size_t count = 0;

	if (origin_queue_jobs(m->origins, &jobs, &count) < 0)
		return;
	for (size_t i = 0; i < count && i < DATASET_JOBS_MAX - 1; i++)
		collect_job(jobs[i].name, &jobs[i]);
	for (size_t i = DATASET_JOBS_MAX - 1; i < count; i++) {
		rest.granted_bytes_per_s += jobs[i].granted_bytes_per_s;
		rest.waited_us += jobs[i].waited_us;
		rest.queued_bytes += jobs[i].queued_bytes;
	}
	if (count >= DATASET_JOBS_MAX)
		collect_job(DATASET_OTHER_JOB, &rest);
}

static void collect_origins(const struct worker_metrics *m)
{
	cleanup_free struct origin_stat *list = NULL;
	double part, base_part;
	size_t count = 0;

	metric_set(metric_only(&metrics[ORIGIN_LIMIT]), origin_queue_limit(m->origins));
	origin_queue_part(m->origins, &part, &base_part);
	metric_set(metric_only(&metrics[ORIGIN_PART]), part);
	if (origin_queue_origins(m->origins, &list, &count) < 0)
		return;
	for (size_t i = 0; i < count; i++) {
		const char *prefix = list[i].prefix;

		metric_set(metric_with(&metrics[SINGLE_LIMIT], prefix), list[i].limit_bytes_per_s);
		metric_set_total(metric_with(&metrics[SINGLE_BYTES], prefix), list[i].origin_bytes);
		metric_set(metric_with(&metrics[SINGLE_QUEUED_BYTES], prefix),
			(double)list[i].queued_bytes);
	}
}

static void collect(void *arg)
{
	/* Datasets, jobs and limits come and go. */
	for (int i = ORIGIN_BYTES; i <= SINGLE_QUEUED_BYTES; i++)
		metric_clear(&metrics[i]);
	collect_store(arg);
	collect_fetches(arg);
	collect_jobs(arg);
	collect_origins(arg);
	collect_datasets(arg);
}

struct worker_metrics *worker_metrics_start(struct store *store, struct dataset_table *datasets,
	struct fetch_table *fetches, struct origin_queue *origins)
{
	struct worker_metrics *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->store = store;
	m->datasets = datasets;
	m->fetches = fetches;
	m->origins = origins;
	metrics_register(metrics, METRICS);
	m->collection = metrics_collect(collect, m);
	return m;
}

void worker_metrics_stop(struct worker_metrics *m)
{
	if (!m)
		return;
	metrics_collect_remove(m->collection);
	free(m);
}
