#include "common/thread_pool.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"

static atomic_int ran, inside, most_inside;
static atomic_bool open_gate;

static void count(void *arg)
{
	(void)arg;
	atomic_fetch_add(&ran, 1);
}

/* Waits for the gate, for 10 s at most, and notes how many wait at once. */
static void wait_at_gate(void *arg)
{
	int64_t end_ms = clock_deadline_ms(10000);
	int now = atomic_fetch_add(&inside, 1) + 1;
	int most = atomic_load(&most_inside);

	while (now > most && !atomic_compare_exchange_weak(&most_inside, &most, now))
		;
	while (!atomic_load(&open_gate) && !clock_passed(end_ms))
		usleep(500);
	atomic_fetch_sub(&inside, 1);
	count(arg);
}

static int setup(void **state)
{
	(void)state;
	atomic_store(&ran, 0);
	atomic_store(&inside, 0);
	atomic_store(&most_inside, 0);
	atomic_store(&open_gate, false);
	return 0;
}

static struct thread_pool *new_pool(unsigned threads, unsigned queue_max)
{
	struct thread_pool *p;
	struct error err = ERROR_INIT;

	assert_int_equal(thread_pool_new("test", threads, queue_max, &p, &err), 0);
	return p;
}

static void await_inside(int wanted)
{
	int64_t end_ms = clock_deadline_ms(10000);

	while (atomic_load(&inside) < wanted && !clock_passed(end_ms))
		usleep(500);
	assert_int_equal(atomic_load(&inside), wanted);
}

static void every_job_runs_once(void **state)
{
	struct thread_pool *p = new_pool(4, 8);

	(void)state;
	for (int i = 0; i < 10000; i++)
		assert_int_equal(thread_pool_submit(p, count, NULL, clock_deadline_ms(10000)), 0);
	thread_pool_stop(p);
	assert_int_equal(atomic_load(&ran), 10000);
	assert_int_equal(thread_pool_pending(p), 0);
	thread_pool_free(p);
}

static void as_many_run_at_once_as_there_are_threads(void **state)
{
	struct thread_pool *p = new_pool(3, 16);

	(void)state;
	for (int i = 0; i < 9; i++)
		assert_int_equal(thread_pool_submit(p, wait_at_gate, NULL, 0), 0);
	await_inside(3);
	usleep(20000);
	assert_int_equal(atomic_load(&most_inside), 3);
	assert_int_equal(thread_pool_pending(p), 9);
	atomic_store(&open_gate, true);
	thread_pool_free(p);
	assert_int_equal(atomic_load(&ran), 9);
	assert_int_equal(atomic_load(&most_inside), 3);
}

static void a_full_queue_refuses_at_the_deadline(void **state)
{
	struct thread_pool *p = new_pool(1, 2);
	int64_t before_ms;

	(void)state;
	assert_int_equal(thread_pool_submit(p, wait_at_gate, NULL, 0), 0);
	await_inside(1);
	assert_int_equal(thread_pool_submit(p, count, NULL, 0), 0);
	assert_int_equal(thread_pool_submit(p, count, NULL, 0), 0);
	assert_int_equal(thread_pool_submit(p, count, NULL, 0), -EAGAIN);
	before_ms = clock_mono_ms();
	assert_int_equal(thread_pool_submit(p, count, NULL, clock_deadline_ms(50)), -EAGAIN);
	assert_in_range(clock_mono_ms() - before_ms, 49, 5000);
	atomic_store(&open_gate, true);
	assert_int_equal(thread_pool_submit(p, count, NULL, clock_deadline_ms(10000)), 0);
	thread_pool_free(p);
	assert_int_equal(atomic_load(&ran), 4);
}

static void open_soon(void *arg)
{
	(void)arg;
	usleep(50000);
	atomic_store(&open_gate, true);
}

static void stopping_runs_what_is_queued_and_takes_no_more(void **state)
{
	struct thread_pool *p = new_pool(2, 16);

	(void)state;
	assert_int_equal(thread_pool_submit(p, open_soon, NULL, 0), 0);
	for (int i = 0; i < 10; i++)
		assert_int_equal(thread_pool_submit(p, wait_at_gate, NULL, 0), 0);
	thread_pool_stop(p);
	assert_int_equal(atomic_load(&ran), 10);
	assert_int_equal(thread_pool_submit(p, count, NULL, clock_deadline_ms(1000)), -ESHUTDOWN);
	thread_pool_stop(p);
	thread_pool_free(p);
}

static void submit_another(void *arg)
{
	assert_int_equal(thread_pool_submit(arg, count, NULL, 0), 0);
}

static void a_job_may_submit_another(void **state)
{
	struct thread_pool *p = new_pool(1, 4);
	int64_t end_ms = clock_deadline_ms(10000);

	(void)state;
	assert_int_equal(thread_pool_submit(p, submit_another, p, 0), 0);
	while (atomic_load(&ran) == 0 && !clock_passed(end_ms))
		usleep(500);
	thread_pool_free(p);
	assert_int_equal(atomic_load(&ran), 1);
}

static void sizes_out_of_bounds_are_refused(void **state)
{
	struct thread_pool *p;
	struct error err = ERROR_INIT;

	(void)state;
	assert_int_equal(thread_pool_new("t", 0, 1, &p, &err), -EINVAL);
	assert_int_equal(thread_pool_new("t", 1, 0, &p, &err), -EINVAL);
	assert_int_equal(thread_pool_new("t", THREAD_POOL_THREADS_MAX + 1, 1, &p, &err), -EINVAL);
	assert_int_equal(thread_pool_new("t", 1, THREAD_POOL_QUEUE_MAX + 1, &p, &err), -EINVAL);
	thread_pool_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(every_job_runs_once, setup),
		cmocka_unit_test_setup(as_many_run_at_once_as_there_are_threads, setup),
		cmocka_unit_test_setup(a_full_queue_refuses_at_the_deadline, setup),
		cmocka_unit_test_setup(stopping_runs_what_is_queued_and_takes_no_more, setup),
		cmocka_unit_test_setup(a_job_may_submit_another, setup),
		cmocka_unit_test_setup(sizes_out_of_bounds_are_refused, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
