/* The parts of a worker that need no server: buffers, the memory of re-reads, the work queue. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/sync.h"
#include "worker/buffer_pool.h"
#include "worker/reuse.h"
#include "worker/work_queue.h"

#define KIB ((uint32_t)1 << 10)
#define MIB ((uint32_t)1 << 20)

/* ---- buffers --------------------------------------------------------------------------------- */

static void buffers_never_exceed_the_budget(void **state)
{
	struct buffer_pool *p = buffer_pool_new(8 * MIB, NULL, NULL);
	struct buffer *b[3];

	(void)state;
	assert_int_equal(buffer_pool_get(p, 4 * MIB, CLOCK_NEVER, &b[0]), 0);
	assert_int_equal(buffer_pool_get(p, 3 * MIB, CLOCK_NEVER, &b[1]), 0);
	assert_int_equal(buffer_pool_get(p, 1, clock_deadline_ms(20), &b[2]), -ETIMEDOUT);
	assert_int_equal(buffer_pool_used_bytes(p), 8 * MIB);
	buffer_put(b[0]);
	/* What was kept of one size makes room for another. */
	assert_int_equal(buffer_pool_get(p, 1 * MIB, clock_deadline_ms(20), &b[0]), 0);
	assert_int_equal(buffer_pool_get(p, 2 * MIB, clock_deadline_ms(20), &b[2]), 0);
	assert_true(buffer_pool_used_bytes(p) <= 8 * MIB);
	for (int i = 0; i < 3; i++)
		buffer_put(b[i]);
	buffer_pool_free(p);
}

static void *put_after_a_while(void *arg)
{
	usleep(50000);
	buffer_put(arg);
	return NULL;
}

static void a_taker_waits_for_a_buffer_to_come_back(void **state)
{
	struct buffer_pool *p = buffer_pool_new(4 * MIB, NULL, NULL);
	struct buffer *a, *b;
	pthread_t thread;

	(void)state;
	assert_int_equal(buffer_pool_get(p, 4 * MIB, CLOCK_NEVER, &a), 0);
	pthread_create(&thread, NULL, put_after_a_while, a);
	assert_int_equal(buffer_pool_get(p, 64 * KIB, clock_deadline_ms(5000), &b), 0);
	pthread_join(thread, NULL);
	buffer_put(b);
	buffer_pool_free(p);
}

static bool put_one(void *arg)
{
	struct buffer **held = arg, *b = *held;

	*held = NULL;
	if (b)
		buffer_put(b);
	return b != NULL;
}

static void what_is_only_useful_is_reclaimed_before_a_taker_waits(void **state)
{
	struct buffer *held = NULL, *b;
	struct buffer_pool *p = buffer_pool_new(4 * MIB, put_one, &held);

	(void)state;
	assert_int_equal(buffer_pool_get(p, 4 * MIB, CLOCK_NEVER, &held), 0);
	assert_int_equal(buffer_pool_get(p, 4 * MIB, clock_deadline_ms(50), &b), 0);
	assert_null(held);
	buffer_put(b);
	buffer_pool_free(p);
}

static void idle_buffers_go_back_to_the_system(void **state)
{
	struct buffer_pool *p = buffer_pool_new(16 * MIB, NULL, NULL);
	struct buffer *b;

	(void)state;
	assert_int_equal(buffer_pool_get(p, 4 * MIB, CLOCK_NEVER, &b), 0);
	buffer_put(b);
	buffer_pool_trim(p);
	assert_int_equal(buffer_pool_used_bytes(p), 4 * MIB);
	buffer_pool_trim(p);
	assert_int_equal(buffer_pool_used_bytes(p), 0);
	buffer_pool_free(p);
}

static void a_buffer_outlives_its_pool(void **state)
{
	struct buffer_pool *p = buffer_pool_new(4 * MIB, NULL, NULL);
	struct buffer *b;

	(void)state;
	assert_int_equal(buffer_pool_get(p, 64 * KIB, CLOCK_NEVER, &b), 0);
	buffer_pool_free(p);
	b->data[0] = 1;
	buffer_put(b); /* the leak checker sees whether the pool went with it */
}

/* ---- re-reads -------------------------------------------------------------------------------- */

static struct block_id id_of(uint64_t i)
{
	return (struct block_id){.hi = i * 0x9e3779b97f4a7c15, .lo = i * 0xc2b2ae3d27d4eb4f};
}

static bool pass(struct reuse *u, uint64_t block, uint32_t block_bytes, uint32_t step)
{
	struct block_id id = id_of(block);
	bool worth = false;

	for (uint32_t at = 0; at < block_bytes; at += step)
		worth |= reuse_read(
			u, &id, block_bytes, at, block_bytes - at < step ? block_bytes - at : step);
	return worth;
}

