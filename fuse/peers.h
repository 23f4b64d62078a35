/*
 * The live workers, as the master's last answer named them.
 *
 * A set is immutable and counted: a read takes the current one and keeps it as long as it needs,
 * while a heartbeat may put another in its place. Workers that both name are carried over with
 * their connections. One that is no longer named, but has not failed us, is kept for
 * PEERS_LINGER_MS: a master that has just restarted names nobody at first, and the mount must not
 * fall back on the origin for that.
 *
 * Threading: any thread; peers_update from one at a time.
 */
#pragma once

#include <stdint.h>

#include "cluster/host_id.h"
#include "common/error.h"
#include "fuse/peer.h"
#include "placement/rendezvous.h"

#define PEERS_MAX 4096
#define PEERS_LINGER_MS 15000

struct peer_set {
	atomic_uint refs;
	size_t count;
	struct peer **peers;
	struct rendezvous_node *nodes; /* parallel to peers */
};

struct peers {
	char host_id[HOST_ID_TEXT_BYTES]; /* "": no short circuit */
	char *token;			  /* may be NULL */
	struct mutex mu;
	struct peer_set *set; /* guarded by mu */
};

/* host_id "" where the host cannot be told; token may be NULL. */
int peers_init(struct peers *p, const char *host_id, const char *token, struct error *err);
void peers_deinit(struct peers *p); /* no set may be held any more */

/* -ENOMEM leaves the set as it was. What is over PEERS_MAX is cut. */
int peers_update(struct peers *p, const struct peer_ref *refs, size_t count);

struct peer_set *peers_get(struct peers *p);
void peer_set_unref(struct peer_set *set);
