#include "common/thread_pool.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/sync.h"

struct job {
	thread_pool_job *run;
	void *arg;
};

struct thread_pool {
	char name[16];
	unsigned queue_max;
	pthread_t *threads;
	unsigned n_threads; /* owned by the thread that makes and stops the pool */

	struct mutex mu;
	struct cond work; /* a job came, or the pool stops */
	struct cond room; /* a job left the queue, or the pool stops */
	/* guarded by mu */
	struct job *queue; /* a ring of queue_max */
	unsigned first;
	unsigned queued;
	unsigned running;
	bool stopping;
};

static struct job take_locked(struct thread_pool *p)
{
	struct job job = p->queue[p->first];

	p->first = (p->first + 1) % p->queue_max;
	p->queued--;
	p->running++;
	cond_signal(&p->room);
	return job;
}

static void *thread_main(void *arg)
{
	struct thread_pool *p = arg;

	pthread_setname_np(pthread_self(), p->name);
	mutex_lock(&p->mu);
	for (;;) {
		struct job job;

		while (p->queued == 0 && !p->stopping)
			cond_wait(&p->work, &p->mu, CLOCK_NEVER);
		if (p->queued == 0)
			break;
		job = take_locked(p);
		mutex_unlock(&p->mu);
		job.run(job.arg);
		mutex_lock(&p->mu);
		p->running--;
	}
	mutex_unlock(&p->mu);
	return NULL;
}

static struct thread_pool *new_empty(unsigned threads, unsigned queue_max)
{
	struct thread_pool *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->queue_max = queue_max;
	mutex_init(&p->mu);
	cond_init(&p->work);
	cond_init(&p->room);
	p->queue = calloc(queue_max, sizeof(*p->queue));
	p->threads = calloc(threads, sizeof(*p->threads));
	if (p->queue && p->threads)
		return p;
	thread_pool_free(p);
	return NULL;
}

int thread_pool_new(const char *name, unsigned threads, unsigned queue_max,
	struct thread_pool **ret, struct error *err)
{
	struct thread_pool *p;

	if (threads < 1 || threads > THREAD_POOL_THREADS_MAX || queue_max < 1 ||
		queue_max > THREAD_POOL_QUEUE_MAX)
		return error_set(err, -EINVAL,
			"a pool of %u threads and %u queued jobs is out of bounds", threads,
			queue_max);
	p = new_empty(threads, queue_max);
	if (!p)
		return error_set(err, -ENOMEM, "out of memory");
	snprintf(p->name, sizeof(p->name), "%s", name);
	while (p->n_threads < threads) {
		int r = pthread_create(&p->threads[p->n_threads], NULL, thread_main, p);

		if (r != 0) {
			thread_pool_free(p);
			return error_set_errno(err, -r, "cannot start the threads of %s", name);
		}
		p->n_threads++;
	}
	*ret = p;
	return 0;
}

int thread_pool_submit(struct thread_pool *p, thread_pool_job *job, void *arg, int64_t deadline_ms)
{
	mutex_guard(&p->mu);
	while (p->queued == p->queue_max && !p->stopping) {
		if (clock_passed(deadline_ms))
			return -EAGAIN;
		cond_wait(&p->room, &p->mu, deadline_ms);
	}
	if (p->stopping)
		return -ESHUTDOWN;
	p->queue[(p->first + p->queued) % p->queue_max] = (struct job){.run = job, .arg = arg};
	p->queued++;
	cond_signal(&p->work);
	return 0;
}

unsigned thread_pool_pending(struct thread_pool *p)
{
	mutex_guard(&p->mu);
	return p->queued + p->running;
}

void thread_pool_stop(struct thread_pool *p)
{
	{
		mutex_guard(&p->mu);
		p->stopping = true;
		cond_broadcast(&p->work);
		cond_broadcast(&p->room);
	}
	while (p->n_threads > 0)
		pthread_join(p->threads[--p->n_threads], NULL);
}

void thread_pool_free(struct thread_pool *p)
{
	if (!p)
		return;
	thread_pool_stop(p);
	assert(p->queued == 0 && p->running == 0);
	cond_deinit(&p->room);
	cond_deinit(&p->work);
	mutex_deinit(&p->mu);
	free(p->queue);
	free(p->threads);
	free(p);
}
