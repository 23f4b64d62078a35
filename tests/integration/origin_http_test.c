/* The HTTP origin against a real nginx: listing, ranges, changes, HTTPS, credentials. */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/time.h>

#include <cmocka.h>

#include "common/clock.h"
#include "origin/origin.h"
#include "tests/integration/origin_process.h"

#define BIG_BYTES (3u << 20)

static char dir[64];
static int port, tls_port;
static pid_t nginx;
static unsigned char big[BIG_BYTES];

struct seen {
	char path[512];
	size_t path_len;
	char validator[256];
	enum origin_entry_type type;
	uint64_t size;
	int64_t mtime_ns;
};

static struct seen seen[20000];
static unsigned n_seen;

static void put(const char *path, const void *data, size_t len)
{
	char full[1024];

	snprintf(full, sizeof(full), "%s/www/%s", dir, path);
	write_file(full, data, len);
}

static void make_dir(const char *path)
{
	char full[1024];

	snprintf(full, sizeof(full), "%s/%s", dir, path);
	assert_int_equal(mkdir(full, 0755), 0);
}

static const char conf_text[] =
	"daemon off; worker_processes 1; pid %1$s/pid; error_log %1$s/error.log;\n"
	"events { worker_connections 512; }\n"
	"http {\n"
	" access_log %1$s/access.log; default_type application/octet-stream;\n"
	" client_body_temp_path %1$s/t1; proxy_temp_path %1$s/t2; fastcgi_temp_path %1$s/t3;\n"
	" uwsgi_temp_path %1$s/t4; scgi_temp_path %1$s/t5;\n"
	" server { listen 127.0.0.1:%2$d; listen 127.0.0.1:%3$d ssl; root %1$s/www;\n"
	"  ssl_certificate %1$s/cert.pem; ssl_certificate_key %1$s/key.pem;\n"
	"  location / { autoindex on; autoindex_format json; }\n"
	"  location /html/ { root %1$s/other; autoindex on; }\n"
	"  location /private/ { root %1$s/other; autoindex on; autoindex_format json;\n"
	"   auth_basic x; auth_basic_user_file %1$s/users; }\n"
	"  location /moved/ { rewrite ^/moved/(.*) /sub/$1 redirect; }\n"
	"  location /loop/ { return 302 /sub/; }\n"
	"  location /down/ { return 503; }\n"
	" }\n}\n";

static int start_nginx(void)
{
	char conf[4096], path[128], log[128], command[512];
	char *argv[] = {NULL, (char *)"-p", dir, (char *)"-c", path, NULL};

	argv[0] = (char *)find_program("GRANARY_TEST_NGINX", "nginx");
	if (!argv[0])
		return SKIPPED;
	argv[0] = strdup(argv[0]);
	snprintf(command, sizeof(command),
		"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
		"-addext subjectAltName=IP:127.0.0.1 -keyout %s/key.pem -out %s/cert.pem "
		"2>/dev/null",
		dir, dir);
	if (system(command) != 0)
		return SKIPPED;
	port = free_port();
	tls_port = free_port();
	snprintf(conf, sizeof(conf), conf_text, dir, port, tls_port);
	snprintf(path, sizeof(path), "%s/conf", dir);
	write_text(path, conf);
	snprintf(log, sizeof(log), "%s/users", dir);
	write_text(log, "ann:{PLAIN}se cret\n");
	snprintf(log, sizeof(log), "%s/log", dir);
	nginx = start_server(log, argv, NULL);
	free(argv[0]);
	return wait_for_port(nginx, port) ? 0 : SKIPPED;
}

static int group_setup(void **state)
{
	(void)state;
	make_dir("www");
	make_dir("www/sub");
	make_dir("www/sub/deep");
	make_dir("www/empty");
	make_dir("other");
	make_dir("other/html");
	make_dir("other/private");
	for (size_t i = 0; i < BIG_BYTES; i++)
		big[i] = (unsigned char)(i * 2654435761u >> 13);
	put("big", big, BIG_BYTES);
	put("nothing", "", 0);
	put("sub/deep/file", "hello", 5);
	put("sub/a b%25?#&;+=\"'<\\ \n\xc3\xa4", "odd", 3);
	put("../other/private/x", "secret", 6);
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	stop_server(nginx);
	remove_tree(dir);
	return 0;
}

