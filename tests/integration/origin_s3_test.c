/* The S3 origin against servers that verify signatures, MinIO or versitygw as the argument says:
 * listing, ranges, changes, credentials, region. */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"
#include "origin/origin.h"
#include "tests/integration/origin_s3_server.h"

#define BIG_BYTES (3u << 20)
#define SEEN_MAX 8000

static unsigned char big[BIG_BYTES];

struct seen {
	char path[256];
	char validator[128];
	enum origin_entry_type type;
	uint64_t size;
	int64_t mtime_ns;
};

static struct seen seen[SEEN_MAX];
static unsigned n_seen;

/* ---- the origin under test ------------------------------------------------------------------- */

struct setting {
	const char *key, *value;
};

static struct origin *open_with(const char *url, const struct setting *settings)
{
	struct origin_options *opts = origin_options_new();
	struct error err = ERROR_INIT;
	struct origin *o = NULL;
	char endpoint[64];

	snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%d", port);
	origin_options_set(opts, "endpoint", endpoint, NULL);
	origin_options_set(opts, "attempts", "5", NULL);
	origin_options_set(opts, "metadata-disabled", "yes", NULL);
	/* Not those of whoever runs the tests. */
	origin_options_set(opts, "credentials-file", "/dev/null", NULL);
	origin_options_set(opts, "config-file", "/dev/null", NULL);
	for (; settings && settings->key; settings++)
		assert_int_equal(origin_options_set(opts, settings->key, settings->value, NULL), 0);
	if (origin_open(url, opts, &o, &err) < 0)
		fail_msg("%s", err.text);
	origin_options_free(opts);
	return o;
}

static struct origin *open_at(const char *url)
{
	return open_with(url, (struct setting[]){{"access-key-id", USER},
				      {"secret-access-key", PASSWORD}, {NULL, NULL}});
}

static int note(void *arg, const struct origin_entry *e, struct error *err)
{
	struct seen *s = &seen[n_seen++];

	(void)arg;
	(void)err;
	if (n_seen >= SEEN_MAX || e->path_len >= sizeof(s->path))
		abort();
	memset(s, 0, sizeof(*s));
	memcpy(s->path, e->path, e->path_len);
	strcpy(s->validator, e->validator);
	s->type = e->type;
	s->size = e->size;
	s->mtime_ns = e->mtime_ns;
	return 0;
}

static int compare(const void *a, const void *b)
{
	return strcmp(((const struct seen *)a)->path, ((const struct seen *)b)->path);
}

static void list(struct origin *o)
{
	struct error err = ERROR_INIT;

	n_seen = 0;
	if (origin_list(o, note, NULL, NULL, clock_deadline_ms(60000), &err) < 0)
		fail_msg("%s", err.text);
	qsort(seen, n_seen, sizeof(seen[0]), compare);
	for (unsigned i = 1; i < n_seen; i++) {
		if (compare(&seen[i - 1], &seen[i]) == 0)
			fail_msg("%s was listed twice", seen[i].path);
	}
}

static struct seen *find(const char *path)
{
	for (unsigned i = 0; i < n_seen; i++) {
		if (strcmp(seen[i].path, path) == 0)
			return &seen[i];
	}
	fail_msg("%s was not listed", path);
	return NULL;
}

static int get(struct origin *o, const struct seen *s, uint64_t offset, void *dst, uint64_t len,
	struct error *err)
{
	const struct origin_get g = {
		.path = s->path,
		.path_len = strlen(s->path),
		.validator = s->validator,
		.object_bytes = s->size,
		.offset = offset,
		.len = len,
		.dst = dst,
		.deadline_ms = clock_deadline_ms(15000),
	};

