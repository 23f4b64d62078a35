/*
 * Group commit. Operations are queued in the order in which they became true in memory; a thread
 * takes all that are there and makes them durable:
 *
 *	1. datasync of every file that the round's puts wrote to; sync of the folders if files
 *	   are new
 *	2. one synced batch of records, in order
 *	3. free what the round's deletes gave up: punch, leave to a holder, remove empty files
 *
 * so bytes are durable before the index names them, and a delete is durable before its place is
 * used again. When 1 fails for a file, its blocks of this round are dropped: after a failed sync
 * nobody knows what the disk has. When 2 fails the round goes back to the head of the queue and is
 * tried again; meanwhile nothing is stored.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "common/cleanup.h"
#include "store/store_private.h"

#define LOG_SUBSYSTEM "store"
#include "common/log.h"

#define RETRY_MS 1000
#define IDLE_MS 1000
#define AWAITED_MS 1000

struct round {
	struct commit_op *ops;
	size_t count;
	uint64_t put_bytes, freed_bytes;
	bool dirs_dirty;
};

/* Grows by doubling; the queue is bounded by those who wait when commit_behind_locked. Without
 * memory for a queue of operations the process could not keep its word about what is on disk, so it
 * ends: the store is safe against that. */
static void queue_reserve(struct commit *c, size_t room)
{
	struct commit_op *ops;

	if (room <= c->room)
		return;
	room = room < 2 * c->room ? 2 * c->room : room;
	room = room < 256 ? 256 : room;
	ops = reallocarray(c->ops, room, sizeof(*ops));
	assert(ops);
	c->ops = ops;
	c->room = room;
}

void commit_add_locked(struct store *s, const struct commit_op *op)
{
	struct commit *c = &s->commit;

	queue_reserve(c, c->count + 1);
	if (!c->count) {
		c->oldest_ms = clock_mono_ms();
		cond_signal(&s->work);
	}
	c->ops[c->count++] = *op;
	c->queued++;
	if (op->put) {
		c->put_bytes += op->len;
		op->file->dirty = true;
		if (c->put_bytes > s->uncommitted_max_bytes / 4)
			commit_kick_locked(s);
	}
	if (op->file && op->record.key_len)
		op->file->unsettled++;
	if (op->free && !op->file->holders && !op->file->awaited)
		c->freed_bytes += place_bytes(op->file, op->len);
	if (c->count == COMMIT_OPS_MAX / 2)
		commit_kick_locked(s);
}

void commit_kick_locked(struct store *s)
{
	if (s->commit.kicked)
		return;
	s->commit.kicked = true;
	cond_signal(&s->work);
}

bool commit_behind_locked(const struct store *s)
{
	return s->commit.count >= COMMIT_OPS_MAX || s->commit.put_bytes > s->uncommitted_max_bytes;
}

int room_wait_locked(struct store *s, int64_t deadline_ms)
{
	return cond_wait(&s->room, &s->mu, deadline_ms);
}

static void round_take_locked(struct store *s, struct round *r)
{
	struct commit *c = &s->commit;

	*r = (struct round){.ops = c->ops,
		.count = c->count,
		.put_bytes = c->put_bytes,
		.freed_bytes = c->freed_bytes,
		.dirs_dirty = c->dirs_dirty};
	c->ops = NULL;
	c->count = c->room = 0;
	c->kicked = c->dirs_dirty = false;
}

/* The blocks of the round that lie in the file are gone, as far as anybody can tell. */
static void drop_unsynced_locked(struct store *s, struct round *r, const struct store_file *f)
{
	for (size_t i = 0; i < r->count; i++) {
		struct commit_op *op = &r->ops[i];
		struct directory_entry e;
		struct record rec;

		if (!op->put || op->file != f)
			continue;
		if (record_decode(op->record.key, op->record.key_len, op->record.value,
			    op->record.value_len, &rec) == 0 &&
			directory_lookup(s->directory, &rec.block.id, &e) && e.file == f->number &&
			e.page == op->page)
			drop_slot_locked(s, &e);
		op->record.value_len = 0;
	}
}

