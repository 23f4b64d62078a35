#include "fuse/read_cancel.h"

#include <errno.h>
#include <stddef.h>

void read_cancel_init(struct read_cancel *c)
{
	atomic_init(&c->fired, false);
	mutex_init(&c->mu);
	c->stream = NULL;
	atomic_init(&c->waited_ms, 0);
	atomic_init(&c->lost_ms, 0);
	c->throttle = NULL;
}

void read_cancel_deinit(struct read_cancel *c)
{
	assert(!c->stream);
	mutex_deinit(&c->mu);
}

void read_cancel_fire(struct read_cancel *c)
{
	mutex_guard(&c->mu);

	atomic_store(&c->fired, true);
	if (c->stream)
		rpc_stream_cancel(c->stream);
}

int read_cancel_attach(struct read_cancel *c, struct rpc_stream *stream)
{
	mutex_guard(&c->mu);

	if (atomic_load(&c->fired))
		return -ECANCELED;
	assert(!c->stream);
	c->stream = stream;
	return 0;
}

void read_cancel_detach(struct read_cancel *c)
{
	mutex_guard(&c->mu);

	c->stream = NULL;
}

void read_cancel_waited(struct read_cancel *c, int64_t ms)
{
	atomic_fetch_add(&c->waited_ms, ms);
	if (c->throttle)
		throttle_note(c->throttle, ms);
}

void read_cancel_lost(struct read_cancel *c, int64_t ms)
{
	if (ms > 0)
		atomic_fetch_add(&c->lost_ms, ms);
}

void read_cancel_restart(struct read_cancel *c)
{
	atomic_store(&c->waited_ms, 0);
	atomic_store(&c->lost_ms, 0);
}

int64_t read_cancel_deadline_ms(const struct read_cancel *c, int64_t deadline_ms)
{
	return deadline_ms == CLOCK_NEVER ? CLOCK_NEVER : deadline_ms + atomic_load(&c->waited_ms);
}
