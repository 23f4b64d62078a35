/*
 * Threads for requests that wait for the network, so that those which take requests from the kernel
 * never do: an interrupt, a stat or a read from the local store always gets through, however many
 * reads are stuck.
 *
 * Invariants
 *  - Every job that was submitted is ended exactly once: `run` on a pool thread, or `give_up` when
 *    it was cancelled or ran out of time before a thread was free, or when the pool stops.
 *  - What a job waits in the queue while one that runs waits for its job's share of the origins'
 *    bandwidth does not count towards its deadline.
 *  - At most IO_POOL_QUEUE_MAX jobs wait; the kernel itself bounds them first (max_background and
 *    the number of reading threads).
 *
 * Calling sequence: start, submit from any thread, stop (cancels what runs, gives up what waits,
 * joins). A submitted job is the pool's until it calls `free`, after run or give_up.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/sync.h"
#include "fuse/read_cancel.h"

#define IO_POOL_THREADS_MAX 64
#define IO_POOL_QUEUE_MAX 16384

struct io_job {
	void (*run)(struct io_job *job);
	void (*give_up)(struct io_job *job, int code); /* -EINTR, -ETIMEDOUT, -ECANCELED */
	void (*free)(struct io_job *job);
	struct read_cancel *cancel;
	int64_t deadline_ms;
	/* owned by the pool */
	int64_t throttled_ms; /* the pool's, when it was submitted */
	struct io_job *prev, *next;
};

struct io_pool {
	struct throttle throttle; /* told by those that run; the others' deadlines go by it */
	struct mutex mu;
	/* guarded by mu */
	struct cond work;   /* a job waits, or stopping */
	struct cond reaper; /* a waiting job may be cancelled, or stopping */
	struct io_job *head, *tail;
	unsigned queued, idle, threads_started;
	unsigned threads_max;
	bool stopping;
	struct io_job *running[IO_POOL_THREADS_MAX];
	pthread_t threads[IO_POOL_THREADS_MAX];
	pthread_t reaper_thread;
};

/* threads: at most IO_POOL_THREADS_MAX; they are started as needed. */
int io_pool_start(struct io_pool *p, unsigned threads, struct error *err);
/* 0; -EBUSY when too many wait, -ECANCELED when stopping: then the job is still the caller's. */
int io_pool_submit(struct io_pool *p, struct io_job *job);
/* After read_cancel_fire on a job that may still wait: has it given up soon. */
void io_pool_kick(struct io_pool *p);
void io_pool_stop(struct io_pool *p);
