/* The S3 origin against a server that breaks and lies. */
#include "tests/integration/origin_s3_fault_server.h"

static void errors_that_pass_are_retried(void **state)
{
	(void)state;
	assert_int_equal(get("fails", 7, 1000, NULL), 0);
	assert_memory_equal(dst, server->object + 7, 1000);
	assert_int_equal(atomic_load(&server->requests), 5);
}

static void pauses_that_the_server_asks_for_are_kept(void **state)
{
	int64_t start = clock_mono_ms();

	(void)state;
	assert_int_equal(get("pauses", 0, 10, NULL), 0);
	assert_int_equal(atomic_load(&server->requests), 3);
	assert_true(clock_mono_ms() - start >= 1000 + 2000);
}

static void a_pause_beyond_the_deadline_ends_the_get_and_is_forgotten(void **state)
{
	struct origin_entry e;
	struct error err = ERROR_INIT;
	char room[256];

	(void)state;
	assert_int_equal(get("long-pause", 0, 10, &err), -ETIMEDOUT);
	assert_non_null(strstr(err.text, "HTTP 503"));
	assert_int_equal(atomic_load(&server->requests), 1);
	assert_int_equal(
		origin_stat(origin, "long-pause", 10, &e, room, clock_deadline_ms(20000), NULL),
		-ETIMEDOUT);
	assert_int_equal(atomic_load(&server->requests), 2);
	/* The same handle, a server that says nothing of a pause: all attempts are made. */
	assert_int_equal(get("busy", 0, 10, NULL), -EIO);
	assert_int_equal(atomic_load(&server->requests), 7);
}

static void a_truncated_body_goes_on_where_it_broke(void **state)
{
	(void)state;
	assert_int_equal(get("short", 0, FAULT_BYTES, NULL), 0);
	assert_memory_equal(dst, server->object, FAULT_BYTES);
	assert_int_equal(origin_bytes_received(origin), FAULT_BYTES);
}

static void what_is_not_the_snapshots_object_is_never_served(void **state)
{
	static const struct {
		const char *name;
		int result;
	} cases[] = {
		{"lies", ORIGIN_CHANGED},
		{"no-etag", -EIO},
		{"shifted", -EIO},
		{"none", ORIGIN_GONE},
		{"elsewhere", -EIO},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct error err = ERROR_INIT;
		int r = get(cases[i].name, 0, 1000, &err);

		if (r != cases[i].result)
			fail_msg("%s: %d %s", cases[i].name, r, err.text);
	}
	assert_int_equal(origin_bytes_received(origin), 0);
}

static void a_change_seen_by_a_retry_is_told(void **state)
{
	(void)state;
	assert_int_equal(get("changes", 0, FAULT_BYTES, NULL), ORIGIN_CHANGED);
}

static void a_stall_is_given_up_within_the_deadline(void **state)
{
	const struct origin_get g = {.path = "stall",
		.path_len = 5,
		.validator = "",
		.object_bytes = FAULT_BYTES,
		.len = FAULT_BYTES,
		.dst = dst,
		.deadline_ms = clock_deadline_ms(3000)};
	int64_t start = clock_mono_ms();

	(void)state;
	assert_int_equal(origin_get(origin, &g, NULL), -ETIMEDOUT);
	assert_true(clock_mono_ms() - start < 5000);
}

struct canceller {
	atomic_bool cancel;
	int64_t at_ms; /* when it was */
};

static void *cancel_soon(void *arg)
{
	struct canceller *c = arg;

	usleep(400000); /* past the timers that libcurl has for connecting */
	c->at_ms = clock_mono_ms();
	atomic_store(&c->cancel, true);
	return NULL;
}

static int64_t cancel_took_ms(const char *path)
{
	struct canceller c = {0};
	struct origin_get g = {.path = path,
		.path_len = strlen(path),
		.validator = "",
		.object_bytes = FAULT_BYTES,
		.len = FAULT_BYTES,
		.dst = dst,
		.cancel = &c.cancel,
		.deadline_ms = clock_deadline_ms(60000)};
	pthread_t thread;
	int64_t end_ms;

	assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &c), 0);
	assert_int_equal(origin_get(origin, &g, NULL), -ECANCELED);
	end_ms = clock_mono_ms();
	pthread_join(thread, NULL);
	return end_ms - c.at_ms;
}

