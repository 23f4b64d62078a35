/*
 * What a mount counts. Plain atomics, cumulative since the mount began; the heartbeat, mount_stat
 * and the metrics read them.
 */
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "common/clock.h"
#include "common/error.h"
#include "common/metrics.h"
#include "common/sync.h"
#include "fuse/block_source.h"
#include "fuse/read_waits.h"

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

enum counters_order {
	ORDER_ANNOUNCED,     /* entries */
	ORDER_FETCHED_BYTES, /* brought before a reader asked */
	ORDER_USED_BYTES,    /* of these, that a reader got */
	ORDER_DROPPED_BYTES, /* that nobody asked for */
	COUNTERS_ORDER_COUNT
};

struct counters {
	atomic_uint_fast64_t ops[OP_COUNT];
	atomic_uint_fast64_t bytes[BLOCK_FROM_COUNT];	/* that readers asked for and got */
	atomic_uint_fast64_t waits_ns[READ_WAIT_COUNT]; /* of reads, by cause */
	atomic_uint_fast64_t failed_reads, interrupted_reads;
	atomic_uint_fast64_t preloaded_bytes; /* among those of the local store */
	/* of announced orders, in the order of enum counters_order */
	atomic_uint_fast64_t order[COUNTERS_ORDER_COUNT];

	/* constant */
	struct metric_series *op_series[OP_COUNT], *byte_series[BLOCK_FROM_COUNT];
	struct metric_series *failed_series, *preloaded_series, *seconds_series,
		*order_series[COUNTERS_ORDER_COUNT], *takeovers_series,
		*wait_series[READ_WAIT_COUNT];
	/* of the collector, which adds to the metrics what they do not have yet */
	struct metrics_collection *collection;
	uint64_t waits_shown_ns[READ_WAIT_COUNT];

	struct mutex mu;
	/* guarded by mu */
	char last_error[ERROR_TEXT_BYTES];
	int64_t logged_ms;   /* when a failed read was logged last */
	uint64_t suppressed; /* failed reads since that were not */
};

void counters_init(struct counters *c, const char *dataset, const char *job);
void counters_deinit(struct counters *c);

/* What a heartbeat tells, and what whoever comes after this process goes on from. */
struct counters_kept {
	_Atomic uint64_t ops[OP_COUNT], bytes[BLOCK_FROM_COUNT], failed_reads;
	_Atomic uint64_t waits_ns[READ_WAIT_COUNT];
};
void counters_keep(struct counters *c, struct counters_kept *ret);
/* Right after init, by the process that is the takeovers-th after the first. */
void counters_resume(struct counters *c, const struct counters_kept *kept, uint64_t takeovers);

const char *counters_op_name(enum counters_op op);

static inline void counters_op(struct counters *c, enum counters_op op)
{
	atomic_fetch_add_explicit(&c->ops[op], 1, memory_order_relaxed);
	metric_add(c->op_series[op], 1);
}

static inline void counters_bytes(struct counters *c, enum block_from from, uint64_t bytes)
{
	if (bytes == 0)
		return;
	atomic_fetch_add_explicit(&c->bytes[from], bytes, memory_order_relaxed);
	metric_add(c->byte_series[from], bytes);
}

static inline void counters_waited(struct counters *c, enum read_wait cause, int64_t ns)
{
	if (ns > 0)
		atomic_fetch_add_explicit(&c->waits_ns[cause], (uint64_t)ns, memory_order_relaxed);
}

/* Given to the kernel before a reader asked. */
static inline void counters_preloaded(struct counters *c, uint64_t bytes)
{
	if (bytes == 0)
		return;
	counters_bytes(c, BLOCK_FROM_LOCAL_STORE, bytes);
	atomic_fetch_add_explicit(&c->preloaded_bytes, bytes, memory_order_relaxed);
	metric_add(c->preloaded_series, bytes);
}

static inline void counters_order_add(struct counters *c, enum counters_order what, uint64_t n)
{
	if (n == 0)
		return;
	atomic_fetch_add_explicit(&c->order[what], n, memory_order_relaxed);
	metric_add(c->order_series[what], n);
}

/* A read that was answered with bytes. */
static inline void counters_read_took(struct counters *c, int64_t took_ns)
{
	metric_observe(c->seconds_series, (double)took_ns / 1e9);
}

/* Counts a failed read, keeps its text, and logs it, but at most one line a second. */
void counters_fail(struct counters *c, const char *text);
/* For the reason that was told a moment ago. */
void counters_fail_again(struct counters *c);

uint64_t counters_requests(struct counters *c);
uint64_t counters_hit_bytes(struct counters *c);
uint64_t counters_miss_bytes(struct counters *c);
void counters_last_error(struct counters *c, char ret_text[static ERROR_TEXT_BYTES]);
