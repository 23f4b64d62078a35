#include "fuse/read_waits.h"

#define NS_PER_MS 1000000

const char *read_wait_name(enum read_wait cause)
{
	static const char *const names[READ_WAIT_COUNT] = {
		[READ_WAIT_SHARE] = "share",
		[READ_WAIT_ORIGIN] = "origin",
		[READ_WAIT_PEER] = "peer",
		[READ_WAIT_DISK] = "disk",
		[READ_WAIT_QUEUE] = "queue",
	};

	return names[cause];
}

static int64_t book(struct read_waits *w, enum read_wait cause, int64_t ns, int64_t left_ns)
{
	ns = ns < left_ns ? ns : left_ns;
	if (ns > 0)
		w->ns[cause] += ns;
	return ns > 0 ? left_ns - ns : left_ns;
}

void read_waits_add(struct read_waits *w, int64_t took_ns, int64_t share_ms, int64_t lost_ms,
	enum read_wait cause)
{
	int64_t left_ns = took_ns > 0 ? took_ns : 0;

	left_ns = book(w, READ_WAIT_SHARE, share_ms * NS_PER_MS, left_ns);
	left_ns = book(w, READ_WAIT_PEER, lost_ms * NS_PER_MS, left_ns);
	w->ns[cause] += left_ns;
}
