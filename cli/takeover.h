/*
 * Both ends of `granary mount --takeover`: another process, of another version perhaps, becomes the
 * supervisor of a mount that goes on meanwhile.
 *
 * The supervisor listens on a socket in the state directory, of mode 0600, and talks to processes
 * of its own user only. It hands descriptors out and starts nothing for anybody. Until the other
 * one's client serves it keeps everything, and goes on itself when that does not come about.
 *
 *		  KEEP_ASK	    KEEP_LEAVE		  the client has ended
 *	GIVER_IDLE ---------> ASKED -----------> LEAVING ---------------------> GIVEN --KEEP_READY--> taken
 *	     ^------------------'--------------------'---(end, or too late)--------'
 *
 * Threading: none.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

#include "cli/keep_set.h"
#include "common/error.h"

/* The mount point as it stands in the table of mounts, though nobody may answer there. */
int takeover_resolve(const char *text, char ret[4096]);

/* ---- who asks -------------------------------------------------------------------------------- */

/* 0 with the set (state included, mapped at ret_state) and the connection, on which KEEP_CLIENT and
 * KEEP_READY are awaited; the client before has ended. `dataset` NULL: any; else -EINVAL when it is
 * another one. -ENOENT: nobody is there to ask, -EPROTO: of
 * another version, it goes on as it was. */
int takeover_ask(const char *state_dir, const char *dataset, const char *mountpoint,
	struct keep_set *ret, struct mount_state **ret_state, int *ret_conn, struct error *err);

/* ---- who is asked ---------------------------------------------------------------------------- */

enum giver_phase { GIVER_IDLE, GIVER_ASKED, GIVER_LEAVING, GIVER_GIVEN };
enum giver_event {
	GIVER_NOTHING,
	GIVER_LEAVE, /* the client is to end; giver_give when it has */
	GIVER_BACK,  /* nothing came of it: the mount is this process's again */
	GIVER_TAKEN, /* it is the other one's for good */
};

struct giver {
	struct mount_state *state;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	int lock, listener, conn;
	enum giver_phase phase;
	int64_t deadline_ms; /* of the phase */
	int client;	     /* pidfd of the one that tries; -1 */
	pid_t client_pid;
};

void giver_init(struct giver *g, struct mount_state *state);
/* `mountpoint` as takeover_resolve. What a predecessor left is removed; -EADDRINUSE: it still
 * lives. */
int giver_listen(struct giver *g, const char *state_dir, const char *mountpoint, struct error *err);
void giver_close(struct giver *g);
/* In a child that does not give anything. */
void giver_forget(struct giver *g);

void giver_accept(struct giver *g);
/* Something came over `conn`. `ready`: the mount can be given now. */
enum giver_event giver_hear(struct giver *g, const struct keep_set *set, bool ready);
/* Is it too late? */
enum giver_event giver_tick(struct giver *g);
/* The client has ended as asked. */
enum giver_event giver_give(struct giver *g, const struct keep_set *set);
