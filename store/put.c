/*
 * Storing a block: room is taken under the lock, the bytes are written without it, then the block
 * is shown to readers and queued for the commit.
 */
#include <errno.h>
#include <string.h>

#include "store/store_private.h"

/* Elastic blocks are dropped a little ahead of need, so that a put rarely waits for a commit. */
#define AHEAD_SHARE 64
#define AHEAD_MAX_BYTES ((uint64_t)32 << 20)

struct putting {
	const struct store_block *block;
	enum store_admit admit;
	enum block_class class;
	enum file_kind kind; /* of the file that gets it */
	struct place place;
	uint64_t plan_version;
	struct inflight inflight;
};

static bool sparse(const struct store_block *b)
{
	return b->object_bytes > BLOCK_BYTES;
}

static bool block_valid(const struct store_block *b)
{
	return b->object_bytes > 0 && b->index < block_count(b->object_bytes) &&
	       b->len == block_len(b->object_bytes, b->index);
}

/* What a put wants to be free at most. */
static uint64_t disk_need(const struct store_block *b)
{
	return (sparse(b) ? (uint64_t)pages_of(b->len) + 3 : slot_pages(b->len) + 1) *
		       STORE_PAGE_BYTES +
	       INDEX_BYTES_PER_BLOCK;
}

/* An elastic copy that the quota now covers becomes part of it. */
static void upgrade_locked(struct store *s, struct dataset *ds, const struct store_block *b,
	enum store_admit admit, struct directory_entry *e)
{
	enum block_class class;

	if (admit != STORE_ADMIT_GRANT || entry_class(e) != CLASS_ELASTIC || ds->removing)
		return;
	residency_set_live(&s->residency, e->slot, true);
	if (admit_class_locked(s, ds, &b->id, b->len, admit, true, &class) == 0)
		reclass_locked(s, ds, e, class);
}

/* A large object's block goes to the object's file. Where a reader holds what was there before, or
 * the file takes no more, it goes to a segment: nobody has to wait for the reader to let go. */
static int place_locked(struct store *s, struct dataset *ds, struct putting *p)
{
	int r = PLACE_HELD;

	p->kind = FILE_SPARSE;
	if (sparse(p->block))
		r = sparse_place_locked(s, ds, p->block, &p->place);
	if (r != PLACE_HELD)
		return r;
	p->kind = FILE_SEGMENT;
	return segment_place_locked(s, ds, p->block->len, &p->place);
}

static int grow_locked(struct store *s, struct dataset *ds, const struct putting *p)
{
	const struct store_block *b = p->block;
	int r = p->kind == FILE_SPARSE ? sparse_create_locked(s, ds, b)
				       : segment_grow_locked(s, ds, b->len);

	if (r < 0)
		degrade_locked(s, r, "the cache's files cannot grow");
	return r;
}

static int wait_locked(struct store *s, int64_t deadline_ms)
{
	commit_kick_locked(s);
	return room_wait_locked(s, deadline_ms) == -ETIMEDOUT ? STORE_FULL : 0;
}

/* One try: 0 with the place taken, PLACE_* to go on, -EAGAIN after a wait or a growth. */
static int try_locked(struct store *s, struct putting *p, int64_t deadline_ms)
{
	const struct store_block *b = p->block;
	struct dataset *ds = dataset_get_locked(s, b->dataset_id);
	struct directory_entry e;
	struct inflight *other;
	int r;

	if (!ds)
		return STORE_FULL;
	if (directory_lookup(s->directory, &b->id, &e)) {
		upgrade_locked(s, ds, b, p->admit, &e);
		return STORE_EXISTS;
	}
	HASH_FIND(hh, s->inflight, &b->id, sizeof(b->id), other);
	if (other)
		return STORE_EXISTS;
	if (s->degraded_until_ms && !clock_passed(s->degraded_until_ms))
		return STORE_FULL;
	if (commit_behind_locked(s))
		return wait_locked(s, deadline_ms) ? STORE_FULL : -EAGAIN;
	r = admit_class_locked(s, ds, &b->id, b->len, p->admit, true, &p->class);
	if (r != 0)
		return r;
	p->plan_version = ds->version;
	r = place_locked(s, ds, p);
	switch (r) {
	case PLACE_GROW:
		return grow_locked(s, ds, p) < 0 ? STORE_FULL : -EAGAIN;
	case PLACE_FULL:
		if (!make_room_locked(s, ds, p->class, disk_need(b))) {
			s->ceiling.refused += p->class == CLASS_PINNED;
			return STORE_FULL;
		}
		return wait_locked(s, deadline_ms) ? STORE_FULL : -EAGAIN;
	case PLACE_GROWING:
		return wait_locked(s, deadline_ms) ? STORE_FULL : -EAGAIN;
	case PLACE_NEVER:
		return STORE_FULL;
	default:
		return r;
	}
}

