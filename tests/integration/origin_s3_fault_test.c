/* The S3 origin against a server that breaks and lies, and against stand-ins of the services that
 * hand out temporary credentials. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "common/clock.h"
#include "origin/origin.h"
#include "tests/integration/origin_fault_server.h"

static struct fault_server *server;
static struct origin *origin;
static unsigned char dst[FAULT_BYTES];
static char dir[64], path_a[128], path_b[128];
static atomic_uint handed_out; /* credentials */
static atomic_int lifetime_s;

#define GOOD "ETag: \"good\"\r\n"

/* ---- the server ------------------------------------------------------------------------------ */

static void xml(int fd, const char *status, const char *body)
{
	fault_text(fd,
		"HTTP/1.1 %s\r\nContent-Type: application/xml\r\nContent-Length: %zu\r\n"
		"Connection: close\r\n\r\n%s",
		status, strlen(body), body);
}

static void refuse(int fd, const char *status, const char *code, const char *more)
{
	char body[1024];

	snprintf(body, sizeof(body), "<Error><Code>%s</Code><Message>so it is</Message>%s</Error>",
		code, more);
	xml(fd, status, body);
}

static void object(struct fault_server *s, int fd, unsigned first, unsigned last, unsigned bytes,
	const char *etag)
{
	fault_text(fd,
		"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes %u-%u/%u\r\n"
		"Content-Length: %u\r\nConnection: close\r\n%s\r\n",
		first, last, FAULT_BYTES, last - first + 1, etag);
	fault_send(fd, s->object + first, bytes);
}

static void expiration(char room[32])
{
	time_t t = time(NULL) + atomic_load(&lifetime_s);
	struct tm tm;

	strftime(room, 32, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &tm));
}

static void hand_out_xml(int fd)
{
	char body[2048], until[32];

	expiration(until);
	snprintf(body, sizeof(body),
		"<AssumeRoleWithWebIdentityResponse "
		"xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">"
		"<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>WEBKEY</AccessKeyId>"
		"<SecretAccessKey>s</SecretAccessKey><SessionToken>webtoken</SessionToken>"
		"<Expiration>%s</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
		"</AssumeRoleWithWebIdentityResponse>",
		until);
	atomic_fetch_add(&handed_out, 1);
	xml(fd, "200 OK", body);
}

static void hand_out_json(int fd, const char *key)
{
	char body[1024], until[32];

	expiration(until);
	snprintf(body, sizeof(body),
		"{\"AccessKeyId\": \"%s\", \"SecretAccessKey\": \"s\", \"Token\": \"jsontoken\", "
		"\"Expiration\": \"%s\", \"Code\": \"Success\"}",
		key, until);
	atomic_fetch_add(&handed_out, 1);
	xml(fd, "200 OK", body);
}

static bool answer_services(int fd, const char *request)
{
	if (strncmp(request, "POST / ", 7) == 0) {
		if (strstr(request, "WebIdentityToken=the.token%2F") &&
			strstr(request, "RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr") &&
			!strstr(request, "Authorization:"))
			hand_out_xml(fd);
		else if (strstr(request, "WebIdentityToken=moved.token"))
			fault_text(fd, "HTTP/1.1 307 Moved\r\nLocation: /elsewhere\r\n"
				       "Content-Length: 0\r\nConnection: close\r\n\r\n");
		else
			refuse(fd, "400 Bad", "InvalidIdentityToken", "");
		return true;
	}
	if (strncmp(request, "GET /container ", 15) == 0) {
		if (strstr(request, "Authorization: con-tok\r\n"))
			hand_out_json(fd, "CONTAINERKEY");
		else
			xml(fd, "401 No", "");
		return true;
	}
	if (strncmp(request, "PUT /latest/api/token ", 22) == 0) {
		xml(fd, "200 OK", strstr(request, "ttl-seconds") ? "imds-tok" : "");
		return true;
	}
	if (strncmp(request, "GET /latest/meta-data/iam/security-credentials/", 47) == 0) {
		if (!strstr(request, "X-aws-ec2-metadata-token: imds-tok\r\n"))
			xml(fd, "401 No", "");
		else if (request[47] == ' ')
			xml(fd, "200 OK", "the-role");
		else
			hand_out_json(fd, "INSTANCEKEY");
		return true;
	}
	return false;
}

