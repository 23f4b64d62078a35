#include "worker/buffer_pool.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "common/sync.h"

#define CLASSES 7 /* 64 KiB, 128 KiB, ... 4 MiB */

struct buffer_pool {
	uint64_t budget_bytes;
	buffer_reclaim_fn *reclaim;
	void *reclaim_arg;
	struct mutex mu;
	struct cond returned;

	/* guarded by mu */
	uint64_t out_bytes;  /* with takers */
	uint64_t kept_bytes; /* in the free lists */
	struct buffer *kept[CLASSES];
	unsigned kept_count[CLASSES];
	unsigned idle_count[CLASSES]; /* least of kept_count since the last trim */
	unsigned waiting;
	bool closed; /* ends with the last buffer that comes back */
};

static_assert(BUFFER_MIN_BYTES << (CLASSES - 1) == BUFFER_MAX_BYTES, "classes span the sizes");

static unsigned class_of(size_t len)
{
	unsigned c = 0;

	while (BUFFER_MIN_BYTES << c < len)
		c++;
	assert(c < CLASSES);
	return c;
}

size_t buffer_room(size_t len)
{
	return BUFFER_MIN_BYTES << class_of(len);
}

struct buffer_pool *buffer_pool_new(uint64_t budget_bytes, buffer_reclaim_fn *reclaim, void *arg)
{
	struct buffer_pool *p = calloc(1, sizeof(*p));

	assert(budget_bytes >= BUFFER_MAX_BYTES);
	if (!p)
		return NULL;
	p->budget_bytes = budget_bytes;
	p->reclaim = reclaim;
	p->reclaim_arg = arg;
	mutex_init(&p->mu);
	cond_init(&p->returned);
	return p;
}

static void release_buffer(struct buffer *b)
{
	munmap(b->data, b->room);
	free(b);
}

/* Takes one kept buffer of the class off its list, or NULL. */
static struct buffer *take_kept_locked(struct buffer_pool *p, unsigned class)
{
	struct buffer *b = p->kept[class];

	assert(mutex_held(&p->mu));
	if (!b)
		return NULL;
	p->kept[class] = b->next;
	p->kept_bytes -= b->room;
	p->kept_count[class]--;
	if (p->kept_count[class] < p->idle_count[class])
		p->idle_count[class] = p->kept_count[class];
	return b;
}

static void destroy(struct buffer_pool *p)
{
	cond_deinit(&p->returned);
	mutex_deinit(&p->mu);
	free(p);
}

void buffer_pool_free(struct buffer_pool *p)
{
	struct buffer *b;
	bool last;

	if (!p)
		return;
	mutex_lock(&p->mu);
	assert(p->waiting == 0);
	p->closed = true;
	for (unsigned c = 0; c < CLASSES; c++)
		while ((b = take_kept_locked(p, c)))
			release_buffer(b);
	last = p->out_bytes == 0;
	mutex_unlock(&p->mu);
	if (last)
		destroy(p);
}

static struct buffer *map_buffer(struct buffer_pool *p, size_t room)
{
	struct buffer *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->data = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (b->data == MAP_FAILED) {
		free(b);
		return NULL;
	}
	b->room = room;
	b->pool = p;
	return b;
}

/* Frees kept buffers of whatever class until `room` more fit the budget. */
static bool make_room_locked(struct buffer_pool *p, size_t room)
{
	struct buffer *b;

	for (unsigned c = CLASSES; c-- > 0;) {
		while (p->out_bytes + p->kept_bytes + room > p->budget_bytes) {
			b = take_kept_locked(p, c);
			if (!b)
				break;
			release_buffer(b);
		}
	}
	return p->out_bytes + p->kept_bytes + room <= p->budget_bytes;
}

/* *ret stays NULL when the budget does not allow it now. */
static int try_get_locked(struct buffer_pool *p, unsigned class, struct buffer **ret)
{
	size_t room = BUFFER_MIN_BYTES << class;
	struct buffer *b = take_kept_locked(p, class);

	if (!b && make_room_locked(p, room)) {
		b = map_buffer(p, room);
		if (!b)
			return -ENOMEM;
	}
	if (b) {
		b->next = NULL;
		p->out_bytes += room;
		*ret = b;
	}
	return 0;
}

static bool reclaim(struct buffer_pool *p)
{
	bool freed;

	if (!p->reclaim)
		return false;
	mutex_unlock(&p->mu);
	freed = p->reclaim(p->reclaim_arg);
	mutex_lock(&p->mu);
	return freed;
}

int buffer_pool_get(struct buffer_pool *p, size_t len, int64_t deadline_ms, struct buffer **ret)
{
	unsigned class = class_of(len);
	struct buffer *b = NULL;
	int r;

	mutex_guard(&p->mu);
	for (;;) {
		r = try_get_locked(p, class, &b);
		if (r < 0)
			return r;
		if (b) {
			*ret = b;
			return 0;
		}
		if (reclaim(p))
			continue;
		p->waiting++;
		r = cond_wait(&p->returned, &p->mu, deadline_ms);
		p->waiting--;
		if (r < 0)
			return r;
	}
}

static void keep_locked(struct buffer_pool *p, struct buffer *b)
{
	unsigned class = class_of(b->room);

	p->kept_bytes += b->room;
	b->next = p->kept[class];
	p->kept[class] = b;
	p->kept_count[class]++;
	if (p->waiting > 0)
		cond_broadcast(&p->returned);
}

void buffer_put(struct buffer *b)
{
	struct buffer_pool *p = b->pool;
	bool last = false;

	mutex_lock(&p->mu);
	p->out_bytes -= b->room;
	if (p->closed) {
		release_buffer(b);
		last = p->out_bytes == 0;
	} else {
		keep_locked(p, b);
	}
	mutex_unlock(&p->mu);
	if (last)
		destroy(p);
}

void buffer_pool_trim(struct buffer_pool *p)
{
	struct buffer *b;

	mutex_guard(&p->mu);
	for (unsigned c = 0; c < CLASSES; c++) {
		for (unsigned n = p->idle_count[c]; n > 0; n--) {
			b = take_kept_locked(p, c);
			assert(b);
			release_buffer(b);
		}
		p->idle_count[c] = p->kept_count[c];
	}
}

uint64_t buffer_pool_used_bytes(struct buffer_pool *p)
{
	mutex_guard(&p->mu);
	return p->out_bytes + p->kept_bytes;
}
