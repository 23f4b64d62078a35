/*
 * For what reads waited: the time from a read's arrival at the mount to its answer, divided among
 * causes. They add up to it.
 *
 * What the kernel does before it hands a request over, and what readers wait for its own locks, is
 * not seen.
 */
#pragma once

#include <stdint.h>

enum read_wait {
	READ_WAIT_SHARE,  /* its job's share of the origins' bandwidth, as the worker says */
	READ_WAIT_ORIGIN, /* bytes from the origin, with the way to the worker that gets them */
	READ_WAIT_PEER,	  /* another host's store, or a worker that came to nothing */
	READ_WAIT_DISK,	  /* the store of this host */
	READ_WAIT_QUEUE,  /* a thread of the mount */
	READ_WAIT_COUNT
};

struct read_waits {
	int64_t ns[READ_WAIT_COUNT];
};

/* "share", "origin", ... */
const char *read_wait_name(enum read_wait cause);
/* Books took_ns: share_ms of it to the share, then lost_ms to peers, as far as there is so much,
 * and the rest to `cause`. */
void read_waits_add(struct read_waits *w, int64_t took_ns, int64_t share_ms, int64_t lost_ms,
	enum read_wait cause);
