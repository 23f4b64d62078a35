#include "worker/fetch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "worker/fetch_table.h"

#define LOG_SUBSYSTEM "worker"
#include "common/log.h"

#define GONE_CHECK_MS 100 /* how soon a cancelled reader stops waiting */
#define NOBODY_WAITS UINT32_MAX

struct fetch *fetch_ref(struct fetch *f)
{
	atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
	return f;
}

void fetch_unref(struct fetch *f)
{
	if (!f || atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel) > 1)
		return;
	assert(!f->group && !f->kept);
	if (f->buffer)
		buffer_put(f->buffer);
	dataset_unref(f->dataset);
	manifest_unref(f->manifest);
	cond_deinit(&f->changed);
	free(f);
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* How many bytes come before that one. */
static uint32_t bytes_before(const struct fetch *f, uint32_t offset)
{
	assert(offset >= f->start && offset < f->end);
	if (offset >= f->begin)
		return offset - f->begin;
	return f->end - f->begin + (offset - f->start);
}

uint32_t fetch_straight_end(const struct fetch *f, uint32_t offset)
{
	return offset >= f->begin ? f->end : f->begin;
}

/* How many have to be filled before all of [from, upto) are. */
uint32_t fetch_needs(const struct fetch *f, uint32_t from, uint32_t upto)
{
	if (from < f->begin && upto > f->begin)
		return f->end - f->start;
	return bytes_before(f, upto - 1) + 1;
}

uint32_t fetch_arrived_end(const struct fetch *f, uint32_t offset)
{
	uint32_t filled = atomic_load(&f->filled), before = bytes_before(f, offset);
	uint32_t left = fetch_straight_end(f, offset) - offset;

	if (filled <= before)
		return offset;
	return offset + (filled - before < left ? filled - before : left);
}

const unsigned char *fetch_bytes(const struct fetch *f, uint32_t offset)
{
	assert(fetch_arrived_end(f, offset) > offset);
	return f->buffer->data + (offset - f->start);
}

/* The offset within the block at which the next piece begins. */
static uint32_t piece_offset(const struct fetch *f)
{
	uint32_t behind = f->end - f->begin;

	if (f->piece_start < behind)
		return f->begin + f->piece_start;
	return f->start + (f->piece_start - behind);
}

uint32_t fetch_next_bytes(const struct fetch *f)
{
	uint32_t filled = atomic_load(&f->filled), behind = f->end - f->begin;

	if (filled == 0)
		return f->first_bytes;
	return (filled < behind ? behind : f->end - f->start) - filled;
}

int64_t fetch_reader_deadline_ms(const struct fetch_reader *reader)
{
	if (reader->deadline_ms == CLOCK_NEVER)
		return CLOCK_NEVER;
	return reader->deadline_ms + (int64_t)(reader->waited_us / 1000);
}

static int failure_locked(
	const struct fetch *f, const struct fetch_reader *reader, struct error *err)
{
	if (f->result > 0)
		return FETCH_AGAIN;
	/* The deadline, or the cancel, was that of the readers for whom it was started. */
	if ((f->result == -ETIMEDOUT || f->result == -ECANCELED) &&
		!clock_passed(fetch_reader_deadline_ms(reader)))
		return FETCH_AGAIN;
	return error_set(err, f->result, "%s", f->err.text);
}

/* What the fetch has waited for its turn since *seen_us is none of the reader's time. */
static void note_waits(const struct fetch *f, struct fetch_reader *reader, int64_t *seen_us)
{
	int64_t us = origin_turn_waited_us(&f->turn);

	if (us > *seen_us)
		reader->waited_us += (uint64_t)(us - *seen_us);
	*seen_us = us;
}

static int ask_reader(struct fetch_reader *reader, struct error *err)
{
	if (reader->waits && reader->waited_us - reader->told_us >= FETCH_WAITS_US) {
		reader->told_us = reader->waited_us;
		if (!reader->waits(reader->arg, reader->waited_us))
			return FETCH_LATER;
	}
	return reader->gone(reader->arg) ? error_set(err, -ECANCELED, "the reader is gone") : 0;
}

/* Sleeps until something changes; -ECANCELED once the reader is gone, or FETCH_LATER. */
static int doze_locked(
	struct fetch *f, struct fetch_reader *reader, int64_t *seen_us, struct error *err)
{
	struct mutex *mu = fetch_table_lock(f->table);
	int64_t deadline_ms = fetch_reader_deadline_ms(reader);
	int64_t slice_ms = clock_deadline_ms(GONE_CHECK_MS);
	int r;

