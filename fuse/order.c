#define LOG_SUBSYSTEM "order"
#include "fuse/order.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "fuse/fs.h"
#include "fuse/mount.h"
#include "fuse/node_id.h"
#include "fuse/thread.h"

#define FETCH_TIMEOUT_MS 30000
#define REST_FIRST_MS 1000
#define REST_MAX_MS 30000
#define CANCEL_STEP_MS 100 /* how often a waiting read looks whether it was called off */

static struct cond *arrival_of(struct order *o, const struct order_piece *piece)
{
	return &o->arrived[(uintptr_t)piece / sizeof(*piece) % ORDER_ARRIVALS];
}

/* What the plan counted since the last time. */
static void tell_counters_locked(struct order *o)
{
	const struct order_tally *now = &o->plan.tally;
	struct counters *c = &o->fs->counters;

	assert(mutex_held(&o->mu));
	counters_order_add(c, ORDER_ANNOUNCED, now->announced - o->told.announced);
	counters_order_add(c, ORDER_FETCHED_BYTES, now->fetched_bytes - o->told.fetched_bytes);
	counters_order_add(c, ORDER_USED_BYTES, now->used_bytes - o->told.used_bytes);
	counters_order_add(c, ORDER_DROPPED_BYTES, now->dropped_bytes - o->told.dropped_bytes);
	o->told = *now;
}

static void settle_locked(struct order *o)
{
	bool empty = order_plan_empty(&o->plan);

	atomic_store_explicit(&o->active, !empty, memory_order_relaxed);
	tell_counters_locked(o);
}

/* ---- fetching -------------------------------------------------------------------------------- */

static bool resting_locked(const struct order *o)
{
	return o->rests_until_ms && !clock_passed(o->rests_until_ms);
}

static void wake_locked(struct order *o)
{
	if (o->fetching < o->pace.limit && order_plan_has_next(&o->plan))
		cond_signal(&o->work);
}

static struct order_piece *take_work_locked(struct order *o, struct manifest **ret_manifest)
{
	struct order_piece *piece;

	if (o->stopping || o->fetching >= o->pace.limit || resting_locked(o))
		return NULL;
	piece = order_plan_next(&o->plan);
	if (!piece) {
		order_pace_short(&o->pace);
		return NULL;
	}
	o->fetching++;
	*ret_manifest = manifest_ref(o->manifest);
	return piece;
}

static int bring(struct order *o, const struct order_piece *piece, struct manifest *m,
	struct read_cancel *cancel, enum block_from *ret_from, struct error *err)
{
	struct block_source *source = o->fs->source;
	struct manifest_entry entry;
	struct block_file file = {m, piece->index, &entry};
	struct block_range range = {.file = &file,
		.block = piece->offset / BLOCK_BYTES,
		.offset = (uint32_t)(piece->offset % BLOCK_BYTES),
		.len = piece->len,
		.dst = piece->bytes,
		.room = order_buffers_room(piece->len)};
	int r = manifest_entry(m, piece->index, &entry);

	if (r < 0)
		return error_set_errno(err, r, "entry %u of the manifest", piece->index);
	*ret_from = BLOCK_FROM_LOCAL_STORE;
	read_cancel_restart(cancel);
	r = source->read_local(source, &range);
	if (r == BLOCK_SOURCE_MISS)
		r = source->read(
			source, &range, clock_deadline_ms(FETCH_TIMEOUT_MS), cancel, ret_from, err);
	return r;
}

/* An object that has changed says nothing about the next one; anything else may. */
static void note_result_locked(struct order *o, int r, uint32_t len, const struct error *err)
{
	int64_t rest_ms = REST_FIRST_MS;

	if (r == 0) {
		o->failures = 0;
		order_pace_done(&o->pace, len, clock_mono_ms());
		return;
	}
	if (r == -ESTALE || o->stopping)
		return;
	order_pace_failed(&o->pace);
	/* Those that were in flight together fail together. */
	if (resting_locked(o))
		return;
	for (unsigned i = 0; i < o->failures && rest_ms < REST_MAX_MS; i++)
		rest_ms *= 2;
	o->failures++;
	o->rests_until_ms = clock_deadline_ms(rest_ms);
	log_info("%s: nothing is brought ahead for %lld s: %s", o->fs->dataset,
		(long long)rest_ms / 1000, err->text);
}

