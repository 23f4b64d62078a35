/*
 * S3 servers that verify Signature V4, started for one test program, and what fills them: MinIO, and
 * versitygw with a folder for its objects.
 */
#pragma once

#include <time.h>

#include <curl/curl.h>
#include <libs3.h>
#include <openssl/evp.h>

#include "common/buf.h"
#include "tests/integration/origin_process.h"

#define USER "granary-test"
#define PASSWORD "granary-secret"
#define REGION "eu-test-1"

static char dir[64]; /* of the test program */
static int port;     /* of its server */
static pid_t server;
static bool is_minio;

struct put {
	const unsigned char *data;
	size_t len, done;
	S3Status status;
};

static inline int put_data(int room, char *buffer, void *arg)
{
	struct put *p = arg;
	size_t n = p->len - p->done < (size_t)room ? p->len - p->done : (size_t)room;

	memcpy(buffer, p->data + p->done, n);
	p->done += n;
	return (int)n;
}

static inline void put_complete(S3Status status, const S3ErrorDetails *details, void *arg)
{
	(void)details;
	((struct put *)arg)->status = status;
}

static inline const char *host(void)
{
	static char text[64];

	snprintf(text, sizeof(text), "127.0.0.1:%d", port);
	return text;
}

static inline S3BucketContext context(const char *bucket)
{
	return (S3BucketContext){
		.hostName = host(),
		.bucketName = bucket,
		.protocol = S3ProtocolHTTP,
		.uriStyle = S3UriStylePath,
		.accessKeyId = USER,
		.secretAccessKey = PASSWORD,
		.authRegion = REGION,
	};
}

static inline void put(const char *key, const void *data, size_t len)
{
	const S3PutObjectHandler handler = {{NULL, put_complete}, put_data};
	S3BucketContext c = context("data");
	struct put p = {data, len, 0, S3StatusInternalError};

	S3_put_object(&c, key, len, NULL, NULL, 30000, &handler, &p);
	if (p.status != S3StatusOK)
		fail_msg("put %s: %s", key, S3_get_status_name(p.status));
}

static inline void delete(const char *key)
{
	const S3ResponseHandler handler = {NULL, put_complete};
	S3BucketContext c = context("data");
	struct put p = {0};

	S3_delete_object(&c, key, NULL, 30000, &handler, &p);
	assert_int_equal(p.status, S3StatusOK);
}

static inline bool make_bucket(const char *name)
{
	const S3ResponseHandler handler = {NULL, put_complete};
	struct put p = {0};

	S3_create_bucket(S3ProtocolHTTP, USER, PASSWORD, NULL, host(), name, REGION,
		S3CannedAclPrivate, NULL, NULL, 30000, &handler, &p);
	return p.status == S3StatusOK;
}

static inline size_t collect(char *data, size_t size, size_t n, void *arg)
{
	return buf_append(arg, data, size * n) == 0 ? size * n : 0;
}

static inline void hex_sha256(const char *text, char hex[65])
{
	unsigned char digest[32];

	EVP_Digest(text, strlen(text), digest, NULL, EVP_sha256(), NULL);
	for (int i = 0; i < 32; i++)
		sprintf(hex + 2 * i, "%02x", digest[i]);
}

/* A signed request that libs3 has no call for. */
static inline void signed_request(const char *method, const char *path, const char *query,
	const char *service, const char *body, struct buf *answer)
{
	char hash[65], date[32], authorization[1024], line[1200], url[512];
	time_t now = time(NULL);
	const S3NameValue headers[] = {
		{"host", host()}, {"x-amz-content-sha256", hash}, {"x-amz-date", date}};
	const S3SignRequest sign = {
		.method = method,
		.path = path,
		.query = query,
		.headersCount = 3,
		.headers = headers,
		.payloadHash = hash,
		.date = date,
		.region = REGION,
		.service = service,
		.accessKeyId = USER,
		.secretAccessKey = PASSWORD,
	};
	struct curl_slist *list = NULL;
	CURL *e = curl_easy_init();

	hex_sha256(body, hash);
	strftime(date, sizeof(date), "%Y%m%dT%H%M%SZ", gmtime(&now));
	assert_int_equal(S3_sign_v4(&sign, sizeof(authorization), authorization), S3StatusOK);
	snprintf(line, sizeof(line), "Authorization: %s", authorization);
	list = curl_slist_append(list, line);
	snprintf(line, sizeof(line), "x-amz-date: %s", date);
	list = curl_slist_append(list, line);
	snprintf(line, sizeof(line), "x-amz-content-sha256: %s", hash);
	list = curl_slist_append(list, line);
	snprintf(url, sizeof(url), "http://%s%s%s%s", host(), path, query ? "?" : "",
		query ? query : "");
	curl_easy_setopt(e, CURLOPT_URL, url);
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, list);
	curl_easy_setopt(e, CURLOPT_POSTFIELDS, body);
	curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, collect);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, answer);
	curl_easy_setopt(e, CURLOPT_FAILONERROR, 1L);
	if (curl_easy_perform(e) != CURLE_OK)
		fail_msg("%s %s failed", method, url);
	curl_slist_free_all(list);
	curl_easy_cleanup(e);
}