static struct origin *open_at(const char *url_text, ...)
{
	struct origin_options *opts = origin_options_new();
	struct error err = ERROR_INIT;
	struct origin *o = NULL;
	char url[512];
	va_list ap;

	va_start(ap, url_text);
	vsnprintf(url, sizeof(url), url_text, ap);
	va_end(ap);
	origin_options_set(opts, "attempts", "4", NULL);
	origin_options_set(opts, "list-parallel", "4", NULL);
	if (origin_open(url, opts, &o, &err) < 0)
		fail_msg("%s", err.text);
	origin_options_free(opts);
	return o;
}

static struct origin *open_with(
	const char *key, const char *value, const char *scheme, int at_port, const char *path)
{
	struct origin_options *opts = origin_options_new();
	struct error err = ERROR_INIT;
	struct origin *o = NULL;
	char url[512];

	snprintf(url, sizeof(url), "%s://127.0.0.1:%d/%s", scheme, at_port, path);
	origin_options_set(opts, "attempts", "4", NULL);
	if (key)
		assert_int_equal(origin_options_set(opts, key, value, NULL), 0);
	if (origin_open(url, opts, &o, &err) < 0)
		fail_msg("%s", err.text);
	origin_options_free(opts);
	return o;
}

static int note(void *arg, const struct origin_entry *e, struct error *err)
{
	struct seen *s = &seen[n_seen++];

	(void)arg;
	(void)err;
	assert_true(n_seen < sizeof(seen) / sizeof(seen[0]) && e->path_len < sizeof(s->path));
	memset(s, 0, sizeof(*s));
	memcpy(s->path, e->path, e->path_len);
	s->path_len = e->path_len;
	strcpy(s->validator, e->validator);
	s->type = e->type;
	s->size = e->size;
	s->mtime_ns = e->mtime_ns;
	return 0;
}

static void list(struct origin *o)
{
	struct error err = ERROR_INIT;

	n_seen = 0;
	if (origin_list(o, note, NULL, NULL, clock_deadline_ms(30000), &err) < 0)
		fail_msg("%s", err.text);
}

static int ignore(void *arg, const struct origin_entry *e, struct error *err)
{
	(void)arg;
	(void)e;
	(void)err;
	return 0;
}

static int list_fails(struct origin *o, const char *text)
{
	struct error err = ERROR_INIT;
	int r;

	n_seen = 0;
	r = origin_list(o, ignore, NULL, NULL, clock_deadline_ms(30000), &err);
	if (!strstr(err.text, text))
		fail_msg("'%s' is not in '%s'", text, err.text);
	return r;
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
		.path_len = s->path_len,
		.validator = s->validator,
		.object_bytes = s->size,
		.offset = offset,
		.len = len,
		.dst = dst,
		.deadline_ms = clock_deadline_ms(10000),
	};

	return origin_get(o, &g, err);
}

static void index_pages_are_walked(void **state)
{
	struct origin *o = open_at("http://127.0.0.1:%d", port);

	(void)state;
	list(o);
	assert_int_equal(find("big")->size, BIG_BYTES);
	assert_int_equal(find("big")->type, ORIGIN_FILE);
	assert_int_equal(find("nothing")->size, 0);
	assert_int_equal(find("empty")->type, ORIGIN_DIR);
	assert_int_equal(find("sub/deep/file")->size, 5);
	assert_true(find("big")->mtime_ns > 1500000000ll * 1000000000);
	assert_int_equal(strncmp(find("big")->validator, "mtime:", 6), 0);
	assert_string_equal(origin_guarantee(o), "modification time");
	origin_free(o);
}

static void odd_names_are_read_back(void **state)
{
	struct origin *o = open_at("http://127.0.0.1:%d/sub", port);
	char buf[8] = "";

	(void)state;
	list(o);
	assert_int_equal(get(o, find("a b%25?#&;+=\"'<\\ \n\xc3\xa4"), 0, buf, 3, NULL), 0);
	assert_string_equal(buf, "odd");
	origin_free(o);
}

