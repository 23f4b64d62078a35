/*
 * The supervisor of a mount: a small process without threads that starts the client, keeps what the
 * mount lives in (keep_set.h), and starts another client when one dies. The kernel holds requests
 * back for as long as somebody has the connection open, so readers wait and see no error.
 *
 *		    READY			died
 *	starting ------------> serving ------------------> waiting --(after a pause)--> starting
 *	   | died		  | BYE, or died after		| too often
 *	   v			  v a signal to stop		v
 *	  end			 end			       end: the kernel answers ENOTCONN
 *
 * A client that dies before the mount has answered for the first time is not replaced. Whoever has
 * asked for the mount by --takeover is given everything, and this process ends (takeover.h).
 *
 * One that takes over from another supervisor (`trial`) tells that one of its client, and ends with
 * it when it cannot start: the other one goes on then.
 *
 * When the supervisor dies, the client starts another one, which is handed everything.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "cli/daemonize.h"
#include "cli/keep_set.h"
#include "cli/lingering.h"
#include "cli/mount_settings.h"
#include "cli/takeover.h"

/* How a client starts one: `granary supervise-mount ...` with its end of the socket at this number. */
#define SUPERVISOR_ARGUMENT "supervise-mount"
#define SUPERVISOR_SOCKET 3

struct supervisor {
	struct mount_state *state;
	const struct mount_settings *settings;
	struct keep_set set;
	struct daemonize *daemon; /* NULL: this is no daemon's start */
	bool json;		  /* the first client tells about the mount on stdout */
	char log_file[PATH_MAX];  /* "": stderr */
	struct giver giver;
	int64_t listen_ms; /* when to try to listen again */
	int trial; /* to the supervisor before, which keeps everything until the client serves; -1 */
	int lock;  /* of the state directory */
	int signals; /* signalfd */

	/* the client; pid 0: there is none */
	pid_t pid;
	bool child; /* of this process */
	int pidfd, sock;
	struct lingering dying;
	int64_t began_ms;
	bool ready, bye;

	pid_t held;	   /* a client that the kernel holds back (lingering.h); 0: none */
	int held_fd;	   /* its pidfd */
	unsigned failures; /* in a row */
	int64_t retry_ms;  /* when the next client is due; 0: none is */
	int64_t leave_ms;  /* when a client that was asked to end is killed */
	bool stopping;	   /* a signal came */
	bool ended;
	int code; /* exit code */
};

/* Before any thread. `set` has the state; with a device in it the mount goes on. */
int supervisor_init(struct supervisor *s, struct mount_state *state, const struct keep_set *set,
	struct error *err);
/* Until the mount has ended; the exit code. */
int supervisor_run(struct supervisor *s);
void supervisor_deinit(struct supervisor *s);

/* The process that a client has started. */
int supervisor_main(void);
