/*
 * Going to the background, with the parent waiting until the child is ready: `--daemon` returns
 * once the mount answers, with the child's exit code if it fails before.
 */
#pragma once

#include "common/error.h"

struct daemonize {
	int ready_fd; /* in the child: where readiness is told; -1 when in the foreground */
	int null_fd;
};

#define DAEMONIZE_INIT {.ready_fd = -1, .null_fd = -1}

/* Before any thread starts. Returns in the child only; the parent exits when the child is ready or
 * has failed. Until daemonize_ready the child keeps stderr, so that progress and errors are seen.
 */
int daemonize_fork(struct daemonize *d, struct error *err);
/* Does what may fail: what is said on stdout after it will be true. Nothing in the foreground, as
 * daemonize_ready. */
int daemonize_prepare(struct daemonize *d, struct error *err);
/* Detaches a child of this process from the terminal, which tells nobody. After prepare. */
void daemonize_detach(struct daemonize *d);
/* Detaches from the terminal and lets the parent go. */
int daemonize_ready(struct daemonize *d, struct error *err);
