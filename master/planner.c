/*
 * The planner thread: turns registry, workers and mounts into grants and thresholds. Thresholds
 * come from reading a manifest, which takes seconds for ten million entries; that is why this is a
 * thread of its own, works on a copy without a lock, and keeps a threshold as long as its digest
 * and its grant stay the same.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "master/master_state.h"
#include "master/plan.h"
#include "placement/pin.h"

#define LOG_SUBSYSTEM "master"
#include "common/log.h"

DEFINE_CLEANUP(struct manifest *, manifest_unref)

/* The oldest first; the id makes it one order. */
static int by_age(const void *a, const void *b)
{
	const struct plan_item *x = a, *y = b;

	if (x->created_s != y->created_s)
		return x->created_s > y->created_s ? 1 : -1;
	return (x->dataset_id > y->dataset_id) - (x->dataset_id < y->dataset_id);
}

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
	*ret_count = count;
	return items;
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

static void publish_locked(struct master *m, const struct plan_item *items, size_t count)
{
	bool changed = false;

	for (size_t i = 0; i < count; i++) {
		struct dataset *d = dataset_registry_get(&m->datasets, items[i].dataset_id);
		const struct snapshot *s = d ? dataset_current(d) : NULL;

		if (!s || strcmp(s->state->digest, items[i].digest) != 0)
			continue; /* gone or refreshed meanwhile: another round is due */
		changed |= d->granted_bytes != items[i].granted_bytes ||
			   d->threshold != items[i].threshold;
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
	cleanup_free struct plan_item *items = NULL;
	cleanup_free uint64_t *before = NULL;
	uint64_t wanted, capacity;
	size_t count = 0;

	mutex_lock(&m->mu);
	wanted = m->plan_wanted;
	items = items_new_locked(m, &count);
	capacity = workers_capacity(&m->workers, clock_mono_ms());
	mutex_unlock(&m->mu);

	before = calloc(count + 1, sizeof(*before));
	if (!items || !before)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		before[i] = items[i].granted_bytes;
	if (plan_grant(items, count, capacity) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		if (!items[i].known || before[i] != items[i].granted_bytes)
			threshold_find(m, &items[i]);

	mutex_lock(&m->mu);
	publish_locked(m, items, count);
	m->planned_capacity = capacity;
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