static int sync_file(struct store *s, const struct store_file *f)
{
	const struct store_disk *d = s->disk;
	bool sparse = f->kind == FILE_SPARSE;
	struct fd_entry *fd;
	int r;

	r = fd_cache_get(&s->fds, f->number, sparse, &fd);
	if (r < 0)
		return r;
	r = d->datasync(d->ctx, fd_entry_data(fd));
	if (r == 0 && sparse)
		r = d->datasync(d->ctx, fd_entry_checks(fd));
	fd_cache_put(&s->fds, fd);
	return r;
}

static void sync_data(struct store *s, struct round *r)
{
	for (size_t i = 0; i < r->count; i++) {
		struct commit_op *op = &r->ops[i];
		bool dirty, broken;
		int ret;

		if (!op->put)
			continue;
		mutex_lock(&s->mu);
		dirty = op->file->dirty;
		op->file->dirty = false;
		broken = op->file->broken;
		mutex_unlock(&s->mu);
		if (!dirty)
			continue;
		ret = broken ? -EIO : sync_file(s, op->file);
		if (ret == 0)
			continue;
		mutex_guard(&s->mu);
		/* What was written before the failure but is in no round yet may be lost as well,
		 * and no later sync would say so. */
		op->file->broken = true;
		degrade_locked(s, ret, "data could not be synced");
		drop_unsynced_locked(s, r, op->file);
	}
}

static int sync_dirs(struct store *s)
{
	char path[STORE_PATH_BYTES];
	int r;

	snprintf(path, sizeof(path), "%s/segments", s->dir);
	r = s->disk->syncdir(s->disk->ctx, path);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/files", s->dir);
	return s->disk->syncdir(s->disk->ctx, path);
}

static int write_records(struct store *s, const struct round *r, struct error *err)
{
	cleanup_free struct record_bytes *records = calloc(r->count + 1, sizeof(*records));
	size_t count = 0;

	if (!records)
		return error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < r->count; i++) {
		if (r->ops[i].record.key_len)
			records[count++] = r->ops[i].record;
	}
	return count ? s->disk->index->write(s->index, records, count, err) : 0;
}

static int by_place(const void *a, const void *b)
{
	const struct commit_op *x = *(struct commit_op *const *)a;
	const struct commit_op *y = *(struct commit_op *const *)b;

	if (x->file->number != y->file->number)
		return x->file->number < y->file->number ? -1 : 1;
	return x->page < y->page ? -1 : x->page > y->page;
}

/* Neighbours are punched together: a dropped dataset is a few large holes, not many small ones. */
static void free_places(struct store *s, struct commit_op **ops, size_t count)
{
	size_t i = 0;

	qsort(ops, count, sizeof(ops[0]), by_place);
	while (i < count) {
		struct store_file *f = ops[i]->file;
		uint32_t first = ops[i]->page, pages;

		if (f->kind == FILE_SPARSE) {
			sparse_free(s, f, ops[i++]->page);
			continue;
		}
		pages = slot_pages(ops[i++]->len);
		while (i < count && ops[i]->file == f && ops[i]->page == first + pages)
			pages += slot_pages(ops[i++]->len);
		segment_free(s, f, first, pages);
	}
}

static bool idle_locked(const struct store_file *f)
{
	return !f->pins && !f->blocks && !f->holders && !f->retiring;
}

/* Removes a file that holds nothing any more, unless somebody has it open still: its blocks of the
 * disk would go on being used, and be charged to nobody. */
