/*
 * Applying the master's plan to what is stored. The directory is walked in slices, so that reads'
 * bookkeeping and puts go on in between; a put that began under the plan before is not kept.
 */
#include <assert.h>
#include <errno.h>

#include "store/store_private.h"

#define SLICE 4096u
#define WALKS_MAX 16
#define BEHIND_WAIT_MS 30000

int wait_for_commit_locked(struct store *s, struct error *err)
{
	int64_t deadline = clock_deadline_ms(BEHIND_WAIT_MS);

	while (commit_behind_locked(s)) {
		commit_kick_locked(s);
		if (room_wait_locked(s, deadline) == -ETIMEDOUT)
			return error_set(err, -EIO, "the store cannot commit: %s", s->degraded);
	}
	return 0;
}

/* One slice from *slot on; 1 when there is more, 0 at the end. */
static int slice(struct store *s, const uint64_t *dataset_id, uint32_t *slot, block_fn *fn,
	void *arg, struct error *err)
{
	struct dataset *ds = NULL;
	uint32_t end;
	int r;

	mutex_guard(&s->mu);
	r = wait_for_commit_locked(s, err);
	if (r < 0)
		return r;
	if (dataset_id && !(ds = dataset_find_locked(s, *dataset_id)))
		return 0;
	if (*slot >= directory_slots(s->directory))
		return 0;
	end = *slot + SLICE;
	for (; *slot < end && *slot < directory_slots(s->directory); ++*slot) {
		struct directory_entry e;
		struct store_file *f;

		if (!directory_at(s->directory, *slot, &e))
			continue;
		f = file_find_locked(s, e.file);
		if (f && (!ds || f->dataset == ds))
			fn(s, f->dataset, &e, arg);
	}
	return 1;
}

static uint64_t moves_down(struct store *s)
{
	mutex_guard(&s->mu);
	return s->moves_down;
}

/* A block that moves to a higher slot meanwhile is met there; after one moved to a lower slot (the
 * directory is nearly full then) the walk is done again. All functions bear being called twice. */
int blocks_walk(
	struct store *s, const uint64_t *dataset_id, block_fn *fn, void *arg, struct error *err)
{
	int r = 0;

	for (int i = 0; i < WALKS_MAX; i++) {
		uint64_t before = moves_down(s);
		uint32_t slot = 0;

		do {
			r = slice(s, dataset_id, &slot, fn, arg, err);
		} while (r > 0);
		if (r < 0 || moves_down(s) == before)
			break;
	}
	return r;
}

static void unmark(struct store *s, struct dataset *ds, struct directory_entry *e, void *arg)
{
	(void)ds;
	(void)arg;
	residency_set_live(&s->residency, e->slot, false);
}

static int mark_live(struct store *s, store_live_fn *live, void *arg)
{
	struct block_id id;
	int r;

	while ((r = live(arg, &id)) > 0) {
		struct directory_entry e;

		mutex_guard(&s->mu);
		if (directory_lookup(s->directory, &id, &e))
			residency_set_live(&s->residency, e.slot, true);
	}
	return r;
}

/* Elastic from now on. One that is so already keeps its place among the others. */
static void make_elastic(
	struct store *s, struct dataset *ds, struct directory_entry *e, uint32_t old_flag)
{
	bool is = entry_class(e) == CLASS_ELASTIC && (e->flags & FLAG_OLD) == old_flag;

	if (!is || !ds->elastic || ds->relist)
		reclass_locked(s, ds, e, CLASS_ELASTIC | old_flag);
}

/* First what goes or is demoted, so that the room is there for what is promoted. */
static void demote(struct store *s, struct dataset *ds, struct directory_entry *e, void *arg)
{
	bool walked = *(bool *)arg;
	bool old = walked ? !residency_live(&s->residency, e->slot) : e->flags & FLAG_OLD;
	bool above = block_pin_hash(&e->id) >= threshold_locked(s, ds);

	if (old)
		make_elastic(s, ds, e, FLAG_OLD);
	else if (!ds->grant_bytes)
		make_elastic(s, ds, e, 0);
	else if (entry_class(e) == CLASS_PINNED && above && !ds->elastic)
		drop_slot_locked(s, e);
	else if (entry_class(e) == CLASS_PINNED ? above : ds->elastic)
		make_elastic(s, ds, e, 0);
	else if (e->flags & FLAG_OLD || (ds->relist && entry_class(e) == CLASS_ELASTIC))
		reclass_locked(s, ds, e, CLASS_ELASTIC);
}

void plan_promote(struct store *s, struct dataset *ds, struct directory_entry *e, void *arg)
{
	uint64_t pinned = ds->class_bytes[CLASS_PINNED];

	(void)arg;
	if (e->flags & FLAG_OLD || entry_class(e) == CLASS_PINNED ||
		block_pin_hash(&e->id) >= threshold_locked(s, ds) ||
		pinned + e->len > ds->grant_bytes)
		return;
	reclass_locked(s, ds, e, CLASS_PINNED);
	trim_fillers_locked(s, ds, 0);
}

