#include "worker/origin_queue.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>
#include <utlist.h>

#include "common/cleanup.h"
#include "common/sync.h"

#define LOG_SUBSYSTEM "worker"
#include "common/log.h"

#define NS_PER_MS ((int64_t)1000000)
#define NS_PER_US ((int64_t)1000)

struct origin_job {
	char name[DATASET_JOB_BYTES];
	struct fair_flow flow;
	double granted_bytes_per_s; /* 0: a part of what others share */
	unsigned open;		    /* turns */
	uint64_t origin_bytes, waited_us, queued_bytes;
	uint64_t reported_bytes;
	bool used;
	double weight_before;		/* while a share is applied */
	struct origin_job *prev, *next; /* the last used first */
	UT_hash_handle hh;
};

struct origin_queue {
	struct mutex mu;
	struct cond changed;
	pthread_t thread;
	bool started;
	uint64_t memory_bytes;

	/* guarded by mu */
	struct origin_share *share;
	struct origin_window window;
	struct fair_queue fair;
	struct origin_job *jobs; /* by name */
	struct origin_job *by_use;
	struct origin_job nameless; /* no job, and those that have no place; not in jobs */
	bool stopping;
};

static struct origin_job *job_of(struct fair_flow *f)
{
	return (struct origin_job *)((char *)f - offsetof(struct origin_job, flow));
}

static struct origin_turn *turn_of(struct fair_turn *t)
{
	return (struct origin_turn *)((char *)t - offsetof(struct origin_turn, fair));
}

/* ---- jobs ------------------------------------------------------------------------------------- */

static struct origin_job *find_job_locked(struct origin_queue *q, const char *name)
{
	struct origin_job *j;

	HASH_FIND_STR(q->jobs, name, j);
	return j;
}

static bool forgettable(const struct origin_job *j)
{
	return j->open == 0 && j->reported_bytes == j->origin_bytes && j->granted_bytes_per_s == 0;
}

static void forget_job_locked(struct origin_queue *q, struct origin_job *j)
{
	HASH_DEL(q->jobs, j);
	DL_DELETE(q->by_use, j);
	free(j);
}

/* True when there is room for one more. */
static bool make_room_locked(struct origin_queue *q)
{
	struct origin_job *j;

	if (HASH_COUNT(q->jobs) < ORIGIN_JOBS_MAX + q->share->job_count)
		return true;
	if (!q->by_use)
		return false;
	/* From the tail, which utlist has as the head's prev. */
	for (j = q->by_use->prev;; j = j->prev) {
		if (forgettable(j)) {
			forget_job_locked(q, j);
			return true;
		}
		if (j == q->by_use)
			return false;
	}
}

static double granted_locked(const struct origin_queue *q, const char *name)
{
	const struct origin_share_job *s = origin_share_find(q->share, name);

	return s ? s->bytes_per_s : 0;
}

static struct origin_job *add_job_locked(struct origin_queue *q, const char *name)
{
	struct origin_job *j;

	if (!make_room_locked(q))
		return NULL;
	j = calloc(1, sizeof(*j));
	if (!j)
		return NULL;
	strcpy(j->name, name);
	j->granted_bytes_per_s = granted_locked(q, name);
	HASH_ADD_STR(q->jobs, name, j);
	DL_PREPEND(q->by_use, j);
	return j;
}

/* `job` is as a reader said it. */
static struct origin_job *use_job_locked(struct origin_queue *q, const char *job)
{
	char name[DATASET_JOB_BYTES] = "";
	struct origin_job *j;

	if (!job[0])
		return &q->nameless;
	strncat(name, job, sizeof(name) - 1);
	j = find_job_locked(q, name);
	if (!j)
		j = add_job_locked(q, name);
	if (!j)
		return &q->nameless;
	if (q->by_use != j) {
		DL_DELETE(q->by_use, j);
		DL_PREPEND(q->by_use, j);
	}
	return j;
}

/* ---- weights ---------------------------------------------------------------------------------- */

/* Those that wait now, and of them those without a grant. */
static void count_waiting_locked(const struct origin_queue *q, unsigned *all, unsigned *others)
{
	struct fair_flow *f;

	*all = *others = 0;
	DL_FOREACH (q->fair.waiting, f) {
		++*all;
		*others += job_of(f)->granted_bytes_per_s == 0;
	}
}

static double weight_of(
	const struct origin_queue *q, double granted_bytes_per_s, unsigned all, unsigned others)
{
	double floor = q->window.bytes_per_s * ORIGIN_FLOOR / (all ? all : 1);
	double weight = granted_bytes_per_s;

	if (weight == 0)
		weight = q->share->other_bytes_per_s / (others ? others : 1);
	return weight > floor ? weight : floor;
}

