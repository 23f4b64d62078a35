/*
 * What the store's tests share: a folder that goes away, blocks whose bytes follow from their id,
 * and a check that whatever is read is what was put.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "store/store.h"

#define MIB ((uint64_t)1 << 20)

/* Waits until the condition holds, a minute at most. */
#define EVENTUALLY(cond)                                      \
	do {                                                  \
		int64_t deadline_ = clock_deadline_ms(60000); \
		while (!(cond) && !clock_passed(deadline_))   \
			usleep(2000);                         \
		assert_true(cond);                            \
	} while (0)

/* Some tests fork while the store's threads run; the child makes its own. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "die_after_fork=0";
}

/* RocksDB is not built for the sanitizer, which cannot see how it synchronises. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:librocksdb\ncalled_from_lib:librocksdb\n";
}

static char fixture_dir[256];
static uint64_t fixture_scrub_bytes_per_s; /* of stores that fixture_open opens */
static unsigned fixture_tick_ms;

static inline int fixture_setup(void **state)
{
	const char *base = getenv("TMPDIR");

	(void)state;
	snprintf(fixture_dir, sizeof(fixture_dir), "%s/granary-store-XXXXXX", base ? base : "/tmp");
	return mkdtemp(fixture_dir) ? 0 : -1;
}

static inline int fixture_remove_entry(
	const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static inline int fixture_teardown(void **state)
{
	(void)state;
	nftw(fixture_dir, fixture_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}

static inline uint64_t fixture_mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

/* Object `n` of a dataset; of block `index` when it has several. */
static inline struct store_block fixture_block(
	uint64_t dataset_id, uint64_t n, uint64_t object_bytes, uint64_t index)
{
	struct store_block b = {.dataset_id = dataset_id,
		.object_bytes = object_bytes,
		.index = index,
		.len = (uint32_t)block_len(object_bytes, index)};

	b.object = (struct object_id){fixture_mix(dataset_id * 1000003 + n), fixture_mix(~n)};
	b.id = block_id_make(&b.object, index);
	return b;
}

static inline void fixture_fill(const struct store_block *b, void *data)
{
	uint64_t x = b->id.lo ^ b->id.hi;
	unsigned char *at = data;

	for (uint32_t i = 0; i < b->len; i += 8) {
		uint64_t word = fixture_mix(x + i);

		memcpy(at + i, &word, b->len - i < 8 ? b->len - i : 8);
	}
}

static inline struct store *fixture_open_at(const char *dir, uint64_t capacity_bytes)
{
	struct store_options opts = {.dir = dir,
		.capacity_bytes = capacity_bytes,
		.commit_interval_ms = 20,
		.tick_ms = fixture_tick_ms,
		.scrub_bytes_per_s = fixture_scrub_bytes_per_s};
	struct error err = ERROR_INIT;
	struct store *s = NULL;
	int r = store_open(&opts, &s, &err);

	if (r < 0)
		fprintf(stderr, "store_open: %s\n", err.text);
	assert_int_equal(r, 0);
	return s;
}

static inline struct store *fixture_open(uint64_t capacity_bytes)
{
	return fixture_open_at(fixture_dir, capacity_bytes);
}

static inline int fixture_put(struct store *s, const struct store_block *b, enum store_admit admit)
{
	struct error err = ERROR_INIT;
	void *data = malloc(b->len);
	int r;

	assert_non_null(data);
	fixture_fill(b, data);
	r = store_put(s, b, admit, data, &err);
	free(data);
	if (r < 0)
		fprintf(stderr, "store_put: %s\n", err.text);
	return r;
}

/* Are these the block's bytes from `offset`? */
static inline int fixture_same(
	const struct store_block *b, const void *data, uint32_t offset, uint32_t len)
{
	unsigned char *want = malloc(b->len);
	int same;

	fixture_fill(b, want);
	same = memcmp(want + offset, data, len) == 0;
	free(want);
	return same;
}

/* Reads a range; what comes is checked. */
static inline int fixture_read_range(
	struct store *s, const struct store_block *b, uint32_t offset, uint32_t len)
{
	void *data = malloc(len);
	int r = store_read(s, b, offset, len, data, NULL);

	if (r == 0)
		assert_true(fixture_same(b, data, offset, len));
	free(data);
	return r;
}

static inline int fixture_read(struct store *s, const struct store_block *b)
{
	return fixture_read_range(s, b, 0, b->len);
}

static inline void fixture_plan(
	struct store *s, uint64_t dataset_id, uint64_t grant_bytes, uint64_t threshold)
{
	struct error err = ERROR_INIT;

	assert_int_equal(
		store_set_dataset(s, dataset_id, grant_bytes, threshold, NULL, NULL, &err), 0);
}

static inline struct store_dataset_stat fixture_stat(struct store *s, uint64_t dataset_id)
{
	struct store_dataset_stat all[64];
	size_t count = store_dataset_stats(s, all, 64);

	for (size_t i = 0; i < count && i < 64; i++) {
		if (all[i].dataset_id == dataset_id)
			return all[i];
	}
	return (struct store_dataset_stat){0};
}

static uint64_t fixture_du_bytes;

static inline int fixture_du_entry(
	const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)path;
	(void)type;
	(void)at;
	fixture_du_bytes += (uint64_t)st->st_blocks * 512;
	return 0;
}

/* What du says of the folder. */
static inline uint64_t fixture_du(void)
{
	fixture_du_bytes = 0;
	nftw(fixture_dir, fixture_du_entry, 16, FTW_PHYS);
	return fixture_du_bytes;
}