#define LIST_HEAD                                   \
	"<?xml version=\"1.0\"?><ListBucketResult " \
	"xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name>"
#define KEY(k)                                                               \
	"<Contents><Key>" k "</Key><Size>1</Size><ETag>&quot;e&quot;</ETag>" \
	"<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"

static bool answer_lists(int fd, const char *request, unsigned nth)
{
	if (!strstr(request, "list-type=2"))
		return false;
	if (strstr(request, "prefix=broken"))
		xml(fd, "200 OK", LIST_HEAD "<IsTruncated>false</IsTruncated><Contents><Key>x");
	else if (strstr(request, "prefix=endless"))
		xml(fd, "200 OK",
			LIST_HEAD "<IsTruncated>false</IsTruncated>"
				  "<CommonPrefixes><Prefix>endless/</Prefix></CommonPrefixes>"
				  "</ListBucketResult>");
	else if (strstr(request, "prefix=foreign"))
		xml(fd, "200 OK",
			LIST_HEAD
			"<IsTruncated>false</IsTruncated>" KEY("other/x") "</ListBucketResult>");
	else if (nth == 0)
		refuse(fd, "503 Slow", "SlowDown", "");
	else
		xml(fd, "200 OK",
			LIST_HEAD
			"<IsTruncated>false</IsTruncated>" KEY("fine/x") "</ListBucketResult>");
	return true;
}

/* With the pause as a number, then as a date. */
static void answer_pauses(struct fault_server *s, int fd, unsigned nth, unsigned first, unsigned last)
{
	static const char slow[] =
		"HTTP/1.1 %s\r\nRetry-After: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
	time_t t = time(NULL) + 3;
	char date[64];
	struct tm tm;

	strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&t, &tm));
	if (nth == 0)
		fault_text(fd, slow, "503 Slow", "1");
	else if (nth == 1)
		fault_text(fd, slow, "429 Slow", date);
	else
		object(s, fd, first, last, last - first + 1, GOOD);
}

static void answer_passing_faults(
	struct fault_server *s, int fd, unsigned nth, unsigned first, unsigned last)
{
	if (nth == 0)
		refuse(fd, "500 Oops", "InternalError", "");
	else if (nth == 1)
		refuse(fd, "503 Slow", "SlowDown", "");
	else if (nth == 2)
		refuse(fd, "400 Bad", "RequestTimeout", "");
	else if (nth == 3)
		fault_text(fd, "HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n");
	else
		object(s, fd, first, last, last - first + 1, GOOD);
}

