/*
 * Which blocks are kept, and which go when there is no room.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/store_private.h"

#define LOG_SUBSYSTEM "store"
#include "common/log.h"

/* statvfs is looked at this often; what the store itself takes meanwhile is subtracted. */
#define FLOOR_CHECK_MS 100

uint64_t charged_locked(const struct store *s)
{
	uint64_t index = index_base_bytes(s->capacity_bytes) +
			 directory_blocks(s->directory) * INDEX_BYTES_PER_BLOCK;

	if (index < s->index_bytes)
		index = s->index_bytes;
	return s->files_charged_bytes + s->dirs_bytes + index;
}

uint64_t room_locked(const struct store *s)
{
	uint64_t charged = charged_locked(s);
	uint64_t room = s->usable_bytes > charged ? s->usable_bytes - charged : 0;
	uint64_t above_floor =
		s->fs_free_bytes > s->floor_bytes ? s->fs_free_bytes - s->floor_bytes : 0;

	if (directory_full(s->directory))
		return 0;
	return room < above_floor ? room : above_floor;
}

void floor_look(struct store *s)
{
	uint64_t free_bytes;
	int r;

	r = s->disk->free_bytes(s->disk->ctx, s->dir, &free_bytes);
	mutex_guard(&s->mu);
	s->fs_checked_ms = clock_mono_ms();
	s->fs_known = r == 0;
	s->fs_free_bytes = r < 0 ? 0 : free_bytes;
	if (s->floor_low != (s->fs_free_bytes <= s->floor_bytes)) {
		s->floor_low = !s->floor_low;
		log_warn("%s: the filesystem is %s the free-space floor", s->dir,
			s->floor_low ? "at" : "above");
	}
}

void floor_refresh(struct store *s)
{
	bool stale;

	mutex_lock(&s->mu);
	stale = clock_passed(s->fs_checked_ms + FLOOR_CHECK_MS);
	mutex_unlock(&s->mu);
	if (stale)
		floor_look(s);
}

void block_record(const struct directory_entry *e, bool remove, struct record_bytes *ret)
{
	struct record r = {.kind = RECORD_BLOCK};

	r.block.id = e->id;
	r.block.file = e->file;
	r.block.page = e->page;
	r.block.len = e->len;
	r.block.flags = e->flags;
	record_encode(&r, remove, ret);
}

void store_moved_slot(void *arg, uint32_t from, uint32_t to)
{
	struct store *s = arg;

	residency_moved(&s->residency, from, to);
	s->moves_down += to < from;
}

static void list_add_locked(
	struct store *s, const struct dataset *ds, const struct directory_entry *e, bool leftover)
{
	switch (entry_class(e)) {
	case CLASS_PINNED:
		break;
	case CLASS_FILLER:
		residency_add(&s->residency, e->slot, LIST_FILLER(ds->number));
		break;
	case CLASS_ELASTIC:
		residency_add(&s->residency, e->slot,
			ds->elastic ? LIST_LRU
			: leftover  ? LIST_LEFTOVER
				    : LIST_ELASTIC);
		break;
	}
}

bool publish_locked(struct store *s, struct store_file *f, struct directory_entry *e, bool leftover)
{
	if (directory_insert(s->directory, e, store_moved_slot, s) < 0)
		return false;
	f->blocks++;
	residency_set_live(&s->residency, e->slot, !(e->flags & FLAG_OLD));
	list_add_locked(s, f->dataset, e, leftover);
	return true;
}

void drop_slot_locked(struct store *s, const struct directory_entry *e)
{
	struct store_file *f = file_find_locked(s, e->file);
	struct commit_op op = {.file = f, .page = e->page, .len = e->len, .free = true};

	assert(f && f->blocks > 0);
	directory_remove(s->directory, e->slot);
	residency_remove(&s->residency, e->slot);
	f->dataset->class_bytes[entry_class(e)] -= e->len;
	f->blocks--;
	f->pins++;
	block_record(e, true, &op.record);
	commit_add_locked(s, &op);
	if (f->holders && s->revoke && !f->revoked) {
		f->revoked = true;
		s->revoke(s->revoke_arg, f->number);
	}
}

void reclass_locked(struct store *s, struct dataset *ds, struct directory_entry *e, uint32_t flags)
{
	struct store_file *f = file_find_locked(s, e->file);
	struct commit_op op = {.file = NULL};

	assert(f && f->dataset == ds);
	ds->class_bytes[entry_class(e)] -= e->len;
	residency_remove(&s->residency, e->slot);
	flags |= e->flags & FLAG_SPARSE;
	directory_set_flags(s->directory, e->slot, flags);
	if (flags != e->flags) {
		e->flags = flags;
		block_record(e, false, &op.record);
		commit_add_locked(s, &op);
	}
	ds->class_bytes[entry_class(e)] += e->len;
	list_add_locked(s, ds, e, !ds->grant_bytes);
}

/* Drops the oldest of a list; false when it is empty. */
static bool drop_oldest_locked(struct store *s, uint32_t list, uint64_t *dropped_bytes)
{
	uint32_t slot = residency_oldest(&s->residency, list);
	struct directory_entry e;
	bool there;

	if (slot == RESIDENCY_NONE)
		return false;
	there = directory_at(s->directory, slot, &e);
	assert(there);
	*dropped_bytes += e.len;
	drop_slot_locked(s, &e);
	return true;
}

