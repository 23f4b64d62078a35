#include "worker/dataset_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

#define LOG_SUBSYSTEM "worker"
#include "common/log.h"

#include <uthash.h>

struct slot {
	uint64_t id;
	struct dataset *dataset;
	bool planned; /* by the plan that is being applied */
	UT_hash_handle hh;
};

struct dataset_table {
	struct mutex mu;
	struct slot *slots; /* guarded by mu */
};

struct dataset_table *dataset_table_new(void)
{
	struct dataset_table *t = calloc(1, sizeof(*t));

	if (t)
		mutex_init(&t->mu);
	return t;
}

void dataset_table_free(struct dataset_table *t)
{
	struct slot *s, *next;

	if (!t)
		return;
	HASH_ITER (hh, t->slots, s, next) {
		HASH_DEL(t->slots, s);
		dataset_unref(s->dataset);
		free(s);
	}
	mutex_deinit(&t->mu);
	free(t);
}

static struct slot *find_locked(struct dataset_table *t, uint64_t id)
{
	struct slot *s;

	assert(mutex_held(&t->mu));
	HASH_FIND(hh, t->slots, &id, sizeof(id), s);
	return s;
}

struct dataset *dataset_table_get(struct dataset_table *t, uint64_t id)
{
	struct slot *s;

	mutex_guard(&t->mu);
	s = find_locked(t, id);
	return s ? dataset_ref(s->dataset) : NULL;
}

int dataset_table_list(struct dataset_table *t, struct dataset ***ret, size_t *ret_count)
{
	struct dataset **list;
	struct slot *s, *next;
	size_t n = 0;

	mutex_guard(&t->mu);
	list = calloc(HASH_COUNT(t->slots) + 1, sizeof(struct dataset *));
	if (!list)
		return -ENOMEM;
	HASH_ITER (hh, t->slots, s, next)
		list[n++] = dataset_ref(s->dataset);
	*ret = list;
	*ret_count = n;
	return 0;
}

void dataset_list_free(struct dataset **list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		dataset_unref(list[i]);
	free(list);
}

/* Puts a dataset into the table in place of what was there; takes the reference. */
static int put(struct dataset_table *t, struct dataset *d)
{
	struct dataset *old = NULL;
	struct slot *s, *fresh = calloc(1, sizeof(*fresh));

	if (!fresh)
		return -ENOMEM;
	mutex_lock(&t->mu);
	s = find_locked(t, d->id);
	if (s) {
		old = s->dataset;
	} else {
		s = steal(&fresh);
		s->id = d->id;
		HASH_ADD(hh, t->slots, id, sizeof(s->id), s);
	}
	s->dataset = d;
	s->planned = true;
	mutex_unlock(&t->mu);
	dataset_unref(old);
	free(fresh);
	return 0;
}

/* Opening an origin talks to nobody but may read files, so no lock is held for it. */
static void apply_one(struct dataset_table *t, const Granary__V1__DatasetPlan *plan)
{
	struct dataset *d = NULL;
	struct slot *s;

	mutex_lock(&t->mu);
	s = find_locked(t, plan->dataset_id);
	if (s && strcmp(s->dataset->url, plan->origin) == 0 &&
		strcmp(s->dataset->name, plan->name) == 0) {
		s->planned = true;
		d = dataset_ref(s->dataset);
	}
	mutex_unlock(&t->mu);
	if (d) {
		dataset_update(d, plan);
		dataset_unref(d);
		return;
	}
	d = dataset_from_plan(plan);
	if (!d || put(t, d) < 0) {
		log_error("dataset %s: out of memory", plan->name);
		dataset_unref(d);
	}
}

void dataset_table_apply(
	struct dataset_table *t, Granary__V1__DatasetPlan *const *plans, size_t count)
{
	struct slot *s, *next, *gone = NULL;

	if (count > DATASET_TABLE_MAX) {
		log_error("the plan names %zu datasets, of which %d are used", count,
			DATASET_TABLE_MAX);
		count = DATASET_TABLE_MAX;
	}
	mutex_lock(&t->mu);
	HASH_ITER (hh, t->slots, s, next)
		s->planned = false;
	mutex_unlock(&t->mu);
	for (size_t i = 0; i < count; i++)
		apply_one(t, plans[i]);
	mutex_lock(&t->mu);
	HASH_ITER (hh, t->slots, s, next) {
		if (s->planned)
			continue;
		HASH_DEL(t->slots, s);
		HASH_ADD(hh, gone, id, sizeof(s->id), s);
	}
	mutex_unlock(&t->mu);
	HASH_ITER (hh, gone, s, next) {
		HASH_DEL(gone, s);
		dataset_unref(s->dataset);
		free(s);
	}
}
