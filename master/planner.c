/*
 * The planner thread: turns registry, workers, mounts and jobs into grants, thresholds and shares.
 * Thresholds come from reading a manifest, which takes seconds for ten million entries; that is why
 * this is a thread of its own, works on a copy without a lock, and keeps a threshold as long as its
 * digest and its grant stay the same.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "master/plan_round.h"
#include "placement/pin.h"

#define LOG_SUBSYSTEM "master"
#include "common/log.h"

DEFINE_CLEANUP(struct manifest *, manifest_unref)

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

static uint64_t limit_number(const struct plan_round *round, const struct allocate_job *a)
{
	const struct allocate_limit *limit = round->items[a->item].limit;

	return limit ? (uint64_t)(limit - round->cluster.limits) + 1 : 0;
}

/* The jobs' shares; true when any is another one than before. */
static bool publish_jobs_locked(struct master *m, const struct plan_round *round)
{
	bool changed = false;
	struct job *j, *next;

	HASH_ITER (hh, m->jobs.by_name, j, next) {
		const struct allocate_job *a = plan_round_job(round, j->id);
		struct job_share share = {0};

		if (a)
			share = (struct job_share){a->cache_bytes, a->remote_bytes_per_s,
				a->hit_ratio, a->predicted_bytes_per_s, limit_number(round, a)};
		if (memcmp(&share, &j->share, sizeof(share)) == 0)
			continue;
		j->share = share;
		j->dirty = true;
		changed = true;
	}
	return changed;
}

/* What is left of the origins; true when readers without a job have another share than before. */
static bool publish_origins_locked(struct master *m, const struct allocate_cluster *from)
{
	struct master_cluster *to = &m->cluster;
	bool changed = to->other_bytes_per_s != from->other_bytes_per_s;

	to->origin_bytes_per_s_left = from->origin_bytes_per_s_left;
	to->other_bytes_per_s = from->other_bytes_per_s;
	to->others = from->others;
	for (size_t i = 0; i < from->limit_count; i++) {
		changed |= to->limits[i].other_bytes_per_s != from->limits[i].other_bytes_per_s;
		to->limits[i] = from->limits[i];
	}
	return changed;
}

static void publish_locked(struct master *m, const struct plan_round *round)
{
	const struct plan_item *items = round->items;
	bool changed = publish_jobs_locked(m, round);

	m->cluster.cache_bytes = plan_usable_bytes(round->cluster.capacity_bytes);
	m->cluster.cache_bytes_left = round->cluster.cache_bytes_left;
	changed |= publish_origins_locked(m, &round->cluster);
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

int planner_run(struct master *m)
{
	CLEANUP(plan_round_deinit) struct plan_round round = {0};
	cleanup_free uint64_t *before = NULL;
	uint64_t wanted;
	int r;

	mutex_lock(&m->mu);
	wanted = m->plan_wanted;
	r = plan_round_init_locked(m, &round);
	plan_round_went_by_locked(m);
	mutex_unlock(&m->mu);

	before = calloc(round.count + 1, sizeof(*before));
	if (r < 0 || !before)
		return -ENOMEM;
	for (size_t i = 0; i < round.count; i++)
		before[i] = round.items[i].granted_bytes;
	r = plan_round_divide(&round);
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
