/*
 * The workers that the master knows, and what each said last.
 *
 * A worker is alive while it was heard within WORKER_DEAD_MS: then mounts are told of it. Its
 * capacity counts for WORKER_CAPACITY_HOLD_MS longer, so that a worker's restart, or the master's,
 * shrinks no grant and drops no pinned block. It is forgotten after WORKER_FORGET_MS.
 *
 * What a worker fetched from an origin is cumulative since its start; the table remembers what was
 * counted already, over the master's restart too.
 *
 * Threading: the caller's lock. Time is passed in.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <uthash.h>

#include "common/error.h"
#include "granary/v1/cluster.pb-c.h"
#include "master/dataset_registry.h"
#include "master/origin_hold.h"
#include "master/worker_jobs.h"

#define WORKERS_MAX 4096
#define WORKER_DEAD_MS 5000
#define WORKER_CAPACITY_HOLD_MS 30000
#define WORKER_FORGET_MS 600000
#define WORKER_ADDRESS_BYTES 512
#define WORKER_SOCKET_BYTES 128 /* "unix:" and what a socket's path may have */
#define WORKER_IDENTITY_BYTES 48
#define WORKER_TEXT_BYTES 256

/* What a worker has of a dataset. */
struct worker_share {
	uint64_t dataset_id;
	uint64_t pinned_bytes, filler_bytes, elastic_bytes;
	uint64_t origin_bytes; /* cumulative; counted into the dataset up to here */
	uint64_t failed_fetches, corrupt_blocks;
	char last_error[ERROR_TEXT_BYTES];
	UT_hash_handle hh;
};

struct worker {
	uint64_t id;
	char address[WORKER_ADDRESS_BYTES];
	char local_address[WORKER_SOCKET_BYTES];
	char local_identity[WORKER_IDENTITY_BYTES];
	char lease_socket[WORKER_ADDRESS_BYTES];
	char host_id[WORKER_TEXT_BYTES];
	char degraded[WORKER_TEXT_BYTES];
	uint64_t capacity_bytes, used_bytes, free_floor_bytes, held_bytes;
	uint64_t pin_ceiling; /* PIN_ALL: it is not full */
	struct {
		uint64_t bytes_per_s, read_bytes, damaged_blocks, passes;
	} scrub;
	struct worker_share *shares; /* of datasets that exist */
	struct worker_job *jobs;     /* worker_jobs.h */
	struct origin_hold origins;  /* a part of all limits, 0 to 1 (origin_ledger.h) */
	int64_t seen_ms; /* for one that is only known from the database: when it was read */
	bool heard;	 /* false: only known from the database */
	bool alive;
	bool dirty; /* the record in the database is behind */
	UT_hash_handle hh;
};

struct workers {
	struct worker *by_id;
};

int workers_load(struct workers *w, struct namespace_db *db, int64_t now_ms, struct error *err);
void workers_deinit(struct workers *w);

/* Takes in a heartbeat and counts into the datasets and jobs. *ret_changed: the workers that mounts
 * see or the capacity are not what they were. -EINVAL, -ENOSPC (too many workers). */
int workers_heard(struct workers *w, struct dataset_registry *datasets, struct jobs *jobs,
	const Granary__V1__WorkerHeartbeatRequest *request, int64_t now_ms, bool *ret_changed,
	struct error *err);

/* Marks the dead, forgets the long dead (their records go into `batch`); true when the capacity or
 * the living are not what they were. */
bool workers_expire(struct workers *w, int64_t now_ms, struct namespace_batch *batch);

/* Of the alive and of those that may come back. */
uint64_t workers_capacity(const struct workers *w, int64_t now_ms);

struct worker *workers_find(const struct workers *w, uint64_t id); /* NULL: none */

struct workers_sum {
	uint64_t pinned_bytes, cached_bytes;
};
/* What the living have of a dataset. */
struct workers_sum workers_sum(const struct workers *w, uint64_t dataset_id);
/* Of the blocks under a dataset's threshold, the share that the living pin: a full one leaves out the
 * hashes from its ceiling on. A worker's part is as large as its capacity. 1 when none lives. */
double workers_pin_share(const struct workers *w, uint64_t threshold);
void workers_forget_dataset(struct workers *w, uint64_t dataset_id);

/* Adds the records that are behind to the batch. */
int workers_save(struct workers *w, struct namespace_batch *batch);

/* For replies: the living ones, copied; freed by the reply's free_unpacked. None while a master
 * that was started anew cannot know who lives: mounts keep those that they have. */
int workers_refs(
	const struct workers *w, int64_t now_ms, Granary__V1__WorkerRef ***ret, size_t *ret_count);
int workers_status(const struct workers *w, int64_t now_ms, Granary__V1__WorkerStatus ***ret,
	size_t *ret_count);