	r = cond_wait(&f->changed, mu, slice_ms < deadline_ms ? slice_ms : deadline_ms);
	note_waits(f, reader, seen_us);
	if (r == 0)
		return 0;
	if (clock_passed(fetch_reader_deadline_ms(reader)))
		return error_set(err, -ETIMEDOUT, "the origin did not answer in time");
	mutex_unlock(mu);
	r = ask_reader(reader, err);
	mutex_lock(mu);
	return r;
}

static int wait_locked(
	struct fetch *f, uint32_t want, struct fetch_reader *reader, struct error *err)
{
	int64_t seen_us = origin_turn_waited_us(&f->turn);
	int r = 0;

	while (r == 0) {
		/* Before filled is looked at: progress stores filled first, so one of the two sides
		 * sees the other. */
		if (atomic_load(&f->wake_at) > want)
			atomic_store(&f->wake_at, want);
		if (atomic_load(&f->filled) >= want)
			return 0;
		if (f->state == FETCH_FAILED)
			return failure_locked(f, reader, err);
		r = doze_locked(f, reader, &seen_us, err);
	}
	return r;
}

int fetch_wait(struct fetch *f, uint32_t from, uint32_t upto, struct fetch_reader *reader,
	struct error *err)
{
	uint32_t want = fetch_needs(f, from, upto);

	if (atomic_load(&f->filled) >= want)
		return 0;
	mutex_guard(fetch_table_lock(f->table));
	return wait_locked(f, want, reader, err);
}

/* ---- running --------------------------------------------------------------------------------- */

static void set_filled(struct fetch *f, uint32_t filled)
{
	atomic_store(&f->filled, filled);
	if (atomic_load(&f->wake_at) > filled)
		return;
	mutex_guard(fetch_table_lock(f->table));
	atomic_store(&f->wake_at, NOBODY_WAITS);
	cond_broadcast(&f->changed);
}

static void progress(void *arg, uint64_t filled)
{
	struct fetch *f = arg;

	set_filled(f, f->piece_start + (uint32_t)filled);
}

/* What ends a get. */
struct limits {
	const atomic_bool *cancel;
	int64_t deadline_ms;
};

static struct limits limits_of(const struct fetch *f)
{
	int64_t waited_ms = origin_turn_waited_us(&f->turn) / 1000;

	return (struct limits){&f->cancel, f->deadline_ms + waited_ms};
}

/* While it is a reader of the fetch, nobody else cancels that. */
static struct limits limits_of_reader(const struct fetch *f, const struct fetch_reader *reader)
{
	int64_t deadline_ms = fetch_reader_deadline_ms(reader);

	return (struct limits){
		reader->cancel, deadline_ms < f->deadline_ms ? deadline_ms : f->deadline_ms};
}

static int get_buffer(struct fetch *f, const struct limits *limits, struct error *err)
{
	int64_t deadline_ms = limits->deadline_ms, slice_ms;
	struct buffer *b;
	int r;

	do {
		if (atomic_load(limits->cancel))
			return error_set(err, -ECANCELED, "nobody waits any more");
		slice_ms = clock_deadline_ms(GONE_CHECK_MS);
		r = buffer_pool_get(fetch_table_buffers(f->table), f->end - f->start,
			slice_ms < deadline_ms ? slice_ms : deadline_ms, &b);
	} while (r == -ETIMEDOUT && !clock_passed(deadline_ms));
	if (r < 0)
		return error_set(err, r, "no memory for a fetch came free in time");
	f->buffer = b;
	return 0;
}

/* "s3://bucket/prefix/path", for texts. */
static void name_object(
	const struct fetch *f, const struct buf *path, char ret[static ERROR_OBJECT_BYTES])
{
	cleanup_buf struct buf name = BUF_INIT;
	size_t n;

	buf_append_str(&name, f->dataset->url);
	n = name.len;
	if (n == 0 || name.data[n - 1] != '/')
		buf_append_str(&name, "/");
	buf_append(&name, path->data, path->len);
	error_cut(ret, ERROR_OBJECT_BYTES, name.data ? name.data : "?", name.data ? name.len : 1);
}

static int describe(const struct fetch *f, const struct buf *path, int outcome, struct error *err)
{
	char name[ERROR_OBJECT_BYTES];

	name_object(f, path, name);
	if (outcome == ORIGIN_CHANGED)
		return error_set(err, -ESTALE,
			"%s: it is not the object of the snapshot any more (changed at the "
			"origin); `granary dataset refresh %s` takes a new snapshot",
			name, f->dataset->name);
	return error_set(err, -ESTALE,
		"%s: there is no such object any more (gone from the origin); `granary "
		"dataset refresh %s` takes a new snapshot",
		name, f->dataset->name);
}

