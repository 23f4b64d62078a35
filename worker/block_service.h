/*
 * BlockService: what mounts ask a worker. Checks the request against the plan and the manifest,
 * then hands it to block_read.
 *
 * Statuses of Read and Prefetch: -EINVAL a request that no honest client sends; -EAGAIN this worker
 * cannot now, but the origin or another one can (dataset or snapshot not in its plan, out of
 * memory); -ESTALE the object is not the snapshot's any more; -EACCES, -EIO what the origin said;
 * -ETIMEDOUT.
 */
#pragma once

#include "cluster/manifest_cache.h"
#include "common/rpc/rpc.h"
#include "worker/block_read.h"
#include "worker/dataset_table.h"
#include "worker/heartbeat.h"

#define BLOCK_SERVICE_TIMEOUT_MS 60000 /* the longest that a read may take */
#define BLOCK_SERVICE_PLAN_WAIT_MS 2000
/* At once; more wait for their turn. They wait for origins and for the master, which in one process
 * is another method of the same server: it must find a thread while all of these are taken. */
#define BLOCK_SERVICE_READS_MAX 96
/* With more than so many, those that wait for their job's share are sent away to come again, so that
 * one job's readers do not keep out another's. */
#define BLOCK_SERVICE_READS_CROWDED 64
#define BLOCK_SERVICE_CACHED_MAX 8
#define BLOCK_SERVICE_PREFETCHES_MAX 8

struct block_service {
	struct dataset_table *datasets;
	struct manifest_cache *manifests;
	struct rpc_channel *master;
	struct heartbeat *heartbeat;
	struct block_reader reader;
	int64_t timeout_ms;
	atomic_uint reads; /* calls of Read under way */
};

/* What ReadBlockRequest says; borrowed. */
struct block_request {
	uint64_t dataset_id;
	const char *manifest_digest;
	uint32_t entry;
	uint64_t block;
	uint32_t offset, len;
	uint32_t read_ahead;
	const char *job;
};

/* Where the bytes of a read go; as in block_read.h. */
struct block_sink {
	block_send_fn *send;
	fetch_gone_fn *gone;
	const atomic_bool *cancel; /* may be NULL */
	fetch_waits_fn *waits;	   /* may be NULL */
	void *arg;
};

/* One read, checked. 0, BLOCK_READ_LATER, the statuses of Read. */
int block_service_read(struct block_service *s, const struct block_request *q, int64_t deadline_ms,
	const struct block_sink *sink, struct error *err);

/* Starts getting that range of q->block, with no len all of it; read_ahead does not matter. 1: it is
 * on its way; 0: it is stored, or cannot be had now. */
int block_service_prefetch(struct block_service *s, const struct block_request *q,
	int64_t deadline_ms, struct error *err);

/* Adds the service to a server that is not started yet; `s` outlives it. */
void block_service_add(struct block_service *s, struct rpc_server *server);
