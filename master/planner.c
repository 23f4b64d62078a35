/*
 * The planner thread: turns registry, workers, mounts and jobs into grants, thresholds and shares. Thresholds
 * come from reading a manifest, which takes seconds for ten million entries; that is why this is a
 * thread of its own, works on a copy without a lock, and keeps a threshold as long as its digest
 * and its grant stay the same.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "master/allocate.h"
#include "master/master_state.h"
#include "placement/pin.h"

#define LOG_SUBSYSTEM "master"
#include "common/log.h"

#define RATIO_MOVED 0.01 /* of what can hit for a job, before it is worth another plan */

DEFINE_CLEANUP(struct manifest *, manifest_unref)

/* The oldest first; the id makes it one order. */
static int by_age(const void *a, const void *b)
{
	const struct plan_item *x = a, *y = b;

	if (x->created_s != y->created_s)
		return x->created_s > y->created_s ? 1 : -1;
	return (x->dataset_id > y->dataset_id) - (x->dataset_id < y->dataset_id);
}

/* What one round works on, a copy. */
struct round {
	struct plan_item *items;
	size_t count;
	struct allocate_job *jobs;
	size_t job_count;
	struct allocate_cluster cluster;
};

static struct plan_item *items_new_locked(struct master *m, size_t *ret_count)
{
	size_t count = 0;
	struct plan_item *items = calloc(dataset_registry_count(&m->datasets) + 1, sizeof(*items));
	struct dataset *d, *next;

	if (!items)
		return NULL;
	HASH_ITER (by_id, m->datasets.by_id, d, next) {
		const struct snapshot *s = dataset_current(d);
		struct plan_item *item = &items[count];

		if (!s)
			continue;
		count++;
		item->dataset_id = d->id;
		item->created_s = d->config->msg->created_s;
		memcpy(item->digest, s->state->digest, sizeof(item->digest));
		item->bytes = s->state->bytes;
		item->blocks = s->state->blocks;
		item->quota_limited = d->quota_limited;
		item->quota_bytes = d->quota_bytes;
		item->mounted = d->live_mounts > 0;
		/* What was decided last, to be compared with what is granted now. */
		item->known = strcmp(d->planned_digest, item->digest) == 0;
		item->granted_bytes = d->granted_bytes;
		item->threshold = d->threshold;
		item->pin_target_bytes = d->pin_target_bytes;
	}
	qsort(items, count, sizeof(*items), by_age);
	for (size_t i = 0; i < count; i++)
		dataset_registry_get(&m->datasets, items[i].dataset_id)->plan_item = i;
	*ret_count = count;
	return items;
}

static uint64_t remaining_bytes(const struct job *j, uint64_t dataset_bytes)
{
	uint64_t read = j->counters.hit_bytes + j->counters.miss_bytes, all;

	if (j->epochs == 0)
		return dataset_bytes;
	if (__builtin_mul_overflow(dataset_bytes, (uint64_t)j->epochs, &all) ||
		all > PROBLEM_BYTES_MAX)
		all = PROBLEM_BYTES_MAX;
	return all > read ? all - read : 0;
}

static uint64_t effective_bytes_locked(struct master *m, const struct job *j, struct dataset *d)
{
	return job_effective_bytes(
		j, dataset_current(d)->state->bytes, workers_sum(&m->workers, d->id).cached_bytes);
}

static double effective_ratio_locked(struct master *m, const struct job *j, struct dataset *d)
{
	uint64_t bytes = dataset_current(d)->state->bytes;

	return bytes ? (double)effective_bytes_locked(m, j, d) / (double)bytes : 1;
}

bool planner_is_stale_locked(struct master *m)
{
	struct job *j, *next;

	HASH_ITER (hh, m->jobs.by_name, j, next) {
		struct dataset *d = dataset_registry_get(&m->datasets, j->dataset_id);
		double moved;

		if (!d || !dataset_current(d))
			continue;
		moved = effective_ratio_locked(m, j, d) - j->effective_ratio;
		if (moved > RATIO_MOVED || moved < -RATIO_MOVED)
			return true;
	}
	return false;
}

