/*
 * The live workers, as the master's last answer named them, and the way to each: a channel, and for
 * one on this host the view into its store.
 *
 * A set is immutable and counted: a read takes the current one and keeps it as long as it needs,
 * while a heartbeat may put another in its place. Workers that both name are carried over with
 * their connections.
 *
 * A worker that fails is left aside for a while, longer each time, so that reads go to the next one
 * at once instead of finding out again.
 *
 * Threading: any thread; peers_update from one at a time.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cluster/host_id.h"
#include "common/error.h"
#include "common/rpc/rpc.h"
#include "common/sync.h"
#include "placement/rendezvous.h"
#include "store/store_view.h"

#define PEERS_MAX 4096
#define PEER_BACKOFF_MIN_MS 1000
#define PEER_BACKOFF_MAX_MS 30000

struct peer {
	atomic_uint refs;
	uint64_t id;
	char *address, *lease_socket;
	const char *token;		/* borrowed of the struct peers */
	bool local;			/* on this host */
	struct store_view *view;	/* NULL: none */
	atomic_uint failures;		/* in a row */
	_Atomic int64_t aside_until_ms; /* 0: not aside */

	struct mutex mu;
	struct rpc_channel
		*channel; /* guarded by mu; made at first use, lives as long as the peer */
};

/* NULL: out of memory. */
struct rpc_channel *peer_channel(struct peer *p);
bool peer_aside(struct peer *p);
void peer_failed(struct peer *p);
void peer_answered(struct peer *p);

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

struct peer_ref {
	uint64_t id;
	const char *address, *lease_socket, *host_id;
	uint64_t capacity_bytes;
};
/* -ENOMEM leaves the set as it was. More than PEERS_MAX are cut. */
int peers_update(struct peers *p, const struct peer_ref *refs, size_t count);

struct peer_set *peers_get(struct peers *p);
void peer_set_unref(struct peer_set *set);
