/*
 * A worker in the mount's own process (`granary up`): BlockService as function calls, without the
 * socket, the packing and the threads between them. What it checks, stores and answers is what
 * the service does; only the way is shorter.
 *
 * The mount may call from any number of threads; the worker outlives every mount that has it.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct embedded_read {
	uint64_t dataset_id;
	const char *manifest_digest;
	uint32_t entry;
	uint64_t block;
	uint32_t offset, len; /* within the block */
	uint32_t read_ahead;
	const char *job;     /* "": none */
	int64_t deadline_ms; /* moved on by what it waits for its job's share */

	/* Takes the next piece of the range; the bytes are the worker's again when it returns. */
	void (*take)(void *arg, bool from_origin, const void *data, size_t len);
	const atomic_bool *gone; /* the reader waits no longer */
	/* It has waited so long, in all, for its job's share of the origins' bandwidth. */
	void (*waits)(void *arg, uint64_t waited_us);
	void *arg;
};

struct embedded_prefetch {
	uint64_t dataset_id;
	const char *manifest_digest;
	uint32_t entry;
	uint64_t block;
	uint32_t offset, len; /* within the block; no len: all of it */
	const char *job;
	int64_t deadline_ms;
};

struct embedded_worker {
	uint64_t id; /* as the master names it */
	/* 0 when all of the range was taken, else as the service's Read fails. */
	int (*read)(void *arg, const struct embedded_read *read, struct error *err);
	/* As the service's Prefetch; 1 when the block is on its way. */
	int (*prefetch)(void *arg, const struct embedded_prefetch *prefetch, struct error *err);
	void *arg;
};
