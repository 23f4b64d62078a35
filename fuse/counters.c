#define LOG_SUBSYSTEM "mount"
#include "fuse/counters.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

#define LOG_INTERVAL_MS 1000

enum {
	READ_BYTES,
	READ_SECONDS,
	READ_WAIT_SECONDS,
	REQUESTS,
	FAILED_READS,
	PRELOADED_BYTES,
	ORDER_ENTRIES,
	ORDER_BYTES,
	TAKEOVERS,
	METRICS
};

static struct metric metrics[METRICS] = {
	[READ_BYTES] = METRIC_COUNTER("granary_client_read_bytes_total",
		"Bytes that readers asked the mount for and got, by where they came from: a "
		"store on this host, one on another, or the origin.",
		"dataset", "job", "source"),
	[READ_SECONDS] = METRIC_HISTOGRAM("granary_client_read_seconds",
		"Time from a read's arrival at the mount to its answer.", metric_seconds_buckets,
		"dataset"),
	[READ_WAIT_SECONDS] = METRIC_SECONDS_COUNTER("granary_client_read_wait_seconds_total",
		"For what reads waited, from their arrival at the mount to their answer: their job's "
		"share of the origins' bandwidth, the origin, another host's store, the disk of this "
		"one, or a thread of the mount.",
		"dataset", "job", "cause"),
	[REQUESTS] = METRIC_COUNTER("granary_client_requests_total",
		"Requests that the kernel made of the mount.", "dataset", "op"),
	[FAILED_READS] = METRIC_COUNTER("granary_client_failed_reads_total",
		"Reads that the mount answered with an error.", "dataset"),
	[PRELOADED_BYTES] = METRIC_COUNTER("granary_client_preloaded_bytes_total",
		"Bytes that the kernel was given out of the local store before a reader asked; "
		"they count as read.",
		"dataset"),
	[ORDER_ENTRIES] = METRIC_COUNTER("granary_client_order_entries_total",
		"Files and records that readers announced.", "dataset"),
	[ORDER_BYTES] = METRIC_COUNTER("granary_client_order_bytes_total",
		"Bytes of announced orders: fetched before a reader asked, of these used by a "
		"reader, and dropped because none did.",
		"dataset", "what"),
	[TAKEOVERS] = METRIC_COUNTER("granary_client_takeovers_total",
		"Processes that went on with the mount in place of the one that served it.",
		"dataset"),
};

static void make_series(struct counters *c, const char *dataset, const char *job)
{
	static const char *const sources[BLOCK_FROM_COUNT] = {
		[BLOCK_FROM_LOCAL_STORE] = "local",
		[BLOCK_FROM_PEER_STORE] = "peer",
		[BLOCK_FROM_FETCH] = "origin",
		[BLOCK_FROM_ORIGIN] = "origin",
	};

	metrics_register(metrics, METRICS);
	for (int i = 0; i < BLOCK_FROM_COUNT; i++)
		c->byte_series[i] = metric_with(&metrics[READ_BYTES], dataset, job, sources[i]);
	for (int i = 0; i < READ_WAIT_COUNT; i++)
		c->wait_series[i] =
			metric_with(&metrics[READ_WAIT_SECONDS], dataset, job, read_wait_name(i));
	for (int i = 0; i < OP_COUNT; i++)
		c->op_series[i] = metric_with(&metrics[REQUESTS], dataset, counters_op_name(i));
	c->seconds_series = metric_with(&metrics[READ_SECONDS], dataset);
	c->preloaded_series = metric_with(&metrics[PRELOADED_BYTES], dataset);
	c->order_series[ORDER_ANNOUNCED] = metric_with(&metrics[ORDER_ENTRIES], dataset);
	c->order_series[ORDER_FETCHED_BYTES] =
		metric_with(&metrics[ORDER_BYTES], dataset, "fetched");
	c->order_series[ORDER_USED_BYTES] = metric_with(&metrics[ORDER_BYTES], dataset, "used");
	c->order_series[ORDER_DROPPED_BYTES] =
		metric_with(&metrics[ORDER_BYTES], dataset, "dropped");
	c->failed_series = metric_with(&metrics[FAILED_READS], dataset);
	c->takeovers_series = metric_with(&metrics[TAKEOVERS], dataset);
}

static uint64_t load(atomic_uint_fast64_t *value)
{
	return atomic_load_explicit(value, memory_order_relaxed);
}

