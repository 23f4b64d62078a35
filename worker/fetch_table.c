#include "worker/fetch_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker/fetch_index.h"

#define HERE_MAX_BYTES ((uint32_t)256 << 10)
#define PART_BLOCK_MIN_BYTES ((uint32_t)1 << 20) /* smaller blocks come whole */
#define PART_MOST 4				 /* a part is so much of its block at most */

struct fetch_table {
	struct store *store;
	struct origin_queue *origins;
	struct work_queue *queue;
	struct buffer_pool *buffers;
	int64_t timeout_ms;
	struct mutex mu;

	/* guarded by mu */
	struct fetch_index index;
	struct fetch *oldest, *newest; /* kept: arrived, and not all read */
	struct fill_queue fills;
	unsigned running_here; /* in their readers' threads */
	uint64_t ahead_bytes;
	uint64_t fetches, joined;
};

struct mutex *fetch_table_lock(struct fetch_table *t)
{
	return &t->mu;
}

struct store *fetch_table_store(struct fetch_table *t)
{
	return t->store;
}

struct buffer_pool *fetch_table_buffers(struct fetch_table *t)
{
	return t->buffers;
}

struct origin_queue *fetch_table_origins(struct fetch_table *t)
{
	return t->origins;
}

/* ---- what is in the table --------------------------------------------------------------------- */

static struct fetch_index *index_locked(struct fetch_table *t)
{
	assert(mutex_held(&t->mu));
	return &t->index;
}

static int insert_locked(struct fetch_table *t, struct fetch *f)
{
	int r = fetch_index_add(index_locked(t), f);

	if (r == 0)
		fetch_ref(f);
	return r;
}

static void unkeep_locked(struct fetch_table *t, struct fetch *f)
{
	if (!f->kept)
		return;
	f->kept = false;
	if (f->older)
		f->older->newer = f->newer;
	else
		t->oldest = f->newer;
	if (f->newer)
		f->newer->older = f->older;
	else
		t->newest = f->older;
	f->older = f->newer = NULL;
}

static void keep_locked(struct fetch_table *t, struct fetch *f)
{
	f->kept = true;
	f->older = t->newest;
	f->newer = NULL;
	if (t->newest)
		t->newest->newer = f;
	else
		t->oldest = f;
	t->newest = f;
}

/* Takes it out of the table; true when the caller has to drop the table's reference. */
static bool remove_locked(struct fetch_table *t, struct fetch *f)
{
	if (!f->group)
		return false;
	unkeep_locked(t, f);
	t->ahead_bytes -= f->ahead_bytes;
	f->ahead_bytes = 0;
	fetch_index_remove(index_locked(t), f);
	return true;
}