/* What the turn allows; *received are the bytes that it cost. */
static int get_piece(
	struct fetch *f, const struct limits *limits, uint64_t *received, struct error *err)
{
	cleanup_buf struct buf path = BUF_INIT;
	uint32_t offset = piece_offset(f);
	struct manifest_entry e;
	struct origin_get get;
	int r;

	if (!f->dataset->origin)
		return error_set(err, -EIO, "%s", f->dataset->origin_error.text);
	r = manifest_entry(f->manifest, f->entry, &e);
	if (r == 0)
		r = manifest_path(f->manifest, f->entry, &path);
	if (r < 0)
		return error_set_errno(err, -EIO, "dataset %s: manifest %s", f->dataset->name,
			manifest_info(f->manifest)->digest);
	get = (struct origin_get){
		.path = path.data,
		.path_len = path.len,
		.validator = e.validator,
		.object_bytes = f->block.object_bytes,
		.offset = f->block.index * BLOCK_BYTES + offset,
		.len = f->turn.bytes,
		.dst = f->buffer->data + (offset - f->start),
		.progress = progress,
		.arg = f,
		.cancel = limits->cancel,
		.deadline_ms = limits->deadline_ms,
		.received = received,
	};
	r = origin_get(f->dataset->origin, &get, err);
	return r > 0 ? describe(f, &path, r, err) : r;
}

static bool store_bytes(struct fetch *f)
{
	static const enum store_admit admits[] = {
		[FETCH_STORE_GRANT] = STORE_ADMIT_GRANT,
		[FETCH_STORE_ELASTIC] = STORE_ADMIT_ELASTIC,
		[FETCH_STORE_LRU] = STORE_ADMIT_LRU,
	};
	enum store_admit admit = admits[atomic_load(&f->goal)];
	struct error err = ERROR_INIT;
	int r;

	r = store_put(fetch_table_store(f->table), &f->block, admit, f->buffer->data, &err);
	if (r < 0)
		log_debug("dataset %s: a block was not stored: %s", f->dataset->name, err.text);
	return r == 0 || r == STORE_EXISTS;
}

/* 0 when there is something to get and room for it. */
static int prepare(struct fetch *f, const struct limits *limits, struct error *err)
{
	if (atomic_load(limits->cancel))
		return error_set(err, -ECANCELED, "nobody waits any more");
	/* The fetch before this one may have stored the block after our reader missed it. */
	if (atomic_load(&f->goal) != FETCH_PASS && !f->buffer &&
		store_has(fetch_table_store(f->table), &f->block.id))
		return FETCH_AGAIN;
	return f->buffer ? 0 : get_buffer(f, limits, err);
}

static int run_turn(struct fetch *f, struct limits limits, struct error *err)
{
	uint64_t received = 0;
	int r;

	f->piece_start = atomic_load(&f->filled);
	r = prepare(f, &limits, err);
	if (r == 0)
		r = get_piece(f, &limits, &received, err);
	origin_queue_done(fetch_table_origins(f->table), &f->turn, received);
	if (received > 0)
		dataset_count_origin(f->dataset, f->job, received);
	if (origin_ignores_ranges(received, f->turn.bytes)) {
		f->turn.undivided = true;
		atomic_store(&f->dataset->undivided, true);
	}
	if (r < 0 && r != -ECANCELED)
		dataset_count_failure(f->dataset, err->text);
	if (r == 0)
		set_filled(f, f->piece_start + f->turn.bytes);
	return r;
}

static bool complete(const struct fetch *f)
{
	return atomic_load(&f->filled) == f->end - f->start;
}

static void end_run(struct fetch *f, int r, const struct error *err)
{
	bool stored = r == 0 && atomic_load(&f->goal) != FETCH_PASS && store_bytes(f);

	fetch_table_finish(f, r, stored, err);
	fetch_unref(f);
}

void fetch_run(struct work *w)
{
	struct fetch *f = (struct fetch *)((char *)w - offsetof(struct fetch, work));
	struct error err = ERROR_INIT;
	int r = 0;

	while (r == 0 && !complete(f)) {
		r = run_turn(f, limits_of(f), &err);
		if (r == 0 && !complete(f) && !fetch_table_next_turn(f))
			return; /* it runs again, and may do so already */
	}
	end_run(f, r, &err);
}

void fetch_run_here(struct fetch *f, const struct fetch_reader *reader)
{
	struct error err = ERROR_INIT;
	int r = run_turn(f, limits_of_reader(f, reader), &err);

	if (r != 0 || (atomic_load(&f->goal) == FETCH_PASS && complete(f)) || !fetch_table_go_on(f))
		end_run(f, r, &err);
}
