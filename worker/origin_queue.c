#include "worker/origin_queue.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "common/sync.h"
#include "worker/origin_jobs.h"

#define LOG_SUBSYSTEM "worker"
#include "common/log.h"

#define NS_PER_MS ((int64_t)1000000)
#define NS_PER_US ((int64_t)1000)

struct origin_queue {
	struct mutex mu;
	struct cond changed;
	pthread_t thread;
	bool started;
	uint64_t memory_bytes;

	/* guarded by mu */
	struct origin_window window; /* of all origins */
	struct origin_lease lease;
	int64_t lease_ends_ns; /* when less is left of it; INT64_MAX: not again */
	struct fair_queue fair;
	struct origin_jobs jobs;
	bool stopping;
};

static struct origin_turn *turn_of(struct fair_turn *t)
{
	return (struct origin_turn *)((char *)t - offsetof(struct origin_turn, fair));
}

static int64_t first(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static double weight_locked(const struct origin_queue *q, const struct origin_flow *f)
{
	return origin_flow_weight(&q->jobs, &q->fair, q->window.bytes_per_s, f);
}

/* ---- the part of the share -------------------------------------------------------------------- */

static void note_weight_locked(void *arg, struct origin_flow *f)
{
	f->weight_before = weight_locked(arg, f);
}

/* What a flow got ahead of its share, in bytes, stays what it was. */
static void reweigh_locked(void *arg, struct origin_flow *f)
{
	struct origin_queue *q = arg;
	double factor = weight_locked(q, f) / f->weight_before;

	if (isfinite(factor) && factor > 0)
		fair_queue_reweigh(&q->fair, &f->fair, factor);
}

/* Of all origins, of the share's; 0: no limit. */
static double rate_locked(const struct origin_queue *q)
{
	const struct origin_share *s = q->jobs.share;
	double rate = s->bytes_per_s * q->jobs.part;

	if (!s->limited)
		return 0;
	return rate < ORIGIN_RATE_MIN_BYTES_PER_S ? ORIGIN_RATE_MIN_BYTES_PER_S : rate;
}

static void set_part_locked(struct origin_queue *q, double part)
{
	if (part == q->jobs.part)
		return;
	origin_jobs_each_flow(&q->jobs, note_weight_locked, q);
	origin_jobs_set_part(&q->jobs, part);
	origin_window_set(&q->window, rate_locked(q));
	origin_jobs_each_flow(&q->jobs, reweigh_locked, q);
}

/* What is left of a lease at this time. */
static void keep_lease_locked(struct origin_queue *q, int64_t now_ns)
{
	const struct origin_lease *l = &q->lease;

	if (now_ns < q->lease_ends_ns)
		return;
	if (now_ns >= l->base_until_ns) {
		q->lease_ends_ns = INT64_MAX;
		set_part_locked(q, 0);
	} else if (now_ns >= l->until_ns) {
		q->lease_ends_ns = l->base_until_ns;
		set_part_locked(q, l->base_part);
	}
}

void origin_queue_lease(struct origin_queue *q, const struct origin_lease *lease)
{
	mutex_guard(&q->mu);
	q->lease = *lease;
	q->lease_ends_ns = first(lease->until_ns, lease->base_until_ns);
	set_part_locked(q, lease->part);
	keep_lease_locked(q, clock_mono_ns());
	cond_signal(&q->changed);
}

void origin_queue_part(struct origin_queue *q, double *ret_part, double *ret_base_part)
{
	mutex_guard(&q->mu);
	keep_lease_locked(q, clock_mono_ns());
	*ret_part = q->lease.until_ns ? q->jobs.part : 0;
	*ret_base_part = q->lease.base_part < *ret_part ? q->lease.base_part : *ret_part;
}

/* ---- turns ------------------------------------------------------------------------------------ */

/* The limit of its origin alone; NULL: none. */
static struct limited_origin *own_limit(const struct origin_flow *f)
{
	return f->origin && f->origin->listed ? f->origin : NULL;
}

static bool limited_locked(const struct origin_queue *q, const struct origin_flow *f)
{
	return q->window.bytes_per_s > 0 || own_limit(f);
}

static double least(double a, double b)
{
	return a < b ? a : b;
}

static uint32_t piece_locked(
	const struct origin_queue *q, const struct origin_turn *t, double weight)
{
	const struct limited_origin *own = own_limit(t->flow);
	double piece = origin_window_piece(&q->window);
	double of_job = weight * ORIGIN_PIECE_OF_JOB_S;

	if (t->undivided)
		return t->want_bytes;
	if (own)
		piece = least(piece, origin_window_piece(&own->window));
	if (of_job < ORIGIN_PIECE_BYTES)
		of_job = ORIGIN_PIECE_BYTES;
	return (uint32_t)least(least(piece, of_job), t->want_bytes);
}

static void begin_pass_locked(struct origin_queue *q, struct origin_turn *t, int64_t now_ns)
{
	t->passing = true;
	t->begun_at = t->flow->origin;
	origin_window_begin(&q->window, &t->pass, t->bytes, now_ns);
	if (t->begun_at)
		origin_window_begin(&t->begun_at->window, &t->own_pass, t->bytes, now_ns);
}

static void end_pass_locked(
	struct origin_queue *q, struct origin_turn *t, uint64_t bytes, int64_t now_ns)
{
	t->passing = false;
	origin_window_end(&q->window, &t->pass, bytes, now_ns);
	if (!t->begun_at)
		return;
	origin_window_end(&t->begun_at->window, &t->own_pass, bytes, now_ns);
	t->begun_at->origin_bytes += bytes;
	t->begun_at->group.blocked = false;
}

static void grant_locked(struct origin_queue *q, struct origin_turn *t, uint32_t bytes,
	double weight, int64_t now_ns)
{
	t->bytes = bytes;
	fair_queue_take(&q->fair, &t->fair);
	if (limited_locked(q, t->flow))
		fair_queue_charge(&t->flow->fair, t->fair.class, bytes / weight);
	begin_pass_locked(q, t, now_ns);
}

#define GRANTED 0
#define HELD_UP (-1) /* its origin is at its limit: its group waits, others need not */

/* GRANTED, HELD_UP, or when the limit of all has room for it. */
static int64_t try_locked(struct origin_queue *q, struct origin_turn *t, int64_t now_ns)
{
	struct limited_origin *own = own_limit(t->flow);
	double weight = 1;
	uint32_t bytes = t->want_bytes;
	int64_t wait_ns;

	if (limited_locked(q, t->flow)) {
		weight = weight_locked(q, t->flow);
		bytes = piece_locked(q, t, weight);
	}
	if (own && (own->look_ns = origin_window_wait_ns(&own->window, bytes, now_ns)) > 0) {
		own->group.blocked = true;
		return HELD_UP;
	}
	wait_ns = origin_window_wait_ns(&q->window, bytes, now_ns);
	if (wait_ns == 0)
		grant_locked(q, t, bytes, weight, now_ns);
	return wait_ns;
}

int64_t origin_turn_waited_us(const struct origin_turn *t)
{
	int64_t us = atomic_load(&t->waited_us);

	if (us < 0)
		us += clock_mono_ns() / NS_PER_US;
	return us + atomic_load(&t->pieces_us);
}

static void count_queued_locked(struct origin_turn *t, bool queued)
{
	uint64_t bytes = queued ? t->want_bytes : -(uint64_t)t->want_bytes;

	t->flow->job->queued_bytes += bytes;
	if (t->flow->origin)
		t->flow->origin->queued_bytes += bytes;
}

static void begin_wait_locked(struct origin_turn *t, int64_t now_ns)
{
	count_queued_locked(t, true);
	atomic_fetch_sub(&t->waited_us, now_ns / NS_PER_US);
}

static void end_wait_locked(struct origin_turn *t, int64_t now_ns)
{
	count_queued_locked(t, false);
	atomic_fetch_add(&t->waited_us, now_ns / NS_PER_US);
}

/* Has a look at the origins that were at their limit and should have room by now. */
static void release_origins_locked(struct origin_queue *q, int64_t now_ns)
{
	struct limited_origin *o;

	DL_FOREACH (q->jobs.origins, o)
		if (o->group.blocked && o->look_ns <= now_ns)
			o->group.blocked = false;
}

/* When the first of those that others wait for has room. */
static int64_t next_release_locked(const struct origin_queue *q)
{
	const struct limited_origin *o;
	int64_t first_ns = INT64_MAX;

	DL_FOREACH (q->jobs.origins, o)
		if (o->group.blocked && o->group.queued > 0 && o->look_ns < first_ns)
			first_ns = o->look_ns;
	return first_ns;
}

/* Grants what may go now; returns when to look again. */
static int64_t serve_locked(struct origin_queue *q)
{
	struct fair_turn *next;
	int64_t now_ns = clock_mono_ns(), wait_ns;

	release_origins_locked(q, now_ns);
	while ((next = fair_queue_next(&q->fair))) {
		struct origin_turn *t = turn_of(next);

		now_ns = clock_mono_ns();
		keep_lease_locked(q, now_ns);
		wait_ns = try_locked(q, t, now_ns);
		if (wait_ns > 0)
			return first(wait_ns, next_release_locked(q));
		if (wait_ns == HELD_UP)
			continue;
		end_wait_locked(t, now_ns);
		t->granted(t);
	}
	return next_release_locked(q);
}

static void enter_locked(struct origin_queue *q, struct origin_turn *t, struct origin_flow *f)
{
	t->flow = f;
	t->generation = q->jobs.generation;
	t->fair.flow = &f->fair;
	f->open++;
	f->job->open++;
	f->job->used = true;
}

static void leave_locked(struct origin_turn *t)
{
	assert(t->flow->open > 0 && t->flow->job->open > 0);
	t->flow->open--;
	t->flow->job->open--;
}

/* Its further turns are those of another flow, with the memory that it holds. */
static void move_locked(struct origin_queue *q, struct origin_turn *t, struct origin_flow *to)
{
	bool queued = t->fair.queued;

	if (queued) {
		fair_queue_remove(&q->fair, &t->fair);
		count_queued_locked(t, false);
	}
	fair_queue_move(&q->fair, &t->fair, &to->fair);
	leave_locked(t);
	enter_locked(q, t, to);
	if (!queued)
		return;
	count_queued_locked(t, true);
	fair_queue_add(&q->fair, &t->fair, t->fair.class);
}

/* After a change of the origins that have limits. */
static void find_origin_locked(struct origin_queue *q, struct origin_turn *t)
{
	struct origin_flow *f;

	if (t->generation == q->jobs.generation)
		return;
	t->generation = q->jobs.generation;
	f = origin_jobs_flow(&q->jobs, t->flow->job, t->url);
	if (f != t->flow)
		move_locked(q, t, f);
}

void origin_queue_open(
	struct origin_queue *q, struct origin_turn *t, const char *job, uint32_t hold_bytes)
{
	mutex_guard(&q->mu);
	t->fair = (struct fair_turn){.hold_bytes = hold_bytes};
	enter_locked(q, t, origin_jobs_flow(&q->jobs, origin_jobs_use(&q->jobs, job), t->url));
	t->passing = false;
	atomic_init(&t->waited_us, 0);
	atomic_init(&t->pieces_us, 0);
	t->got_us = 0;
}

bool origin_queue_ask(
	struct origin_queue *q, struct origin_turn *t, uint32_t want_bytes, bool urgent)
{
	enum fair_class class = urgent ? FAIR_URGENT : FAIR_IDLE;
	int64_t now_ns;

	assert(want_bytes > 0);
	mutex_guard(&q->mu);
	assert(!t->passing && !t->fair.queued);
	find_origin_locked(q, t);
	now_ns = clock_mono_ns();
	keep_lease_locked(q, now_ns);
	t->want_bytes = want_bytes;
	atomic_fetch_add(&t->pieces_us, t->got_us);
	t->got_us = 0;
	fair_queue_add(&q->fair, &t->fair, class);
	/* Nobody before it: then it need not wait for the thread. */
	if (fair_queue_next(&q->fair) == &t->fair && try_locked(q, t, now_ns) == GRANTED)
		return true;
	begin_wait_locked(t, now_ns);
	cond_signal(&q->changed);
	return false;
}

static void requeue_locked(struct origin_queue *q, struct origin_turn *t, enum fair_class class)
{
	fair_queue_remove(&q->fair, &t->fair);
	fair_queue_add(&q->fair, &t->fair, class);
	cond_signal(&q->changed);
}

void origin_queue_join(struct origin_queue *q, struct origin_turn *t, const char *job)
{
	struct origin_flow *f;

	mutex_guard(&q->mu);
	if (!limited_locked(q, t->flow))
		return;
	f = origin_jobs_flow(&q->jobs, origin_jobs_use(&q->jobs, job), t->url);
	if (f != t->flow && weight_locked(q, f) > weight_locked(q, t->flow))
		move_locked(q, t, f);
	if (t->fair.queued && t->fair.class == FAIR_IDLE)
		requeue_locked(q, t, FAIR_URGENT);
	cond_signal(&q->changed);
}

void origin_queue_abandon(struct origin_queue *q, struct origin_turn *t)
{
	mutex_guard(&q->mu);
	if (t->fair.queued && t->fair.class == FAIR_URGENT)
		requeue_locked(q, t, FAIR_IDLE);
}

void origin_queue_withdraw(struct origin_queue *q, struct origin_turn *t)
{
	mutex_guard(&q->mu);
	if (!t->fair.queued)
		return;
	fair_queue_remove(&q->fair, &t->fair);
	end_wait_locked(t, clock_mono_ns());
	t->bytes = 0;
	t->granted(t);
}

void origin_queue_done(struct origin_queue *q, struct origin_turn *t, uint64_t bytes)
{
	int64_t now_ns;
	double more;
	bool paced;

	mutex_guard(&q->mu);
	if (!t->passing)
		return;
	now_ns = clock_mono_ns();
	t->flow->job->origin_bytes += bytes;
	more = (double)bytes - (double)t->bytes;
	paced = t->pass.paced || (t->begun_at && t->own_pass.paced);
	t->got_us = paced ? (now_ns - t->pass.begun_ns) / NS_PER_US : 0;
	if (paced && limited_locked(q, t->flow) && more != 0)
		fair_queue_charge(&t->flow->fair, t->fair.class, more / weight_locked(q, t->flow));
	end_pass_locked(q, t, bytes, now_ns);
	if (q->fair.queued > 0)
		cond_signal(&q->changed);
}

void origin_queue_close(struct origin_queue *q, struct origin_turn *t)
{
	mutex_guard(&q->mu);
	assert(!t->passing);
	t->flow->job->waited_us += (uint64_t)atomic_load(&t->waited_us);
	fair_queue_end(&q->fair, &t->fair);
	leave_locked(t);
	/* Another of its job may have waited for the memory. */
	if (q->fair.queued > 0)
		cond_signal(&q->changed);
}

/* ---- shares ----------------------------------------------------------------------------------- */

/* Those of a class that wait in a flow. */
static void find_origins_locked(struct origin_queue *q, struct fair_turn *turns)
{
	struct fair_turn *t, *next;

	DL_FOREACH_SAFE (turns, t, next)
		find_origin_locked(q, turn_of(t));
}

static void find_origins_of_waiting_locked(struct origin_queue *q)
{
	struct fair_flow *f, *next;

	DL_FOREACH_SAFE (q->fair.waiting, f, next)
		for (int c = 0; c < FAIR_CLASSES; c++)
			find_origins_locked(q, f->turns[c]);
}

static int take_share_locked(struct origin_queue *q, struct origin_share **share)
{
	bool limited = (*share)->limited || (*share)->origin_count > 0;

	origin_jobs_each_flow(&q->jobs, note_weight_locked, q);
	if (origin_jobs_apply(&q->jobs, share) < 0)
		return -ENOMEM;
	origin_window_set(&q->window, rate_locked(q));
	/* Without a limit a get waits for nothing here. */
	q->fair.flow_max_bytes = limited ? q->memory_bytes / 4 : UINT64_MAX;
	q->fair.held_max_bytes = limited ? q->memory_bytes / 4 * 3 : UINT64_MAX;
	origin_jobs_each_flow(&q->jobs, reweigh_locked, q);
	find_origins_of_waiting_locked(q);
	origin_jobs_prune(&q->jobs);
	cond_signal(&q->changed);
	return 0;
}

static bool same_origins(const struct origin_share *a, const struct origin_share *b)
{
	bool same = a->origin_count == b->origin_count;

	for (size_t i = 0; same && i < a->origin_count; i++)
		same = strcmp(a->origins[i].prefix, b->origins[i].prefix) == 0 &&
		       a->origins[i].bytes_per_s == b->origins[i].bytes_per_s;
	return same;
}

static void log_change(const struct origin_share *before, const struct origin_share *after)
{
	if (after->limited && (!before->limited || before->bytes_per_s != after->bytes_per_s))
		log_info("origins: at most %.0f bytes/s of all workers from now on, for %zu jobs",
			after->bytes_per_s, after->job_count);
	else if (!after->limited && before->limited)
		log_info("origins: no limit of all together from now on");
	if (same_origins(before, after))
		return;
	for (size_t i = 0; i < after->origin_count; i++)
		log_info("origin %s: at most %.0f bytes/s of all workers from now on",
			after->origins[i].prefix, after->origins[i].bytes_per_s);
	if (after->origin_count == 0)
		log_info("origins: no limits of single ones from now on");
}

int origin_queue_apply(struct origin_queue *q, struct origin_share *share, struct error *err)
{
	struct origin_share *before = share;
	int r;

	mutex_lock(&q->mu);
	r = take_share_locked(q, &before);
	if (r == 0)
		log_change(before, q->jobs.share);
	mutex_unlock(&q->mu);
	origin_share_free(before);
	return r < 0 ? error_set(err, r, "out of memory") : 0;
}

double origin_queue_limit(struct origin_queue *q)
{
	mutex_guard(&q->mu);
	return q->window.bytes_per_s;
}

/* ---- what is told of it ----------------------------------------------------------------------- */

static void describe(const struct origin_job *j, struct origin_job_stat *ret)
{
	*ret = (struct origin_job_stat){
		.granted_bytes_per_s = j->granted_bytes_per_s,
		.origin_bytes = j->origin_bytes,
		.waited_us = j->waited_us,
		.queued_bytes = j->queued_bytes,
	};
	strcpy(ret->name, j->name);
}

int origin_queue_jobs(struct origin_queue *q, struct origin_job_stat **ret, size_t *ret_count)
{
	struct origin_job_stat *list;
	struct origin_job *j;
	size_t n = 0;

	mutex_guard(&q->mu);
	list = calloc(HASH_COUNT(q->jobs.by_name) + 1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	if (q->jobs.nameless.used)
		describe(&q->jobs.nameless, &list[n++]);
	DL_FOREACH (q->jobs.by_use, j)
		describe(j, &list[n++]);
	*ret = list;
	*ret_count = n;
	return 0;
}

void origin_queue_reported(struct origin_queue *q, const struct origin_job_stat *jobs, size_t count)
{
	struct origin_job *j;

	mutex_guard(&q->mu);
	for (size_t i = 0; i < count; i++) {
		j = origin_jobs_find(&q->jobs, jobs[i].name);
		if (j)
			j->reported_bytes = jobs[i].origin_bytes;
	}
}

int origin_queue_origins(struct origin_queue *q, struct origin_stat **ret, size_t *ret_count)
{
	const struct limited_origin *o;
	struct origin_stat *list;
	size_t n = 0;

	mutex_guard(&q->mu);
	DL_FOREACH (q->jobs.origins, o)
		n++;
	list = calloc(n + 1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	n = 0;
	DL_FOREACH (q->jobs.origins, o) {
		list[n] = (struct origin_stat){.limit_bytes_per_s = o->window.bytes_per_s,
			.origin_bytes = o->origin_bytes,
			.queued_bytes = o->queued_bytes};
		strcpy(list[n++].prefix, o->prefix);
	}
	*ret = list;
	*ret_count = n;
	return 0;
}

/* ---- life ------------------------------------------------------------------------------------- */

static int64_t wake_ms(int64_t ns)
{
	return ns == INT64_MAX ? CLOCK_NEVER : (ns + NS_PER_MS - 1) / NS_PER_MS;
}

static void *thread_main(void *arg)
{
	struct origin_queue *q = arg;

	mutex_lock(&q->mu);
	while (!q->stopping) {
		keep_lease_locked(q, clock_mono_ns());
		cond_wait(&q->changed, &q->mu, wake_ms(first(serve_locked(q), q->lease_ends_ns)));
	}
	mutex_unlock(&q->mu);
	return NULL;
}

struct origin_queue *origin_queue_new(uint64_t memory_bytes)
{
	struct origin_queue *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	mutex_init(&q->mu);
	cond_init(&q->changed);
	q->memory_bytes = memory_bytes;
	q->fair.flow_max_bytes = q->fair.held_max_bytes = UINT64_MAX;
	q->lease_ends_ns = INT64_MAX;
	if (origin_jobs_init(&q->jobs) < 0) {
		origin_queue_free(q);
		return NULL;
	}
	return q;
}

int origin_queue_start(struct origin_queue *q, struct error *err)
{
	int r = pthread_create(&q->thread, NULL, thread_main, q);

	if (r != 0)
		return error_set_errno(err, -r, "cannot start a thread");
	q->started = true;
	return 0;
}

void origin_queue_stop(struct origin_queue *q)
{
	if (!q || !q->started)
		return;
	mutex_lock(&q->mu);
	q->stopping = true;
	cond_signal(&q->changed);
	mutex_unlock(&q->mu);
	pthread_join(q->thread, NULL);
	q->started = false;
}

void origin_queue_free(struct origin_queue *q)
{
	if (!q)
		return;
	assert(!q->started && q->fair.queued == 0 && !q->window.begun);
	origin_jobs_deinit(&q->jobs);
	cond_deinit(&q->changed);
	mutex_deinit(&q->mu);
	free(q);
}
