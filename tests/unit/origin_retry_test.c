#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "origin/origin_mem.h"
#include "origin/origin_ops.h"

#define OBJECT_BYTES 300000

/* A clock that only moves when somebody sleeps. */
struct fake_time {
	int64_t now_ms;
	int64_t waits[64];
	unsigned n_waits;
	uint64_t chance;
};

static int64_t fake_now(void *arg)
{
	return ((struct fake_time *)arg)->now_ms;
}

static void fake_sleep(void *arg, int64_t ms, const atomic_bool *cancel)
{
	struct fake_time *t = arg;

	(void)cancel;
	t->now_ms += ms;
	if (t->n_waits < 64)
		t->waits[t->n_waits++] = ms;
}

static uint64_t fake_random(void *arg)
{
	return ((struct fake_time *)arg)->chance;
}

struct fixture {
	struct mem_store *store;
	struct origin *origin;
	struct fake_time time;
	unsigned char *dst;
	uint64_t last_progress;
	unsigned progress_calls;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct origin_options *opts = origin_options_new();
	struct retry_env env = {&f->time, fake_now, fake_sleep, fake_random};

	f->store = mem_store_new("retry");
	f->time.now_ms = 1000;
	mem_store_put_pattern(f->store, "a/b", OBJECT_BYTES, 7);
	assert_int_equal(origin_options_set(opts, "attempts", "8", NULL), 0);
	assert_int_equal(origin_open("mem://retry", opts, &f->origin, NULL), 0);
	origin_set_retry_env(f->origin, &env);
	origin_options_free(opts);
	f->dst = calloc(1, OBJECT_BYTES);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	origin_free(f->origin);
	mem_store_free(f->store);
	free(f->dst);
	free(f);
	return 0;
}

static void on_progress(void *arg, uint64_t filled)
{
	struct fixture *f = arg;

	assert_true(filled > f->last_progress);
	f->last_progress = filled;
	f->progress_calls++;
}

static int get_until(struct fixture *f, uint64_t offset, uint64_t len, int64_t deadline_ms,
	const atomic_bool *cancel, struct error *err)
{
	const struct origin_get get = {
		.path = "a/b",
		.path_len = 3,
		.validator = "\"v1\"",
		.object_bytes = OBJECT_BYTES,
		.offset = offset,
		.len = len,
		.dst = f->dst,
		.progress = on_progress,
		.arg = f,
		.cancel = cancel,
		.deadline_ms = deadline_ms,
	};

	f->last_progress = 0;
	return origin_get(f->origin, &get, err);
}

static int get(struct fixture *f, uint64_t offset, uint64_t len, struct error *err)
{
	return get_until(f, offset, len, CLOCK_NEVER, NULL, err);
}

static void assert_pattern(struct fixture *f, uint64_t offset, uint64_t len)
{
	unsigned char *want = malloc(len);

	assert_non_null(want);
	mem_store_pattern(7, offset, want, len);
	assert_memory_equal(f->dst, want, len);
	free(want);
}

static void a_get_brings_exactly_the_range(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(get(f, 12345, 200000, NULL), 0);
	assert_pattern(f, 12345, 200000);
	assert_int_equal(f->last_progress, 200000);
	assert_true(f->progress_calls > 1);
	assert_int_equal(origin_bytes_received(f->origin), 200000);
	assert_int_equal(f->time.n_waits, 0);
}

static void a_retry_goes_on_behind_what_arrived(void **state)
{
	struct fixture *f = *state;

	mem_store_add_fault(
		f->store, &(struct mem_fault){.kind = MEM_TRUNCATE, .bytes = 70000, .count = 3});
	assert_int_equal(get(f, 0, OBJECT_BYTES, NULL), 0);
	assert_pattern(f, 0, OBJECT_BYTES);
	assert_int_equal(mem_store_counts(f->store).gets, 4);
	/* No byte came twice. */
	assert_int_equal(origin_bytes_received(f->origin), OBJECT_BYTES);
}

static void waits_double_with_jitter_up_to_the_bound(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_INIT;

	f->time.chance = 0;
	mem_store_add_fault(f->store, &(struct mem_fault){.kind = MEM_FAIL_RETRY});
	assert_int_equal(get(f, 0, 10, &err), -EIO);
	assert_int_equal(f->time.n_waits, 7);
	for (unsigned i = 0; i < 7; i++)
		assert_int_equal(f->time.waits[i], (50 << i) < 5000 ? (50 << i) / 2 : 5000 / 2);
	assert_non_null(strstr(err.text, "mem://retry/a/b"));
	assert_non_null(strstr(err.text, "injected failure"));
	assert_non_null(strstr(err.text, "8 times"));

	f->time.n_waits = 0;
	f->time.chance = 25; /* of 0..25: the longest first wait */
	assert_int_equal(get(f, 0, 10, NULL), -EIO);
	assert_int_equal(f->time.waits[0], 50);
}

