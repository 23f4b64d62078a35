/* A worker with a fake store, and readers in threads of their own. */
#pragma once

#include "tests/unit/worker_fixture.h"

#include <pthread.h>

#include "tests/unit/worker_fake_store.h"

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define MIB ((uint32_t)1 << 20)
#define BIG ((uint64_t)12 << 20) /* three blocks */

static inline int setup(void **state)
{
	memset(&fake, 0, sizeof(fake));
	*state = fx_new();
	return 0;
}

static inline int teardown(void **state)
{
	fx_free(*state);
	return 0;
}

/* A worker whose plan pins everything below `threshold`. */
static inline void start(struct fx *f, uint64_t threshold, const struct fx_tuning *tune)
{
	manifest_unref(fx_snapshot(f));
	fx_worker_start(f, tune);
	fx_grant(f, UINT64_MAX, threshold);
}

struct reader {
	struct fx *f;
	struct fx_read q;
	pthread_t thread;
	int result;
	int64_t done_ms;
};

static inline void *reader_main(void *arg)
{
	struct reader *r = arg;

	r->result = fx_read(r->f, &r->q);
	r->done_ms = clock_mono_ms();
	return NULL;
}

static inline void reader_start(struct reader *r, struct fx *f)
{
	r->f = f;
	assert_int_equal(pthread_create(&r->thread, NULL, reader_main, r), 0);
}

/* Readers have their bytes before the store has them. */
static inline void wait_for_puts(unsigned puts)
{
	for (int ms = 0; ms < 10000 && fake.store->puts < puts; ms++)
		usleep(1000);
	assert_int_equal(fake.store->puts, puts);
}
