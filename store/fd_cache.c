#include "store/fd_cache.h"

#include <stdlib.h>
#include <sys/resource.h>

#include <uthash.h>

#include "common/clock.h"

#define OPEN_WAIT_MS 2000

struct fd_entry {
	uint32_t number;
	bool sparse;
	bool opening;
	bool dropped; /* off the table: the last user closes it */
	unsigned users;
	int fds[2];
	int64_t used_ms;
	struct fd_entry *next_closed;
	UT_hash_handle hh;
};

unsigned fd_cache_room(unsigned wanted)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur / 8 >= wanted)
		return wanted;
	return limit.rlim_cur / 8 < 8 ? 8 : (unsigned)(limit.rlim_cur / 8);
}

void fd_cache_init(struct fd_cache *c, unsigned max, const struct fd_cache_ops *ops, void *ctx)
{
	*c = (struct fd_cache){.ops = ops, .ctx = ctx, .max = max};
	mutex_init(&c->mu);
	cond_init(&c->opened);
}

static void entry_close(struct fd_cache *c, struct fd_entry *e)
{
	c->ops->close(c->ctx, e->number, e->sparse, e->fds);
	free(e);
}

static void close_list(struct fd_cache *c, struct fd_entry *list)
{
	while (list) {
		struct fd_entry *next = list->next_closed;

		entry_close(c, list);
		list = next;
	}
}

void fd_cache_deinit(struct fd_cache *c)
{
	struct fd_entry *e, *next;

	HASH_ITER (hh, c->by_number, e, next) {
		HASH_DEL(c->by_number, e);
		entry_close(c, e);
	}
	cond_deinit(&c->opened);
	mutex_deinit(&c->mu);
}

/* The least recently used of those that nobody uses, off the table; NULL when all are in use. */
static struct fd_entry *evict_locked(struct fd_cache *c)
{
	struct fd_entry *e, *next, *oldest = NULL;

	HASH_ITER (hh, c->by_number, e, next) {
		if (!e->users && (!oldest || e->used_ms < oldest->used_ms))
			oldest = e;
	}
	if (oldest)
		HASH_DEL(c->by_number, oldest);
	return oldest;
}

/* The entry of a number that somebody else opened or is opening: waits for the latter. */
static int join_locked(struct fd_cache *c, struct fd_entry *e, struct fd_entry **ret)
{
	int64_t deadline = clock_deadline_ms(OPEN_WAIT_MS);

	e->users++;
	while (e->opening) {
		if (cond_wait(&c->opened, &c->mu, deadline) == -ETIMEDOUT && e->opening) {
			e->users--;
			return -ETIMEDOUT;
		}
	}
	if (e->fds[0] < 0) { /* the open failed */
		if (--e->users == 0)
			free(e);
		return -EIO;
	}
	e->used_ms = clock_mono_ms();
	*ret = e;
	return 0;
}

static int open_new(
	struct fd_cache *c, struct fd_entry *e, struct fd_entry *evicted, struct fd_entry **ret)
{
	int r;

	if (evicted)
		entry_close(c, evicted);
	r = c->ops->open(c->ctx, e->number, e->sparse, e->fds);
	mutex_guard(&c->mu);
	e->opening = false;
	e->used_ms = clock_mono_ms();
	cond_broadcast(&c->opened);
	if (r >= 0) {
		*ret = e;
		return 0;
	}
	e->fds[0] = e->fds[1] = -1;
	if (!e->dropped)
		HASH_DEL(c->by_number, e);
	e->dropped = true;
	if (--e->users == 0)
		free(e);
	return r;
}

int fd_cache_get(struct fd_cache *c, uint32_t number, bool sparse, struct fd_entry **ret)
{
	struct fd_entry *e, *evicted = NULL;
	int r;

	mutex_lock(&c->mu);
	HASH_FIND(hh, c->by_number, &number, sizeof(number), e);
	if (e) {
		r = join_locked(c, e, ret);
		mutex_unlock(&c->mu);
		return r;
	}
	if (HASH_COUNT(c->by_number) >= c->max) {
		evicted = evict_locked(c);
		if (!evicted) {
			mutex_unlock(&c->mu);
			return -EMFILE;
		}
	}
	e = calloc(1, sizeof(*e));
	if (e) {
		*e = (struct fd_entry){.number = number,
			.sparse = sparse,
			.opening = true,
			.users = 1,
			.fds = {-1, -1}};
		HASH_ADD(hh, c->by_number, number, sizeof(e->number), e);
	}
	mutex_unlock(&c->mu);
	if (!e) {
		if (evicted)
			entry_close(c, evicted);
		return -ENOMEM;
	}
	return open_new(c, e, evicted, ret);
}

void fd_cache_put(struct fd_cache *c, struct fd_entry *e)
{
	bool last;

	mutex_lock(&c->mu);
	last = --e->users == 0 && e->dropped;
	mutex_unlock(&c->mu);
	if (last)
		entry_close(c, e);
}

int fd_entry_data(const struct fd_entry *e)
{
	return e->fds[0];
}

int fd_entry_checks(const struct fd_entry *e)
{
	return e->fds[1];
}

int fd_entry_direct(const struct fd_entry *e)
{
	return e->sparse ? -1 : e->fds[1];
}

void fd_cache_drop(struct fd_cache *c, uint32_t number)
{
	struct fd_entry *e;
	bool unused = false;

	mutex_lock(&c->mu);
	HASH_FIND(hh, c->by_number, &number, sizeof(number), e);
	if (e) {
		HASH_DEL(c->by_number, e);
		e->dropped = true;
		unused = !e->users;
	}
	mutex_unlock(&c->mu);
	if (unused)
		entry_close(c, e);
}

void fd_cache_close_idle(struct fd_cache *c, int64_t before_ms)
{
	struct fd_entry *e, *next, *closed = NULL;

	mutex_lock(&c->mu);
	HASH_ITER (hh, c->by_number, e, next) {
		if (e->users || e->used_ms >= before_ms)
			continue;
		HASH_DEL(c->by_number, e);
		e->next_closed = closed;
		closed = e;
	}
	mutex_unlock(&c->mu);
	close_list(c, closed);
}
