#include "worker/work_queue.h"

#include <stdlib.h>

#include "common/sync.h"

struct work_list {
	struct work *first;
	struct work **last;
};

struct work_queue {
	unsigned limit;
	struct mutex mu;
	struct cond added;

	/* guarded by mu */
	struct work_list urgent, idle;
	unsigned queued;
	unsigned running;
	unsigned started; /* threads */
	bool stopping;
	pthread_t threads[];
};

struct work_queue *work_queue_new(unsigned threads)
{
	struct work_queue *q = calloc(1, sizeof(*q) + threads * sizeof(pthread_t));

	assert(threads > 0);
	if (!q)
		return NULL;
	q->limit = threads;
	q->urgent.last = &q->urgent.first;
	q->idle.last = &q->idle.first;
	mutex_init(&q->mu);
	cond_init(&q->added);
	return q;
}

static void append(struct work_list *l, struct work *w)
{
	w->next = NULL;
	*l->last = w;
	l->last = &w->next;
}

static struct work *take(struct work_list *l)
{
	struct work *w = l->first;

	if (!w)
		return NULL;
	l->first = w->next;
	if (!l->first)
		l->last = &l->first;
	return w;
}

static void *thread_main(void *arg)
{
	struct work_queue *q = arg;
	struct work *w;

	mutex_lock(&q->mu);
	for (;;) {
		w = take(&q->urgent);
		if (!w)
			w = take(&q->idle);
		if (w) {
			q->queued--;
			q->running++;
			mutex_unlock(&q->mu);
			w->run(w);
			mutex_lock(&q->mu);
			q->running--;
		} else if (q->stopping) {
			break;
		} else {
			cond_wait(&q->added, &q->mu, CLOCK_NEVER);
		}
	}
	mutex_unlock(&q->mu);
	return NULL;
}

/* One more thread when those there are cannot take all that is queued. */
static void start_thread_locked(struct work_queue *q)
{
	assert(mutex_held(&q->mu));
	if (q->started == q->limit || q->running + q->queued < q->started)
		return;
	if (pthread_create(&q->threads[q->started], NULL, thread_main, q) == 0)
		q->started++;
}

bool work_queue_ready(struct work_queue *q)
{
	mutex_guard(&q->mu);
	if (q->started == 0)
		start_thread_locked(q);
	return q->started > 0;
}

bool work_queue_add(struct work_queue *q, struct work *w, bool urgent)
{
	mutex_guard(&q->mu);
	assert(!q->stopping);
	if (!urgent && q->running + q->queued >= q->limit)
		return false;
	start_thread_locked(q);
	if (q->started == 0)
		return false;
	append(urgent ? &q->urgent : &q->idle, w);
	q->queued++;
	cond_signal(&q->added);
	return true;
}

unsigned work_queue_running(struct work_queue *q)
{
	mutex_guard(&q->mu);
	return q->running;
}

void work_queue_free(struct work_queue *q)
{
	if (!q)
		return;
	mutex_lock(&q->mu);
	q->stopping = true;
	cond_broadcast(&q->added);
	mutex_unlock(&q->mu);
	for (unsigned i = 0; i < q->started; i++)
		pthread_join(q->threads[i], NULL);
	assert(q->queued == 0);
	cond_deinit(&q->added);
	mutex_deinit(&q->mu);
	free(q);
}