static double weight_locked(const struct origin_queue *q, const struct origin_job *j)
{
	unsigned all, others;

	count_waiting_locked(q, &all, &others);
	return weight_of(q, j->granted_bytes_per_s, all, others);
}

/* ---- turns ------------------------------------------------------------------------------------ */

static bool limited_locked(const struct origin_queue *q)
{
	return q->window.bytes_per_s > 0;
}

static uint32_t piece_locked(
	const struct origin_queue *q, const struct origin_turn *t, double weight)
{
	uint32_t piece = origin_window_piece(&q->window);
	double of_job = weight * ORIGIN_PIECE_OF_JOB_S;

	if (t->undivided)
		return t->want_bytes;
	if (of_job < ORIGIN_PIECE_BYTES)
		of_job = ORIGIN_PIECE_BYTES;
	if (of_job < piece)
		piece = (uint32_t)of_job;
	return piece < t->want_bytes ? piece : t->want_bytes;
}

static void grant_locked(struct origin_queue *q, struct origin_turn *t, uint32_t bytes,
	double weight, int64_t now_ns)
{
	t->bytes = bytes;
	t->passing = true;
	fair_queue_take(&q->fair, &t->fair);
	if (limited_locked(q))
		fair_queue_charge(&t->job->flow, t->fair.class, bytes / weight);
	origin_window_begin(&q->window, &t->pass, bytes, now_ns);
}