/* As remove_locked, for one whose bytes have all been read. */
static bool remove_read_locked(struct fetch_table *t, struct fetch *f)
{
	if (f->group && f->sequential)
		fetch_index_note_read(f);
	return remove_locked(t, f);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void run_again_locked(struct fetch_table *t, struct fetch *f)
{
	bool added;

	assert(mutex_held(&t->mu));
	added = work_queue_add(t->queue, &f->work, true);
	assert(added); /* it has a thread: work_queue_ready */
}

/* Lets go of the oldest unread bytes that are at least age_ms old; false when there are none. */
static bool drop_oldest(struct fetch_table *t, int64_t age_ms)
{
	struct fetch *f;

	mutex_lock(&t->mu);
	f = t->oldest;
	if (f && clock_mono_ms() - f->arrived_ms < age_ms)
		f = NULL;
	if (f)
		remove_locked(t, f);
	mutex_unlock(&t->mu);
	fetch_unref(f);
	return f != NULL;
}

static bool reclaim(void *arg)
{
	return drop_oldest(arg, 0);
}

int fetch_table_new(
	const struct fetch_table_options *opts, struct fetch_table **ret, struct error *err)
{
	uint64_t memory_bytes =
		opts->memory_bytes ? opts->memory_bytes : FETCH_MEMORY_DEFAULT_BYTES;
	struct fetch_table *t = calloc(1, sizeof(*t));

	if (!t)
		return error_set(err, -ENOMEM, "out of memory");
	mutex_init(&t->mu);
	fill_queue_init(&t->fills, memory_bytes);
	t->store = opts->store;
	t->origins = opts->origins;
	t->timeout_ms = opts->timeout_ms ? opts->timeout_ms : FETCH_TIMEOUT_MS;
	t->queue = work_queue_new(opts->threads ? opts->threads : FETCH_THREADS_DEFAULT);
	t->buffers = buffer_pool_new(memory_bytes, reclaim, t);
	if (!t->queue || !t->buffers) {
		fetch_table_free(t);
		return error_set(err, -ENOMEM, "out of memory");
	}
	*ret = t;
	return 0;
}

/* One that waits for its turn, or to be filled, runs at once, and finds out. */
static void cancel_locked(struct fetch_table *t, struct fetch *f)
{
	assert(mutex_held(&t->mu));
	atomic_store(&f->cancel, true);
	if (f->state != FETCH_RUNNING)
		return;
	if (fill_queue_hurry(&t->fills, &f->fill))
		run_again_locked(t, f);
	else
		origin_queue_withdraw(t->origins, &f->turn);
}

static void cancel_one(struct fetch *f)
{
	cancel_locked(f->table, f);
}

void fetch_table_free(struct fetch_table *t)
{
	if (!t)
		return;
	mutex_lock(&t->mu);
	fetch_index_each(index_locked(t), cancel_one);
	mutex_unlock(&t->mu);
	work_queue_free(t->queue);
	while (drop_oldest(t, 0))
		;
	mutex_lock(&t->mu);
	fetch_index_forget_idle(index_locked(t), 0);
	mutex_unlock(&t->mu);
	assert(!t->index.groups);
	buffer_pool_free(t->buffers);
	mutex_deinit(&t->mu);
	free(t);
}

/* ---- fills ----------------------------------------------------------------------------------- */

/* Asks for the turn of one that has no thread. */
static void resume_locked(struct fetch_table *t, struct fetch *f, bool urgent)
{
	f->deadline_ms = clock_deadline_ms(t->timeout_ms);
	if (atomic_load(&f->cancel) ||
		origin_queue_ask(t->origins, &f->turn, fetch_next_bytes(f), urgent))
		run_again_locked(t, f);
}

static void start_fills_locked(struct fetch_table *t)
{
	struct fill *fill;

	while ((fill = fill_queue_next(&t->fills)))
		resume_locked(
			t, (struct fetch *)((char *)fill - offsetof(struct fetch, fill)), false);
}

/* Nobody waits for what is still to come. */
static bool may_wait_locked(const struct fetch *f)
{
	return f->fill.state == FILL_BEGUN && f->wanted <= atomic_load(&f->filled) &&
	       !atomic_load(&f->cancel);
}

static void wait_to_fill_locked(struct fetch_table *t, struct fetch *f)
{
	fill_queue_add(&t->fills, &f->fill);
	start_fills_locked(t);
}

static void end_fill_locked(struct fetch_table *t, struct fetch *f)
{
	fill_queue_end(&t->fills, &f->fill);
	start_fills_locked(t);
}

/* ---- readers --------------------------------------------------------------------------------- */

static void want_locked(struct fetch *f, const struct fetch_want *want)
{
	uint32_t needs = fetch_needs(f, want->offset, want->end < f->end ? want->end : f->end);

	if (needs > f->wanted)
		f->wanted = needs;
}

/* Has a whole block stored that was not to be; one that has arrived runs once more for that. */
static bool adopt_locked(struct fetch_table *t, struct fetch *f, enum fetch_goal goal)
{
	if (f->start != 0 || f->end != f->block.len)
		return false;
	atomic_store(&f->goal, goal);
	if (f->state == FETCH_ARRIVED) {
		unkeep_locked(t, f);
		f->state = FETCH_RUNNING;
		origin_queue_open(t->origins, &f->turn, f->job, (uint32_t)f->buffer->room);
		fetch_ref(f);
		run_again_locked(t, f);
	}
	return true;
}

static struct fetch *join_locked(struct fetch_table *t, const struct fetch_want *want)
{
	struct fetch *f = fetch_index_find(index_locked(t), &want->block->id, want->offset);

	if (!f)
		return NULL;
	if (want->goal != FETCH_PASS && atomic_load(&f->goal) == FETCH_PASS &&
		!adopt_locked(t, f, want->goal))
		return NULL;
	f->readers++;
	t->joined++;
	want_locked(f, want);
	if (f->state == FETCH_RUNNING)
		origin_queue_join(t->origins, &f->turn, want->job);
	if (f->wanted > atomic_load(&f->filled) && fill_queue_hurry(&t->fills, &f->fill))
		resume_locked(t, f, true);
	return fetch_ref(f);
}

/* A fetch has its turn: under the lock of the origins' queue. */
static void on_granted(struct origin_turn *turn)
{
	struct fetch *f = (struct fetch *)((char *)turn - offsetof(struct fetch, turn));
	bool added = work_queue_add(f->table->queue, &f->work, true);

	assert(added); /* it has a thread: work_queue_ready */
}

/* Under the lock, so that no cancel comes between the look and the wait. */
bool fetch_table_next_turn(struct fetch *f)
{
	struct fetch_table *t = f->table;

	mutex_guard(&t->mu);
	if (may_wait_locked(f)) {
		wait_to_fill_locked(t, f);
		return false;
	}
	return atomic_load(&f->cancel) ||
	       origin_queue_ask(t->origins, &f->turn, fetch_next_bytes(f), f->readers > 0);
}

static struct fetch *make(
	struct fetch_table *t, const struct fetch_want *want, uint32_t start, uint32_t end)
{
	struct fetch *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->work.run = fetch_run;
	f->turn.granted = on_granted;
	f->turn.url = want->dataset->url;
	f->turn.undivided = atomic_load(&want->dataset->undivided);
	atomic_init(&f->refs, 1); /* the running thread's */
	f->table = t;
	f->dataset = dataset_ref(want->dataset);
	f->manifest = manifest_ref(want->manifest);
	f->entry = want->entry;
	f->block = *want->block;
	atomic_init(&f->goal, want->goal);
	f->start = f->begin = start;
	f->end = end;
	f->first_bytes = end - start;
	f->sequential = want->read_ahead > 0;
	f->deadline_ms = clock_deadline_ms(t->timeout_ms);
	strncat(f->job, want->job, sizeof(f->job) - 1);
	atomic_init(&f->wake_at, UINT32_MAX);
	cond_init(&f->changed);
	return f;
}

static void left_reader_locked(struct fetch *f)
{
	f->table->running_here -= f->here;
	f->here = false;
}

bool fetch_table_go_on(struct fetch *f)
{
	struct fetch_table *t = f->table;

	mutex_guard(&t->mu);
	if (atomic_load(&f->filled) == f->end - f->start) {
		if (!work_queue_add(t->queue, &f->work, false))
			return false;
	} else if (may_wait_locked(f)) {
		wait_to_fill_locked(t, f);
	} else {
		resume_locked(t, f, true);
	}
	left_reader_locked(f);
	return true;
}

/* Has it run, now or when it has its turn; or leaves that to the caller: `ret_run`, NULL if it does
 * not. */
static bool begin_locked(struct fetch_table *t, struct fetch *f, bool urgent, bool *ret_run)
{
	uint32_t len = f->end - f->start;

	if (!work_queue_ready(t->queue))
		return false;
	origin_queue_open(t->origins, &f->turn, f->job, (uint32_t)buffer_room(len));
	if (!origin_queue_ask(t->origins, &f->turn, f->first_bytes, urgent))
		return true;
	if (ret_run && f->turn.bytes == f->first_bytes) {
		*ret_run = f->here = true;
		t->running_here++;
		return true;
	}
	if (work_queue_add(t->queue, &f->work, urgent))
		return true;
	origin_queue_done(t->origins, &f->turn, 0);
	origin_queue_close(t->origins, &f->turn);
	return false;
}

/* A random reader's part; who reads from the beginning of a block may go on. */
static bool wants_part(const struct fetch_want *want)
{
	return want->block->len >= PART_BLOCK_MIN_BYTES && want->offset > 0 &&
	       want->end - want->offset <= want->block->len / PART_MOST && want->read_ahead == 0 &&
	       !atomic_load(&want->dataset->undivided);
}

/* All that its first get would bring is wanted, and not so much that the first byte of it should not
 * wait for the last. */
static bool runs_here(const struct fetch *f, const struct fetch_want *want)
{
	return want->here && want->offset == f->begin &&
	       want->end - want->offset == f->first_bytes && f->first_bytes <= HERE_MAX_BYTES;
}

/* Puts a new fetch into the table and on the queue, or into the caller's hands (begin_locked). One
 * for its first reader is urgent. */
static struct fetch *start_locked(struct fetch_table *t, const struct fetch_want *want,
	uint32_t start, uint32_t end, uint32_t ahead_bytes, bool urgent, bool *ret_run)
{
	struct fetch *f = make(t, want, start, end);

	if (!f)
		return NULL;
	if (urgent && atomic_load(&f->goal) != FETCH_PASS && wants_part(want) &&
		fill_queue_admit(&t->fills, &f->fill)) {
		f->begin = want->offset;
		f->first_bytes = want->end - want->offset;
	}
	if (ret_run && !runs_here(f, want))
		ret_run = NULL;
	if (insert_locked(t, f) < 0) {
		end_fill_locked(t, f);
		fetch_unref(f);
		return NULL;
	}
	f->ahead_bytes = ahead_bytes;
	t->ahead_bytes += ahead_bytes;
	t->fetches++;
	if (!begin_locked(t, f, urgent, ret_run)) {
		end_fill_locked(t, f);
		remove_locked(t, f);
		fetch_unref(f);
		fetch_unref(f);
		return NULL;
	}
	return f;
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static uint32_t next_stretch(uint32_t offset)
{
	return (offset / FETCH_STRETCH_BYTES + 1) * FETCH_STRETCH_BYTES;
}

/* How far a stretch that is wanted until `end` may go on, with its read-ahead. */
static uint32_t ahead_end(const struct fetch_want *want, uint32_t from)
{
	uint64_t end = (uint64_t)from + want->read_ahead;

	return end < want->block->len ? (uint32_t)end : want->block->len;
}

/* The first byte in [from, until) that was read a moment ago, or `until`. */
static uint32_t unread_end_locked(
	struct fetch_table *t, const struct fetch_want *want, uint32_t from, uint32_t until)
{
	while (from < until && !fetch_index_was_read(index_locked(t), &want->block->id, from))
		from = next_stretch(from);
	return min_u32(from, until);
}

static struct fetch *start_wanted_locked(
	struct fetch_table *t, const struct fetch_want *want, bool *ret_run)
{
	uint32_t end = want->end, ahead;

	if (want->goal != FETCH_PASS)
		return start_locked(t, want, 0, want->block->len, 0, true, ret_run);
	fetch_index_forget_read(index_locked(t), &want->block->id, want->offset);
	ahead = unread_end_locked(t, want, end, ahead_end(want, end));
	if (t->ahead_bytes + (ahead - end) > FETCH_AHEAD_MAX_BYTES)
		ahead = end;
	ahead = fetch_index_room_until(index_locked(t), &want->block->id, want->offset, ahead);
	end = min_u32(end, ahead);
	return start_locked(t, want, want->offset, ahead, ahead - end, true, ret_run);
}

struct fetch *fetch_table_acquire(
	struct fetch_table *t, const struct fetch_want *want, bool *ret_run)
{
	struct fetch *f;

	*ret_run = false;
	assert(want->offset < want->end && want->end <= want->block->len);
	mutex_guard(&t->mu);
	f = join_locked(t, want);
	if (f)
		return f;
	f = start_wanted_locked(t, want, ret_run);
	if (!f)
		return NULL;
	f->readers++;
	want_locked(f, want);
	return fetch_ref(f);
}

static bool all_read_locked(const struct fetch *f)
{
	uint32_t len = f->end - f->start;

	return f->served_bytes > 0 && f->served_bytes + f->spare >= len &&
	       f->served_to + f->spare >= len;
}

void fetch_table_served(struct fetch *f, uint32_t offset, uint32_t len)
{
	struct fetch_table *t = f->table;
	bool removed = false;

	mutex_lock(&t->mu);
	f->served_bytes += len;
	if (offset + len - f->start > f->served_to)
		f->served_to = offset + len - f->start;
	if (f->kept && all_read_locked(f))
		removed = remove_read_locked(t, f);
	mutex_unlock(&t->mu);
	if (removed)
		fetch_unref(f);
}

void fetch_table_release(struct fetch *f, enum fetch_leave why)
{
	struct fetch_table *t = f->table;
	bool removed = false;

	mutex_lock(&t->mu);
	assert(f->readers > 0);
	f->readers--;
	if (f->readers == 0 && f->state == FETCH_RUNNING &&
		(why == FETCH_LEAVE_TIMED_OUT ||
			(why == FETCH_LEAVE_CANCELLED && atomic_load(&f->goal) == FETCH_PASS))) {
		cancel_locked(t, f);
		removed = remove_locked(t, f);
	} else if (f->readers == 0 && f->state == FETCH_RUNNING) {
		origin_queue_abandon(t->origins, &f->turn);
	}
	mutex_unlock(&t->mu);
	if (removed)
		fetch_unref(f);
	fetch_unref(f);
}

void fetch_table_finish(struct fetch *f, int result, bool stored, const struct error *err)
{
	struct fetch_table *t = f->table;
	uint32_t unread = f->end - f->start;
	bool removed = false;

	mutex_lock(&t->mu);
	origin_queue_close(t->origins, &f->turn);
	end_fill_locked(t, f);
	left_reader_locked(f);
	f->state = result == 0 ? FETCH_ARRIVED : FETCH_FAILED;
	f->result = result;
	f->err = *err;
	f->arrived_ms = clock_mono_ms();
	if (result != 0 || stored) {
		removed = remove_locked(t, f);
	} else if (all_read_locked(f)) {
		removed = remove_read_locked(t, f);
	} else if (f->group) {
		/* A block that the store did not take is as good as read-ahead for its readers. */
		if (atomic_load(&f->goal) != FETCH_PASS && f->ahead_bytes == 0) {
			f->ahead_bytes = unread;
			t->ahead_bytes += unread;
		}
		keep_locked(t, f);
	}
	cond_broadcast(&f->changed);
	mutex_unlock(&t->mu);
	if (removed)
		fetch_unref(f);
}

/* ---- read-ahead ------------------------------------------------------------------------------ */

/* The first byte in [from, until) that nobody brings, has, or has had a moment ago. */
static uint32_t covered_end_locked(
	struct fetch_table *t, const struct fetch_want *want, uint32_t from, uint32_t until)
{
	const struct fetch *f;

	while (from < until) {
		f = fetch_index_find(index_locked(t), &want->block->id, from);
		if (f)
			from = f->end;
		else if (fetch_index_was_read(index_locked(t), &want->block->id, from))
			from = next_stretch(from);
		else
			break;
	}
	return from;
}

void fetch_table_read_ahead(struct fetch_table *t, const struct fetch_want *want)
{
	uint32_t until = ahead_end(want, want->end);
	uint32_t covered;

	if (want->read_ahead == 0)
		return;
	mutex_guard(&t->mu);
	covered = covered_end_locked(t, want, want->end, until);
	/* In halves, so that a sequential reader makes few gets and still never waits for one. */
	if (covered >= until ||
		(until - covered < want->read_ahead / 2 && until < want->block->len))
		return;
	until = unread_end_locked(t, want, covered, until);
	until = fetch_index_room_until(index_locked(t), &want->block->id, covered, until);
	if (t->ahead_bytes + (until - covered) > FETCH_AHEAD_MAX_BYTES)
		return;
	start_locked(t, want, covered, until, until - covered, false, NULL);
}

static struct fetch *bring_ahead_locked(
	struct fetch_table *t, const struct fetch_want *want, uint32_t from, uint32_t until)
{
	if (t->ahead_bytes + (until - from) > FETCH_AHEAD_MAX_BYTES)
		return NULL;
	return start_locked(t, want, from, until, until - from, false, NULL);
}

static bool prefetch_block_locked(struct fetch_table *t, const struct fetch_want *want)
{
	return fetch_index_has_block(index_locked(t), &want->block->id) ||
	       bring_ahead_locked(t, want, 0, want->block->len);
}

/* The first stretch of it that nobody brings: there is one, but for readers at the same place. */
static bool prefetch_part_locked(struct fetch_table *t, const struct fetch_want *want)
{
	uint32_t from = want->offset;
	struct fetch *f;

	while (from < want->end && (f = fetch_index_find(index_locked(t), &want->block->id, from)))
		from = f->end;
	if (from >= want->end)
		return true;
	f = bring_ahead_locked(t, want, from,
		fetch_index_room_until(index_locked(t), &want->block->id, from, want->end));
	if (f)
		f->spare = FETCH_SPARE_BYTES;
	return f != NULL;
}

bool fetch_table_prefetch(struct fetch_table *t, const struct fetch_want *want)
{
	bool part = want->goal == FETCH_PASS && want->end - want->offset < want->block->len;

	mutex_guard(&t->mu);
	return part ? prefetch_part_locked(t, want) : prefetch_block_locked(t, want);
}

void fetch_table_sweep(struct fetch_table *t)
{
	int64_t age_ms = FETCH_KEEP_MAX_MS;

	mutex_lock(&t->mu);
	if (t->ahead_bytes > FETCH_AHEAD_MAX_BYTES / 2)
		age_ms = FETCH_KEEP_MS;
	fetch_index_forget_idle(index_locked(t), FETCH_READ_MS);
	mutex_unlock(&t->mu);
	while (drop_oldest(t, age_ms))
		;
	buffer_pool_trim(t->buffers);
}

void fetch_table_stat(struct fetch_table *t, struct fetch_table_stat *ret)
{
	unsigned running = work_queue_running(t->queue);
	uint64_t memory_bytes = buffer_pool_used_bytes(t->buffers);

	mutex_guard(&t->mu);
	*ret = (struct fetch_table_stat){
		.running = running + t->running_here,
		.memory_bytes = memory_bytes,
		.ahead_bytes = t->ahead_bytes,
		.fetches = t->fetches,
		.joined = t->joined,
	};
}