static void fetch_one(
	struct order *o, struct order_piece *piece, struct manifest *m, struct read_cancel *cancel)
{
	struct error err = ERROR_INIT;
	enum block_from from = BLOCK_FROM_LOCAL_STORE;
	uint32_t len = piece->len;
	int r = bring(o, piece, m, cancel, &from, &err);

	manifest_unref(m);
	mutex_guard(&o->mu);
	o->fetching--;
	cond_broadcast(arrival_of(o, piece));
	order_plan_arrived(&o->plan, piece, r == 0, from);
	note_result_locked(o, r, len, &err);
	settle_locked(o);
}

static void *order_main(void *arg);

/* Threads are started as the limit rises; one that does not start is tried again later. */
static void grow_locked(struct order *o)
{
	while (!o->stopping && o->on && o->started < o->pace.limit) {
		read_cancel_init(&o->cancels[o->started]);
		o->cancels[o->started].throttle = &o->fs->pool.throttle;
		if (thread_start(&o->threads[o->started], order_main, o) < 0) {
			read_cancel_deinit(&o->cancels[o->started]);
			return;
		}
		o->started++;
	}
}

static struct read_cancel *own_cancel_locked(struct order *o)
{
	for (unsigned i = 0; i < o->started; i++) {
		if (pthread_equal(o->threads[i], pthread_self()))
			return &o->cancels[i];
	}
	return NULL;
}

static void *order_main(void *arg)
{
	struct order *o = arg;
	struct read_cancel *cancel;

	mutex_lock(&o->mu);
	cancel = own_cancel_locked(o);
	while (!o->stopping) {
		struct manifest *m;
		struct order_piece *piece = take_work_locked(o, &m);

		if (!piece) {
			cond_wait(&o->work, &o->mu,
				resting_locked(o) ? o->rests_until_ms : CLOCK_NEVER);
			continue;
		}
		/* One wakes the next, so that only as many are awake as there is work for. */
		grow_locked(o);
		wake_locked(o);
		mutex_unlock(&o->mu);
		fetch_one(o, piece, m, cancel);
		mutex_lock(&o->mu);
	}
	mutex_unlock(&o->mu);
	return NULL;
}

/* ---- announcing ------------------------------------------------------------------------------ */

static void drop_all_locked(struct order *o)
{
	order_plan_drop_all(&o->plan);
	o->manifest = manifest_unref(o->manifest);
	settle_locked(o);
}

int order_begin(struct order *o, uint64_t *ret_id, struct manifest **ret_manifest)
{
	uint32_t slot;
	struct manifest *m = snapshot_slots_get(&o->fs->slots, NODE_SLOT_CURRENT, &slot);
	int r;

	mutex_lock(&o->mu);
	if (o->manifest && o->slot != slot)
		drop_all_locked(o);
	r = o->on ? order_plan_begin(&o->plan, clock_mono_ms(), ret_id) : -ESHUTDOWN;
	if (r == 0 && !o->manifest) {
		o->manifest = manifest_ref(m);
		o->slot = slot;
	}
	mutex_unlock(&o->mu);
	if (r < 0)
		manifest_unref(m);
	else
		*ret_manifest = m;
	return r;
}

int order_add(struct order *o, uint64_t id, const struct order_range *ranges, unsigned count)
{
	int r;

	mutex_guard(&o->mu);
	if (!o->on)
		return -ESHUTDOWN;
	r = order_plan_add(&o->plan, id, ranges, count);
	if (r == 0) {
		settle_locked(o);
		grow_locked(o);
		wake_locked(o);
	}
	return r;
}

void order_seal(struct order *o, uint64_t id)
{
	mutex_guard(&o->mu);

	order_plan_seal(&o->plan, id);
}

