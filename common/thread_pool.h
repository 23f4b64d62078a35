/*
 * A fixed number of threads that run jobs from a bounded queue, first come, first served.
 *
 * Every job that was accepted runs exactly once, also when the pool stops: free what a job owns in
 * the job. A job may submit others, but not wait for room: with all threads waiting nobody makes
 * any.
 *
 * Calling sequence: new; submit from any thread; stop; free.
 */
#pragma once

#include <stdint.h>

#include "common/error.h"

#define THREAD_POOL_THREADS_MAX 1024
#define THREAD_POOL_QUEUE_MAX (1u << 20)

struct thread_pool;

typedef void thread_pool_job(void *arg);

/* `name` (up to 15 bytes) is what the threads are called in the system's lists. */
int thread_pool_new(const char *name, unsigned threads, unsigned queue_max,
	struct thread_pool **ret, struct error *err);

/* Waits for room until the deadline (0: not at all), then -EAGAIN. -ESHUTDOWN once stop began. */
int thread_pool_submit(struct thread_pool *p, thread_pool_job *job, void *arg, int64_t deadline_ms);

/* Jobs accepted and not finished yet. */
unsigned thread_pool_pending(struct thread_pool *p);

/* Accepts nothing more, runs what is queued, joins the threads. Not from a job. */
void thread_pool_stop(struct thread_pool *p);
void thread_pool_free(struct thread_pool *p); /* stops first; NULL is fine */
