/*
 * An S3 server that breaks and lies, stand-ins of the services that hand out temporary credentials,
 * all of them one fault server, and an origin on it: what the tests of both share.
 */
#pragma once

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

static inline void xml(int fd, const char *status, const char *body)
{
	fault_text(fd,
		"HTTP/1.1 %s\r\nContent-Type: application/xml\r\nContent-Length: %zu\r\n"
		"Connection: close\r\n\r\n%s",
		status, strlen(body), body);
}

static inline void refuse(int fd, const char *status, const char *code, const char *more)
{
	char body[1024];

	snprintf(body, sizeof(body), "<Error><Code>%s</Code><Message>so it is</Message>%s</Error>",
		code, more);
	xml(fd, status, body);
}

static inline void object(struct fault_server *s, int fd, unsigned first, unsigned last,
	unsigned bytes, const char *etag)
{
	fault_text(fd,
		"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes %u-%u/%u\r\n"
		"Content-Length: %u\r\nConnection: close\r\n%s\r\n",
		first, last, FAULT_BYTES, last - first + 1, etag);
	fault_send(fd, s->object + first, bytes);
}

static inline void expiration(char room[32])
{
	time_t t = time(NULL) + atomic_load(&lifetime_s);
	struct tm tm;

	strftime(room, 32, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &tm));
}

static inline void hand_out_xml(int fd)
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

static inline void hand_out_json(int fd, const char *key)
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

static inline bool answer_services(int fd, const char *request)
{
	if (strncmp(request, "POST / ", 7) == 0) {
		if (strstr(request, "WebIdentityToken=the.token%2F") &&
			strstr(request, "RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr") &&
			!strstr(request, "Authorization:"))
			hand_out_xml(fd);
		else if (strstr(request, "WebIdentityToken=moved.token"))
			fault_text(fd, "HTTP/1.1 307 Moved\r\nLocation: /elsewhere\r\n"
				       "Content-Length: 0\r\nConnection: close\r\n\r\n");
		else if (strstr(request, "WebIdentityToken=busy.token"))
			refuse(fd, "400 Bad", "IDPCommunicationError", "");
		else if (strstr(request, "WebIdentityToken=echo"))
			xml(fd, "400 Bad",
				"<ErrorResponse><Error><Code>Invalid</Code><Message>no "
				"cho-0123456789abc\n</Message></Error></ErrorResponse>");
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

static inline bool answer_lists(int fd, const char *request, unsigned nth)
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
static inline void answer_pauses(
	struct fault_server *s, int fd, unsigned nth, unsigned first, unsigned last)
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

static inline void answer_passing_faults(
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

static inline void answer(struct fault_server *s, int fd, const char *request, unsigned nth)
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
		fault_text(
			fd, "HTTP/1.1 503 Slow\r\nRetry-After: 100\r\nContent-Length: 0\r\n\r\n");
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

static inline struct origin_options *options(void)
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
static inline void open_origin(struct origin_options *opts, const char *url)
{
	struct error err = ERROR_INIT;

	origin_free(origin);
	origin = NULL;
	if (origin_open(url, opts, &origin, &err) < 0)
		fail_msg("%s", err.text);
	origin_options_free(opts);
}

static inline struct origin_options *keyed(void)
{
	struct origin_options *opts = options();

	origin_options_set(opts, "access-key-id", "AKEY", NULL);
	origin_options_set(opts, "secret-access-key", "hush", NULL);
	return opts;
}

static inline int setup(void **state)
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

static inline int teardown(void **state)
{
	(void)state;
	origin_free(origin);
	origin = NULL;
	fault_server_stop(server);
	remove_tree(dir);
	return 0;
}

static inline int get(const char *path, unsigned offset, unsigned len, struct error *err)
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

static inline void assert_signed_by(const char *key, const char *token)
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