static void answer(struct fault_server *s, int fd, const char *request, unsigned nth)
{
	unsigned first, last;
	char c;

	fault_range(request, &first, &last);
	if (answer_services(fd, request) || answer_lists(fd, request, nth))
		return;
#define NAMED(name) (strstr(request, "/bkt/" name " ") != NULL)
	if (strstr(request, "Credential=OLDKEY/"))
		refuse(fd, "400 Bad", "ExpiredToken", "");
	else if (NAMED("fails"))
		answer_passing_faults(s, fd, nth, first, last);
	else if (NAMED("pauses"))
		answer_pauses(s, fd, nth, first, last);
	else if (NAMED("long-pause"))
		fault_text(fd, "HTTP/1.1 503 Slow\r\nRetry-After: 100\r\nContent-Length: 0\r\n\r\n");
	else if (NAMED("busy"))
		fault_text(fd, "HTTP/1.1 503 Slow\r\nContent-Length: 0\r\n\r\n");
	else if (NAMED("short"))
		object(s, fd, first, last, last - first < 50000 ? last - first + 1 : 50000, GOOD);
	else if (NAMED("stall")) {
		object(s, fd, first, last, 100, GOOD);
		while (!atomic_load(&s->stop) && recv(fd, &c, 1, 0) > 0)
			;
	} else if (NAMED("silent")) {
		while (!atomic_load(&s->stop) && recv(fd, &c, 1, 0) > 0)
			;
	} else if (NAMED("changes") && nth == 0)
		object(s, fd, first, last, 1000, GOOD);
	else if (NAMED("changes"))
		refuse(fd, "412 Changed", "PreconditionFailed", "");
	else if (NAMED("lies"))
		object(s, fd, first, last, last - first + 1, "ETag: \"other\"\r\n");
	else if (NAMED("no-etag"))
		object(s, fd, first, last, last - first + 1, "");
	else if (NAMED("shifted"))
		object(s, fd, first + 1, last + 1, last - first + 1, GOOD);
	else if (NAMED("elsewhere"))
		refuse(fd, "301 Moved", "PermanentRedirect", "<Region>no-such-1</Region>");
	else if (NAMED("fine") && strstr(request, "/eu-west-9/"))
		object(s, fd, first, last, last - first + 1, GOOD);
	else if (NAMED("fine"))
		refuse(fd, "400 Bad", "AuthorizationHeaderMalformed", "<Region>eu-west-9</Region>");
	else
		refuse(fd, "404 None", "NoSuchKey", "");
}

/* ---- the origin ------------------------------------------------------------------------------ */

static struct origin_options *options(void)
{
	struct origin_options *opts = origin_options_new();
	char endpoint[64];

	snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%d", server->port);
	origin_options_set(opts, "endpoint", endpoint, NULL);
	origin_options_set(opts, "sts-endpoint", endpoint, NULL);
	origin_options_set(opts, "metadata-endpoint", endpoint, NULL);
	origin_options_set(opts, "credentials-file", path_a, NULL);
	origin_options_set(opts, "config-file", path_b, NULL);
	origin_options_set(opts, "region", "eu-west-9", NULL);
	origin_options_set(opts, "attempts", "5", NULL);
	origin_options_set(opts, "stall-timeout", "1s", NULL);
	return opts;
}

/* Takes the options. */
static void open_origin(struct origin_options *opts, const char *url)
{
	struct error err = ERROR_INIT;

	origin_free(origin);
	origin = NULL;
	if (origin_open(url, opts, &origin, &err) < 0)
		fail_msg("%s", err.text);
	origin_options_free(opts);
}

static struct origin_options *keyed(void)
{
	struct origin_options *opts = options();

	origin_options_set(opts, "access-key-id", "AKEY", NULL);
	origin_options_set(opts, "secret-access-key", "hush", NULL);
	return opts;
}

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/granary-s3f-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path_a, sizeof(path_a), "%s/credentials", dir);
	snprintf(path_b, sizeof(path_b), "%s/config", dir);
	server = fault_server_start(answer);
	atomic_store(&handed_out, 0);
	atomic_store(&lifetime_s, 3600);
	open_origin(keyed(), "s3://bkt/");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	origin_free(origin);
	origin = NULL;
	fault_server_stop(server);
	remove_tree(dir);
	return 0;
}

static int get(const char *path, unsigned offset, unsigned len, struct error *err)
{
	const struct origin_get g = {
		.path = path,
		.path_len = strlen(path),
		.validator = "\"good\"",
		.object_bytes = FAULT_BYTES,
		.offset = offset,
		.len = len,
		.dst = dst,
		.deadline_ms = clock_deadline_ms(20000),
	};

	return origin_get(origin, &g, err);
}

static void assert_signed_by(const char *key, const char *token)
{
	char text[128];

	snprintf(text, sizeof(text), "Credential=%s/", key);
	assert_non_null(strstr(server->last_request, text));
	if (token) {
		const char *at = strcasestr(server->last_request, "x-amz-security-token: ");

		assert_non_null(at);
		at += 22;
		assert_int_equal(strncmp(at, token, strlen(token)), 0);
		assert_int_equal(at[strlen(token)], '\r');
	}
}

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