static uint64_t ahead_bytes(const struct store *s)
{
	uint64_t bytes = s->capacity_bytes / AHEAD_SHARE;

	return bytes < AHEAD_MAX_BYTES ? bytes : AHEAD_MAX_BYTES;
}

static int reserve(struct store *s, struct putting *p)
{
	int64_t deadline = clock_deadline_ms(STORE_ROOM_WAIT_MS);
	struct dataset *ds;
	int r;

	mutex_guard(&s->mu);
	do {
		r = try_locked(s, p, deadline);
	} while (r == -EAGAIN);
	if (r != 0)
		return r;
	ds = p->place.file->dataset;
	ds->class_bytes[p->class] += p->block->len;
	p->inflight.id = p->block->id;
	HASH_ADD(hh, s->inflight, id, sizeof(p->inflight.id), &p->inflight);
	/* Elastic ones only: it is not yet certain that another block comes. */
	make_room_locked(s, ds, CLASS_ELASTIC, ahead_bytes(s));
	return 0;
}

static int write_block(struct store *s, const struct putting *p, const void *data)
{
	uint8_t checks[CHECKS_BYTES_MAX];

	checks_make(&p->block->id, data, p->block->len, checks);
	if (p->kind == FILE_SPARSE)
		return sparse_write(s, &p->place, data, checks);
	return segment_write(s, &p->place, data, checks);
}

/* The place goes back; the pin goes with the operation. */
static void give_up_locked(struct store *s, const struct putting *p)
{
	struct commit_op op = {
		.file = p->place.file, .page = p->place.page, .len = p->place.len, .free = true};

	p->place.file->dataset->class_bytes[p->class] -= p->block->len;
	commit_add_locked(s, &op);
}

/* The plan, or the ceiling, may have changed since the class was decided. */
static bool still_admitted_locked(struct store *s, const struct putting *p)
{
	const struct dataset *ds = p->place.file->dataset;

	return ds->version == p->plan_version &&
	       (p->class != CLASS_PINNED ||
		       block_pin_hash(&p->block->id) < threshold_locked(s, ds));
}

static int finish(struct store *s, struct putting *p, int written)
{
	struct store_file *f = p->place.file;
	struct commit_op op = {.file = f, .page = p->place.page, .len = p->place.len, .put = true};
	struct directory_entry e = {.id = p->block->id,
		.file = f->number,
		.page = p->place.page,
		.len = p->place.len,
		.flags = p->class};

	if (p->kind == FILE_SPARSE)
		e.flags |= FLAG_SPARSE;
	if (p->admit == STORE_ADMIT_ELASTIC)
		e.flags |= FLAG_OLD;
	mutex_guard(&s->mu);
	HASH_DEL(s->inflight, &p->inflight);
	if (written == -ENOENT)
		f->broken = true;
	else if (written < 0)
		degrade_locked(s, written, "a block could not be written");
	if (written < 0 || !still_admitted_locked(s, p) || !publish_locked(s, f, &e, false)) {
		give_up_locked(s, p);
		return STORE_FULL;
	}
	block_record(&e, false, &op.record);
	commit_add_locked(s, &op);
	return 0;
}

int store_put(struct store *s, const struct store_block *b, enum store_admit admit,
	const void *data, struct error *err)
{
	struct putting p = {.block = b, .admit = admit};
	int r;

	if (!block_valid(b))
		return error_set(
			err, -EINVAL, "a block whose length or number does not fit its object");
	floor_refresh(s);
	r = reserve(s, &p);
	if (r < 0)
		return error_set_errno(err, r, "a block that does not fit its object's file");
	if (r != 0)
		return r;
	return finish(s, &p, write_block(s, &p, data));
}

bool store_would_take(struct store *s, const struct store_block *b, enum store_admit admit)
{
	enum block_class class = CLASS_ELASTIC;
	struct directory_entry e;
	struct dataset *ds;

	if (!block_valid(b))
		return false;
	floor_refresh(s);
	mutex_guard(&s->mu);
	ds = dataset_get_locked(s, b->dataset_id);
	if (!ds || directory_lookup(s->directory, &b->id, &e) ||
		(s->degraded_until_ms && !clock_passed(s->degraded_until_ms)))
		return false;
	if (admit_class_locked(s, ds, &b->id, b->len, admit, false, &class) != 0)
		return false;
	if (could_make_room_locked(s, class, disk_need(b)))
		return true;
	s->ceiling.refused += class == CLASS_PINNED;
	return false;
}