static void ranges_come_exactly(void **state)
{
	static const uint64_t ranges[][2] = {{0, 1}, {0, BIG_BYTES}, {1, BIG_BYTES - 1},
		{BIG_BYTES - 1, 1}, {123457, 1000001}, {1 << 20, 1 << 20}};
	struct origin *o = open_at("http://127.0.0.1:%d/", port);
	unsigned char *dst = malloc(BIG_BYTES);
	uint64_t sum = 0, listed;

	(void)state;
	list(o);
	listed = origin_bytes_received(o);
	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		memset(dst, 0, BIG_BYTES);
		assert_int_equal(get(o, find("big"), ranges[i][0], dst, ranges[i][1], NULL), 0);
		assert_memory_equal(dst, big + ranges[i][0], ranges[i][1]);
		sum += ranges[i][1];
	}
	assert_int_equal(origin_bytes_received(o) - listed, sum);
	free(dst);
	origin_free(o);
}

static void stat_gives_the_etag_and_gets_hold_it(void **state)
{
	struct origin *o = open_at("http://127.0.0.1:%d/", port);
	struct origin_entry e;
	struct seen s = {.path = "stated", .path_len = 6};
	char room[256], buf[8] = "";

	(void)state;
	put("stated", "12345", 5);
	assert_int_equal(origin_stat(o, "stated", 6, &e, room, CLOCK_NEVER, NULL), 0);
	assert_int_equal(e.size, 5);
	assert_int_equal(e.validator[0], '"');
	strcpy(s.validator, e.validator);
	s.size = 5;
	assert_int_equal(get(o, &s, 1, buf, 3, NULL), 0);
	assert_string_equal(buf, "234");
	s.validator[1] ^= 1;
	assert_int_equal(get(o, &s, 1, buf, 3, NULL), ORIGIN_CHANGED);
	assert_int_equal(origin_stat(o, "none", 4, &e, room, CLOCK_NEVER, NULL), ORIGIN_GONE);
	origin_free(o);
}

static void changed_and_deleted_files_are_told(void **state)
{
	static const char *const names[] = {"newer", "older", "longer", "gone"};
	struct origin *o = open_at("http://127.0.0.1:%d/", port);
	const struct timeval future[2] = {{2000000000, 0}, {2000000000, 0}};
	const struct timeval past[2] = {{1000000000, 0}, {1000000000, 0}};
	char buf[8], full[128];

	(void)state;
	for (int i = 0; i < 4; i++)
		put(names[i], "12345", 5);
	list(o);
	snprintf(full, sizeof(full), "%s/www/newer", dir);
	utimes(full, future);
	snprintf(full, sizeof(full), "%s/www/older", dir);
	utimes(full, past);
	put("longer", "123456", 6);
	snprintf(full, sizeof(full), "%s/www/gone", dir);
	unlink(full);
	assert_int_equal(get(o, find("newer"), 0, buf, 5, NULL), ORIGIN_CHANGED);
	assert_int_equal(get(o, find("older"), 0, buf, 5, NULL), ORIGIN_CHANGED);
	assert_int_equal(get(o, find("longer"), 0, buf, 5, NULL), ORIGIN_CHANGED);
	assert_int_equal(get(o, find("longer"), 2, buf, 2, NULL), ORIGIN_CHANGED);
	assert_int_equal(get(o, find("gone"), 0, buf, 5, NULL), ORIGIN_GONE);
	origin_free(o);
}