void order_drop(struct order *o, uint64_t id)
{
	mutex_guard(&o->mu);

	order_plan_drop(&o->plan, id);
	settle_locked(o);
	wake_locked(o);
}

void order_drop_all(struct order *o)
{
	mutex_guard(&o->mu);

	drop_all_locked(o);
}

int order_step(struct order *o, uint64_t id, uint64_t step, uint64_t passed)
{
	int r;

	mutex_guard(&o->mu);
	if (!o->on)
		return -ESHUTDOWN;
	r = order_plan_step(&o->plan, id, step, passed, clock_mono_ms());
	settle_locked(o);
	wake_locked(o);
	return r;
}

void order_tick(struct order *o)
{
	mutex_guard(&o->mu);

	order_plan_tick(&o->plan, clock_mono_ms());
	settle_locked(o);
	wake_locked(o);
}

void order_stat(struct order *o, uint64_t id, struct order_stat *ret)
{
	const struct order_job *last = NULL;

	mutex_guard(&o->mu);
	*ret = (struct order_stat){.tally = o->plan.tally, .in_flight_limit = o->pace.limit};
	for (unsigned i = 0; i < ORDER_LISTS_MAX; i++) {
		const struct order_job *job = &o->plan.jobs[i];

		ret->lists += job->id > 0;
		if (job->id && (id ? job->id == id : !last || job->id > last->id))
			last = job;
	}
	if (last) {
		ret->announced = last->announced;
		ret->passed = last->passed;
		ret->step = last->step;
	}
}

/* ---- readers --------------------------------------------------------------------------------- */

/* Each piece that goes makes room for another. */
static void wake_if_fewer_locked(struct order *o, uint32_t before)
{
	if (o->plan.piece_count == before)
		return;
	settle_locked(o);
	wake_locked(o);
}

static bool covers(const struct order_piece *piece, uint64_t offset, uint32_t len)
{
	return piece->offset <= offset && offset + len <= piece->offset + piece->len;
}

static struct order_held held_of(struct order_piece *piece, uint64_t offset)
{
	return (struct order_held){piece, piece->bytes + (offset - piece->offset), piece->from};
}

enum order_answer order_take(struct order *o, const struct fs_node *node, uint64_t offset,
	uint32_t len, struct order_held *ret)
{
	struct order_piece *piece;
	enum order_answer answer = ORDER_NONE;
	uint32_t before;

	mutex_guard(&o->mu);
	if (!o->on || !o->manifest || node->slot != o->slot)
		return ORDER_NONE;
	before = o->plan.piece_count;
	order_plan_read(&o->plan, node->index, offset, len, clock_mono_ms());
	wake_if_fewer_locked(o, before);
	piece = order_plan_at(&o->plan, node->index, offset);
	if (piece && piece->state == ORDER_READY && covers(piece, offset, len)) {
		order_plan_ref(piece);
		*ret = held_of(piece, offset);
		return ORDER_HAS;
	}
	if (piece || order_plan_gap(&o->plan, node->index, offset, len) < offset + len)
		answer = ORDER_BRINGS;
	return answer;
}

static void used_locked(struct order *o, struct order_piece *piece, uint32_t len)
{
	uint32_t before = o->plan.piece_count;

	order_plan_used(&o->plan, piece, len);
	wake_if_fewer_locked(o, before);
}

void order_release(struct order *o, struct order_held *held, uint32_t len)
{
	mutex_guard(&o->mu);

	used_locked(o, held->piece, len);
}

/* What whoever brings it waits for his share is not the reader's time. */
static void note_throttled(struct order *o, struct read_cancel *cancel, int64_t *seen_ms)
{
	int64_t now_ms = throttle_ms(&o->fs->pool.throttle);

	if (now_ms > *seen_ms)
		atomic_fetch_add(&cancel->waited_ms, now_ms - *seen_ms);
	*seen_ms = now_ms;
}

/* True once the bytes are there. */
static bool await_locked(
	struct order *o, struct order_piece *piece, int64_t deadline_ms, struct read_cancel *cancel)
{
	int64_t seen_ms = throttle_ms(&o->fs->pool.throttle);

