/*
 * The real block source: the store of a worker on this host, read in place; else the workers, the
 * block's home first; else the origin itself.
 *
 * What a worker says is final only where no other could say better: that the object is no longer
 * the snapshot's (-ESTALE). Every other failure goes on to the next source while there is time, so
 * that losing a worker delays a read and never fails one that the origin can answer.
 *
 * Threading: any thread.
 */
#pragma once

#include "cluster/embedded_worker.h"
#include "fuse/block_source.h"
#include "fuse/origin_link.h"
#include "fuse/peers.h"

struct source_chain {
	struct block_source source;
	struct peers *peers;			/* borrowed */
	struct origin_link *origin;		/* borrowed */
	const struct embedded_worker *embedded; /* borrowed; NULL: no worker in this process */
	const char *job;			/* borrowed: for whom it reads; "": for none */
};

void source_chain_init(struct source_chain *c, struct peers *peers, struct origin_link *origin,
	const struct embedded_worker *embedded, const char *job);
