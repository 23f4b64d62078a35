/*
 * Mutex and condition with what pthreads leave out: "is it held by me" for the asserts of `_locked`
 * functions, and waits against deadlines of the monotonic clock. The order in which locks are taken
 * is in docs/locking.md; no lock is held across an RPC, a disk or origin call, or a FUSE reply.
 */
#pragma once

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "common/clock.h"

struct mutex {
	pthread_mutex_t mu;
	_Atomic pthread_t owner;
};

#define MUTEX_INIT {.mu = PTHREAD_MUTEX_INITIALIZER, .owner = 0}

struct cond {
	pthread_cond_t cv;
};

static inline void mutex_init(struct mutex *m)
{
	int r = pthread_mutex_init(&m->mu, NULL);

	assert(r == 0);
	atomic_store(&m->owner, 0);
}

static inline void mutex_deinit(struct mutex *m)
{
	pthread_mutex_destroy(&m->mu);
}

static inline bool mutex_held(struct mutex *m)
{
	return atomic_load_explicit(&m->owner, memory_order_relaxed) == pthread_self();
}

static inline void mutex_lock(struct mutex *m)
{
	int r = pthread_mutex_lock(&m->mu);

	assert(r == 0);
	atomic_store_explicit(&m->owner, pthread_self(), memory_order_relaxed);
}

static inline void mutex_unlock(struct mutex *m)
{
	int r;

	assert(mutex_held(m));
	atomic_store_explicit(&m->owner, 0, memory_order_relaxed);
	r = pthread_mutex_unlock(&m->mu);
	assert(r == 0);
}

/* `mutex_guard(&m);` holds m until the scope ends. */
static inline void mutex_guard_ptr(struct mutex **m)
{
	mutex_unlock(*m);
}
static inline struct mutex *mutex_locked(struct mutex *m)
{
	mutex_lock(m);
	return m;
}
#define mutex_guard_name_(line) guard_##line
#define mutex_guard_at_(m, line)                                                                  \
	struct mutex *mutex_guard_name_(line) __attribute__((cleanup(mutex_guard_ptr), unused)) = \
		mutex_locked(m)
#define mutex_guard_expand_(m, line) mutex_guard_at_(m, line)
#define mutex_guard(m) mutex_guard_expand_(m, __LINE__)

static inline void cond_init(struct cond *c)
{
	pthread_condattr_t attr;
	int r;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	r = pthread_cond_init(&c->cv, &attr);
	assert(r == 0);
	pthread_condattr_destroy(&attr);
}

static inline void cond_deinit(struct cond *c)
{
	pthread_cond_destroy(&c->cv);
}

static inline void cond_signal(struct cond *c)
{
	pthread_cond_signal(&c->cv);
}

static inline void cond_broadcast(struct cond *c)
{
	pthread_cond_broadcast(&c->cv);
}

/* 0, or -ETIMEDOUT once the deadline has passed; spurious wake-ups happen. */
static inline int cond_wait(struct cond *c, struct mutex *m, int64_t deadline_ms)
{
	struct timespec ts = {
		.tv_sec = deadline_ms / 1000,
		.tv_nsec = (deadline_ms % 1000) * 1000000,
	};
	int r;

	assert(mutex_held(m));
	atomic_store_explicit(&m->owner, 0, memory_order_relaxed);
	if (deadline_ms == CLOCK_NEVER)
		r = pthread_cond_wait(&c->cv, &m->mu);
	else
		r = pthread_cond_timedwait(&c->cv, &m->mu, &ts);
	atomic_store_explicit(&m->owner, pthread_self(), memory_order_relaxed);
	return r == ETIMEDOUT ? -ETIMEDOUT : 0;
}