	while (!piece->arrived && !piece->failed && !o->stopping &&
		!clock_passed(read_cancel_deadline_ms(cancel, deadline_ms)) &&
		!atomic_load(&cancel->fired)) {
		cond_wait(arrival_of(o, piece), &o->mu, clock_deadline_ms(CANCEL_STEP_MS));
		note_throttled(o, cancel, &seen_ms);
	}
	return piece->arrived;
}

bool order_await(struct order *o, const struct fs_node *node, uint64_t offset, uint32_t len,
	int64_t deadline_ms, struct read_cancel *cancel, struct order_held *ret)
{
	struct order_piece *piece;

	mutex_guard(&o->mu);
	if (!o->on || !o->manifest || node->slot != o->slot)
		return false;
	piece = order_plan_at(&o->plan, node->index, offset);
	if (!piece || !covers(piece, offset, len))
		return false;
	order_plan_ref(piece);
	if (!await_locked(o, piece, deadline_ms, cancel)) {
		order_plan_unref(&o->plan, piece);
		return false;
	}
	*ret = held_of(piece, offset);
	return true;
}

uint32_t order_part(struct order *o, const struct fs_node *node, uint64_t offset, uint32_t len,
	unsigned char *dst, int64_t deadline_ms, struct read_cancel *cancel,
	enum block_from *ret_from, uint32_t *ret_gap)
{
	struct order_piece *piece;
	uint64_t left;

	mutex_guard(&o->mu);
	*ret_gap = len;
	if (!o->on || !o->manifest || node->slot != o->slot)
		return 0;
	piece = order_plan_at(&o->plan, node->index, offset);
	if (!piece) {
		*ret_gap = (uint32_t)(order_plan_gap(&o->plan, node->index, offset, len) - offset);
		return 0;
	}
	left = piece->offset + piece->len - offset;
	len = len < left ? len : (uint32_t)left;
	order_plan_ref(piece);
	if (!await_locked(o, piece, deadline_ms, cancel)) {
		order_plan_unref(&o->plan, piece);
		*ret_gap = len;
		return 0;
	}
	*ret_from = piece->from;
	mutex_unlock(&o->mu);
	memcpy(dst, piece->bytes + (offset - piece->offset), len);
	mutex_lock(&o->mu);
	used_locked(o, piece, len);
	return len;
}

/* ---- life ------------------------------------------------------------------------------------ */

void order_init(struct order *o, struct fs *fs, uint64_t memory_bytes)
{
	memset(o, 0, sizeof(*o));
	o->fs = fs;
	mutex_init(&o->mu);
	cond_init(&o->work);
	for (unsigned i = 0; i < ORDER_ARRIVALS; i++)
		cond_init(&o->arrived[i]);
	order_plan_init(&o->plan, memory_bytes ? memory_bytes : ORDER_MEMORY_BYTES);
	order_pace_init(&o->pace, ORDER_THREADS_MAX);
}

void order_deinit(struct order *o)
{
	order_plan_deinit(&o->plan);
	for (unsigned i = 0; i < ORDER_ARRIVALS; i++)
		cond_deinit(&o->arrived[i]);
	cond_deinit(&o->work);
	mutex_deinit(&o->mu);
}

void order_start(struct order *o)
{
	mutex_guard(&o->mu);

	o->on = true;
}

void order_stop(struct order *o)
{
	mutex_lock(&o->mu);
	o->on = false;
	o->stopping = true;
	for (unsigned i = 0; i < o->started; i++)
		read_cancel_fire(&o->cancels[i]);
	cond_broadcast(&o->work);
	for (unsigned i = 0; i < ORDER_ARRIVALS; i++)
		cond_broadcast(&o->arrived[i]);
	mutex_unlock(&o->mu);
	for (unsigned i = 0; i < o->started; i++) {
		pthread_join(o->threads[i], NULL);
		read_cancel_deinit(&o->cancels[i]);
	}
	mutex_guard(&o->mu);
	o->started = 0;
	drop_all_locked(o);
}