/* ---- credentials ----------------------------------------------------------------------------- */

static void web_identity_gives_credentials(void **state)
{
	struct origin_options *opts = options();
	char token[128];

	(void)state;
	snprintf(token, sizeof(token), "%s/token", dir);
	write_text(token, "the.token/\n");
	origin_options_set(opts, "web-identity-token-file", token, NULL);
	origin_options_set(opts, "role-arn", "arn:aws:iam::1:role/r", NULL);
	open_origin(opts, "s3://bkt/");
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_signed_by("WEBKEY", "webtoken");
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_int_equal(atomic_load(&handed_out), 1);
}

static void a_refused_web_identity_is_a_clear_error(void **state)
{
	struct origin_options *opts = options();
	struct error err = ERROR_INIT;
	char token[128];

	(void)state;
	snprintf(token, sizeof(token), "%s/token", dir);
	write_text(token, "wrong-token");
	origin_options_set(opts, "web-identity-token-file", token, NULL);
	origin_options_set(opts, "role-arn", "arn:aws:iam::1:role/r", NULL);
	open_origin(opts, "s3://bkt/");
	assert_int_equal(get("fine", 0, 10, &err), -EACCES);
	assert_non_null(strstr(err.text, "web identity"));
	assert_null(strstr(err.text, "wrong-token"));
}

static void a_web_identity_is_not_sent_on_to_another_place(void **state)
{
	struct origin_options *opts = options();
	struct error err = ERROR_INIT;
	char token[128];

	(void)state;
	snprintf(token, sizeof(token), "%s/token", dir);
	write_text(token, "moved.token");
	origin_options_set(opts, "web-identity-token-file", token, NULL);
	origin_options_set(opts, "role-arn", "arn:aws:iam::1:role/r", NULL);
	open_origin(opts, "s3://bkt/");
	assert_int_equal(get("fine", 0, 10, &err), -EACCES);
	assert_non_null(strstr(err.text, "HTTP 307"));
	assert_int_equal(atomic_load(&server->requests), 1);
}

static void a_container_gives_credentials(void **state)
{
	struct origin_options *opts = options();
	char url[64], token[128];

	(void)state;
	snprintf(url, sizeof(url), "http://127.0.0.1:%d/container", server->port);
	snprintf(token, sizeof(token), "%s/token", dir);
	write_text(token, "con-tok");
	origin_options_set(opts, "container-credentials-url", url, NULL);
	origin_options_set(opts, "container-token-file", token, NULL);
	open_origin(opts, "s3://bkt/");
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_signed_by("CONTAINERKEY", "jsontoken");
}

static void a_containers_token_is_not_sent_into_the_world(void **state)
{
	struct origin_options *opts = options();
	struct error err = ERROR_INIT;

	(void)state;
	origin_options_set(opts, "container-credentials-url", "http://example.com/x", NULL);
	origin_options_set(opts, "container-token", "con-tok", NULL);
	open_origin(opts, "s3://bkt/");
	assert_int_equal(get("fine", 0, 10, &err), -EACCES);
	assert_non_null(strstr(err.text, "neither https nor local"));
}

static void an_instance_gives_credentials_and_renews_them(void **state)
{
	(void)state;
	atomic_store(&lifetime_s, 2);
	open_origin(options(), "s3://bkt/");
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_signed_by("INSTANCEKEY", "jsontoken");
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_int_equal(atomic_load(&handed_out), 1);
	usleep(2200000);
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_int_equal(atomic_load(&handed_out), 2);
}

