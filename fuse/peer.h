/*
 * One worker and the way to it: connections, and for one on this host the view into its store. One
 * on this host is reached by its unix socket, which wants no token, where that is to be seen from
 * here and lets us in; else by the address that it tells everybody.
 *
 * One that gives no sign of life is left aside: reads go to the next source at once instead of
 * finding out again. The reads that pass by have it checked, without waiting for the outcome; when
 * it answers, it is a source again.
 *
 * One that lives and fails is left aside for a while, longer each time. When the time is up a
 * single read tries it, with little patience; the others stay away until that one was answered.
 *
 * Threading: any thread.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/sync.h"
#include "fuse/peer_line.h"
#include "store/store_view.h"

#define PEER_BACKOFF_MIN_MS 1000
#define PEER_BACKOFF_MAX_MS 10000
/* A view that needs a descriptor of a worker that hangs waits for it: once in a while is enough. */
#define PEER_VIEW_SLOW_MS 300
#define PEER_VIEW_SHUN_MS 10000
/* Calls of one connection are served by one thread of the transport at a time: reads take turns. */
#define PEER_LINES 4
#define PEER_PROBE_MS 5000 /* the patience of the one that tries a peer that failed */

/* What the master tells of a worker; borrowed. */
struct peer_ref {
	uint64_t id;
	const char *address, *lease_socket, *host_id;
	const char *local_address, *local_identity; /* for mounts of its host; "" for none */
	uint64_t capacity_bytes;
};

enum peer_admission { PEER_UNKNOWN, PEER_ADMITS, PEER_REFUSES };

struct peer {
	atomic_uint refs;
	/* constant */
	uint64_t id;
	char *address, *lease_socket;
	char *socket, *socket_identity; /* "": its address is the only way */
	const char *token;		/* borrowed */
	bool local;			/* on this host */
	struct store_view *view;	/* NULL: none */

	atomic_bool silent; /* gave no sign of life */
	_Atomic int64_t silent_since_ms;
	atomic_uint failures;		/* in a row */
	_Atomic int64_t aside_until_ms; /* 0: not aside */
	_Atomic int64_t
		view_shunned_ms; /* the view is not asked until then: it made readers wait */
	atomic_bool told_no_whole;
	int64_t listed_ms; /* owned by peers_update: when the master named it last */

	_Atomic(enum peer_admission) admission;

	atomic_uint next_line;
	struct mutex mu;
	/* their making is guarded by mu; made at first use, they live as long as the peer */
	struct peer_line lines[PEER_LINES];
};

/* NULL: out of memory. `token` outlives the peer. */
struct peer *peer_new(const struct peer_ref *ref, bool local, const char *token);
struct peer *peer_ref(struct peer *p);
void peer_unref(struct peer *p); /* NULL is fine */
bool peer_is(const struct peer *p, const struct peer_ref *ref, bool local);

/* As store_view_read, also without a view; never makes readers wait for a worker that hangs, but
 * for one of them once in a while. */
int peer_view_read(struct peer *p, const struct store_block *b, uint32_t offset, uint32_t len,
	void *dst, size_t room);

/* As store_view_whole, under the same rule. */
int peer_view_whole(struct peer *p, const struct object_id *object, uint64_t object_bytes,
	struct store_whole **ret);

/* NULL: cannot be made. */
struct peer_line *peer_line(struct peer *p);
/* How it is reached. */
const char *peer_address(const struct peer *p);

/* After a read that was refused (-EACCES): was it the worker, for want of a token? An origin that
 * refuses the worker looks the same. Asks the worker once, and logs once what to do. */
bool peer_refuses(struct peer *p);

enum peer_state { PEER_GOOD, PEER_PROBE, PEER_ASIDE };
/* PEER_PROBE: the caller is the one to try it, and must call one of the three below. */
enum peer_state peer_ask(struct peer *p);
/* Nobody answered at all; `why` is logged once. */
void peer_went_silent(struct peer *p, const char *why);
void peer_failed(struct peer *p);
void peer_answered(struct peer *p);
bool peer_is_good(const struct peer *p); /* the last that is known of it is good */