	return origin_get(o, &g, err);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void a_prefix_is_listed_with_sizes_etags_and_markers(void **state)
{
	struct origin *o = open_at("s3://data/set/");

	(void)state;
	list(o);
	assert_int_equal(find("big")->size, BIG_BYTES);
	assert_int_equal(find("big")->validator[0], '"');
	assert_int_equal(strlen(find("big")->validator), 34);
	assert_true(find("big")->mtime_ns > 1700000000ll * 1000000000);
	assert_int_equal(find("nothing")->size, 0);
	assert_int_equal(find("marked")->type, ORIGIN_DIR);
	find("a/b/c/d/e/deep");
	assert_string_equal(origin_url(o), "s3://data/set");
	origin_free(o);
}

static void thousands_of_keys_come_once_in_parallel_and_in_sequence(void **state)
{
	static const char *const parallel[] = {"1", "3", "16"};

	(void)state;
	for (int i = 0; i < 3; i++) {
		struct origin *o = open_with("s3://data/many",
			(struct setting[]){{"access-key-id", USER}, {"secret-access-key", PASSWORD},
				{"list-parallel", parallel[i]}, {NULL, NULL}});

		list(o);
		assert_int_equal(n_seen, 2501 + 1201);
		find("flat-2500");
		find("p0000/x");
		find("p1199/x");
		find("p0600!/y");
		origin_free(o);
	}
}

static const char *const awkward[] = {"with space", "plus+and%25", "a&b=c?d#e;f", "qu\"o'te",
	"ünï/cödé", "back\\slash", "(*)!~@$,:", "tab\there", "new\nline", "\x01\x02"};

/* versitygw does not URL-encode what it lists: other control characters are lost in its XML. */
static size_t awkward_count(void)
{
	return sizeof(awkward) / sizeof(awkward[0]) - (is_minio ? 0 : 1);
}

static void awkward_keys_are_listed_and_read(void **state)
{
	struct origin *o = open_at("s3://data/awk ward+%");
	char buf[64];

	(void)state;
	list(o);
	for (size_t i = 0; i < awkward_count(); i++) {
		struct seen *s = find(awkward[i]);

		memset(buf, 0, sizeof(buf));
		assert_int_equal(get(o, s, 0, buf, s->size, NULL), 0);
		assert_string_equal(buf, awkward[i]);
	}
	origin_free(o);
}

static void ranges_come_exactly(void **state)
{
	static const uint64_t ranges[][2] = {
		{0, 1}, {0, BIG_BYTES}, {1, BIG_BYTES - 1}, {BIG_BYTES - 1, 1}, {123457, 1000001}};
	struct origin *o = open_at("s3://data/set");
	unsigned char *dst = malloc(BIG_BYTES);
	uint64_t sum = 0;

	(void)state;
	list(o);
	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		memset(dst, 0, BIG_BYTES);
		assert_int_equal(get(o, find("big"), ranges[i][0], dst, ranges[i][1], NULL), 0);
		assert_memory_equal(dst, big + ranges[i][0], ranges[i][1]);
		sum += ranges[i][1];
	}
	assert_int_equal(origin_bytes_received(o), sum);
	free(dst);
	origin_free(o);
}

static void stat_agrees_with_the_listing(void **state)
{
	struct origin *o = open_at("s3://data/set");
	struct origin_entry e;
	char room[256];

	(void)state;
	list(o);
	assert_int_equal(origin_stat(o, "big", 3, &e, room, clock_deadline_ms(10000), NULL), 0);
	assert_int_equal(e.size, BIG_BYTES);
	assert_string_equal(e.validator, find("big")->validator);
	assert_int_equal(
		origin_stat(o, "none", 4, &e, room, clock_deadline_ms(10000), NULL), ORIGIN_GONE);
	origin_free(o);
}