static int by_id(const void *a, const void *b)
{
	const struct allocate_job *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

/* The jobs whose dataset is among the items, in the order of their arrival. */
static int jobs_new_locked(struct master *m, struct round *round)
{
	struct job *j, *next;

	round->jobs = calloc(HASH_COUNT(m->jobs.by_name) + 1, sizeof(*round->jobs));
	if (!round->jobs)
		return -ENOMEM;
	HASH_ITER (hh, m->jobs.by_name, j, next) {
		struct dataset *d = dataset_registry_get(&m->datasets, j->dataset_id);

		if (!d || !dataset_current(d))
			continue;
		round->jobs[round->job_count++] = (struct allocate_job){
			.id = j->id,
			.item = d->plan_item,
			.gpus = j->gpus,
			.remaining_bytes = remaining_bytes(j, round->items[d->plan_item].bytes),
			.ideal_bytes_per_s = j->ideal_bytes_per_s,
			.weight = j->weight,
			.min_remote_bytes_per_s = j->min_remote_bytes_per_s,
			.effective_bytes = effective_bytes_locked(m, j, d),
			.irregular = j->irregular,
		};
		j->effective_ratio = effective_ratio_locked(m, j, d);
	}
	qsort(round->jobs, round->job_count, sizeof(*round->jobs), by_id);
	return 0;
}

/* Without a readable manifest the expectation is the best there is: pins must not be dropped for
 * it. */
static void threshold_guess(struct plan_item *item)
{
	item->threshold =
		(uint64_t)((unsigned __int128)PIN_ALL * item->granted_bytes / item->bytes);
	item->pin_target_bytes = item->granted_bytes;
}

static void threshold_find(struct master *m, struct plan_item *item)
{
	CLEANUP(manifest_unref_ptr) struct manifest *manifest = NULL;
	struct error err = ERROR_INIT;
	int r;

	if (item->granted_bytes >= item->bytes) {
		item->threshold = PIN_ALL;
		item->pin_target_bytes = item->bytes;
		return;
	}
	r = manifest_store_open(m->manifests, item->digest, &manifest, &err);
	if (r == 0)
		r = pin_threshold(manifest, item->granted_bytes, &item->threshold,
			&item->pin_target_bytes, &err);
	if (r == 0) {
		manifest_drop_resident(manifest);
		return;
	}
	log_error(
		"cannot compute what to pin: %s; `granary dataset refresh` makes the manifest anew",
		err.text);
	threshold_guess(item);
}

static void round_deinit(struct round *round)
{
	free(round->items);
	free(round->jobs);
}

static int round_init_locked(struct master *m, struct round *round)
{
	round->items = items_new_locked(m, &round->count);
	round->cluster = (struct allocate_cluster){
		.capacity_bytes = workers_capacity(&m->workers, clock_mono_ms()),
		.origin_limited = m->cluster.origin_limited,
		.origin_bytes_per_s = m->cluster.origin_bytes_per_s,
		.policy = m->cluster.policy,
		.storage = m->cluster.storage,
		.others = mounts_without_job(&m->mounts),
	};
	return round->items ? jobs_new_locked(m, round) : -ENOMEM;
}

/* The jobs' shares; true when any is another one than before. */
static bool publish_jobs_locked(struct master *m, const struct round *round)
{
	bool changed = false;
	struct job *j, *next;

	HASH_ITER (hh, m->jobs.by_name, j, next) {
		const struct allocate_job key = {.id = j->id}, *a;
		struct job_share share = {0};

		a = bsearch(&key, round->jobs, round->job_count, sizeof(key), by_id);
		if (a)
			share = (struct job_share){a->cache_bytes, a->remote_bytes_per_s,
				a->hit_ratio, a->predicted_bytes_per_s};
		if (memcmp(&share, &j->share, sizeof(share)) == 0)
			continue;
		j->share = share;
		j->dirty = true;
		changed = true;
	}
	return changed;
}

static void publish_locked(struct master *m, const struct round *round)
{
	const struct plan_item *items = round->items;
	bool changed = publish_jobs_locked(m, round);

	m->cluster.cache_bytes = plan_usable_bytes(round->cluster.capacity_bytes);
	m->cluster.cache_bytes_left = round->cluster.cache_bytes_left;
	m->cluster.origin_bytes_per_s_left = round->cluster.origin_bytes_per_s_left;
	changed |= m->cluster.other_bytes_per_s != round->cluster.other_bytes_per_s;
	m->cluster.other_bytes_per_s = round->cluster.other_bytes_per_s;
	for (size_t i = 0; i < round->count; i++) {
		struct dataset *d = dataset_registry_get(&m->datasets, items[i].dataset_id);
		const struct snapshot *s = d ? dataset_current(d) : NULL;

		if (!s || strcmp(s->state->digest, items[i].digest) != 0)
			continue; /* gone or refreshed meanwhile: another round is due */
		changed |= d->granted_bytes != items[i].granted_bytes ||
			   d->threshold != items[i].threshold || d->elastic != items[i].elastic;
		d->elastic = items[i].elastic;
		d->granted_bytes = items[i].granted_bytes;
		d->threshold = items[i].threshold;
		d->pin_target_bytes = items[i].pin_target_bytes;
		memcpy(d->planned_digest, items[i].digest, sizeof(d->planned_digest));
	}
	if (changed)
		master_tell_locked(m);
}

/* Without jobs quotas and equal shares decide, as long as nothing asks for an LRU. */
static int divide(struct round *round)
{
	struct error err = ERROR_INIT;
	int r;

	if (round->job_count > 0 || round->cluster.storage == STORAGE_POLICY_LRU) {
		r = allocate(round->items, round->count, round->jobs, round->job_count,
			&round->cluster, &err);
		if (r != -EINVAL)
			return r;
		log_error("the jobs were left out of the plan: the scheduler refuses %s", err.text);
	}
	round->cluster.other_bytes_per_s = round->cluster.origin_bytes_per_s;
	return plan_grant(round->items, round->count, round->cluster.capacity_bytes);
}

int planner_run(struct master *m)
{
	CLEANUP(round_deinit) struct round round = {0};
	cleanup_free uint64_t *before = NULL;
	uint64_t wanted;
	int r;

	mutex_lock(&m->mu);
	wanted = m->plan_wanted;
	r = round_init_locked(m, &round);
	mutex_unlock(&m->mu);

	before = calloc(round.count + 1, sizeof(*before));
	if (r < 0 || !before)
		return -ENOMEM;
	for (size_t i = 0; i < round.count; i++)
		before[i] = round.items[i].granted_bytes;
	r = divide(&round);
	if (r < 0)
		return r;
	for (size_t i = 0; i < round.count; i++)
		if (!round.items[i].known || before[i] != round.items[i].granted_bytes)
			threshold_find(m, &round.items[i]);

	mutex_lock(&m->mu);
	publish_locked(m, &round);
	m->planned_capacity = round.cluster.capacity_bytes;
	m->plan_done = wanted;
	cond_broadcast(&m->planned);
	mutex_unlock(&m->mu);
	return 0;
}

/* Waits for work; false when the master stops. After a failure the same work is tried again, but
 * not at once. */
static bool wait_for_work(struct master *m, bool failed)
{
	int64_t retry_ms = clock_deadline_ms(MASTER_TICK_MS);

	mutex_guard(&m->mu);
	while (!m->stopping && (failed ? !clock_passed(retry_ms) : master_is_planned_locked(m)))
		cond_wait(&m->work, &m->mu, clock_deadline_ms(MASTER_TICK_MS));
	return !m->stopping;
}

void *planner_main(void *arg)
{
	struct master *m = arg;
	bool failed = false;

	while (wait_for_work(m, failed)) {
		failed = planner_run(m) < 0;
		if (failed)
			log_error("no memory to plan the cache; the old plan stays for now");
	}
	return NULL;
}
