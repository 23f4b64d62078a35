/*
 * What a mount counts. Plain atomics, cumulative since the mount began; the heartbeat, mount_stat
 * and the metrics read them.
 */
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/sync.h"
#include "fuse/block_source.h"

enum counters_op {
	OP_LOOKUP,
	OP_GETATTR,
	OP_READLINK,
	OP_OPEN,
	OP_RELEASE,
	OP_READ,
	OP_READDIR,
	OP_STATFS,
	OP_XATTR,
	OP_FORGET,
	OP_COUNT
};

struct counters {
	atomic_uint_fast64_t ops[OP_COUNT];
	atomic_uint_fast64_t bytes[BLOCK_FROM_COUNT]; /* that readers asked for and got */
	atomic_uint_fast64_t failed_reads, interrupted_reads;

	struct mutex mu;
	/* guarded by mu */
	char last_error[ERROR_TEXT_BYTES];
	int64_t logged_ms;   /* when a failed read was logged last */
	uint64_t suppressed; /* failed reads since that were not */
};

void counters_init(struct counters *c);
void counters_deinit(struct counters *c);

const char *counters_op_name(enum counters_op op);

static inline void counters_op(struct counters *c, enum counters_op op)
{
	atomic_fetch_add_explicit(&c->ops[op], 1, memory_order_relaxed);
}

static inline void counters_bytes(struct counters *c, enum block_from from, uint64_t bytes)
{
	atomic_fetch_add_explicit(&c->bytes[from], bytes, memory_order_relaxed);
}

/* Counts a failed read, keeps its text, and logs it, but at most one line a second. */
void counters_fail(struct counters *c, const char *text);

uint64_t counters_requests(struct counters *c);
uint64_t counters_hit_bytes(struct counters *c);
uint64_t counters_miss_bytes(struct counters *c);
void counters_last_error(struct counters *c, char ret_text[static ERROR_TEXT_BYTES]);
