#include "worker/block_read.h"

#include <errno.h>

#include "common/cleanup.h"
#include "placement/pin.h"

#define SEND_MAX_BYTES ((uint32_t)512 << 10)
#define ARRIVED_MIN_BYTES \
	((uint32_t)128 << 10) /* of a fetch: smaller pieces cost more than they gain */
#define AGAIN_MAX 2
#define WAIT_TOLD_US 1000 /* the least that is worth a chunk */

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* What was short, or came after it was told last, is told before the last bytes: with these the read
 * may end. */
static int send_bytes(const struct block_read *read, struct fetch_reader *reader, bool from_origin,
	const void *data, uint32_t from, uint32_t upto, void (*release)(void *holder), void *holder,
	struct error *err)
{
	if (upto == read->offset + read->len && reader->waits &&
		reader->waited_us >= reader->told_us + WAIT_TOLD_US)
		reader->waits(reader->arg, reader->waited_us);
	if (read->send(read->arg, from_origin, data, upto - from, release, holder) < 0)
		return error_set(err, -ECANCELED, "the reader is gone");
	return 0;
}

/* ---- from the store -------------------------------------------------------------------------- */

static void release_buffer(void *holder)
{
	buffer_put(holder);
}

/* Pieces end where a checksum ends, so that no stretch is read and verified twice. */
static uint32_t store_piece_end(uint32_t pos, uint32_t end)
{
	uint32_t cut;

	if (end - pos <= SEND_MAX_BYTES)
		return end;
	cut = pos + SEND_MAX_BYTES;
	return cut - cut % (uint32_t)BLOCK_CHECK_BYTES;
}

/* Moves *pos over what the store has; 0 also when it has nothing. */
static int read_store(struct block_reader *r, const struct block_read *read,
	struct fetch_reader *reader, uint32_t end, uint32_t *pos, struct error *err)
{
	struct buffer *b;
	uint32_t piece;
	int e;

	while (*pos < end) {
		piece = store_piece_end(*pos, end) - *pos;
		e = buffer_pool_get(r->buffers, piece, fetch_reader_deadline_ms(reader), &b);
		if (e < 0)
			return error_set(err, e, "no memory to read a block came free in time");
		e = store_read(r->store, &read->block, *pos, piece, b->data, NULL);
		if (e != 0) {
			buffer_put(b);
			return 0;
		}
		e = send_bytes(
			read, reader, false, b->data, *pos, *pos + piece, release_buffer, b, err);
		if (e < 0)
			return e;
		*pos += piece;
	}
	return 0;
}

/* ---- what a miss does ------------------------------------------------------------------------ */

/* Is the same object in the current snapshot? Then the rule of the pin holds for the block. */
static bool object_is_current(const struct block_read *read)
{
	char digest[MANIFEST_DIGEST_TEXT_BYTES];
	cleanup_buf struct buf path = BUF_INIT;
	struct manifest *m = NULL;
	struct manifest_entry e;
	uint32_t index;
	bool current, same;

	if (read->current)
		return true;
	dataset_current_digest(read->dataset, digest);
	if (dataset_manifest(read->dataset, digest, &m, &current) != 0)
		return false;
	same = manifest_path(read->manifest, read->entry, &path) == 0 &&
	       manifest_lookup_path(m, path.data, path.len, &index) == 0 &&
	       manifest_entry(m, index, &e) == 0 && e.object.hi == read->block.object.hi &&
	       e.object.lo == read->block.object.lo;
	manifest_unref(m);
	return same;
}

/* As far as the store has room: a full one pins less than the plan says. */
static bool is_pinned(struct block_reader *r, const struct block_read *read)
{
	return pin_holds(atomic_load(&read->dataset->threshold), &read->block.id) &&
	       pin_holds(store_pin_ceiling(r->store), &read->block.id);
}

static bool is_read_again(struct block_reader *r, const struct block_read *read)
{
	return reuse_read(r->reuse, &read->block.id, read->block.len, read->offset, read->len);
}

static bool will_be_read_again(struct block_reader *r, const struct block_read *read)
{
	return reuse_is_worth(r->reuse, &read->block.id, read->block.len);
}

static enum fetch_goal choose_lru(struct block_reader *r, const struct store_block *b, bool current)
{
	if (!store_would_take(r->store, b, current ? STORE_ADMIT_LRU : STORE_ADMIT_ELASTIC))
		return FETCH_PASS;
	return current ? FETCH_STORE_LRU : FETCH_STORE_ELASTIC;
}

/* `again`: whether a block that is not pinned has earned a whole fetch. */
static enum fetch_goal choose_goal(struct block_reader *r, const struct block_read *read,
	bool (*again)(struct block_reader *r, const struct block_read *read))
{
	const struct store_block *b = &read->block;
	bool current = object_is_current(read);
	enum store_admit admit = current ? STORE_ADMIT_GRANT : STORE_ADMIT_ELASTIC;

	if (current && is_pinned(r, read) && store_would_take(r->store, b, admit))
		return FETCH_STORE_GRANT;
	if (atomic_load(&read->dataset->elastic))
		return choose_lru(r, b, current);
	if (current && is_pinned(r, read))
		return FETCH_PASS;
	if (!again(r, read))
		return FETCH_PASS;
	if (!store_would_take(r->store, b, admit))
		return FETCH_PASS;
	/* Should the store not take it in the end, it has to earn the next whole fetch anew. */
	reuse_forget(r->reuse, &b->id);
	return current ? FETCH_STORE_GRANT : FETCH_STORE_ELASTIC;
}