static void retire(struct store *s, struct store_file *f)
{
	struct commit_op op = {0};
	bool in_use = false;

	mutex_lock(&s->mu);
	if (f->kind == FILE_SPARSE && idle_locked(f)) {
		mutex_unlock(&s->mu);
		in_use = file_in_use(s, f);
		mutex_lock(&s->mu);
	}
	if (in_use)
		file_await_locked(s, f);
	if (in_use || !idle_locked(f)) {
		mutex_unlock(&s->mu);
		return;
	}
	f->retiring = true;
	if (s->revoke)
		s->revoke(s->revoke_arg, f->number);
	mutex_unlock(&s->mu);
	fd_cache_drop(&s->fds, f->number);
	file_unlink(s, f->number, f->kind);
	mutex_lock(&s->mu);
	file_record(f, true, &op.record);
	commit_add_locked(s, &op);
	file_forget_locked(s, f);
	mutex_unlock(&s->mu);
}

static int by_file(const void *a, const void *b)
{
	const struct commit_op *x = a, *y = b;

	return x->file < y->file ? -1 : x->file > y->file;
}

/* What follows a durable round, file by file. */
static void settle_files(struct store *s, struct round *r)
{
	size_t i = 0;

	qsort(r->ops, r->count, sizeof(r->ops[0]), by_file);
	while (i < r->count) {
		struct store_file *f = r->ops[i].file;
		uint32_t pins = 0, records = 0;

		for (; i < r->count && r->ops[i].file == f; i++) {
			pins++;
			records += r->ops[i].record.key_len > 0;
		}
		if (!f)
			continue;
		mutex_lock(&s->mu);
		assert(f->unsettled >= records);
		f->unsettled -= records;
		mutex_unlock(&s->mu);
		if (f->kind == FILE_SPARSE)
			sparse_holders_gone(s, f);
		file_measure(s, f);
		mutex_lock(&s->mu);
		assert(f->pins >= pins);
		f->pins -= pins;
		mutex_unlock(&s->mu);
		/* Only this thread retires files, so f is still there. */
		retire(s, f);
	}
}

static void round_finish(struct store *s, struct round *r)
{
	cleanup_free struct commit_op **frees = calloc(r->count + 1, sizeof(struct commit_op *));
	size_t count = 0;

	assert(frees);
	for (size_t i = 0; i < r->count; i++) {
		if (r->ops[i].free)
			frees[count++] = &r->ops[i];
	}
	free_places(s, frees, count);
	settle_files(s, r);
	mutex_guard(&s->mu);
	s->commit.put_bytes -= r->put_bytes;
	s->commit.freed_bytes -= r->freed_bytes;
	s->commit.done += r->count;
	s->commit.failures = 0;
	if (s->degraded_until_ms && clock_passed(s->degraded_until_ms)) {
		s->degraded_until_ms = 0;
		log_info("storing again");
	}
	cond_broadcast(&s->room);
	free(r->ops);
}

/* Back to the head of the queue, before what was queued meanwhile. */
static void round_requeue(struct store *s, struct round *r, int code, const char *why)
{
	struct commit *c = &s->commit;

	mutex_guard(&s->mu);
	if (!c->count)
		c->oldest_ms = clock_mono_ms();
	queue_reserve(c, c->count + r->count);
	memmove(c->ops + r->count, c->ops, c->count * sizeof(c->ops[0]));
	memcpy(c->ops, r->ops, r->count * sizeof(c->ops[0]));
	c->count += r->count;
	c->dirs_dirty |= r->dirs_dirty;
	c->failures++;
	degrade_locked(s, code, why);
	cond_broadcast(&s->room);
	free(r->ops);
}

int commit_once(struct store *s, struct error *err)
{
	struct error why = ERROR_INIT;
	struct round r;
	int ret = 0;

	mutex_lock(&s->mu);
	round_take_locked(s, &r);
	mutex_unlock(&s->mu);
	if (!r.count) {
		free(r.ops);
		return 0;
	}
	sync_data(s, &r);
	if (r.dirs_dirty)
		ret = sync_dirs(s);
	if (ret < 0)
		error_set_errno(&why, ret, "cannot sync the folders of %s", s->dir);
	else
		ret = write_records(s, &r, &why);
	if (ret < 0) {
		round_requeue(s, &r, ret, why.text);
		return error_set(err, ret, "%s", why.text);
	}
	round_finish(s, &r);
	return 0;
}

