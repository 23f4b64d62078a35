/*
 * A bounded number of threads for the fetches of a worker. Urgent work (somebody waits for it) goes
 * before the rest (read-ahead). Threads are started as they are needed and joined by free.
 *
 * The queue itself is intrusive and has no bound of its own: whoever queues urgent work waits for
 * it, so it is bounded by the waiting threads, and work that is not urgent is refused while all
 * threads are busy.
 *
 * Threading: any thread.
 */
#pragma once

#include <stdbool.h>

struct work {
	struct work *next;
	void (*run)(struct work *w);
};

struct work_queue;

struct work_queue *work_queue_new(unsigned threads); /* NULL when memory is out */
/* What is queued still runs; nothing may be added any more. NULL is fine. */
void work_queue_free(struct work_queue *q);

/* Has at least one thread, so that urgent work is not refused. */
bool work_queue_ready(struct work_queue *q);
/* False: refused (not urgent and all threads busy, or no thread could be started at all). */
bool work_queue_add(struct work_queue *q, struct work *w, bool urgent);
unsigned work_queue_running(struct work_queue *q);