static void changed_and_deleted_objects_are_told(void **state)
{
	struct origin *o = open_at("s3://data/volatile");
	char buf[8];

	(void)state;
	put("volatile/same-size", "12345", 5);
	put("volatile/longer", "12345", 5);
	put("volatile/gone", "12345", 5);
	list(o);
	put("volatile/same-size", "54321", 5);
	put("volatile/longer", "123456", 6);
	delete ("volatile/gone");
	assert_int_equal(get(o, find("same-size"), 0, buf, 5, NULL), ORIGIN_CHANGED);
	assert_int_equal(get(o, find("longer"), 0, buf, 5, NULL), ORIGIN_CHANGED);
	assert_int_equal(get(o, find("gone"), 0, buf, 5, NULL), ORIGIN_GONE);
	/* Without a validator the size still tells. */
	find("longer")->validator[0] = '\0';
	assert_int_equal(get(o, find("longer"), 0, buf, 5, NULL), ORIGIN_CHANGED);
	assert_int_equal(origin_bytes_received(o), 0);
	origin_free(o);
}

static void a_wrong_key_is_a_clear_error(void **state)
{
	static const char *const keys[][2] = {{USER, "wrong-secret-key"}, {"nobody", PASSWORD}};

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct origin *o = open_with(
			"s3://data/set", (struct setting[]){{"access-key-id", keys[i][0]},
						 {"secret-access-key", keys[i][1]}, {NULL, NULL}});
		struct error err = ERROR_INIT;
		int64_t start = clock_mono_ms();

		assert_int_equal(
			origin_list(o, note, NULL, NULL, clock_deadline_ms(20000), &err), -EACCES);
		assert_non_null(strstr(err.text, "s3://data/set"));
		assert_non_null(strstr(err.text, "credentials were refused"));
		assert_null(strstr(err.text, keys[i][1]));
		assert_true(clock_mono_ms() - start < 5000);
		origin_free(o);
	}
}

static void missing_things_are_named(void **state)
{
	struct origin *o = open_at("s3://no-such-bucket/x");
	struct error err = ERROR_INIT;

	(void)state;
	assert_int_equal(origin_list(o, note, NULL, NULL, clock_deadline_ms(20000), &err), -EIO);
	assert_non_null(strstr(err.text, "no bucket 'no-such-bucket'"));
	origin_free(o);

	o = open_with("s3://data/set", NULL);
	assert_int_equal(origin_list(o, note, NULL, NULL, clock_deadline_ms(20000), &err), -EACCES);
	assert_non_null(strstr(err.text, "no credentials"));
	origin_free(o);

	o = open_with("s3://data/set", (struct setting[]){{"sign", "no"}, {NULL, NULL}});
	assert_int_equal(origin_list(o, note, NULL, NULL, clock_deadline_ms(20000), &err), -EACCES);
	assert_non_null(strstr(err.text, "not public"));
	origin_free(o);
}

static void a_public_bucket_is_read_unsigned(void **state)
{
	struct origin *o = open_with("s3://public",
		(struct setting[]){{"sign", "no"}, {"region", REGION}, {NULL, NULL}});
	cleanup_buf struct buf answer = BUF_INIT;

	(void)state;
	assert_true(make_bucket("public"));
	signed_request("PUT", "/public", "policy=", "s3",
		"{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Allow\",\"Principal\":"
		"{\"AWS\":[\"*\"]},\"Action\":[\"s3:ListBucket\",\"s3:GetObject\"],\"Resource\":"
		"[\"arn:aws:s3:::public\",\"arn:aws:s3:::public/*\"]}]}",
		&answer);
	list(o);
	assert_int_equal(n_seen, 0);
	origin_free(o);
}

static void the_region_is_found_from_the_answer(void **state)
{
	struct origin *o = open_with("s3://data/set",
		(struct setting[]){{"access-key-id", USER}, {"secret-access-key", PASSWORD},
			{"region", "us-west-2"}, {NULL, NULL}});
	struct origin_entry e;
	char room[256];

	(void)state;
	/* A HEAD gets no error document: the region has to be asked for. */
	assert_int_equal(origin_stat(o, "big", 3, &e, room, clock_deadline_ms(10000), NULL), 0);
	list(o);
	find("big");
	origin_free(o);
}

