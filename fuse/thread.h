/*
 * Starting a thread that no signal is delivered to: signals are the main thread's business.
 */
#pragma once

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

static inline int thread_start(pthread_t *ret, void *(*fn)(void *), void *arg)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(ret, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -r;
}
