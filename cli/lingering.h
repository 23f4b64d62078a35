/*
 * A process that was killed, and of which the kernel holds a thread back: one that gives the kernel a
 * page (a preload) waits, in a way that not even SIGKILL ends, for a read of the same page to be
 * answered, and the process that was to answer is this one. Such a process does nothing any more, and
 * ends for good once the next client has answered.
 *
 * Its pidfd says nothing as long as one thread is left. So the process hands out a pidfd of a
 * thread that ends with it and waits for nothing: once that has ended, and all that are left wait
 * in the kernel without a break (state D), the process is only held back.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define LINGERING_STEP_MS 10

struct lingering {
	int thread; /* pidfd of one of its threads; -1: there is none */
	bool ending;
	unsigned stuck; /* looks in a row that found it so */
};

/* For the calling thread, which must not be the first of its process; -errno before Linux 6.9. */
int lingering_thread(void);
/* Takes over the pidfd. */
void lingering_begin(struct lingering *l, int thread);
void lingering_end(struct lingering *l);
/* Every LINGERING_STEP_MS once that thread has ended: true when it is only held back. */
bool lingering_look(struct lingering *l, pid_t pid);

/* Waits until the process has ended or is only held back: 0, or -ETIMEDOUT. */
int lingering_await(int pidfd, pid_t pid, int64_t deadline_ms);
