/*
 * A store in memory that does what a test tells it to: be full, be slow, lose blocks. Linked into a
 * test in the place of the real one; implements what a worker uses of store/store.h.
 */
#pragma once

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <uthash.h>

#include "common/sync.h"
#include "placement/pin.h"
#include "store/store.h"

struct fake_block {
	struct block_id id;
	uint64_t dataset_id;
	uint32_t len;
	unsigned char *data;
	UT_hash_handle hh;
};

struct fake_dataset {
	uint64_t id, grant_bytes, threshold;
	bool elastic;
	unsigned times_set, times_live; /* with a walk */
	uint64_t live_blocks;		/* of the last walk */
};

struct store {
	struct mutex mu;
	struct fake_block *blocks;
	struct fake_dataset datasets[16];
	size_t dataset_count;
	atomic_uint puts, removes;
};

/* What a test sets. */
static struct {
	struct store *store; /* the one that is open */
	atomic_bool put_says_full, would_not_take, reads_miss, scans_stall;
	atomic_int put_ms;
	atomic_int misses; /* of the next reads, as if the block came right after them */
} fake;

int store_open(const struct store_options *opts, struct store **ret, struct error *err)
{
	struct store *s = calloc(1, sizeof(*s));

	(void)opts;
	(void)err;
	assert(s);
	mutex_init(&s->mu);
	fake.store = *ret = s;
	return 0;
}

void store_close(struct store *s)
{
	struct fake_block *b, *next;

	if (!s)
		return;
	HASH_ITER (hh, s->blocks, b, next) {
		HASH_DEL(s->blocks, b);
		free(b->data);
		free(b);
	}
	mutex_deinit(&s->mu);
	free(s);
}

uint64_t store_id(const struct store *s)
{
	(void)s;
	return 4711;
}

uint64_t store_pin_ceiling(const struct store *s)
{
	(void)s;
	return PIN_ALL;
}

static struct fake_dataset *fake_dataset_locked(struct store *s, uint64_t id)
{
	for (size_t i = 0; i < s->dataset_count; i++)
		if (s->datasets[i].id == id)
			return &s->datasets[i];
	assert(s->dataset_count < 16);
	s->datasets[s->dataset_count].id = id;
	return &s->datasets[s->dataset_count++];
}

static void fake_set_locked(
	struct store *s, uint64_t dataset_id, uint64_t grant_bytes, uint64_t threshold)
{
	struct fake_dataset *d = fake_dataset_locked(s, dataset_id);

	d->grant_bytes = grant_bytes;
	d->threshold = threshold;
	d->times_set++;
}

int store_set_dataset(struct store *s, uint64_t dataset_id, uint64_t grant_bytes,
	uint64_t threshold, store_live_fn *live, void *arg, struct error *err)
{
	struct fake_dataset *d;
	struct block_id id;
	uint64_t count = 0;

	(void)err;
	for (int64_t end_ms = clock_deadline_ms(10000); fake.scans_stall && !clock_passed(end_ms);)
		usleep(1000);
	while (live && live(arg, &id) == 1)
		count++;
	mutex_guard(&s->mu);
	fake_set_locked(s, dataset_id, grant_bytes, threshold);
	if (live) {
		d = fake_dataset_locked(s, dataset_id);
		d->times_live++;
		d->live_blocks = count;
	}
	return 0;
}

int store_set_elastic(struct store *s, uint64_t dataset_id, bool elastic, struct error *err)
{
	(void)err;
	mutex_guard(&s->mu);
	fake_dataset_locked(s, dataset_id)->elastic = elastic;
	return 0;
}

int store_announce_dataset(struct store *s, uint64_t dataset_id, uint64_t grant_bytes,
	uint64_t threshold, struct error *err)
{
	struct fake_block *b, *next;

	(void)err;
	mutex_guard(&s->mu);
	HASH_ITER (hh, s->blocks, b, next)
		if (b->dataset_id == dataset_id)
			return STORE_HAS_BLOCKS;
	fake_set_locked(s, dataset_id, grant_bytes, threshold);
	return 0;
}

int store_remove_dataset(struct store *s, uint64_t dataset_id, struct error *err)
{
	struct fake_block *b, *next;

	(void)err;
	mutex_guard(&s->mu);
	s->removes++;
	HASH_ITER (hh, s->blocks, b, next) {
		if (b->dataset_id != dataset_id)
			continue;
		HASH_DEL(s->blocks, b);
		free(b->data);
		free(b);
	}
	return 0;
}

size_t store_dataset_stats(struct store *s, struct store_dataset_stat *ret, size_t room)
{
	struct fake_block *b, *next;
	size_t count = 0, i;

	mutex_guard(&s->mu);
	HASH_ITER (hh, s->blocks, b, next) {
		for (i = 0; i < count && ret[i].dataset_id != b->dataset_id; i++)
			;
		if (i == count && count < room)
			ret[count++] = (struct store_dataset_stat){.dataset_id = b->dataset_id};
		if (i < count)
			ret[i].pinned_bytes += b->len;
	}
	return count;
}

void store_stat(struct store *s, struct store_stat *ret)
{
	(void)s;
	*ret = (struct store_stat){.capacity_bytes = 1 << 30};
}

void store_degraded(struct store *s, char text[static 128])
{
	(void)s;
	text[0] = '\0';
}

static struct fake_block *fake_find_locked(struct store *s, const struct block_id *id)
{
	struct fake_block *b;

	HASH_FIND(hh, s->blocks, id, sizeof(*id), b);
	return b;
}

bool store_would_take(struct store *s, const struct store_block *b, enum store_admit admit)
{
	(void)admit;
	return !atomic_load(&fake.would_not_take) && !store_has(s, &b->id);
}

int store_put(struct store *s, const struct store_block *block, enum store_admit admit,
	const void *data, struct error *err)
{
	struct fake_block *b;

	(void)admit;
	(void)err;
	usleep((unsigned)atomic_load(&fake.put_ms) * 1000);
	if (atomic_load(&fake.put_says_full))
		return STORE_FULL;
	mutex_guard(&s->mu);
	if (fake_find_locked(s, &block->id))
		return STORE_EXISTS;
	b = calloc(1, sizeof(*b));
	assert(b && (b->data = malloc(block->len)));
	b->id = block->id;
	b->dataset_id = block->dataset_id;
	b->len = block->len;
	memcpy(b->data, data, block->len);
	HASH_ADD(hh, s->blocks, id, sizeof(b->id), b);
	s->puts++;
	return 0;
}

int store_read(struct store *s, const struct store_block *block, uint32_t offset, uint32_t len,
	void *dst, struct error *err)
{
	const struct fake_block *b;

	(void)err;
	mutex_guard(&s->mu);
	b = fake_find_locked(s, &block->id);
	if (!b || atomic_load(&fake.reads_miss))
		return STORE_MISS;
	if (atomic_load(&fake.misses) > 0) {
		atomic_fetch_sub(&fake.misses, 1);
		return STORE_MISS;
	}
	assert(b->len == block->len && offset + len <= b->len);
	memcpy(dst, b->data + offset, len);
	return 0;
}

bool store_has(struct store *s, const struct block_id *id)
{
	mutex_guard(&s->mu);
	return fake_find_locked(s, id) != NULL;
}

int store_lease_server_start(struct store *s, const char *path, const char *group,
	struct store_lease_server **ret, struct error *err)
{
	(void)s;
	(void)path;
	(void)group;
	(void)ret;
	return error_set(err, -EOPNOTSUPP, "not in this store");
}

void store_lease_server_stop(struct store_lease_server *l)
{
	assert(!l);
}