/* ---- from a fetch ---------------------------------------------------------------------------- */

static void release_fetch(void *holder)
{
	fetch_unref(holder);
}

/* Sends [*pos, end) as it arrives. */
static int send_arriving(const struct block_read *read, struct fetch_reader *reader,
	struct fetch *f, uint32_t end, uint32_t *pos, struct error *err)
{
	uint32_t upto, from;
	int e;

	while (*pos < end) {
		from = *pos;
		upto = min_u32(end, from + ARRIVED_MIN_BYTES);
		e = fetch_wait(f, from, min_u32(upto, fetch_straight_end(f, from)), reader, err);
		if (e != 0)
			return e;
		upto = min_u32(min_u32(end, fetch_arrived_end(f, from)), from + SEND_MAX_BYTES);
		e = send_bytes(read, reader, true, fetch_bytes(f, from), from, upto, release_fetch,
			fetch_ref(f), err);
		if (e < 0)
			return e;
		*pos = upto;
		fetch_table_served(f, from, upto - from);
	}
	return 0;
}

static enum fetch_leave leave_reason(int result)
{
	if (result == -ETIMEDOUT)
		return FETCH_LEAVE_TIMED_OUT;
	return result < 0 ? FETCH_LEAVE_CANCELLED : FETCH_LEAVE_SERVED;
}

/* Moves *pos over what one fetch covers; FETCH_AGAIN to look at the store again. */
static int read_fetch(struct block_reader *r, const struct block_read *read,
	struct fetch_reader *reader, enum fetch_goal goal, uint32_t end, uint32_t *pos,
	struct error *err)
{
	const struct fetch_want want = {
		.dataset = read->dataset,
		.manifest = read->manifest,
		.entry = read->entry,
		.block = &read->block,
		.goal = goal,
		.offset = *pos,
		.end = end,
		.read_ahead = read->read_ahead,
		.job = read->job,
		.here = reader->cancel != NULL,
	};
	struct fetch *f;
	bool run;
	int e;

	f = fetch_table_acquire(r->fetches, &want, &run);
	if (!f)
		return error_set(err, -EAGAIN, "the worker is out of memory");
	if (goal == FETCH_PASS)
		fetch_table_read_ahead(r->fetches, &want);
	if (run)
		fetch_run_here(f, reader);
	e = send_arriving(read, reader, f, min_u32(end, f->end), pos, err);
	fetch_table_release(f, leave_reason(e));
	return e;
}

static int read_all(struct block_reader *r, const struct block_read *read,
	struct fetch_reader *reader, struct error *err)
{
	uint32_t pos = read->offset, end = read->offset + read->len;
	enum fetch_goal goal;
	unsigned again = 0;
	int e;

	e = read_store(r, read, reader, end, &pos, err);
	if (e < 0 || pos == end)
		return e;
	goal = choose_goal(r, read, is_read_again);
	/* The store does not take what it has: another fetch has put it there since the look. */
	if (goal == FETCH_PASS && store_has(r->store, &read->block.id)) {
		e = read_store(r, read, reader, end, &pos, err);
		if (e < 0)
			return e;
	}
	while (pos < end) {
		/* A store that says that it has the block, but cannot read it, is left out. */
		e = read_fetch(
			r, read, reader, again > AGAIN_MAX ? FETCH_PASS : goal, end, &pos, err);
		if (e < 0)
			return e;
		if (e == FETCH_LATER)
			return BLOCK_READ_LATER;
		if (e == FETCH_AGAIN) {
			/* Stored meanwhile, or the fetch died with the readers it was made for. */
			again++;
			if (reader->gone(reader->arg))
				return error_set(err, -ECANCELED, "the reader is gone");
			e = read_store(r, read, reader, end, &pos, err);
			if (e < 0)
				return e;
		}
	}
	return 0;
}

int block_reader_read(struct block_reader *r, const struct block_read *read, struct error *err)
{
	struct fetch_reader reader = {
		.deadline_ms = read->deadline_ms,
		.gone = read->gone,
		.cancel = read->cancel,
		.waits = read->waits,
		.arg = read->arg,
	};

	return read_all(r, read, &reader, err);
}

bool block_reader_prefetch(struct block_reader *r, const struct block_read *read)
{
	struct fetch_want want = {
		.dataset = read->dataset,
		.manifest = read->manifest,
		.entry = read->entry,
		.block = &read->block,
		.offset = read->offset,
		.end = read->offset + read->len,
		.read_ahead = read->len == read->block.len ? read->len : 0,
		.job = read->job,
	};

	if (store_has(r->store, &read->block.id))
		return false;
	want.goal = choose_goal(r, read, will_be_read_again);
	return fetch_table_prefetch(r->fetches, &want);
}