/* The text of an XML element. */
static inline void element(const struct buf *xml, const char *name, char *room, size_t bytes)
{
	char open[64];
	const char *at, *end;

	snprintf(open, sizeof(open), "<%s>", name);
	at = xml->len ? strstr(xml->data, open) : NULL;
	if (!at)
		fail_msg("no %s in the answer", name);
	at += strlen(open);
	end = strchr(at, '<');
	assert_true((size_t)(end - at) < bytes);
	memcpy(room, at, (size_t)(end - at));
	room[end - at] = '\0';
}

/* ---- start ----------------------------------------------------------------------------------- */

static inline int wait_for_server(void)
{
	if (!wait_for_port(server, port))
		return 1;
	/* The port opens before the server is ready. */
	for (int i = 0; i < 300; i++) {
		if (make_bucket("data"))
			return 0;
		usleep(200000);
	}
	return 1;
}

static inline int start_minio(const char *data, const char *log)
{
	char listen[64], console[64], home[96];
	char *env[] = {(char *)"MINIO_ROOT_USER=" USER, (char *)"MINIO_ROOT_PASSWORD=" PASSWORD,
		(char *)"MINIO_REGION=" REGION, (char *)"MINIO_DOMAIN=localhost",
		(char *)"MINIO_BROWSER=off", (char *)"MINIO_UPDATE=off", home, NULL};
	char *argv[] = {(char *)find_program("GRANARY_TEST_MINIO", "minio"), (char *)"server",
		(char *)"--quiet", (char *)"--address", listen, (char *)"--console-address",
		console, (char *)data, NULL};

	if (!argv[0])
		return SKIPPED;
	snprintf(listen, sizeof(listen), "127.0.0.1:%d", port);
	snprintf(console, sizeof(console), "127.0.0.1:%d", free_port());
	snprintf(home, sizeof(home), "HOME=%s", dir);
	server = start_server(log, argv, env);
	return wait_for_server();
}

static inline int start_versitygw(const char *data, const char *log)
{
	char listen[64];
	char *env[] = {(char *)"ROOT_ACCESS_KEY=" USER, (char *)"ROOT_SECRET_KEY=" PASSWORD, NULL};
	char *argv[] = {(char *)find_program("GRANARY_TEST_VERSITYGW", "versitygw"),
		(char *)"--port", listen, (char *)"--region", (char *)REGION,
		(char *)"--virtual-domain", (char *)"localhost", (char *)"posix", (char *)data,
		NULL};

	if (!argv[0])
		return SKIPPED;
	snprintf(listen, sizeof(listen), "127.0.0.1:%d", port);
	server = start_server(log, argv, env);
	return wait_for_server();
}

/* Starts the server of that name with an empty bucket "data": 0, SKIPPED, or 1. */
static inline int start_s3(const char *name)
{
	char data[96], log[96];
	int r;

	unsetenv("AWS_CA_BUNDLE");
	S3_initialize("granary-test", S3_INIT_ALL, NULL);
	strcpy(dir, "/tmp/granary-s3-XXXXXX");
	if (!mkdtemp(dir))
		return 1;
	snprintf(data, sizeof(data), "%s/data", dir);
	snprintf(log, sizeof(log), "%s/log", dir);
	mkdir(data, 0755);
	port = free_port();
	is_minio = strcmp(name, "minio") == 0;
	r = is_minio ? start_minio(data, log) : start_versitygw(data, log);
	if (r != 0)
		fprintf(stderr, r == SKIPPED ? "%s is not there: skipped\n" : "%s does not start\n",
			name);
	return r;
}

static inline void stop_s3(void)
{
	stop_server(server);
	remove_tree(dir);
}
