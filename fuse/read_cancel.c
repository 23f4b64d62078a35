#include "fuse/read_cancel.h"

#include <errno.h>
#include <stddef.h>

void read_cancel_init(struct read_cancel *c)
{
	atomic_init(&c->fired, false);
	mutex_init(&c->mu);
	c->stream = NULL;
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
