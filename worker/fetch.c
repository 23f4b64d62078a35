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

uint32_t fetch_filled(const struct fetch *f)
{
	return f->start + atomic_load(&f->filled);
}

const unsigned char *fetch_bytes(const struct fetch *f, uint32_t offset)
{
	assert(offset >= f->start && offset <= fetch_filled(f));
	return f->buffer->data + (offset - f->start);
}

static int failure_locked(const struct fetch *f, int64_t deadline_ms, struct error *err)
{
	if (f->result > 0)
		return FETCH_AGAIN;
	/* The deadline, or the cancel, was that of the readers for whom it was started. */
	if ((f->result == -ETIMEDOUT || f->result == -ECANCELED) && !clock_passed(deadline_ms))
		return FETCH_AGAIN;
	return error_set(err, f->result, "%s", f->err.text);
}

/* Sleeps until something changes; -ECANCELED once the reader is gone. */
static int doze_locked(
	struct fetch *f, int64_t deadline_ms, fetch_gone_fn *gone, void *arg, struct error *err)
{
	struct mutex *mu = fetch_table_lock(f->table);
	int64_t slice_ms = clock_deadline_ms(GONE_CHECK_MS);
	bool left;

	if (cond_wait(&f->changed, mu, slice_ms < deadline_ms ? slice_ms : deadline_ms) == 0)
		return 0;
	if (clock_passed(deadline_ms))
		return error_set(err, -ETIMEDOUT, "the origin did not answer in time");
	mutex_unlock(mu);
	left = gone(arg);
	mutex_lock(mu);
	return left ? error_set(err, -ECANCELED, "the reader is gone") : 0;
}

static int wait_locked(struct fetch *f, uint32_t want, int64_t deadline_ms, fetch_gone_fn *gone,
	void *arg, struct error *err)
{
	int r = 0;

	while (r == 0) {
		/* Before filled is looked at: progress stores filled first, so one of the two sides
		 * sees the other. */
		if (atomic_load(&f->wake_at) > want)
			atomic_store(&f->wake_at, want);
		if (atomic_load(&f->filled) >= want)
			return 0;
		if (f->state == FETCH_FAILED)
			return failure_locked(f, deadline_ms, err);
		r = doze_locked(f, deadline_ms, gone, arg, err);
	}
	return r;
}

int fetch_wait(struct fetch *f, uint32_t upto, int64_t deadline_ms, fetch_gone_fn *gone, void *arg,
	struct error *err)
{
	uint32_t want = upto - f->start;

	assert(upto > f->start && upto <= f->end);
	if (atomic_load(&f->filled) >= want)
		return 0;
	mutex_guard(fetch_table_lock(f->table));
	return wait_locked(f, want, deadline_ms, gone, arg, err);
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
	set_filled(arg, (uint32_t)filled);
}

static int get_buffer(struct fetch *f, struct error *err)
{
	struct buffer *b;
	int64_t slice_ms;
	int r;

	do {
		if (atomic_load(&f->cancel))
			return error_set(err, -ECANCELED, "nobody waits any more");
		slice_ms = clock_deadline_ms(GONE_CHECK_MS);
		r = buffer_pool_get(fetch_table_buffers(f->table), f->end - f->start,
			slice_ms < f->deadline_ms ? slice_ms : f->deadline_ms, &b);
	} while (r == -ETIMEDOUT && !clock_passed(f->deadline_ms));
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

static int get_bytes(struct fetch *f, struct error *err)
{
	cleanup_buf struct buf path = BUF_INIT;
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
		.offset = f->block.index * BLOCK_BYTES + f->start,
		.len = f->end - f->start,
		.dst = f->buffer->data,
		.progress = progress,
		.arg = f,
		.cancel = &f->cancel,
		.deadline_ms = f->deadline_ms,
	};
	r = origin_get(f->dataset->origin, &get, err);
	return r > 0 ? describe(f, &path, r, err) : r;
}

static bool store_bytes(struct fetch *f)
{
	enum store_admit admit =
		f->goal == FETCH_STORE_GRANT ? STORE_ADMIT_GRANT : STORE_ADMIT_ELASTIC;
	struct error err = ERROR_INIT;
	int r;

	r = store_put(fetch_table_store(f->table), &f->block, admit, f->buffer->data, &err);
	if (r < 0)
		log_debug("dataset %s: a block was not stored: %s", f->dataset->name, err.text);
	return r == 0 || r == STORE_EXISTS;
}

static int run(struct fetch *f, bool *ret_stored, struct error *err)
{
	int r;

	/* The fetch before this one may have stored the block after our reader missed it. */
	if (f->goal != FETCH_PASS && store_has(fetch_table_store(f->table), &f->block.id))
		return FETCH_AGAIN;
	r = get_buffer(f, err);
	if (r < 0)
		return r;
	r = get_bytes(f, err);
	dataset_count_origin(f->dataset, f->job, r == 0 ? f->end - f->start : f->filled);
	if (r < 0) {
		if (r != -ECANCELED)
			dataset_count_failure(f->dataset, err->text);
		return r;
	}
	set_filled(f, f->end - f->start);
	if (f->goal != FETCH_PASS)
		*ret_stored = store_bytes(f);
	return 0;
}

void fetch_run(struct work *w)
{
	struct fetch *f = (struct fetch *)((char *)w - offsetof(struct fetch, work));
	struct error err = ERROR_INIT;
	bool stored = false;
	int r;

	r = run(f, &stored, &err);
	fetch_table_finish(f, r, stored, &err);
	fetch_unref(f);
}
