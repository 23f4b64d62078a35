/* The HTTP origin against a server that breaks, stalls, lies and comes back. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"
#include "origin/origin.h"
#include "tests/integration/origin_fault_server.h"

static struct fault_server *server;
static struct origin *origin;
static unsigned char dst[FAULT_BYTES];

static void head(int fd, unsigned first, unsigned last, bool ranged, const char *more)
{
	if (ranged)
		fault_text(fd,
			"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes %u-%u/%u\r\n"
			"Content-Length: %u\r\nConnection: close\r\n%s\r\n",
			first, last, FAULT_BYTES, last - first + 1, more);
	else
		fault_text(fd,
			"HTTP/1.1 200 OK\r\nContent-Length: %u\r\nConnection: close\r\n%s\r\n",
			FAULT_BYTES, more);
}

#define GOOD "ETag: \"good\"\r\n"

/* Sends the head, half of the body, and then nothing until the client or the test ends. */
static void stall(struct fault_server *s, int fd, unsigned first, unsigned last, bool ranged)
{
	unsigned half = (last - first + 1) / 2;
	char c;

	head(fd, first, last, ranged, GOOD);
	fault_send(fd, s->object + first, half);
	while (!atomic_load(&s->stop) && recv(fd, &c, 1, 0) > 0)
		;
}

static void fail_first(struct fault_server *s, int fd, const char *request, unsigned nth,
	unsigned first, unsigned last, bool ranged)
{
	static const char *const answers[] = {
		"500 Oops",
		"503 Busy\r\nRetry-After: 1",
		"429 Slow down",
		"408 Request Timeout",
	};

	(void)request;
	if (nth < 4) {
		fault_text(fd, "HTTP/1.1 %s\r\nContent-Length: 3\r\n\r\nbad", answers[nth]);
		return;
	}
	head(fd, first, last, ranged, GOOD);
	fault_send(fd, s->object + first, last - first + 1);
}

#define NAMED(name) (strstr(request, "/" name " ") != NULL)

