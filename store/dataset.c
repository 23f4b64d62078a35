#include <stdlib.h>

#include "store/store_private.h"

struct dataset *dataset_find_locked(struct store *s, uint64_t id)
{
	struct dataset *ds;

	HASH_FIND(hh, s->datasets, &id, sizeof(id), ds);
	return ds;
}

static bool dataset_unused(const struct dataset *ds)
{
	return !ds->files && !ds->grant_bytes && !ds->class_bytes[CLASS_PINNED] &&
	       !ds->class_bytes[CLASS_FILLER] && !ds->class_bytes[CLASS_ELASTIC];
}

static void dataset_forget_locked(struct store *s, struct dataset *ds)
{
	s->dataset_by_number[ds->number] = NULL;
	HASH_DEL(s->datasets, ds);
	free(ds);
}

static uint32_t free_number_locked(struct store *s)
{
	struct dataset *ds, *next;
	uint32_t n = 0;

	if (HASH_COUNT(s->datasets) == STORE_DATASETS_MAX) {
		HASH_ITER (hh, s->datasets, ds, next) {
			if (dataset_unused(ds)) {
				dataset_forget_locked(s, ds);
				break;
			}
		}
	}
	while (n < STORE_DATASETS_MAX && s->dataset_by_number[n])
		n++;
	return n;
}

struct dataset *dataset_get_locked(struct store *s, uint64_t id)
{
	struct dataset *ds = dataset_find_locked(s, id);
	uint32_t number;

	if (ds)
		return ds;
	number = free_number_locked(s);
	if (number == STORE_DATASETS_MAX)
		return NULL;
	ds = calloc(1, sizeof(*ds));
	if (!ds)
		return NULL;
	ds->id = id;
	ds->number = number;
	s->dataset_by_number[number] = ds;
	HASH_ADD(hh, s->datasets, id, sizeof(ds->id), ds);
	return ds;
}

void datasets_deinit(struct store *s)
{
	struct dataset *ds, *next;

	HASH_ITER (hh, s->datasets, ds, next)
		dataset_forget_locked(s, ds);
}

size_t store_dataset_stats(struct store *s, struct store_dataset_stat *ret, size_t room)
{
	struct dataset *ds, *next;
	size_t count = 0;

	mutex_guard(&s->mu);
	HASH_ITER (hh, s->datasets, ds, next) {
		/* A removed one is only remembered until its number is wanted. */
		if (dataset_unused(ds) && !ds->corrupt_blocks)
			continue;
		if (count < room)
			ret[count] = (struct store_dataset_stat){
				.dataset_id = ds->id,
				.pinned_bytes = ds->class_bytes[CLASS_PINNED],
				.filler_bytes = ds->class_bytes[CLASS_FILLER],
				.elastic_bytes = ds->class_bytes[CLASS_ELASTIC],
				.corrupt_blocks = ds->corrupt_blocks,
			};
		count++;
	}
	return count;
}
