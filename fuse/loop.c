#include "fuse/loop.h"

#include <errno.h>
#include <stdlib.h>

#include <linux/fuse.h>

#include "fuse/fs.h"
#include "fuse/ops.h"
#include "fuse/thread.h"

#define PAGE_BYTES ((size_t)4096)
/* The kernel wants room for the largest write, which is as long as the largest read. */
#define BUFFER_BYTES (READ_MAX_BYTES + 2 * PAGE_BYTES)

void loop_init(struct loop *l)
{
	*l = (struct loop){0};
	mutex_init(&l->mu);
	cond_init(&l->changed);
}

void loop_deinit(struct loop *l)
{
	cond_deinit(&l->changed);
	mutex_deinit(&l->mu);
}

void loop_attach(struct loop *l, struct fuse_session *se, struct device *device)
{
	l->se = se;
	l->device = device;
}

static void finish(struct loop *l, int result)
{
	mutex_guard(&l->mu);

	if (result < 0 && l->result == 0)
		l->result = result;
	l->ending = true;
	cond_broadcast(&l->changed);
}

void loop_stop(struct loop *l)
{
	finish(l, 0);
}

static void grow(struct loop *l);

static bool is_forget(const void *request)
{
	const struct fuse_in_header *head = request;

	return head->opcode == FUSE_FORGET || head->opcode == FUSE_BATCH_FORGET;
}

/* A burst of FORGETs, which take no time, makes no threads. */
static void process(struct loop *l, void *request, size_t bytes)
{
	struct fuse_buf buf = {.mem = request, .size = bytes};

	if (atomic_fetch_sub(&l->idle, 1) == 1 && !is_forget(request))
		grow(l);
	device_set_request(request);
	fuse_session_process_buf(l->se, &buf);
	atomic_fetch_add(&l->idle, 1);
}

static void *worker_main(void *arg)
{
	struct loop_worker *w = arg;
	struct loop *l = w->loop;
	ssize_t n;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	pthread_setname_np(pthread_self(), "fuse");
	while (!fuse_session_exited(l->se)) {
		/* What was read is answered: it is the wait alone that is cut short. */
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
		n = device_receive(l->device, fuse_session_fd(l->se), w->buffer, BUFFER_BYTES);
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		if (n <= 0) {
			finish(l, (int)n);
			return NULL;
		}
		process(l, w->buffer, (size_t)n);
	}
	finish(l, 0);
	return NULL;
}

static int start_worker_locked(struct loop *l)
{
	struct loop_worker *w = &l->workers[l->started];
	int r;

	*w = (struct loop_worker){.loop = l, .buffer = aligned_alloc(PAGE_BYTES, BUFFER_BYTES)};
	if (!w->buffer)
		return -ENOMEM;
	atomic_fetch_add(&l->idle, 1);
	r = thread_start(&w->thread, worker_main, w);
	if (r < 0) {
		atomic_fetch_sub(&l->idle, 1);
		free(w->buffer);
		return r;
	}
	l->started++;
	return 0;
}

/* Where there is no memory for one more, those that are there have to do. */
static void grow(struct loop *l)
{
	mutex_guard(&l->mu);

	if (!l->ending && l->started < LOOP_THREADS_MAX)
		(void)start_worker_locked(l);
}

int loop_run(struct loop *l)
{
	unsigned started;

	{
		mutex_guard(&l->mu);
		l->result = start_worker_locked(l);
		while (l->result == 0 && !l->ending)
			cond_wait(&l->changed, &l->mu, CLOCK_NEVER);
		l->ending = true;
		started = l->started;
	}
	for (unsigned i = 0; i < started; i++)
		pthread_cancel(l->workers[i].thread);
	for (unsigned i = 0; i < started; i++) {
		pthread_join(l->workers[i].thread, NULL);
		free(l->workers[i].buffer);
	}
	return l->result;
}
