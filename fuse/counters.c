#define LOG_SUBSYSTEM "mount"
#include "fuse/counters.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

#define LOG_INTERVAL_MS 1000

void counters_init(struct counters *c)
{
	memset(c, 0, sizeof(*c));
	mutex_init(&c->mu);
	c->logged_ms = INT64_MIN / 2;
}

void counters_deinit(struct counters *c)
{
	mutex_deinit(&c->mu);
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

void counters_fail(struct counters *c, const char *text)
{
	int64_t now_ms = clock_mono_ms();
	uint64_t suppressed;

	atomic_fetch_add_explicit(&c->failed_reads, 1, memory_order_relaxed);
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

static uint64_t load(atomic_uint_fast64_t *value)
{
	return atomic_load_explicit(value, memory_order_relaxed);
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