static void collect(void *arg)
{
	struct counters *c = arg;

	for (int i = 0; i < READ_WAIT_COUNT; i++) {
		uint64_t ns = load(&c->waits_ns[i]);

		metric_add_fraction(c->wait_series[i], (double)(ns - c->waits_shown_ns[i]) / 1e9);
		c->waits_shown_ns[i] = ns;
	}
}

void counters_init(struct counters *c, const char *dataset, const char *job)
{
	memset(c, 0, sizeof(*c));
	mutex_init(&c->mu);
	c->logged_ms = INT64_MIN / 2;
	make_series(c, dataset, job);
	c->collection = metrics_collect(collect, c);
}

void counters_deinit(struct counters *c)
{
	metrics_collect_remove(c->collection);
	collect(c);
	mutex_deinit(&c->mu);
}

void counters_keep(struct counters *c, struct counters_kept *ret)
{
	for (int i = 0; i < OP_COUNT; i++)
		atomic_store(&ret->ops[i], load(&c->ops[i]));
	for (int i = 0; i < BLOCK_FROM_COUNT; i++)
		atomic_store(&ret->bytes[i], load(&c->bytes[i]));
	for (int i = 0; i < READ_WAIT_COUNT; i++)
		atomic_store(&ret->waits_ns[i], load(&c->waits_ns[i]));
	atomic_store(&ret->failed_reads, load(&c->failed_reads));
}

void counters_resume(struct counters *c, const struct counters_kept *kept, uint64_t takeovers)
{
	metric_add(c->takeovers_series, takeovers);
	for (int i = 0; i < OP_COUNT; i++) {
		atomic_store(&c->ops[i], kept->ops[i]);
		metric_add(c->op_series[i], kept->ops[i]);
	}
	for (int i = 0; i < BLOCK_FROM_COUNT; i++) {
		atomic_store(&c->bytes[i], kept->bytes[i]);
		metric_add(c->byte_series[i], kept->bytes[i]);
	}
	for (int i = 0; i < READ_WAIT_COUNT; i++)
		atomic_store(&c->waits_ns[i], kept->waits_ns[i]);
	atomic_store(&c->failed_reads, kept->failed_reads);
	metric_add(c->failed_series, kept->failed_reads);
}

const char *counters_op_name(enum counters_op op)
{
	static const char *const names[OP_COUNT] = {
		[OP_LOOKUP] = "lookup",
		[OP_GETATTR] = "getattr",
		[OP_READLINK] = "readlink",
		[OP_OPEN] = "open",
		[OP_RELEASE] = "release",
		[OP_READ] = "read",
		[OP_READDIR] = "readdir",
		[OP_STATFS] = "statfs",
		[OP_XATTR] = "xattr",
		[OP_FORGET] = "forget",
	};

	return names[op];
}

void counters_fail_again(struct counters *c)
{
	atomic_fetch_add_explicit(&c->failed_reads, 1, memory_order_relaxed);
	metric_add(c->failed_series, 1);
}

void counters_fail(struct counters *c, const char *text)
{
	int64_t now_ms = clock_mono_ms();
	uint64_t suppressed;

	counters_fail_again(c);
	{
		mutex_guard(&c->mu);
		snprintf(c->last_error, sizeof(c->last_error), "%s", text);
		if (now_ms - c->logged_ms < LOG_INTERVAL_MS) {
			c->suppressed++;
			return;
		}
		suppressed = c->suppressed;
		c->suppressed = 0;
		c->logged_ms = now_ms;
	}
	if (suppressed)
		log_error("%s (and %" PRIu64 " more failed reads before it)", text, suppressed);
	else
		log_error("%s", text);
}

uint64_t counters_requests(struct counters *c)
{
	uint64_t sum = 0;

	for (int i = 0; i < OP_COUNT; i++)
		sum += load(&c->ops[i]);
	return sum;
}

uint64_t counters_hit_bytes(struct counters *c)
{
	return load(&c->bytes[BLOCK_FROM_LOCAL_STORE]) + load(&c->bytes[BLOCK_FROM_PEER_STORE]);
}

uint64_t counters_miss_bytes(struct counters *c)
{
	return load(&c->bytes[BLOCK_FROM_FETCH]) + load(&c->bytes[BLOCK_FROM_ORIGIN]);
}

void counters_last_error(struct counters *c, char ret_text[static ERROR_TEXT_BYTES])
{
	mutex_guard(&c->mu);

	memcpy(ret_text, c->last_error, sizeof(c->last_error));
}