static void virtual_host_style_works(void **state)
{
	char endpoint[64];
	struct origin *o;

	(void)state;
	snprintf(endpoint, sizeof(endpoint), "http://localhost:%d", port);
	o = open_with("s3://data/set",
		(struct setting[]){{"access-key-id", USER}, {"secret-access-key", PASSWORD},
			{"endpoint", endpoint}, {"addressing", "virtual"}, {NULL, NULL}});
	list(o);
	find("big");
	origin_free(o);
}

static void write_profile(const char *path, const char *id, const char *secret, const char *token)
{
	char text[8192];

	snprintf(text, sizeof(text),
		"# made by a tool\n[default]\naws_access_key_id = x\n\n[job]\n"
		"aws_access_key_id = %s\naws_secret_access_key=%s\n%s%s\n",
		id, secret, token[0] ? "aws_session_token = " : "", token);
	write_text(path, text);
}

static void temporary_credentials_work_and_are_read_anew_when_refused(void **state)
{
	char id[128], secret[128], token[4096], path[128], buf[4];
	cleanup_buf struct buf answer = BUF_INIT;
	struct origin *o;

	(void)state;
	if (!is_minio)
		skip(); /* versitygw has no STS */
	signed_request("POST", "/", NULL, "sts",
		"Action=AssumeRole&Version=2011-06-15&DurationSeconds=900", &answer);
	element(&answer, "AccessKeyId", id, sizeof(id));
	element(&answer, "SecretAccessKey", secret, sizeof(secret));
	element(&answer, "SessionToken", token, sizeof(token));
	snprintf(path, sizeof(path), "%s/credentials", dir);
	write_profile(path, id, secret, token);
	o = open_with("s3://data/set",
		(struct setting[]){{"profile", "job"}, {"credentials-file", path}, {NULL, NULL}});
	list(o);
	assert_int_equal(get(o, find("big"), 0, buf, 4, NULL), 0);

	/* They are refused: the file has new ones by then. */
	write_profile(path, "expired", secret, token);
	origin_free(o);
	o = open_with("s3://data/set",
		(struct setting[]){{"profile", "job"}, {"credentials-file", path}, {NULL, NULL}});
	assert_int_equal(get(o, find("big"), 0, buf, 4, NULL), -EACCES);
	write_profile(path, id, secret, token);
	assert_int_equal(get(o, find("big"), 0, buf, 4, NULL), 0);
	origin_free(o);
}

static void live_origins_take_new_credentials(void **state)
{
	struct origin_options *opts = origin_options_new();
	struct origin *o = open_with(
		"s3://data/set", (struct setting[]){{"access-key-id", USER},
					 {"secret-access-key", "bad-secret"}, {NULL, NULL}});
	struct origin_entry e;
	char room[256];

	(void)state;
	assert_int_equal(
		origin_stat(o, "big", 3, &e, room, clock_deadline_ms(10000), NULL), -EACCES);
	origin_options_set(opts, "access-key-id", USER, NULL);
	origin_options_set(opts, "secret-access-key", PASSWORD, NULL);
	assert_int_equal(origin_renew(o, opts, NULL), 0);
	assert_int_equal(origin_stat(o, "big", 3, &e, room, clock_deadline_ms(10000), NULL), 0);
	origin_options_free(opts);
	origin_free(o);
}

struct reader {
	struct origin *o;
	struct seen *s;
	int result;
};

static void *read_many(void *arg)
{
	struct reader *rd = arg;
	unsigned char *dst = malloc(100000);

	for (int i = 0; i < 20 && rd->result == 0; i++) {
		uint64_t offset = (uint64_t)(i * 130003) % (BIG_BYTES - 100000);

		rd->result = get(rd->o, rd->s, offset, dst, 100000, NULL);
		if (rd->result == 0 && memcmp(dst, big + offset, 100000) != 0)
			rd->result = -EBADMSG;
	}
	free(dst);
	return NULL;
}