static bool drop_elastic_one_locked(struct store *s, uint64_t *dropped_bytes)
{
	return drop_oldest_locked(s, LIST_ELASTIC, dropped_bytes) ||
	       drop_oldest_locked(s, LIST_LEFTOVER, dropped_bytes) ||
	       drop_oldest_locked(s, LIST_LRU, dropped_bytes);
}

static uint64_t quota_used(const struct dataset *ds)
{
	return ds->class_bytes[CLASS_PINNED] + ds->class_bytes[CLASS_FILLER];
}

void trim_fillers_locked(struct store *s, struct dataset *ds, uint64_t more)
{
	uint64_t dropped = 0;

	while (quota_used(ds) + more > ds->grant_bytes) {
		if (!drop_oldest_locked(s, LIST_FILLER(ds->number), &dropped))
			break;
	}
}

int admit_class_locked(struct store *s, struct dataset *ds, const struct block_id *id, uint32_t len,
	enum store_admit admit, bool evict, enum block_class *ret)
{
	if (ds->removing)
		return STORE_FULL;
	*ret = CLASS_ELASTIC;
	if (admit != STORE_ADMIT_GRANT)
		return 0;
	if (block_pin_hash(id) >= threshold_locked(s, ds)) {
		*ret = CLASS_FILLER;
		return quota_used(ds) + len <= ds->grant_bytes ? 0 : STORE_FULL;
	}
	*ret = CLASS_PINNED;
	if (ds->class_bytes[CLASS_PINNED] + len > ds->grant_bytes)
		return STORE_FULL;
	if (evict)
		trim_fillers_locked(s, ds, len);
	return !evict || quota_used(ds) + len <= ds->grant_bytes ? 0 : STORE_FULL;
}

/* Of whichever dataset: what is pinned comes before what only fills. */
static bool drop_any_filler_locked(struct store *s, uint64_t *dropped_bytes)
{
	struct dataset *ds, *next;

	HASH_ITER (hh, s->datasets, ds, next) {
		if (drop_oldest_locked(s, LIST_FILLER(ds->number), dropped_bytes))
			return true;
	}
	return false;
}

bool drop_unpinned_one_locked(struct store *s)
{
	uint64_t dropped = 0;

	return drop_elastic_one_locked(s, &dropped) || drop_any_filler_locked(s, &dropped);
}

bool make_room_locked(struct store *s, struct dataset *ds, enum block_class class, uint64_t bytes)
{
	uint64_t dropped = 0;

	while (room_locked(s) + s->commit.freed_bytes < bytes) {
		/* Blocks of files that readers hold give no room at once: do not drop everything.
		 */
		if (dropped > 4 * bytes + 4 * BLOCK_BYTES)
			return false;
		if (drop_elastic_one_locked(s, &dropped))
			continue;
		if (class != CLASS_PINNED ||
			!(drop_oldest_locked(s, LIST_FILLER(ds->number), &dropped) ||
				drop_any_filler_locked(s, &dropped)))
			return false;
	}
	return true;
}

bool could_make_room_locked(struct store *s, enum block_class class, uint64_t bytes)
{
	uint64_t have = room_locked(s) + s->commit.freed_bytes;
	struct dataset *other, *next;

	if (have >= bytes)
		return true;
	HASH_ITER (hh, s->datasets, other, next) {
		have += other->class_bytes[CLASS_ELASTIC];
		if (class == CLASS_PINNED)
			have += other->class_bytes[CLASS_FILLER];
	}
	return have >= bytes;
}

struct victim {
	uint64_t hash;
	struct block_id id;
};

static int by_hash_descending(const void *a, const void *b)
{
	const struct victim *x = a, *y = b;

	return x->hash > y->hash ? -1 : x->hash < y->hash;
}

/* Pinned blocks, highest hashes first: the ceiling falls to what fits. */
static void shrink_pinned_locked(struct store *s)
{
	struct victim *victims = calloc(directory_blocks(s->directory) + 1, sizeof(*victims));
	struct directory_entry e;
	size_t count = 0;

	if (!victims)
		return;
	for (uint32_t slot = 0; slot < directory_slots(s->directory); slot++) {
		if (directory_at(s->directory, slot, &e))
			victims[count++] = (struct victim){block_pin_hash(&e.id), e.id};
	}
	qsort(victims, count, sizeof(victims[0]), by_hash_descending);
	for (size_t i = 0; i < count; i++) {
		if (charged_locked(s) <= s->usable_bytes + s->commit.freed_bytes)
			break;
		if (!directory_lookup(s->directory, &victims[i].id, &e))
			continue;
		if (entry_class(&e) == CLASS_PINNED)
			atomic_store(&s->ceiling.hash, victims[i].hash ? victims[i].hash : 1);
		drop_slot_locked(s, &e);
	}
	free(victims);
}

void shrink_to_capacity_locked(struct store *s)
{
	uint64_t dropped = 0;

	while (charged_locked(s) > s->usable_bytes + s->commit.freed_bytes) {
		if (drop_elastic_one_locked(s, &dropped))
			continue;
		shrink_pinned_locked(s);
		return;
	}
}