static void bytes_start_the_count_of_attempts_anew(void **state)
{
	struct fixture *f = *state;

	/* Far more broken answers than attempts are allowed, but each brings something. */
	mem_store_add_fault(f->store, &(struct mem_fault){.kind = MEM_TRUNCATE, .bytes = 10000});
	assert_int_equal(get(f, 0, OBJECT_BYTES, NULL), 0);
	assert_pattern(f, 0, OBJECT_BYTES);
	assert_int_equal(f->time.waits[20], 25);
}

static void a_server_that_asks_for_a_pause_gets_it_up_to_a_bound(void **state)
{
	struct fixture *f = *state;

	mem_store_add_fault(f->store,
		&(struct mem_fault){.kind = MEM_FAIL_RETRY, .count = 1, .retry_after_ms = 7000});
	mem_store_add_fault(f->store,
		&(struct mem_fault){.kind = MEM_FAIL_RETRY, .count = 1, .retry_after_ms = 7000000});
	assert_int_equal(get(f, 0, 10, NULL), 0);
	assert_int_equal(f->time.waits[0], 7000);
	assert_int_equal(f->time.waits[1], RETRY_AFTER_MAX_MS);
}

static void gone_and_changed_are_not_retried(void **state)
{
	struct fixture *f = *state;

	mem_store_put_pattern(f->store, "a/b", OBJECT_BYTES, 8);
	assert_int_equal(get(f, 0, 10, NULL), ORIGIN_CHANGED);
	mem_store_remove(f->store, "a/b");
	assert_int_equal(get(f, 0, 10, NULL), ORIGIN_GONE);
	assert_int_equal(mem_store_counts(f->store).gets, 2);
	assert_int_equal(f->time.n_waits, 0);
}

static void a_change_between_attempts_is_seen(void **state)
{
	struct fixture *f = *state;

	mem_store_add_fault(
		f->store, &(struct mem_fault){.kind = MEM_TRUNCATE, .bytes = 70000, .count = 1});
	mem_store_add_fault(f->store, &(struct mem_fault){.kind = MEM_CHANGED, .count = 1});
	assert_int_equal(get(f, 0, OBJECT_BYTES, NULL), ORIGIN_CHANGED);
}

static void a_fatal_failure_is_not_retried(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_INIT;

	mem_store_add_fault(f->store, &(struct mem_fault){.kind = MEM_FAIL_FATAL});
	assert_int_equal(get(f, 0, 10, &err), -EIO);
	assert_int_equal(mem_store_counts(f->store).gets, 1);
	assert_string_equal(err.text, "read mem://retry/a/b: injected fatal failure");
}

static void refused_credentials_are_read_anew_and_tried_once_more(void **state)
{
	struct fixture *f = *state;

	mem_store_expire_credentials(f->store, true);
	assert_int_equal(get(f, 0, 10, NULL), 0);
	assert_int_equal(mem_store_counts(f->store).rereads, 1);
	assert_int_equal(mem_store_counts(f->store).gets, 2);
	assert_int_equal(f->time.n_waits, 0);
}

static void a_refusal_after_fresh_credentials_is_final(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_INIT;

	mem_store_expire_credentials(f->store, false);
	assert_int_equal(get(f, 0, 10, &err), -EACCES);
	assert_int_equal(mem_store_counts(f->store).rereads, 1);
	assert_int_equal(mem_store_counts(f->store).gets, 2);
	assert_non_null(strstr(err.text, "credentials"));
	assert_int_equal(origin_renew(f->origin, NULL, NULL), 0);
	assert_int_equal(get(f, 0, 10, NULL), 0);
}

static void the_deadline_ends_the_retries_with_the_last_cause(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_INIT;
	int64_t deadline = f->time.now_ms + 400;

	mem_store_add_fault(f->store, &(struct mem_fault){.kind = MEM_FAIL_RETRY});
	assert_int_equal(get_until(f, 0, 10, deadline, NULL, &err), -ETIMEDOUT);
	assert_true(f->time.now_ms <= deadline);
	assert_non_null(strstr(err.text, "injected failure"));
}

static void a_pause_longer_than_the_deadline_is_not_waited_for(void **state)
{
	struct fixture *f = *state;
	int64_t start = f->time.now_ms;

	mem_store_add_fault(
		f->store, &(struct mem_fault){.kind = MEM_FAIL_RETRY, .retry_after_ms = 20000});
	assert_int_equal(get_until(f, 0, 10, start + 10000, NULL, NULL), -ETIMEDOUT);
	assert_int_equal(f->time.now_ms, start);
}

