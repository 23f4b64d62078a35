#include "fuse/io_pool.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "fuse/thread.h"

/* The reaper looks at least this often, so that a submit need not wake it for a new deadline. */
#define REAPER_INTERVAL_MS 500

static void unlink_locked(struct io_pool *p, struct io_job *job)
{
	assert(mutex_held(&p->mu));
	if (job->prev)
		job->prev->next = job->next;
	else
		p->head = job->next;
	if (job->next)
		job->next->prev = job->prev;
	else
		p->tail = job->prev;
	job->prev = job->next = NULL;
	p->queued--;
}

static void link_locked(struct io_pool *p, struct io_job *job)
{
	assert(mutex_held(&p->mu));
	job->next = NULL;
	job->prev = p->tail;
	if (p->tail)
		p->tail->next = job;
	else
		p->head = job;
	p->tail = job;
	p->queued++;
}

static int64_t deadline_of(struct io_pool *p, const struct io_job *job)
{
	if (job->deadline_ms == CLOCK_NEVER)
		return CLOCK_NEVER;
	return job->deadline_ms + throttle_ms(&p->throttle) - job->throttled_ms;
}

struct worker_arg {
	struct io_pool *pool;
	unsigned slot;
};

static void *worker_main(void *arg)
{
	struct worker_arg *w = arg;
	struct io_pool *p = w->pool;
	unsigned slot = w->slot;

	free(w);
	mutex_lock(&p->mu);
	for (;;) {
		struct io_job *job;

		while (!p->head && !p->stopping) {
			p->idle++;
			cond_wait(&p->work, &p->mu, CLOCK_NEVER);
			p->idle--;
		}
		if (p->stopping)
			break;
		job = p->head;
		unlink_locked(p, job);
		job->deadline_ms = deadline_of(p, job);
		p->running[slot] = job;
		mutex_unlock(&p->mu);
		job->run(job);
		mutex_lock(&p->mu);
		p->running[slot] = NULL;
		mutex_unlock(&p->mu);
		job->free(job);
		mutex_lock(&p->mu);
	}
	mutex_unlock(&p->mu);
	return NULL;
}

/* The code to give a waiting job up with, or 0. */
static int job_verdict(struct io_pool *p, const struct io_job *job)
{
	if (p->stopping)
		return -ECANCELED;
	if (atomic_load(&job->cancel->fired))
		return -EINTR;
	if (clock_passed(deadline_of(p, job)))
		return -ETIMEDOUT;
	return 0;
}

static struct io_job *take_doomed_locked(struct io_pool *p, int *ret_code, int64_t *ret_next_ms)
{
	*ret_next_ms = clock_deadline_ms(REAPER_INTERVAL_MS);
	for (struct io_job *job = p->head; job; job = job->next) {
		*ret_code = job_verdict(p, job);
		if (*ret_code) {
			unlink_locked(p, job);
			return job;
		}
		if (deadline_of(p, job) < *ret_next_ms)
			*ret_next_ms = deadline_of(p, job);
	}
	return NULL;
}

static void *reaper_main(void *arg)
{
	struct io_pool *p = arg;

	mutex_lock(&p->mu);
	for (;;) {
		int64_t next_ms;
		int code;
		struct io_job *job = take_doomed_locked(p, &code, &next_ms);

		if (job) {
			mutex_unlock(&p->mu);
			job->give_up(job, code);
			job->free(job);
			mutex_lock(&p->mu);
		} else if (p->stopping) {
			break;
		} else {
			cond_wait(&p->reaper, &p->mu, next_ms);
		}
	}
	mutex_unlock(&p->mu);
	return NULL;
}

int io_pool_start(struct io_pool *p, unsigned threads, struct error *err)
{
	int r;

	assert(threads > 0 && threads <= IO_POOL_THREADS_MAX);
	memset(p, 0, sizeof(*p));
	mutex_init(&p->mu);
	cond_init(&p->work);
	cond_init(&p->reaper);
	p->threads_max = threads;
	r = thread_start(&p->reaper_thread, reaper_main, p);
	if (r < 0) {
		cond_deinit(&p->reaper);
		cond_deinit(&p->work);
		mutex_deinit(&p->mu);
		return error_set_errno(err, r, "cannot start a thread");
	}
	return 0;
}

/* One more thread when all are busy. Failing to start one is no harm while another runs. */
static int grow_locked(struct io_pool *p)
{
	struct worker_arg *w;
	int r;

	if (p->idle > p->queued || p->threads_started == p->threads_max)
		return 0;
	w = malloc(sizeof(*w));
	if (!w)
		return p->threads_started ? 0 : -ENOMEM;
	*w = (struct worker_arg){.pool = p, .slot = p->threads_started};
	r = thread_start(&p->threads[p->threads_started], worker_main, w);
	if (r < 0) {
		free(w);
		return p->threads_started ? 0 : r;
	}
	p->threads_started++;
	return 0;
}

int io_pool_submit(struct io_pool *p, struct io_job *job)
{
	int r;
	mutex_guard(&p->mu);

	if (p->stopping)
		return -ECANCELED;
	if (p->queued >= IO_POOL_QUEUE_MAX)
		return -EBUSY;
	r = grow_locked(p);
	if (r < 0)
		return r;
	job->throttled_ms = throttle_ms(&p->throttle);
	link_locked(p, job);
	cond_signal(&p->work);
	/* A cancel that fired before the job stood in the queue has kicked in vain. */
	if (atomic_load(&job->cancel->fired))
		cond_signal(&p->reaper);
	return 0;
}

void io_pool_kick(struct io_pool *p)
{
	mutex_guard(&p->mu);

	cond_signal(&p->reaper);
}

void io_pool_stop(struct io_pool *p)
{
	mutex_lock(&p->mu);
	p->stopping = true;
	for (unsigned i = 0; i < p->threads_started; i++) {
		if (p->running[i])
			read_cancel_fire(p->running[i]->cancel);
	}
	cond_broadcast(&p->work);
	cond_signal(&p->reaper);
	mutex_unlock(&p->mu);

	for (unsigned i = 0; i < p->threads_started; i++)
		pthread_join(p->threads[i], NULL);
	pthread_join(p->reaper_thread, NULL);
	cond_deinit(&p->reaper);
	cond_deinit(&p->work);
	mutex_deinit(&p->mu);
}