/* Nothing may follow: it would pass for the answer to the connection's next request. */
static bool answer_without_body(int fd, const char *request)
{
	if (NAMED("status"))
		fault_text(fd, "HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n");
	else if (NAMED("always500"))
		fault_text(fd, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
	else if (NAMED("pause"))
		fault_text(fd, "HTTP/1.1 503 B\r\nRetry-After: 100\r\nContent-Length: 0\r\n\r\n");
	else if (NAMED("garbage"))
		fault_text(fd, "SSH-2.0-nothing here\r\n\r\n");
	else if (NAMED("redirects"))
		fault_text(fd, "HTTP/1.1 302 F\r\nLocation: /redirects\r\n"
			       "Content-Length: 0\r\nConnection: close\r\n\r\n");
	else if (NAMED("to-file"))
		fault_text(fd, "HTTP/1.1 302 F\r\nLocation: file:///etc/passwd\r\n"
			       "Content-Length: 0\r\nConnection: close\r\n\r\n");
	else
		return false;
	return true;
}

static void answer(struct fault_server *s, int fd, const char *request, unsigned nth)
{
	unsigned first, last;
	bool ranged = fault_range(request, &first, &last);
	const char *etag = GOOD;

	if (NAMED("fails")) {
		fail_first(s, fd, request, nth, first, last, ranged);
		return;
	}
	if (answer_without_body(fd, request))
		return;
	if (NAMED("stall")) {
		stall(s, fd, first, last, ranged);
		return;
	}
	if (NAMED("short")) {
		/* Each answer breaks off behind 50,000 bytes. */
		head(fd, first, last, ranged, GOOD);
		fault_send(fd, s->object + first, last - first < 50000 ? last - first + 1 : 50000);
		return;
	}
	if (NAMED("changes") && nth > 0)
		etag = "ETag: \"other\"\r\n";
	if (NAMED("changes") && nth == 0) {
		head(fd, first, last, ranged, etag);
		fault_send(fd, s->object + first, 1000);
		return;
	}
	if (NAMED("no-etag"))
		etag = "";
	if (NAMED("gzip"))
		etag = GOOD "Content-Encoding: gzip\r\n";
	if (NAMED("shifted") && ranged) {
		fault_text(fd,
			"HTTP/1.1 206 P\r\nContent-Range: bytes %u-%u/%u\r\n"
			"Content-Length: %u\r\n" GOOD "\r\n",
			first + 1, last + 1, FAULT_BYTES, last - first + 1);
		fault_send(fd, s->object + first + 1, last - first + 1);
		return;
	}
	if (NAMED("no-content-range"))
		fault_text(fd, "HTTP/1.1 206 P\r\nContent-Length: 5\r\n" GOOD "\r\nhello");
	if (NAMED("too-long")) {
		fault_text(fd, "HTTP/1.1 200 OK\r\nConnection: close\r\n" GOOD "\r\n");
		fault_send(fd, s->object, FAULT_BYTES);
		fault_text(fd, "more than there may be");
		return;
	}
	if (NAMED("other-size"))
		fault_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" GOOD "\r\nhello");
	if (NAMED("no-ranges")) {
		ranged = false;
		first = 0;
		last = FAULT_BYTES - 1;
	}
	head(fd, first, last, ranged, etag);
	fault_send(fd, s->object + first, last - first + 1);
}

static int setup(void **state)
{
	struct origin_options *opts = origin_options_new();
	char url[128];

	(void)state;
	server = fault_server_start(answer);
	snprintf(url, sizeof(url), "http://127.0.0.1:%d/", server->port);
	origin_options_set(opts, "attempts", "5", NULL);
	origin_options_set(opts, "stall-timeout", "1s", NULL);
	assert_int_equal(origin_open(url, opts, &origin, NULL), 0);
	origin_options_free(opts);
	memset(dst, 0, sizeof(dst));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	origin_free(origin);
	fault_server_stop(server);
	return 0;
}

static int get_until(const char *path, const char *validator, unsigned offset, unsigned len,
	int64_t deadline_ms, const atomic_bool *cancel, struct error *err)
{
	const struct origin_get g = {
		.path = path,
		.path_len = strlen(path),
		.validator = validator,
		.object_bytes = FAULT_BYTES,
		.offset = offset,
		.len = len,
		.dst = dst,
		.cancel = cancel,
		.deadline_ms = deadline_ms,
	};

	return origin_get(origin, &g, err);
}

static int get(const char *path, unsigned offset, unsigned len, struct error *err)
{
	return get_until(path, "\"good\"", offset, len, clock_deadline_ms(20000), NULL, err);
}

static void assert_got(unsigned offset, unsigned len)
{
	assert_memory_equal(dst, server->object + offset, len);
}

static void a_request_asks_for_the_stored_bytes_of_this_version(void **state)
{
	(void)state;
	assert_int_equal(get("fine", 100, 50, NULL), 0);
	assert_got(100, 50);
	assert_non_null(strstr(server->last_request, "Range: bytes=100-149\r\n"));
	assert_non_null(strstr(server->last_request, "If-Match: \"good\"\r\n"));
	assert_non_null(strstr(server->last_request, "Accept-Encoding: identity\r\n"));
	/* A weak etag never matches in If-Match, and is compared here instead. */
	assert_int_equal(get_until("fine", "W/\"good\"", 0, 10, CLOCK_NEVER, NULL, NULL), 0);
	assert_null(strstr(server->last_request, "If-Match"));
	assert_int_equal(
		get_until("fine", "W/\"bad\"", 0, 10, CLOCK_NEVER, NULL, NULL), ORIGIN_CHANGED);
}

static void errors_that_pass_are_retried_with_the_pause_asked_for(void **state)
{
	int64_t start = clock_mono_ms();

	(void)state;
	assert_int_equal(get("fails", 7, 1000, NULL), 0);
	assert_got(7, 1000);
	assert_int_equal(atomic_load(&server->requests), 5);
	assert_true(clock_mono_ms() - start >= 1000);
}

static void errors_that_stay_are_told_with_origin_object_and_cause(void **state)
{
	struct error err = ERROR_INIT;
	char url[64];

	(void)state;
	assert_int_equal(get("always500", 0, 10, &err), -EIO);
	snprintf(url, sizeof(url), "http://127.0.0.1:%d/always500", server->port);
	assert_non_null(strstr(err.text, url));
	assert_non_null(strstr(err.text, "HTTP 500"));
	assert_non_null(strstr(err.text, "5 times"));
	assert_int_equal(get("status", 0, 10, &err), -EIO);
	assert_non_null(strstr(err.text, "HTTP 418"));
	assert_int_equal(atomic_load(&server->requests), 6);
}

static void a_pause_beyond_the_deadline_ends_the_get_at_once(void **state)
{
	int64_t start = clock_mono_ms();

	(void)state;
	assert_int_equal(get("pause", 0, 10, NULL), -ETIMEDOUT);
	assert_true(clock_mono_ms() - start < 5000);
}

static void a_truncated_body_goes_on_where_it_broke(void **state)
{
	(void)state;
	assert_int_equal(get("short", 0, FAULT_BYTES, NULL), 0);
	assert_got(0, FAULT_BYTES);
	assert_int_equal(origin_bytes_received(origin), FAULT_BYTES);
	assert_int_equal(atomic_load(&server->requests), 4);
}

static void a_change_seen_by_a_retry_is_told(void **state)
{
	(void)state;
	assert_int_equal(get("changes", 0, FAULT_BYTES, NULL), ORIGIN_CHANGED);
}

static void a_stall_is_given_up_and_retried(void **state)
{
	struct error err = ERROR_INIT;
	int64_t start = clock_mono_ms();

	(void)state;
	assert_int_equal(get_until("stall", "\"good\"", 0, 4, clock_deadline_ms(2500), NULL, &err),
		-ETIMEDOUT);
	assert_true(clock_mono_ms() - start < 20000);
	assert_non_null(strstr(err.text, "stall"));
}

static void *cancel_soon(void *arg)
{
	usleep(300000);
	atomic_store((atomic_bool *)arg, true);
	return NULL;
}

static void a_stalled_get_can_be_cancelled(void **state)
{
	atomic_bool cancel = false;
	int64_t start = clock_mono_ms();
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &cancel), 0);
	assert_int_equal(
		get_until("stall", "\"good\"", 0, 1000, CLOCK_NEVER, &cancel, NULL), -ECANCELED);
	assert_true(clock_mono_ms() - start < 5000);
	pthread_join(thread, NULL);
}

