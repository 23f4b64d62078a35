#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "fuse/io_pool.h"

#define THREADS 4
#define FAR_MS 60000

struct test_job {
	struct io_job job;
	struct read_cancel cancel;
	atomic_bool *go; /* NULL: at once */
	atomic_int *ran, *given_up, *freed;
	atomic_int *code; /* of the last give_up */
};

struct counts {
	atomic_int ran, given_up, freed, code;
	atomic_bool go;
};

static void run(struct io_job *job)
{
	struct test_job *t = (struct test_job *)job;

	while (t->go && !atomic_load(t->go) && !atomic_load(&t->cancel.fired))
		usleep(500);
	atomic_fetch_add(t->ran, 1);
}

static void give_up(struct io_job *job, int code)
{
	struct test_job *t = (struct test_job *)job;

	atomic_store(t->code, code);
	atomic_fetch_add(t->given_up, 1);
}

static void job_free(struct io_job *job)
{
	struct test_job *t = (struct test_job *)job;
	atomic_int *freed = t->freed;

	read_cancel_deinit(&t->cancel);
	free(t);
	atomic_fetch_add(freed, 1);
}

static struct test_job *make(struct counts *c, int64_t timeout_ms, bool waits)
{
	struct test_job *t = calloc(1, sizeof(*t));

	read_cancel_init(&t->cancel);
	t->job = (struct io_job){.run = run,
		.give_up = give_up,
		.free = job_free,
		.cancel = &t->cancel,
		.deadline_ms = clock_deadline_ms(timeout_ms)};
	t->go = waits ? &c->go : NULL;
	t->ran = &c->ran;
	t->given_up = &c->given_up;
	t->freed = &c->freed;
	t->code = &c->code;
	return t;
}

static void await(atomic_int *value, int want)
{
	int64_t deadline_ms = clock_deadline_ms(10000);

	while (atomic_load(value) < want && !clock_passed(deadline_ms))
		usleep(500);
	assert_int_equal(atomic_load(value), want);
}

static struct io_pool *start(void)
{
	struct io_pool *p = malloc(sizeof(*p));

	assert_int_equal(io_pool_start(p, THREADS, NULL), 0);
	return p;
}

static void every_job_is_run_once_and_freed(void **state)
{
	struct counts c = {0};
	struct io_pool *p = start();

	(void)state;
	for (int i = 0; i < 5000; i++)
		assert_int_equal(io_pool_submit(p, &make(&c, FAR_MS, false)->job), 0);
	await(&c.freed, 5000);
	io_pool_stop(p);
	free(p);
	assert_int_equal(c.ran, 5000);
	assert_int_equal(c.given_up, 0);
}

static void a_waiting_job_is_given_up_when_it_is_cancelled(void **state)
{
	struct counts c = {0}, waiting = {0};
	struct io_pool *p = start();
	struct test_job *t = make(&waiting, FAR_MS, false);

	(void)state;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(io_pool_submit(p, &make(&c, FAR_MS, true)->job), 0);
	assert_int_equal(io_pool_submit(p, &t->job), 0);
	read_cancel_fire(&t->cancel);
	io_pool_kick(p);
	await(&waiting.freed, 1);
	assert_int_equal(waiting.given_up, 1);
	assert_int_equal(waiting.code, -EINTR);
	assert_int_equal(waiting.ran, 0);
	atomic_store(&c.go, true);
	await(&c.freed, THREADS);
	io_pool_stop(p);
	free(p);
}

static void a_waiting_job_is_given_up_at_its_deadline(void **state)
{
	struct counts c = {0}, waiting = {0};
	struct io_pool *p = start();
	int64_t began_ms = clock_mono_ms();

	(void)state;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(io_pool_submit(p, &make(&c, FAR_MS, true)->job), 0);
	for (int i = 0; i < 10; i++)
		assert_int_equal(io_pool_submit(p, &make(&waiting, 300, false)->job), 0);
	await(&waiting.freed, 10);
	assert_int_equal(waiting.code, -ETIMEDOUT);
	assert_true(clock_mono_ms() - began_ms >= 300);
	atomic_store(&c.go, true);
	await(&c.freed, THREADS);
	io_pool_stop(p);
	free(p);
}

static void a_job_outwaits_those_that_wait_for_their_share(void **state)
{
	struct counts c = {0}, waiting = {0};
	struct io_pool *p = start();
	int64_t began_ms = clock_mono_ms();

	(void)state;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(io_pool_submit(p, &make(&c, FAR_MS, true)->job), 0);
	assert_int_equal(io_pool_submit(p, &make(&waiting, 600, false)->job), 0);
	while (clock_mono_ms() - began_ms < 2500) {
		usleep(100000);
		for (int i = 0; i < 3; i++)
			throttle_note(&p->throttle, 200);
	}
	assert_int_equal(waiting.freed, 0);
	atomic_store(&c.go, true);
	await(&waiting.freed, 1);
	assert_int_equal(waiting.ran, 1);
	await(&c.freed, THREADS);
	io_pool_stop(p);
	free(p);
}

static void stopping_cancels_what_runs_and_gives_up_what_waits(void **state)
{
	struct counts c = {0};
	struct io_pool *p = start();

	(void)state;
	for (int i = 0; i < 100; i++)
		assert_int_equal(io_pool_submit(p, &make(&c, FAR_MS, true)->job), 0);
	io_pool_stop(p);
	assert_int_equal(c.freed, 100);
	assert_int_equal(c.ran + c.given_up, 100);
	assert_true(c.ran <= THREADS);
	assert_int_equal(c.code, -ECANCELED);
	free(p);
}

static void more_than_the_bound_is_refused(void **state)
{
	struct counts c = {0};
	struct io_pool *p = start();
	struct test_job *t = NULL;
	int submitted = 0, r = 0;

	(void)state;
	while (r == 0) {
		t = make(&c, FAR_MS, true);
		r = io_pool_submit(p, &t->job);
		submitted += r == 0;
	}
	assert_int_equal(r, -EBUSY);
	assert_in_range(submitted, IO_POOL_QUEUE_MAX, IO_POOL_QUEUE_MAX + THREADS);
	job_free(&t->job);
	io_pool_stop(p);
	assert_int_equal(c.freed, submitted + 1);
	free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_job_is_run_once_and_freed),
		cmocka_unit_test(a_waiting_job_is_given_up_when_it_is_cancelled),
		cmocka_unit_test(a_waiting_job_is_given_up_at_its_deadline),
		cmocka_unit_test(a_job_outwaits_those_that_wait_for_their_share),
		cmocka_unit_test(stopping_cancels_what_runs_and_gives_up_what_waits),
		cmocka_unit_test(more_than_the_bound_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
