/*
 * A client's side of its supervision: hands in what has to outlive it, starts another supervisor when
 * its own has died, and ends when another client takes over.
 *
 * Calling sequence: init (before any thread), start, then ready and bye once each, stop. The socket
 * stays open, for its end is the end of the process. Threading: keep of the mount_keep from any
 * thread.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>

#include "cli/keep_set.h"
#include "common/error.h"
#include "common/sync.h"

struct supervised {
	/* constant after start */
	struct mount_state *state;
	struct mount_keep keep; /* for the mount */
	/* What has to be written before the process ends for another client. */
	void (*leave)(void *arg);
	void *arg;

	struct mutex mu;
	/* guarded by mu */
	struct keep_set set;
	int sock;     /* to the supervisor */
	int self;     /* pidfd of the thread; -1 before it runs, or on an old kernel */
	bool settled; /* the mount lives without this supervisor, too; else the process ends with it */
	bool tries; /* the mount may be given back to whoever had it before */
	bool ending;

	/* owned by the thread */
	pthread_t thread;
	bool started;
	pid_t child; /* a supervisor that this process started; 0: none */
};

/* Takes over the socket and the set. `resume`: the mount's keep goes on with what is in the set;
 * `tries`: for another supervisor than the one before. */
int supervised_init(struct supervised *s, int sock, const struct keep_set *set,
	struct mount_state *state, bool resume, bool tries, struct error *err);
int supervised_start(struct supervised *s, struct error *err);
/* It serves: from here on the mount is this process's. -ECANCELED: it was given back, and this
 * process has to end at once. */
int supervised_ready(struct supervised *s);
void supervised_bye(struct supervised *s);
/* Also when it was not started. */
void supervised_stop(struct supervised *s);