static void listing_files_of_all_forms_are_read(void **state)
{
	static const char *const forms[] = {
		"[{\"path\": \"big\", \"size\": 3145728},\n {\"path\": \"d/\"},"
		"{\"path\": \"sub/deep/file\", \"size\": 5, \"etag\": \"abc\", \"mtime\": 7}]\n",
		"{\"path\": \"big\", \"size\": 3145728}\n{\"path\": \"d/\"}\n"
		"{\"path\": \"sub/deep/file\", \"size\": 5, \"etag\": \"\\\"abc\\\"\"}",
		"3145728\tbig\n0\td/\n5\tsub/deep/file\tabc\n\n",
	};

	(void)state;
	for (int i = 0; i < 3; i++) {
		struct origin *o = open_with("index", "listing", "http", port, "");
		unsigned char buf[100];

		put("listing", forms[i], strlen(forms[i]));
		list(o);
		assert_int_equal(n_seen, 3);
		assert_int_equal(find("d")->type, ORIGIN_DIR);
		assert_string_equal(find("sub/deep/file")->validator, "\"abc\"");
		assert_string_equal(find("big")->validator, "");
		assert_string_equal(origin_guarantee(o), "size only");
		assert_int_equal(get(o, find("big"), 1000, buf, 100, NULL), 0);
		assert_memory_equal(buf, big + 1000, 100);
		assert_int_equal(get(o, find("sub/deep/file"), 0, buf, 5, NULL), ORIGIN_CHANGED);
		origin_free(o);
	}
}

static void malformed_listings_are_refused_with_the_place(void **state)
{
	static const char *const bad[][2] = {
		{"[{\"path\": \"a\", \"size\": 1}", "element 2: the array does not end"},
		{"[{\"path\": \"a\", \"size\": 1}] x", "follows"},
		{"[1]", "element 1: it is not an object"},
		{"{\"path\": \"a\", \"size\": -1}", "element 1: it has no size"},
		{"{\"size\": 1}", "no path"},
		{"{\"path\": \"a\", \"size\": 1}{\"path\": ", "element 2 is not valid JSON"},
		{"{\"path\": \"a\", \"size\": 1, \"etag\": \"a\\r\\nb: c\"}", "etag"},
		{"12 nope", "SIZE<TAB>PATH"},
		{"99999999999999999999\tx", "size"},
	};
	char *endless = malloc(200001);

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct origin *o = open_with("index", "/listing", "http", port, "sub/");

		put("listing", bad[i][0], strlen(bad[i][0]));
		assert_int_equal(list_fails(o, bad[i][1]), -EIO);
		origin_free(o);
	}
	for (int i = 0; i < 2; i++) {
		struct origin *o = open_with("index", "/listing", "http", port, "sub/");

		memset(endless, i ? '1' : ' ', 200000);
		memcpy(endless, i ? "1" : "{\"", i ? 1 : 2);
		put("listing", endless, 200000);
		assert_int_equal(list_fails(o, i ? "too long" : "not valid JSON"), -EIO);
		origin_free(o);
	}
	free(endless);
}

static void a_long_listing_file_is_read_completely(void **state)
{
	struct origin *o = open_with("index", "listing", "http", port, "");
	char *text = malloc(2 << 20), *at = text;

	(void)state;
	for (int i = 0; i < 15000; i++)
		at += sprintf(at, "{\"path\": \"d%d/some/longer/path/f%d\", \"size\": %d}\n",
			i % 100, i, i);
	put("listing", text, (size_t)(at - text));
	list(o);
	assert_int_equal(n_seen, 15000);
	free(text);
	origin_free(o);
}