/* When it may go: 0 is now. */
static int64_t try_locked(struct origin_queue *q, struct origin_turn *t, int64_t now_ns)
{
	double weight = 1;
	uint32_t bytes = t->want_bytes;
	int64_t wait_ns;

	if (limited_locked(q)) {
		weight = weight_locked(q, t->job);
		bytes = piece_locked(q, t, weight);
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

static void begin_wait_locked(struct origin_turn *t, int64_t now_ns)
{
	t->job->queued_bytes += t->want_bytes;
	atomic_fetch_sub(&t->waited_us, now_ns / NS_PER_US);
}

static void end_wait_locked(struct origin_turn *t, int64_t now_ns)
{
	t->job->queued_bytes -= t->want_bytes;
	atomic_fetch_add(&t->waited_us, now_ns / NS_PER_US);
}

/* Grants what may go now; returns when to look again. */
static int64_t serve_locked(struct origin_queue *q)
{
	struct origin_turn *t;
	struct fair_turn *next;
	int64_t now_ns, wait_ns;

	while ((next = fair_queue_next(&q->fair))) {
		t = turn_of(next);
		now_ns = clock_mono_ns();
		wait_ns = try_locked(q, t, now_ns);
		if (wait_ns > 0)
			return wait_ns;
		end_wait_locked(t, now_ns);
		t->granted(t);
	}
	return INT64_MAX;
}

void origin_queue_open(
	struct origin_queue *q, struct origin_turn *t, const char *job, uint32_t hold_bytes)
{
	mutex_guard(&q->mu);
	t->job = use_job_locked(q, job);
	t->job->open++;
	t->job->used = true;
	t->fair = (struct fair_turn){.flow = &t->job->flow, .hold_bytes = hold_bytes};
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
	now_ns = clock_mono_ns();
	t->want_bytes = want_bytes;
	atomic_fetch_add(&t->pieces_us, t->got_us);
	t->got_us = 0;
	fair_queue_add(&q->fair, &t->fair, class);
	/* Nobody before it: then it need not wait for the thread. */
	if (fair_queue_next(&q->fair) == &t->fair && try_locked(q, t, now_ns) == 0)
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

/* Its further turns are those of another job, with the memory that it holds. */
static void move_locked(struct origin_queue *q, struct origin_turn *t, struct origin_job *to)
{
	struct origin_job *from = t->job;
	bool queued = t->fair.queued;

	if (queued)
		fair_queue_remove(&q->fair, &t->fair);
	fair_queue_move(&t->fair, &to->flow);
	from->open--;
	to->open++;
	to->used = true;
	t->job = to;
	if (!queued)
		return;
	from->queued_bytes -= t->want_bytes;
	to->queued_bytes += t->want_bytes;
	fair_queue_add(&q->fair, &t->fair, t->fair.class);
}

void origin_queue_join(struct origin_queue *q, struct origin_turn *t, const char *job)
{
	struct origin_job *j;

	mutex_guard(&q->mu);
	if (!limited_locked(q))
		return;
	j = use_job_locked(q, job);
	if (j != t->job && weight_locked(q, j) > weight_locked(q, t->job))
		move_locked(q, t, j);
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

	mutex_guard(&q->mu);
	if (!t->passing)
		return;
	now_ns = clock_mono_ns();
	t->got_us = (now_ns - t->pass.begun_ns) / NS_PER_US;
	t->passing = false;
	t->job->origin_bytes += bytes;
	more = (double)bytes - (double)t->bytes;
	if (t->pass.paced && limited_locked(q) && more != 0)
		fair_queue_charge(&t->job->flow, t->fair.class, more / weight_locked(q, t->job));
	origin_window_end(&q->window, &t->pass, bytes, now_ns);
	if (q->fair.queued > 0)
		cond_signal(&q->changed);
}

void origin_queue_close(struct origin_queue *q, struct origin_turn *t)
{
	mutex_guard(&q->mu);
	assert(!t->passing && t->job->open > 0);
	t->job->waited_us += (uint64_t)atomic_load(&t->waited_us);
	fair_queue_end(&q->fair, &t->fair);
	t->job->open--;
	/* Another of its job may have waited for the memory. */
	if (q->fair.queued > 0)
		cond_signal(&q->changed);
}

/* ---- shares ----------------------------------------------------------------------------------- */

/* What a job got ahead of its share, in bytes, stays what it was. */
static void reweigh_locked(struct origin_queue *q, struct origin_job *j)
{
	double factor = weight_locked(q, j) / j->weight_before;

	if (isfinite(factor) && factor > 0)
		fair_queue_reweigh(&q->fair, &j->flow, factor);
}

static void take_share_locked(struct origin_queue *q, struct origin_share *share, double rate)
{
	struct origin_job *j;

	q->nameless.weight_before = weight_locked(q, &q->nameless);
	DL_FOREACH (q->by_use, j)
		j->weight_before = weight_locked(q, j);
	q->share = share;
	origin_window_set(&q->window, rate);
	/* Without a limit a get waits for nothing here. */
	q->fair.flow_max_bytes = rate > 0 ? q->memory_bytes / 4 : UINT64_MAX;
	q->fair.held_max_bytes = rate > 0 ? q->memory_bytes / 4 * 3 : UINT64_MAX;
	DL_FOREACH (q->by_use, j)
		j->granted_bytes_per_s = granted_locked(q, j->name);
	reweigh_locked(q, &q->nameless);
	DL_FOREACH (q->by_use, j)
		reweigh_locked(q, j);
}

static void log_change(const struct origin_share *before, const struct origin_share *after)
{
	if (after->limited && (!before->limited || before->bytes_per_s != after->bytes_per_s))
		log_info("origins: at most %.0f bytes/s from now on, for %zu jobs",
			after->bytes_per_s, after->job_count);
	else if (!after->limited && before->limited)
		log_info("origins: no limit from now on");
}

void origin_queue_apply(struct origin_queue *q, struct origin_share *share)
{
	double rate = share->bytes_per_s;
	struct origin_share *before;

	if (!share->limited)
		rate = 0;
	else if (rate < ORIGIN_RATE_MIN_BYTES_PER_S)
		rate = ORIGIN_RATE_MIN_BYTES_PER_S;
	mutex_lock(&q->mu);
	before = q->share;
	take_share_locked(q, share, rate);
	cond_signal(&q->changed);
	mutex_unlock(&q->mu);
	log_change(before, share);
	origin_share_free(before);
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
	list = calloc(HASH_COUNT(q->jobs) + 1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	if (q->nameless.used)
		describe(&q->nameless, &list[n++]);
	DL_FOREACH (q->by_use, j)
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
		j = find_job_locked(q, jobs[i].name);
		if (j)
			j->reported_bytes = jobs[i].origin_bytes;
	}
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
	while (!q->stopping)
		cond_wait(&q->changed, &q->mu, wake_ms(serve_locked(q)));
	mutex_unlock(&q->mu);
	return NULL;
}

struct origin_queue *origin_queue_new(uint64_t memory_bytes)
{
	struct origin_queue *q = calloc(1, sizeof(*q));
	struct error err = ERROR_INIT;

	if (!q)
		return NULL;
	mutex_init(&q->mu);
	cond_init(&q->changed);
	q->memory_bytes = memory_bytes;
	q->fair.flow_max_bytes = q->fair.held_max_bytes = UINT64_MAX;
	if (origin_share_new(NULL, &q->share, &err) < 0) {
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
	struct origin_job *j, *next;

	if (!q)
		return;
	assert(!q->started && q->fair.queued == 0 && !q->window.begun);
	HASH_ITER (hh, q->jobs, j, next) {
		assert(j->open == 0);
		forget_job_locked(q, j);
	}
	origin_share_free(q->share);
	cond_deinit(&q->changed);
	mutex_deinit(&q->mu);
	free(q);
}
