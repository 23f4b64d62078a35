/*
 * What has to be done without anybody asking: the dead and the lost are marked, snapshots that
 * nobody needs are collected, counters are written.
 */
#include <inttypes.h>
#include <string.h>

#include "common/cleanup.h"
#include "master/plan_round.h"

#define LOG_SUBSYSTEM "master"
#include "common/log.h"

#define COLLECT_MAX 64 /* snapshots a round */

DEFINE_CLEANUP(struct namespace_batch *, namespace_batch_free)

/* A snapshot on its way out. */
struct doomed {
	uint64_t dataset_id, number;
	char digest[MANIFEST_DIGEST_TEXT_BYTES];
};

static void expire(struct master *m, int64_t now_ms, struct namespace_batch *batch)
{
	bool replan;

	mutex_guard(&m->mu);
	replan = workers_expire(&m->workers, now_ms, batch);
	replan |= mounts_expire(&m->mounts, &m->datasets, &m->jobs, now_ms, batch);
	replan |= jobs_expire(&m->jobs, &m->datasets, now_ms, batch);
	if (replan || plan_round_is_stale_locked(m))
		master_replan_locked(m);
}

/* The capacity of a dead worker stops counting some time after its death, with no event then. */
static void replan_on_capacity(struct master *m, int64_t now_ms)
{
	mutex_guard(&m->mu);
	if (workers_capacity(&m->workers, now_ms) != m->planned_capacity)
		master_replan_locked(m);
}

static bool snapshot_is_needed(
	struct master *m, const struct dataset *d, const struct snapshot *s, int64_t now_ms)
{
	return s->number == d->current || now_ms - s->named_ms <= MASTER_SNAPSHOT_GRACE_MS ||
	       mounts_hold(&m->mounts, d->id, s->number);
}

static size_t find_doomed(struct master *m, int64_t now_ms, struct doomed doomed[COLLECT_MAX])
{
	struct dataset *d, *next;
	size_t count = 0;

	mutex_guard(&m->mu);
	HASH_ITER (by_id, m->datasets.by_id, d, next) {
		for (size_t i = 0; d->snapshots_count > 1 && i < d->snapshots_count; i++) {
			const struct snapshot *s = &d->snapshots[i];

			if (count == COLLECT_MAX || snapshot_is_needed(m, d, s, now_ms))
				continue;
			doomed[count].dataset_id = d->id;
			doomed[count].number = s->number;
			memcpy(doomed[count].digest, s->state->digest,
				sizeof(doomed[count].digest));
			count++;
		}
	}
	return count;
}

/* Takes the snapshots out of memory first: from then on no mount can ask for them, and the files
 * go last, so that a crash in between leaves at worst a file for the sweep at the next start. */
static void collect(struct master *m, int64_t now_ms, struct namespace_batch *batch,
	struct doomed doomed[COLLECT_MAX], size_t *ret_count)
{
	size_t count = find_doomed(m, now_ms, doomed);

	mutex_guard(&m->mu);
	*ret_count = 0;
	for (size_t i = 0; i < count; i++) {
		struct dataset *d = dataset_registry_get(&m->datasets, doomed[i].dataset_id);
		struct snapshot *s = d ? dataset_snapshot(d, doomed[i].number) : NULL;

		if (!s || snapshot_is_needed(m, d, s, now_ms))
			continue;
		namespace_batch_delete(batch, NAMESPACE_SNAPSHOT, d->id, doomed[i].number);
		log_info("snapshot %" PRIu64 " of dataset %s is no longer used", doomed[i].number,
			d->config->msg->name);
		dataset_drop_snapshot(d, doomed[i].number);
		doomed[(*ret_count)++] = doomed[i];
	}
	if (*ret_count)
		master_tell_locked(m);
}

static int save_totals_locked(struct master *m, struct namespace_batch *batch)
{
	struct dataset *d, *next;

	HASH_ITER (by_id, m->datasets.by_id, d, next) {
		Granary__State__V1__TotalsState totals;
		int r;

		if (!d->totals_dirty || !d->current)
			continue;
		dataset_totals(d, &totals);
		r = namespace_batch_put(batch, NAMESPACE_TOTALS, d->id, 0, &totals.base);
		if (r < 0)
			return r;
		d->totals_dirty = false;
	}
	return 0;
}

static void save(struct master *m, struct namespace_batch *batch)
{
	mutex_guard(&m->mu);
	if (save_totals_locked(m, batch) < 0 || mounts_save(&m->mounts, batch) < 0 ||
		workers_save(&m->workers, batch) < 0 || jobs_save(&m->jobs, batch) < 0)
		log_error("no memory to save the counters; trying again later");
}

static void commit(struct master *m, struct namespace_batch *batch, bool synced)
{
	struct error err = ERROR_INIT;

	if (!namespace_batch_empty(batch) && namespace_db_commit(m->db, batch, synced, &err) < 0)
		log_error("%s", err.text);
}

void housekeeping_save(struct master *m)
{
	CLEANUP(namespace_batch_free_ptr) struct namespace_batch *batch = namespace_batch_new();

	if (!batch)
		return;
	mutex_guard(&m->state_mu);
	save(m, batch);
	commit(m, batch, true);
}

void housekeeping_run(struct master *m, int64_t now_ms)
{
	CLEANUP(namespace_batch_free_ptr) struct namespace_batch *batch = namespace_batch_new();
	struct doomed doomed[COLLECT_MAX];
	size_t count;

	if (!batch)
		return;
	mutex_guard(&m->state_mu);
	expire(m, now_ms, batch);
	replan_on_capacity(m, now_ms);
	collect(m, now_ms, batch, doomed, &count);
	if (now_ms - m->saved_ms >= MASTER_SAVE_MS) {
		save(m, batch);
		m->saved_ms = now_ms;
	}
	commit(m, batch, count > 0);
	for (size_t i = 0; i < count; i++)
		manifest_store_remove(m->manifests, doomed[i].digest);
}

void *housekeeping_main(void *arg)
{
	struct master *m = arg;

	for (;;) {
		int64_t next_ms = clock_deadline_ms(MASTER_TICK_MS);
		bool stop;

		mutex_lock(&m->mu);
		while (!m->stopping && !clock_passed(next_ms))
			cond_wait(&m->tick, &m->mu, next_ms);
		stop = m->stopping;
		mutex_unlock(&m->mu);
		if (stop)
			return NULL;
		housekeeping_run(m, clock_mono_ms());
	}
}