static void answers_that_make_no_sense_are_never_served(void **state)
{
	static const struct {
		const char *name;
		bool whole;
		int result;
	} cases[] = {
		{"no-etag", false, -EIO},
		{"gzip", false, -EIO},
		{"shifted", false, -EIO},
		{"no-content-range", false, -EIO},
		{"other-size", true, ORIGIN_CHANGED},
		{"too-long", true, -EIO},
		{"garbage", false, -EIO},
		{"redirects", false, -EIO},
		{"to-file", false, -EIO},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct error err = ERROR_INIT;
		int r = get(cases[i].name, 0, cases[i].whole ? FAULT_BYTES : 1000, &err);

		if (r != cases[i].result)
			fail_msg("%s: %d %s", cases[i].name, r, err.text);
	}
}

static void a_server_without_ranges_still_gives_them(void **state)
{
	(void)state;
	assert_int_equal(get("no-ranges", 150000, 1000, NULL), 0);
	assert_got(150000, 1000);
	assert_int_equal(get("no-ranges", 0, FAULT_BYTES, NULL), 0);
	assert_got(0, FAULT_BYTES);
}

static void a_proxy_is_asked_for_foreign_hosts(void **state)
{
	struct origin_options *opts = origin_options_new();
	struct origin *direct = origin;
	char proxy[64];

	(void)state;
	snprintf(proxy, sizeof(proxy), "http://ann:pw@127.0.0.1:%d", server->port);
	origin_options_set(opts, "http-proxy", proxy, NULL);
	assert_int_equal(origin_open("http://nowhere.invalid/x", opts, &origin, NULL), 0);
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_non_null(strstr(server->last_request, "GET http://nowhere.invalid/x/fine "));
	assert_non_null(strstr(server->last_request, "Proxy-Authorization: Basic "));
	origin_free(origin);
	origin = direct;
	origin_options_free(opts);
}

static void a_live_origin_takes_a_new_proxy(void **state)
{
	struct origin_options *opts = origin_options_new();
	struct origin *direct = origin;
	struct error err = ERROR_INIT;
	char proxy[64], shown[64];
	int dead = free_port();

	(void)state;
	snprintf(proxy, sizeof(proxy), "http://ann:pass-word@127.0.0.1:%d", dead);
	snprintf(shown, sizeof(shown), "(proxy http://127.0.0.1:%d)", dead);
	origin_options_set(opts, "http-proxy", proxy, NULL);
	origin_options_set(opts, "attempts", "2", NULL);
	assert_int_equal(origin_open("http://nowhere.invalid/x", opts, &origin, NULL), 0);
	assert_int_equal(get("fine", 0, 10, &err), -EIO);
	assert_non_null(strstr(err.text, "http://nowhere.invalid/x/fine"));
	assert_non_null(strstr(err.text, shown));
	assert_null(strstr(err.text, "pass-word"));
	snprintf(proxy, sizeof(proxy), "127.0.0.1:%d", server->port);
	origin_options_set(opts, "http-proxy", proxy, NULL);
	assert_int_equal(origin_renew(origin, opts, NULL), 0);
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	origin_options_set(opts, "http-proxy", "http://ann:pass-word@[", NULL);
	assert_int_equal(origin_renew(origin, opts, &err), -EINVAL);
	assert_null(strstr(err.text, "pass-word"));
	origin_free(origin);
	origin = direct;
	origin_options_free(opts);
}

static void a_token_is_sent_as_bearer(void **state)
{
	struct origin_options *opts = origin_options_new();

	(void)state;
	origin_options_set(opts, "http-token", "tok", NULL);
	assert_int_equal(origin_renew(origin, opts, NULL), 0);
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_non_null(strstr(server->last_request, "Authorization: Bearer tok\r\n"));
	origin_options_free(opts);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_request_asks_for_the_stored_bytes_of_this_version),
		T(errors_that_pass_are_retried_with_the_pause_asked_for),
		T(errors_that_stay_are_told_with_origin_object_and_cause),
		T(a_pause_beyond_the_deadline_ends_the_get_at_once),
		T(a_truncated_body_goes_on_where_it_broke),
		T(a_change_seen_by_a_retry_is_told),
		T(a_stall_is_given_up_and_retried),
		T(a_stalled_get_can_be_cancelled),
		T(answers_that_make_no_sense_are_never_served),
		T(a_server_without_ranges_still_gives_them),
		T(a_proxy_is_asked_for_foreign_hosts),
		T(a_live_origin_takes_a_new_proxy),
		T(a_token_is_sent_as_bearer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