static void a_stall_ends_with_the_attempt_and_is_retried(void **state)
{
	struct fixture *f = *state;

	mem_store_add_fault(f->store, &(struct mem_fault){.kind = MEM_STALL, .count = 1});
	assert_int_equal(get(f, 0, 10, NULL), 0);
	/* The default time limit of one attempt. */
	assert_true(f->time.now_ms >= 61000 && f->time.now_ms < 62000);
}

static void a_passed_deadline_makes_no_attempt(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(get_until(f, 0, 10, f->time.now_ms, NULL, NULL), -ETIMEDOUT);
	assert_int_equal(mem_store_counts(f->store).gets, 0);
}

static void *cancel_soon(void *arg)
{
	usleep(50000);
	atomic_store((atomic_bool *)arg, true);
	return NULL;
}

static void cancelling_ends_a_stall_and_a_back_off_at_once(void **state)
{
	static const enum mem_fault_kind kinds[] = {MEM_STALL, MEM_FAIL_RETRY};
	struct fixture *f = *state;
	struct error err = ERROR_INIT;

	origin_set_retry_env(f->origin, &retry_env_real);
	for (unsigned i = 0; i < 2; i++) {
		atomic_bool cancel = false;
		int64_t start = clock_mono_ms();
		pthread_t thread;

		mem_store_clear_faults(f->store);
		mem_store_add_fault(
			f->store, &(struct mem_fault){.kind = kinds[i], .retry_after_ms = 20000});
		assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &cancel), 0);
		assert_int_equal(get_until(f, 0, 10, CLOCK_NEVER, &cancel, &err), -ECANCELED);
		assert_true(clock_mono_ms() - start < 2000);
		pthread_join(thread, NULL);
	}
}

static void a_range_outside_the_object_is_refused(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(get(f, 0, 0, NULL), -EINVAL);
	assert_int_equal(get(f, OBJECT_BYTES, 1, NULL), -EINVAL);
	assert_int_equal(get(f, UINT64_MAX, 2, NULL), -EINVAL);
	assert_int_equal(mem_store_counts(f->store).gets, 0);
}

static void stat_is_retried_like_get(void **state)
{
	struct fixture *f = *state;
	struct origin_entry e;
	char room[256];

	mem_store_add_fault(
		f->store, &(struct mem_fault){.kind = MEM_FAIL_RETRY, .ops = MEM_STAT, .count = 2});
	assert_int_equal(origin_stat(f->origin, "a/b", 3, &e, room, CLOCK_NEVER, NULL), 0);
	assert_int_equal(e.size, OBJECT_BYTES);
	assert_string_equal(e.validator, "\"v1\"");
	assert_int_equal(
		origin_stat(f->origin, "nope", 4, &e, room, CLOCK_NEVER, NULL), ORIGIN_GONE);
}

static int count_entry(void *arg, const struct origin_entry *e, struct error *err)
{
	unsigned *left = arg;

	(void)e;
	if (*left == 0)
		return error_set(err, -ENOSPC, "enough");
	--*left;
	return 0;
}

static void a_listing_is_retried_and_stops_when_told(void **state)
{
	struct fixture *f = *state;
	unsigned room = 10;
	struct error err = ERROR_INIT;

	mem_store_put_dir(f->store, "a");
	mem_store_put_symlink(f->store, "l", "a/b");
	mem_store_add_fault(
		f->store, &(struct mem_fault){.kind = MEM_FAIL_RETRY, .ops = MEM_LIST, .count = 2});
	assert_int_equal(origin_list(f->origin, count_entry, &room, NULL, CLOCK_NEVER, NULL), 0);
	assert_int_equal(room, 7);
	room = 1;
	assert_int_equal(
		origin_list(f->origin, count_entry, &room, NULL, CLOCK_NEVER, &err), -ENOSPC);
	assert_string_equal(err.text, "enough");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_get_brings_exactly_the_range),
		T(a_retry_goes_on_behind_what_arrived),
		T(waits_double_with_jitter_up_to_the_bound),
		T(bytes_start_the_count_of_attempts_anew),
		T(a_server_that_asks_for_a_pause_gets_it_up_to_a_bound),
		T(gone_and_changed_are_not_retried),
		T(a_change_between_attempts_is_seen),
		T(a_fatal_failure_is_not_retried),
		T(refused_credentials_are_read_anew_and_tried_once_more),
		T(a_refusal_after_fresh_credentials_is_final),
		T(the_deadline_ends_the_retries_with_the_last_cause),
		T(a_pause_longer_than_the_deadline_is_not_waited_for),
		T(a_stall_ends_with_the_attempt_and_is_retried),
		T(a_passed_deadline_makes_no_attempt),
		T(cancelling_ends_a_stall_and_a_back_off_at_once),
		T(a_range_outside_the_object_is_refused),
		T(stat_is_retried_like_get),
		T(a_listing_is_retried_and_stops_when_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