/* Of what is left, the blocks of a dataset that got its grant back may fill it. */
static void refill(struct store *s, struct dataset *ds, struct directory_entry *e, void *arg)
{
	(void)arg;
	if (ds->elastic || e->flags & FLAG_OLD || entry_class(e) != CLASS_ELASTIC ||
		ds->class_bytes[CLASS_PINNED] + ds->class_bytes[CLASS_FILLER] + e->len >
			ds->grant_bytes)
		return;
	reclass_locked(s, ds, e, CLASS_FILLER);
}

static void relisted(struct store *s, uint64_t dataset_id)
{
	struct dataset *ds;

	mutex_guard(&s->mu);
	ds = dataset_find_locked(s, dataset_id);
	if (ds)
		ds->relist = false;
}

static int reclassify(struct store *s, uint64_t dataset_id, bool walked, struct error *err)
{
	struct dataset *ds;
	int r;

	r = blocks_walk(s, &dataset_id, demote, &walked, err);
	if (r == 0)
		relisted(s, dataset_id);
	if (r == 0)
		r = blocks_walk(s, &dataset_id, plan_promote, NULL, err);
	if (r < 0)
		return r;
	mutex_lock(&s->mu);
	ds = dataset_find_locked(s, dataset_id);
	if (ds)
		trim_fillers_locked(s, ds, 0);
	mutex_unlock(&s->mu);
	return blocks_walk(s, &dataset_id, refill, NULL, err);
}

static int plan_begin_locked(struct store *s, uint64_t id, uint64_t grant_bytes, uint64_t threshold,
	bool remove, struct error *err)
{
	struct record r = {.kind = RECORD_DATASET,
		.dataset = {.id = id, .grant_bytes = grant_bytes, .threshold = threshold}};
	struct commit_op op = {0};
	struct dataset *ds;

	assert(mutex_held(&s->mu));
	ds = dataset_get_locked(s, id);
	if (!ds)
		return error_set(
			err, -ENOSPC, "the store has too many datasets (%u)", STORE_DATASETS_MAX);
	ds->grant_bytes = grant_bytes;
	ds->threshold = threshold;
	ds->removing = remove;
	ds->version++;
	record_encode(&r, remove, &op.record);
	commit_add_locked(s, &op);
	return 0;
}

static int plan_begin(struct store *s, uint64_t id, uint64_t grant_bytes, uint64_t threshold,
	bool remove, struct error *err)
{
	mutex_guard(&s->mu);
	return plan_begin_locked(s, id, grant_bytes, threshold, remove, err);
}

/* Without blocks there is nothing to walk, so this needs no plan_mu: whoever walks another dataset
 * does not see this one, and whoever sets this one at the same time does so before or after. */
int store_announce_dataset(struct store *s, uint64_t dataset_id, uint64_t grant_bytes,
	uint64_t threshold, struct error *err)
{
	struct dataset *ds;

	mutex_guard(&s->mu);
	ds = dataset_find_locked(s, dataset_id);
	if (ds && (ds->removing || ds->class_bytes[CLASS_PINNED] || ds->class_bytes[CLASS_FILLER] ||
			  ds->class_bytes[CLASS_ELASTIC]))
		return STORE_HAS_BLOCKS;
	if (ds)
		ds->relist = false;
	return plan_begin_locked(s, dataset_id, grant_bytes, threshold, false, err);
}

int store_set_elastic(struct store *s, uint64_t dataset_id, bool elastic, struct error *err)
{
	struct dataset *ds;

	mutex_guard(&s->mu);
	ds = dataset_get_locked(s, dataset_id);
	if (!ds)
		return error_set(
			err, -ENOSPC, "the store has too many datasets (%u)", STORE_DATASETS_MAX);
	ds->relist |= ds->elastic != elastic;
	ds->elastic = elastic;
	return 0;
}

int store_set_dataset(struct store *s, uint64_t dataset_id, uint64_t grant_bytes,
	uint64_t threshold, store_live_fn *live, void *arg, struct error *err)
{
	int r;

	mutex_guard(&s->plan_mu);
	/* Before the plan changes: a put under the new one is marked and stays so. */
	if (live) {
		r = blocks_walk(s, &dataset_id, unmark, NULL, err);
		if (r < 0)
			return r;
	}
	r = plan_begin(s, dataset_id, grant_bytes, threshold, false, err);
	if (r < 0)
		return r;
	if (live) {
		r = mark_live(s, live, arg);
		if (r < 0)
			return error_set_errno(
				err, r, "the blocks of the current snapshot cannot be listed");
	}
	return reclassify(s, dataset_id, live, err);
}

static void drop(struct store *s, struct dataset *ds, struct directory_entry *e, void *arg)
{
	(void)ds;
	(void)arg;
	drop_slot_locked(s, e);
}

int store_remove_dataset(struct store *s, uint64_t dataset_id, struct error *err)
{
	struct dataset *ds;
	int r;

	mutex_guard(&s->plan_mu);
	r = plan_begin(s, dataset_id, 0, 0, true, err);
	if (r == 0)
		r = blocks_walk(s, &dataset_id, drop, NULL, err);
	mutex_guard(&s->mu);
	ds = dataset_find_locked(s, dataset_id);
	if (ds)
		ds->removing = false;
	commit_kick_locked(s);
	return r;
}