/* On a busy machine one of a few tries is quick; a thread that looks once a second never is. */
static void a_cancelled_get_ends_soon(void **state)
{
	static const char *const paths[] = {"stall", "silent"};
	struct origin_options *opts = keyed();

	(void)state;
	origin_options_set(opts, "stall-timeout", "60s", NULL);
	open_origin(opts, "s3://bkt/");
	for (int i = 0; i < 2; i++) {
		int64_t best_ms = INT64_MAX;

		for (int tries = 0; tries < 20 && best_ms > 300; tries++) {
			int64_t took_ms = cancel_took_ms(paths[i]);

			best_ms = took_ms < best_ms ? took_ms : best_ms;
		}
		if (best_ms > 300)
			fail_msg("%s: %lld ms", paths[i], (long long)best_ms);
	}
}

static void the_region_of_the_answer_is_remembered(void **state)
{
	struct origin_options *opts = keyed();

	(void)state;
	origin_options_set(opts, "region", "us-east-1", NULL);
	open_origin(opts, "s3://bkt/");
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_int_equal(atomic_load(&server->requests), 3);
}

static void requester_pays_is_said(void **state)
{
	struct origin_options *opts = keyed();

	(void)state;
	origin_options_set(opts, "requester-pays", "yes", NULL);
	open_origin(opts, "s3://bkt/");
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_non_null(strcasestr(server->last_request, "x-amz-request-payer: requester\r\n"));
}

static void a_live_origin_takes_a_new_proxy(void **state)
{
	struct origin_options *opts = keyed();
	struct error err = ERROR_INIT;
	char proxy[64], shown[64];
	int dead = free_port();

	(void)state;
	snprintf(proxy, sizeof(proxy), "http://ann:pass-word@127.0.0.1:%d", dead);
	snprintf(shown, sizeof(shown), "(proxy http://127.0.0.1:%d)", dead);
	origin_options_set(opts, "endpoint", "http://nowhere.invalid", NULL);
	origin_options_set(opts, "http-proxy", proxy, NULL);
	open_origin(origin_options_copy(opts), "s3://bkt/");
	assert_int_equal(get("fine", 0, 10, &err), -EIO);
	assert_non_null(strstr(err.text, "s3://bkt/fine"));
	assert_non_null(strstr(err.text, shown));
	assert_null(strstr(err.text, "pass-word"));
	snprintf(proxy, sizeof(proxy), "http://ann:pass-word@127.0.0.1:%d", server->port);
	origin_options_set(opts, "http-proxy", proxy, NULL);
	assert_int_equal(origin_renew(origin, opts, NULL), 0);
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_non_null(
		strstr(server->last_request, "GET http://nowhere.invalid/bkt/fine HTTP/1.1\r\n"));
	assert_non_null(strstr(server->last_request, "Proxy-Authorization: Basic "));
	origin_options_free(opts);
}

static int count(void *arg, const struct origin_entry *e, struct error *err)
{
	(void)e;
	(void)err;
	++*(unsigned *)arg;
	return 0;
}

static void lists_that_make_no_sense_fail_and_slow_ones_are_retried(void **state)
{
	static const struct {
		const char *url, *text;
	} cases[] = {
		{"s3://bkt/broken", "s3://bkt/broken"},
		{"s3://bkt/endless", "not asked for"},
		{"s3://bkt/foreign", "not asked for"},
	};
	unsigned n = 0;

	(void)state;
	open_origin(keyed(), "s3://bkt/fine");
	assert_int_equal(origin_list(origin, count, &n, NULL, clock_deadline_ms(10000), NULL), 0);
	assert_int_equal(n, 1);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct error err = ERROR_INIT;

		n = 0;
		open_origin(keyed(), cases[i].url);
		assert_int_equal(
			origin_list(origin, count, &n, NULL, clock_deadline_ms(10000), &err), -EIO);
		if (!strstr(err.text, cases[i].text))
			fail_msg("%s", err.text);
		assert_int_equal(n, 0);
	}
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(errors_that_pass_are_retried),
		T(pauses_that_the_server_asks_for_are_kept),
		T(a_pause_beyond_the_deadline_ends_the_get_and_is_forgotten),
		T(a_truncated_body_goes_on_where_it_broke),
		T(what_is_not_the_snapshots_object_is_never_served),
		T(a_change_seen_by_a_retry_is_told),
		T(a_stall_is_given_up_within_the_deadline),
		T(a_cancelled_get_ends_soon),
		T(the_region_of_the_answer_is_remembered),
		T(requester_pays_is_said),
		T(a_live_origin_takes_a_new_proxy),
		T(lists_that_make_no_sense_fail_and_slow_ones_are_retried),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