/* Has the files looked at again that others had open: nobody tells when they close one. */
static void look_at_awaited(struct store *s)
{
	struct store_file *f, *next;

	mutex_guard(&s->mu);
	if (!s->awaited || !clock_passed(s->awaited_ms + AWAITED_MS))
		return;
	s->awaited_ms = clock_mono_ms();
	DL_FOREACH_SAFE (s->awaited, f, next) {
		struct commit_op op = {.file = f};

		DL_DELETE(s->awaited, f);
		f->awaited = false;
		f->pins++;
		commit_add_locked(s, &op);
	}
}

enum work { WORK_ROUND, WORK_IDLE, WORK_END };

/* Waits until there is something to do. Idle, no round is made: a put that comes right then waits
 * for others as any does. */
static enum work wait_for_work_locked(struct store *s)
{
	struct commit *c = &s->commit;
	int64_t now = clock_mono_ms(), idle = now + IDLE_MS, retry = now + RETRY_MS;

	for (;;) {
		int64_t due = c->failures ? retry : c->oldest_ms + s->commit_interval_ms;

		if (c->stopping)
			return WORK_END;
		if (c->count && (clock_passed(due) || (c->kicked && !c->failures)))
			return WORK_ROUND;
		if (!c->count && clock_passed(idle)) {
			c->kicked = false;
			return WORK_IDLE;
		}
		cond_wait(&s->work, &s->mu, c->count ? due : idle);
	}
}

static void *commit_main(void *arg)
{
	struct store *s = arg;
	enum work work;

	pthread_setname_np(pthread_self(), "store-commit");
	for (;;) {
		mutex_lock(&s->mu);
		work = wait_for_work_locked(s);
		mutex_unlock(&s->mu);
		if (work == WORK_END)
			return NULL;
		if (work == WORK_ROUND)
			commit_once(s, NULL);
		look_at_awaited(s);
		store_measure(s, false);
		fd_cache_close_idle(&s->fds, clock_mono_ms() - 60000);
	}
}

int commit_start(struct store *s, struct error *err)
{
	int r = pthread_create(&s->commit.thread, NULL, commit_main, s);

	if (r != 0)
		return error_set_errno(err, -r, "cannot start the store's commit thread");
	s->commit.started = true;
	return 0;
}

void commit_stop(struct store *s)
{
	struct error err = ERROR_INIT;

	if (!s->commit.started)
		return;
	mutex_lock(&s->mu);
	s->commit.stopping = true;
	cond_signal(&s->work);
	mutex_unlock(&s->mu);
	pthread_join(s->commit.thread, NULL);
	s->commit.started = false;
	/* Twice: retired files leave a delete for another round. */
	for (int i = 0; i < 2; i++) {
		if (commit_once(s, &err) < 0) {
			log_error("the last commit failed, what was stored just now is lost: %s",
				err.text);
			return;
		}
	}
}

int store_sync(struct store *s, struct error *err)
{
	int64_t deadline = clock_deadline_ms(60000);
	uint64_t want;

	mutex_guard(&s->mu);
	want = s->commit.queued;
	while (s->commit.done < want) {
		if (s->commit.failures)
			return error_set(err, -EIO, "the store cannot commit: %s", s->degraded);
		/* Not for a round under way: the next put would not wait for others. */
		if (s->commit.count > 0)
			commit_kick_locked(s);
		if (room_wait_locked(s, deadline) == -ETIMEDOUT)
			return error_set(err, -ETIMEDOUT, "the store did not commit in time");
	}
	return 0;
}