static void one_pass_is_one_read_however_it_is_cut(void **state)
{
	static const uint32_t steps[] = {4096, 10000, 65536, 100000, 131072, 4 * MIB};

	(void)state;
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		struct reuse *u = reuse_new(1024);

		assert_false(pass(u, 1, 4 * MIB, steps[i]));
		assert_true(pass(u, 1, 4 * MIB, steps[(i + 1) % 6]));
		reuse_free(u);
	}
}

static void a_small_file_counts_from_its_second_read(void **state)
{
	struct reuse *u = reuse_new(1024);

	(void)state;
	assert_false(pass(u, 7, 1, 1));
	assert_true(pass(u, 7, 1, 1));
	assert_false(pass(u, 8, 110000, 16384));
	assert_true(pass(u, 8, 110000, 110000));
	reuse_free(u);
}

static void a_corner_of_a_block_has_to_be_read_often(void **state)
{
	struct reuse *u = reuse_new(1024);
	struct block_id id = id_of(3);
	unsigned reads = 0;

	(void)state;
	while (!reuse_read(u, &id, 4 * MIB, 0, 128 * KIB))
		reads++;
	/* Until re-reads have cost as much as the block: 4 MiB / 128 KiB. */
	assert_int_equal(reads, 32);
	reuse_free(u);
}

static void a_stored_block_starts_anew(void **state)
{
	struct reuse *u = reuse_new(1024);
	struct block_id id = id_of(5);

	(void)state;
	assert_false(pass(u, 5, 1000, 1000));
	reuse_forget(u, &id);
	assert_false(pass(u, 5, 1000, 1000));
	assert_true(pass(u, 5, 1000, 1000));
	reuse_free(u);
}

static void more_blocks_than_it_holds_stay_known_in_part(void **state)
{
	struct reuse *u = reuse_new(1024);
	unsigned known = 0;

	(void)state;
	for (uint64_t i = 0; i < 4096; i++)
		pass(u, i, 1000, 1000);
	for (uint64_t i = 0; i < 4096; i++)
		known += pass(u, i, 1000, 1000);
	assert_in_range(known, 256, 2048);
	reuse_free(u);
}

/* ---- the queue ------------------------------------------------------------------------------- */

struct job {
	struct work work;
	atomic_int *running, *most, *done;
	int order;
	int *seen;
};

static void run_job(struct work *w)
{
	struct job *j = (struct job *)w;
	int now = atomic_fetch_add(j->running, 1) + 1;

	if (now > atomic_load(j->most))
		atomic_store(j->most, now);
	usleep(2000);
	if (j->seen)
		*j->seen = atomic_load(j->done);
	atomic_fetch_add(j->done, 1);
	atomic_fetch_sub(j->running, 1);
}

static void no_more_run_at_once_than_allowed_and_all_run(void **state)
{
	struct work_queue *q = work_queue_new(4);
	atomic_int running = 0, most = 0, done = 0;
	struct job jobs[64];

	(void)state;
	for (int i = 0; i < 64; i++) {
		jobs[i] = (struct job){
			.work.run = run_job, .running = &running, .most = &most, .done = &done};
		assert_true(work_queue_add(q, &jobs[i].work, true));
	}
	work_queue_free(q);
	assert_int_equal(done, 64);
	assert_in_range(most, 2, 4);
}

static void what_is_not_urgent_waits_or_is_refused(void **state)
{
	struct work_queue *q = work_queue_new(2);
	atomic_int running = 0, most = 0, done = 0;
	struct job jobs[5];

	(void)state;
	for (int i = 0; i < 5; i++)
		jobs[i] = (struct job){
			.work.run = run_job, .running = &running, .most = &most, .done = &done};
	assert_true(work_queue_add(q, &jobs[0].work, true));
	assert_true(work_queue_add(q, &jobs[1].work, false));
	assert_false(work_queue_add(q, &jobs[2].work, false));
	assert_true(work_queue_add(q, &jobs[3].work, true));
	work_queue_free(q);
	assert_int_equal(done, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buffers_never_exceed_the_budget),
		cmocka_unit_test(a_taker_waits_for_a_buffer_to_come_back),
		cmocka_unit_test(what_is_only_useful_is_reclaimed_before_a_taker_waits),
		cmocka_unit_test(idle_buffers_go_back_to_the_system),
		cmocka_unit_test(a_buffer_outlives_its_pool),
		cmocka_unit_test(one_pass_is_one_read_however_it_is_cut),
		cmocka_unit_test(a_small_file_counts_from_its_second_read),
		cmocka_unit_test(a_corner_of_a_block_has_to_be_read_often),
		cmocka_unit_test(a_stored_block_starts_anew),
		cmocka_unit_test(more_blocks_than_it_holds_stay_known_in_part),
		cmocka_unit_test(no_more_run_at_once_than_allowed_and_all_run),
		cmocka_unit_test(what_is_not_urgent_waits_or_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