static void a_long_session_token_of_a_file_arrives_whole(void **state)
{
	struct origin_options *opts = options();
	char token[3001], text[4096];

	(void)state;
	for (int i = 0; i < 3000; i++)
		token[i] = "abcdefghijklmnopqrstuvwxyzABCDEFG/+=0123456789"[i * 7 % 46];
	token[3000] = '\0';
	snprintf(text, sizeof(text),
		"[job]\naws_access_key_id = FILEKEY\naws_session_token = %s\n"
		"aws_secret_access_key = s\n[other]\naws_access_key_id = NOT\n",
		token);
	write_text(path_a, text);
	write_text(path_b, "[profile job]\ns3 =\n  addressing_style = path\nregion = eu-west-9\n");
	origin_options_set(opts, "profile", "job", NULL);
	open_origin(opts, "s3://bkt/");
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_signed_by("FILEKEY", token);
}

static void *rewrite_soon(void *arg)
{
	static const char text[] =
		"[default]\naws_access_key_id = NEWKEY\naws_secret_access_key = s\n";

	(void)arg;
	write_text(path_a, text);
	return NULL;
}

static void expired_credentials_are_read_anew_from_their_file(void **state)
{
	static const char text[] =
		"[default]\naws_access_key_id = OLDKEY\naws_secret_access_key = s\n";
	struct error err = ERROR_INIT;

	(void)state;
	write_text(path_a, text);
	open_origin(options(), "s3://bkt/");
	assert_int_equal(get("fine", 0, 10, &err), -EACCES);
	assert_non_null(strstr(err.text, "ExpiredToken"));
	assert_int_equal(atomic_load(&server->requests), 2);
	rewrite_soon(NULL);
	assert_int_equal(get("fine", 0, 10, NULL), 0);
	assert_signed_by("NEWKEY", NULL);
}

static void profiles_that_cannot_be_used_say_why(void **state)
{
	static const char text[] = "[profile p]\ncredential_process = /bin/x\n"
				   "[profile q]\nrole_arn = a\nsource_profile = p\n";
	static const char *const cases[][2] = {
		{"p", "by a process"}, {"q", "assuming a role"}, {"r", "no profile 'r'"}};

	(void)state;
	write_text(path_b, text);
	for (int i = 0; i < 3; i++) {
		struct origin_options *opts = options();
		struct error err = ERROR_INIT;

		origin_options_set(opts, "profile", cases[i][0], NULL);
		open_origin(opts, "s3://bkt/");
		assert_int_equal(get("fine", 0, 10, &err), -EACCES);
		if (!strstr(err.text, cases[i][1]))
			fail_msg("%s", err.text);
	}
	write_text(path_b, "[default]\nnonsense\n");
	{
		struct error err = ERROR_INIT;

		open_origin(options(), "s3://bkt/");
		assert_true(get("fine", 0, 10, &err) < 0);
		assert_non_null(strstr(err.text, "line 2"));
	}
}

static void *get_fine(void *arg)
{
	const struct origin_get g = {.path = "fine",
		.path_len = 4,
		.validator = "\"good\"",
		.object_bytes = FAULT_BYTES,
		.len = 10,
		.dst = arg,
		.deadline_ms = clock_deadline_ms(20000)};

	return (void *)(intptr_t)origin_get(origin, &g, NULL);
}

static void many_that_need_credentials_ask_for_them_once(void **state)
{
	pthread_t threads[8];
	unsigned char rooms[8][16];

	(void)state;
	open_origin(options(), "s3://bkt/");
	for (int i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, get_fine, rooms[i]), 0);
	for (int i = 0; i < 8; i++) {
		void *result;

		pthread_join(threads[i], &result);
		assert_null(result);
	}
	assert_int_equal(atomic_load(&handed_out), 1);
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
		T(web_identity_gives_credentials),
		T(a_refused_web_identity_is_a_clear_error),
		T(a_web_identity_is_not_sent_on_to_another_place),
		T(a_container_gives_credentials),
		T(a_containers_token_is_not_sent_into_the_world),
		T(an_instance_gives_credentials_and_renews_them),
		T(a_long_session_token_of_a_file_arrives_whole),
		T(expired_credentials_are_read_anew_from_their_file),
		T(profiles_that_cannot_be_used_say_why),
		T(many_that_need_credentials_ask_for_them_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