static void many_threads_read_at_once_over_few_connections(void **state)
{
	struct origin *o = open_with("s3://data/set",
		(struct setting[]){{"access-key-id", USER}, {"secret-access-key", PASSWORD},
			{"max-connections", "4"}, {NULL, NULL}});
	struct reader readers[12];
	pthread_t threads[12];

	(void)state;
	list(o);
	for (int i = 0; i < 12; i++) {
		readers[i] = (struct reader){o, find("big"), 0};
		assert_int_equal(pthread_create(&threads[i], NULL, read_many, &readers[i]), 0);
	}
	for (int i = 0; i < 12; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(readers[i].result, 0);
	}
	origin_free(o);
}

static void malformed_urls_and_options_are_refused(void **state)
{
	static const char *const bad[] = {"s3://", "s3:///x", "s3://a@b/x", "s3://x"};
	struct origin_options *opts = origin_options_new();
	struct origin *o;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (origin_open(bad[i], NULL, &o, NULL) != -EINVAL)
			fail_msg("%s was taken", bad[i]);
	}
	origin_options_set(opts, "endpoint", "http://u:p@h/", NULL);
	assert_int_equal(origin_open("s3://data/x", opts, &o, NULL), -EINVAL);
	origin_options_set(opts, "endpoint", "http://h/path", NULL);
	assert_int_equal(origin_open("s3://data/x", opts, &o, NULL), -EINVAL);
	origin_options_set(opts, "endpoint", "ftp://h", NULL);
	assert_int_equal(origin_open("s3://data/x", opts, &o, NULL), -EINVAL);
	origin_options_free(opts);
}

/* ---- what the server has --------------------------------------------------------------------- */

static int fill(void **state)
{
	char key[128];

	(void)state;
	for (size_t i = 0; i < BIG_BYTES; i++)
		big[i] = (unsigned char)(i * 2654435761u >> 11);
	put("set/big", big, BIG_BYTES);
	put("set/nothing", "", 0);
	put("set/marked/", "", 0);
	put("set/a/b/c/d/e/deep", "x", 1);
	put("settled", "not of the set", 14);
	for (int i = 0; i <= 2500; i++) {
		snprintf(key, sizeof(key), "many/flat-%04d", i);
		put(key, "x", 1);
	}
	for (int i = 0; i < 1200; i++) {
		snprintf(key, sizeof(key), "many/p%04d/x", i);
		put(key, "x", 1);
	}
	/* Sorts between "p0600" and "p0600/". */
	put("many/p0600!/y", "y", 1);
	for (size_t i = 0; i < awkward_count(); i++) {
		snprintf(key, sizeof(key), "awk ward+%%/%s", awkward[i]);
		put(key, awkward[i], strlen(awkward[i]));
	}
	return 0;
}

int main(int argc, char **argv)
{
#define T(name) cmocka_unit_test(name)
	const struct CMUnitTest tests[] = {
		T(a_prefix_is_listed_with_sizes_etags_and_markers),
		T(thousands_of_keys_come_once_in_parallel_and_in_sequence),
		T(awkward_keys_are_listed_and_read),
		T(ranges_come_exactly),
		T(stat_agrees_with_the_listing),
		T(changed_and_deleted_objects_are_told),
		T(a_wrong_key_is_a_clear_error),
		T(missing_things_are_named),
		T(a_public_bucket_is_read_unsigned),
		T(the_region_is_found_from_the_answer),
		T(virtual_host_style_works),
		T(temporary_credentials_work_and_are_read_anew_when_refused),
		T(live_origins_take_new_credentials),
		T(many_threads_read_at_once_over_few_connections),
		T(malformed_urls_and_options_are_refused),
	};
	const char *name = argc > 1 ? argv[1] : "minio";
	int r = start_s3(name);

	if (r == 0)
		r = cmocka_run_group_tests_name(name, tests, fill, NULL);
	stop_s3();
	return r;
}
