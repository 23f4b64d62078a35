#include "fuse/open_records.h"

#include <errno.h>

/* A handle: the generation above, the place and one below. */
#define PLACE_MASK UINT32_MAX

void open_records_init(struct open_records *r, struct mount_state *state)
{
	*r = (struct open_records){.state = state};
	mutex_init(&r->mu);
}

void open_records_deinit(struct open_records *r)
{
	mutex_deinit(&r->mu);
}

static uint64_t handle_of(const struct mount_state *s, uint32_t place)
{
	return (uint64_t)s->opens[place].generation << 32 | (place + 1);
}

uint64_t open_records_add(
	struct open_records *r, enum mount_state_open_use use, uint64_t ino, uint64_t unique)
{
	mutex_guard(&r->mu);

	for (uint32_t i = 0; i < MOUNT_STATE_OPENS; i++) {
		uint32_t place = (r->open_at + i) % MOUNT_STATE_OPENS;
		struct mount_state_open *o = &r->state->opens[place];

		if (atomic_load_explicit(&o->use, memory_order_relaxed) != OPEN_FREE)
			continue;
		o->generation++;
		o->ino = ino;
		o->unique = unique;
		atomic_store(&o->use, use);
		r->open_at = place + 1;
		return handle_of(r->state, place);
	}
	return 0;
}

enum mount_state_open_use open_records_remove(struct open_records *r, uint64_t handle, uint64_t ino)
{
	uint64_t place = (handle & PLACE_MASK) - 1;
	enum mount_state_open_use use;
	struct mount_state_open *o;
	mutex_guard(&r->mu);

	if (place >= MOUNT_STATE_OPENS)
		return OPEN_FREE;
	o = &r->state->opens[place];
	use = (enum mount_state_open_use)atomic_load(&o->use);
	if (use == OPEN_FREE || o->ino != ino || handle_of(r->state, (uint32_t)place) != handle)
		return OPEN_FREE;
	atomic_store(&o->use, OPEN_FREE);
	return use;
}

uint64_t open_records_find(struct open_records *r, uint64_t ino, uint64_t unique)
{
	mutex_guard(&r->mu);

	for (uint32_t i = 0; i < MOUNT_STATE_OPENS; i++) {
		struct mount_state_open *o = &r->state->opens[i];

		if (atomic_load_explicit(&o->use, memory_order_relaxed) != OPEN_FREE &&
			o->unique == unique && o->ino == ino)
			return handle_of(r->state, i);
	}
	return 0;
}

/* ---- backing files --------------------------------------------------------------------------- */

int open_records_backing_add(struct open_records *r, uint64_t ino, int32_t id)
{
	mutex_guard(&r->mu);

	for (uint32_t i = 0; i < MOUNT_STATE_BACKINGS; i++) {
		uint32_t place = (r->backing_at + i) % MOUNT_STATE_BACKINGS;
		struct mount_state_backing *b = &r->state->backings[place];

		if (atomic_load_explicit(&b->use, memory_order_relaxed) != BACKING_FREE)
			continue;
		b->ino = ino;
		b->id = id;
		atomic_store(&b->use, BACKING_USED);
		r->backing_at = place + 1;
		return (int)place;
	}
	return -ENOSPC;
}

void open_records_backing_closing(struct open_records *r, uint32_t place)
{
	atomic_store(&r->state->backings[place].use, BACKING_CLOSING);
}

void open_records_backing_closed(struct open_records *r, uint32_t place)
{
	atomic_store(&r->state->backings[place].use, BACKING_FREE);
}

void open_records_backing_seen(struct open_records *r, int32_t id)
{
	mutex_guard(&r->mu);

	if (id > atomic_load(&r->state->last_backing_id))
		atomic_store(&r->state->last_backing_id, id);
}

bool open_records_backing_known(struct open_records *r, int32_t id)
{
	mutex_guard(&r->mu);

	for (uint32_t i = 0; i < MOUNT_STATE_BACKINGS; i++) {
		struct mount_state_backing *b = &r->state->backings[i];

		if (atomic_load(&b->use) != BACKING_FREE && b->id == id)
			return true;
	}
	return false;
}
