/*
 * A worker: the store of one node, the fetches that fill it, and the block service that reads
 * through both.
 *
 * Memory at the most, beside the store's own: fetch_memory_bytes (256 MiB) of blocks on their way
 * from origins, 64 MiB of bytes on their way from the store to readers, 16 MiB for the memory of
 * re-reads, and the stacks of up to fetch_threads (96) threads. What is not needed goes back to the
 * system within seconds.
 */
#pragma once

#include "cluster/embedded_worker.h"
#include "common/error.h"
#include "common/rpc/rpc.h"

struct worker;

struct worker_options {
	const char *cache_dir;
	uint64_t capacity_bytes;
	uint64_t free_floor_bytes;
	uint64_t scrub_bytes_per_s; /* as in store.h */
	const char *manifest_dir;   /* cache of manifests, shared with a master on this host */
	const char *master_address; /* "unix:PATH" or HOST:PORT */
	const char *master_token;   /* NULL for none */
	const char *address;	    /* where mounts reach the block service */
	const char *local_address;  /* "unix:PATH" for mounts of this host; NULL for none */
	const char *lease_socket;   /* path for the local short circuit; NULL for none */
	const char *socket_group;
	/* 0: the defaults of fetch_table.h and block_service.h */
	unsigned fetch_threads;
	uint64_t fetch_memory_bytes;
	int64_t fetch_timeout_ms;
	int64_t read_timeout_ms;
};

/* Opens the store and adds BlockService to a server that is not started yet. */
int worker_new(const struct worker_options *opts, struct rpc_server *server, struct worker **ret,
	struct error *err);
/* Starts heartbeats and the lease socket; the master may come later. */
int worker_start(struct worker *w, struct error *err);
void worker_free(struct worker *w); /* after the server is stopped; NULL is fine */

/* Asks the master for the plan now and waits until it is in force, in the store too (start of a
 * mount, tests): 0, -ETIMEDOUT, -EAGAIN (the master did not answer). */
int worker_refresh(struct worker *w, int64_t deadline_ms);

/* For mounts of this process; lives as long as the worker. */
const struct embedded_worker *worker_embedded(const struct worker *w);

struct worker_stat {
	unsigned fetches_running;
	uint64_t fetches, joined; /* gets from origins; readers that shared one */
	uint64_t memory_bytes;	  /* block bytes on their way */
};
void worker_stat(struct worker *w, struct worker_stat *ret);
