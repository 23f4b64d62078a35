/*
 * The process that serves a mount, under a supervisor (supervisor.h).
 */
#pragma once

#include <stdbool.h>

#include "cli/daemonize.h"
#include "cli/keep_set.h"
#include "cli/mount_settings.h"

struct mount_client_options {
	struct mount_state *state;
	const struct mount_settings *settings;
	const struct keep_set *set; /* taken over */
	int sock;		    /* to the supervisor; taken over */
	bool resume;		    /* the mount is there already */
	bool tries; /* as in supervised.h; waits for KEEP_GO before it touches anything */
	struct daemonize *daemon; /* NULL or in the foreground: stdio stays */
	const char *said;	  /* what was done, for stderr; NULL: nothing is said */
	bool json;		  /* tells about the mount on stdout */
};

/* Serves until the mount has ended; the exit code. The process has no thread before, and ends
 * after. */
int mount_client_run(const struct mount_client_options *opts);
