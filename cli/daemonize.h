/*
 * Going to the background, with the parent waiting until the child is ready: `--daemon` returns
 * once the mount answers, with the child's exit code if it fails before.
 */
#pragma once

#include "common/error.h"

struct daemonize {
	int ready_fd; /* in the child: where readiness is told; -1 when in the foreground */
};

/* Before any thread starts. Returns in the child only; the parent exits when the child is ready or
 * has failed. Until daemonize_ready the child keeps stderr, so that progress and errors are seen.
 */
int daemonize_fork(struct daemonize *d, struct error *err);
/* Lets the parent go, detaches from the terminal and sends the log to log_file. */
int daemonize_ready(struct daemonize *d, const char *log_file, struct error *err);