static void unsuitable_folders_are_refused_clearly(void **state)
{
	static const char *const cases[][2] = {
		{"html/", "autoindex_format json"},
		{"no/such/", "no such folder"},
		{"down/", "HTTP 503"},
		{"loop/", "a loop"},
		{"private/", "refuses these credentials"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct origin *o = open_with(NULL, NULL, "http", port, cases[i][0]);

		assert_true(list_fails(o, cases[i][1]) < 0);
		origin_free(o);
	}
}

static void credentials_of_the_url_are_used_and_never_shown(void **state)
{
	struct origin *o = open_at("http://ann:se%%20cret@127.0.0.1:%d/private", port);
	struct origin_options *opts = origin_options_new();
	char buf[8] = "", shown[64];
	struct error err = ERROR_INIT;

	(void)state;
	list(o);
	assert_int_equal(get(o, find("x"), 0, buf, 6, NULL), 0);
	assert_string_equal(buf, "secret");
	snprintf(shown, sizeof(shown), "http://127.0.0.1:%d/private/", port);
	assert_string_equal(origin_url(o), shown);
	origin_options_set(opts, "http-user", "ann", NULL);
	origin_options_set(opts, "http-password", "wrong", NULL);
	assert_int_equal(origin_renew(o, opts, NULL), 0);
	assert_int_equal(get(o, find("x"), 0, buf, 6, &err), -EACCES);
	assert_null(strstr(err.text, "wrong"));
	assert_null(strstr(err.text, "cret"));
	origin_options_set(opts, "http-password", "se cret", NULL);
	assert_int_equal(origin_renew(o, opts, NULL), 0);
	assert_int_equal(get(o, find("x"), 0, buf, 6, NULL), 0);
	origin_options_free(opts);
	origin_free(o);
}

static void https_is_verified_against_the_authority(void **state)
{
	char ca[128], buf[8] = "";
	struct origin *o;

	(void)state;
	snprintf(ca, sizeof(ca), "%s/cert.pem", dir);
	o = open_with("ca-file", ca, "https", tls_port, "sub/deep");
	list(o);
	assert_int_equal(get(o, find("file"), 1, buf, 3, NULL), 0);
	assert_string_equal(buf, "ell");
	origin_free(o);

	o = open_with(NULL, NULL, "https", tls_port, "sub/deep");
	assert_int_equal(list_fails(o, "certificate cannot be verified"), -EIO);
	origin_free(o);

	o = open_with("insecure", "yes", "https", tls_port, "sub/deep");
	list(o);
	origin_free(o);
}

static void redirects_are_followed(void **state)
{
	struct origin *o = open_at("http://127.0.0.1:%d/moved/", port);

	(void)state;
	list(o);
	find("deep/file");
	origin_free(o);
}

static void a_server_that_is_not_there_fails_soon(void **state)
{
	struct origin *o = open_with(NULL, NULL, "http", free_port(), "");
	int64_t start = clock_mono_ms();

	(void)state;
	assert_int_equal(list_fails(o, "onnect"), -EIO);
	assert_true(clock_mono_ms() - start < 5000);
	origin_free(o);
}

static void malformed_urls_are_refused(void **state)
{
	static const char *const bad[] = {"http://", "http://host:99999/", "http://ho st/",
		"http://h/?q=1", "http://h/#f", "https://[::1/"};
	struct origin *o;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(origin_open(bad[i], NULL, &o, NULL), -EINVAL);
	assert_int_equal(origin_open("http://u:p@[::1]:8080/a%20b", NULL, &o, NULL), 0);
	assert_string_equal(origin_url(o), "http://[::1]:8080/a%20b/");
	origin_free(o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(index_pages_are_walked),
		cmocka_unit_test(odd_names_are_read_back),
		cmocka_unit_test(ranges_come_exactly),
		cmocka_unit_test(stat_gives_the_etag_and_gets_hold_it),
		cmocka_unit_test(changed_and_deleted_files_are_told),
		cmocka_unit_test(listing_files_of_all_forms_are_read),
		cmocka_unit_test(malformed_listings_are_refused_with_the_place),
		cmocka_unit_test(a_long_listing_file_is_read_completely),
		cmocka_unit_test(unsuitable_folders_are_refused_clearly),
		cmocka_unit_test(credentials_of_the_url_are_used_and_never_shown),
		cmocka_unit_test(https_is_verified_against_the_authority),
		cmocka_unit_test(redirects_are_followed),
		cmocka_unit_test(a_server_that_is_not_there_fails_soon),
		cmocka_unit_test(malformed_urls_are_refused),
	};
	int r;

	strcpy(dir, "/tmp/granary-http-XXXXXX");
	if (!mkdtemp(dir) || chmod(dir, 0755) < 0)
		return 1;
	r = start_nginx();
	if (r == SKIPPED) {
		fprintf(stderr, "nginx or openssl is not there: skipped\n");
		stop_server(nginx);
		remove_tree(dir);
		return SKIPPED;
	}
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
