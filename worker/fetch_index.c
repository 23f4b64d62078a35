#include "worker/fetch_index.h"

#include <errno.h>
#include <stdlib.h>

#include <uthash.h>
#include <utlist.h>

#define STRETCHES_MAX 64

struct fetch_group {
	struct block_id id;
	struct fetch *fetches;
	uint64_t read; /* a bit for each stretch */
	int64_t read_ms;
	bool idle; /* without a fetch */
	UT_hash_handle hh;
};

static_assert(BLOCK_BYTES / FETCH_STRETCH_BYTES <= STRETCHES_MAX, "a bit for each stretch");

static struct fetch_group *find_group(const struct fetch_index *x, const struct block_id *id)
{
	struct fetch_group *g;

	HASH_FIND(hh, x->groups, id, sizeof(*id), g);
	return g;
}

struct fetch *fetch_index_find(
	const struct fetch_index *x, const struct block_id *id, uint32_t offset)
{
	struct fetch_group *g = find_group(x, id);
	struct fetch *f;

	if (!g)
		return NULL;
	DL_FOREACH (g->fetches, f)
		if (f->start <= offset && offset < f->end)
			return f;
	return NULL;
}

bool fetch_index_has_block(const struct fetch_index *x, const struct block_id *id)
{
	const struct fetch_group *g = find_group(x, id);

	return g && g->fetches;
}

uint32_t fetch_index_room_until(
	const struct fetch_index *x, const struct block_id *id, uint32_t offset, uint32_t end)
{
	struct fetch_group *g = find_group(x, id);
	struct fetch *f;

	if (!g)
		return end;
	DL_FOREACH (g->fetches, f)
		if (f->start > offset && f->start < end)
			end = f->start;
	return end;
}

/* Whole blocks come first in their group, so that readers find them before stretches. */
int fetch_index_add(struct fetch_index *x, struct fetch *f)
{
	struct fetch_group *g = find_group(x, &f->block.id);

	if (!g) {
		g = calloc(1, sizeof(*g));
		if (!g)
			return -ENOMEM;
		g->id = f->block.id;
		HASH_ADD(hh, x->groups, id, sizeof(g->id), g);
	}
	if (g->idle) {
		g->idle = false;
		x->idle--;
	}
	if (atomic_load(&f->goal) != FETCH_PASS)
		DL_PREPEND(g->fetches, f);
	else
		DL_APPEND(g->fetches, f);
	f->group = g;
	return 0;
}

static void free_group(struct fetch_index *x, struct fetch_group *g)
{
	HASH_DEL(x->groups, g);
	free(g);
}

void fetch_index_remove(struct fetch_index *x, struct fetch *f)
{
	struct fetch_group *g = f->group;

	DL_DELETE(g->fetches, f);
	f->group = NULL;
	if (g->fetches)
		return;
	if (g->read && x->idle < FETCH_INDEX_IDLE_MAX) {
		g->idle = true;
		x->idle++;
	} else {
		free_group(x, g);
	}
}

void fetch_index_each(const struct fetch_index *x, void (*fn)(struct fetch *f))
{
	struct fetch_group *g, *next;
	struct fetch *f;

	HASH_ITER (hh, x->groups, g, next)
		DL_FOREACH (g->fetches, f)
			fn(f);
}

void fetch_index_note_read(struct fetch *f)
{
	uint32_t from = (f->start + FETCH_STRETCH_BYTES - 1) / FETCH_STRETCH_BYTES;
	uint32_t to = f->end / FETCH_STRETCH_BYTES;

	for (uint32_t i = from; i < to; i++)
		f->group->read |= (uint64_t)1 << i;
	f->group->read_ms = clock_mono_ms();
}

static bool has_bit(const struct fetch_group *g, uint32_t offset)
{
	return g && (g->read >> (offset / FETCH_STRETCH_BYTES) & 1);
}

bool fetch_index_was_read(const struct fetch_index *x, const struct block_id *id, uint32_t offset)
{
	const struct fetch_group *g = find_group(x, id);

	return has_bit(g, offset) && clock_mono_ms() - g->read_ms < FETCH_READ_MS;
}

void fetch_index_forget_read(struct fetch_index *x, const struct block_id *id, uint32_t offset)
{
	struct fetch_group *g = find_group(x, id);

	if (has_bit(g, offset))
		g->read = 0;
}

void fetch_index_forget_idle(struct fetch_index *x, int64_t age_ms)
{
	int64_t now_ms = clock_mono_ms();
	struct fetch_group *g, *next;

	HASH_ITER (hh, x->groups, g, next) {
		if (!g->idle || now_ms - g->read_ms < age_ms)
			continue;
		x->idle--;
		free_group(x, g);
	}
}
