/*
 * A mount's life with its master: registers, says once a second what it counted, hears what to show
 * and which workers live, and says good-bye. The data path never waits for any of it: with the
 * master away the mount goes on with what it knows, and registers again when the master is back.
 *
 * Calling sequence: open (registers; fails when the master cannot be reached, for without a plan
 * there is nothing to mount), start, close (sends the final counters). Threading: `heard` and
 * `report` are called on the link's thread between start and the end of close; `report` once more
 * by close.
 */
#pragma once

#include <stdint.h>

#include "common/error.h"
#include "common/rpc/rpc.h"
#include "granary/v1/cluster.pb-c.h"

struct master_link;

/* What may be read past the workers, and until when: times of the monotonic clock. */
struct master_direct {
	double bytes_per_s, base_bytes_per_s;
	int64_t until_ms, base_until_ms;
};

struct master_link_options {
	const char *address, *token; /* token may be NULL */
	const char *dataset, *mountpoint, *host_id;
	const char *job;  /* "": none */
	const char *mode; /* as asked for; the heartbeats tell what it became */
	/* A plan that came. Everything is borrowed for the call. direct: NULL when nothing limits
	 * what is read past the workers. */
	void (*heard)(void *arg, const Granary__V1__DatasetPlan *plan,
		Granary__V1__WorkerRef *const *workers, size_t workers_count,
		const struct master_direct *direct);
	/* Fills snapshot, mode and counters. Strings are borrowed until the next call. */
	void (*report)(void *arg, Granary__V1__MountHeartbeatRequest *ret);
	/* The process that is told of; NULL: this one. */
	uint64_t (*pid)(void *arg);
	/* What the master knows the mount by and the last plan, packed, whenever it changed: for a
	 * link that goes on in place of this one. May be NULL. */
	void (*keep)(void *arg, const void *packed, size_t bytes);
	void *arg;
	/* What `keep` was given last by the link before this one; NULL: the master is asked. It is
	 * borrowed for open. */
	const void *kept;
	size_t kept_bytes;
};

/* `heard` is called with the first plan before it returns. -EINVAL: the master gave no usable plan.
 * With `kept` the master need not be there. */
int master_link_open(
	const struct master_link_options *opts, struct master_link **ret, struct error *err);
int master_link_start(struct master_link *l, struct error *err);
/* Also after a failed or missing start; NULL is fine. */
void master_link_close(struct master_link *l);

/* For fetching manifests; lives as long as the link. */
struct rpc_channel *master_link_channel(struct master_link *l);
