#include "common/metrics.h"

#include <arpa/inet.h>
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <netinet/in.h>
#include <pthread.h>
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/metrics_http.h"

enum { BYTES, TEMPERATURE, SECONDS, FEW, PLAIN, GONE, RACED };

static const struct metric_buckets small_buckets = {.n = 3, .upper = {0.1, 1, 2.5}};

static struct metric table[] = {
	[BYTES] = METRIC_COUNTER("test_bytes_total", "Bytes \\ and\nmore.", "dataset", "source"),
	[TEMPERATURE] = METRIC_GAUGE("test_temperature", "Gauge \"quoted\"."),
	[SECONDS] = METRIC_HISTOGRAM("test_seconds", "Time.", small_buckets, "dataset"),
	[FEW] = {.name = "test_few_total",
		.help = "At most two.",
		.type = METRIC_TYPE_COUNTER,
		.labels = {"who"},
		.series_max = 2},
	[PLAIN] = METRIC_COUNTER("test_plain_total", "No labels."),
	[GONE] = METRIC_GAUGE("test_gone", "Comes and goes.", "what"),
	[RACED] = METRIC_HISTOGRAM("test_raced_seconds", "Written by many.", small_buckets),
};

static char *render(void)
{
	struct buf out = BUF_INIT;

	assert_int_equal(metrics_render(&out), 0);
	return buf_take(&out);
}

static bool has_line(const char *page, const char *line)
{
	size_t len = strlen(line);

	for (const char *p = page; (p = strstr(p, line)) != NULL; p += len)
		if ((p == page || p[-1] == '\n') && p[len] == '\n')
			return true;
	return false;
}

static void assert_line(const char *line)
{
	char *page = render();

	if (!has_line(page, line))
		fail_msg("no line \"%s\" in:\n%s", line, page);
	free(page);
}

/* Every line by the grammar of the format; a head before its samples, each head once. */
static void assert_well_formed(const char *page)
{
	static const char sample_re[] =
		"^([a-zA-Z_:][a-zA-Z0-9_:]*)"
		"(\\{[a-zA-Z_][a-zA-Z0-9_]*=\"([^\"\\\\]|\\\\[\\\\n\"])*\""
		"(,[a-zA-Z_][a-zA-Z0-9_]*=\"([^\"\\\\]|\\\\[\\\\n\"])*\")*\\})?"
		" ([+-]?[0-9]+(\\.[0-9]+)?(e[+-]?[0-9]+)?|NaN|[+-]Inf)$";
	static const char help_re[] = "^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) ([^\\\\]|\\\\[\\\\n])*$";
	static const char type_re[] =
		"^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram)$";
	char *copy = strdup(page), *save = NULL, head[200] = "", seen[65536] = "|";
	regex_t sample, help, type;
	regmatch_t name[2];

	assert_int_equal(regcomp(&sample, sample_re, REG_EXTENDED), 0);
	assert_int_equal(regcomp(&help, help_re, REG_EXTENDED), 0);
	assert_int_equal(regcomp(&type, type_re, REG_EXTENDED), 0);
	assert_true(page[0] == '\0' || page[strlen(page) - 1] == '\n');
	for (char *l = strtok_r(copy, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		char key[210];

		if (regexec(&help, l, 2, name, 0) == 0) {
			snprintf(head, sizeof(head), "%.*s",
				(int)name[1].rm_eo - (int)name[1].rm_so, l + name[1].rm_so);
			snprintf(key, sizeof(key), "|%s|", head);
			assert_null(strstr(seen, key));
			strcat(seen, key + 1);
		} else if (regexec(&type, l, 2, name, 0) == 0) {
			assert_int_equal(strncmp(l + name[1].rm_so, head, strlen(head)), 0);
		} else if (regexec(&sample, l, 2, name, 0) == 0) {
			assert_int_equal(strncmp(l, head, strlen(head)), 0);
		} else {
			fail_msg("malformed line: %s", l);
		}
	}
	regfree(&sample);
	regfree(&help);
	regfree(&type);
	free(copy);
}

static int setup(void **state)
{
	(void)state;
	metrics_register(table, sizeof(table) / sizeof(table[0]));
	/* Twice is fine. */
	metrics_register(table, sizeof(table) / sizeof(table[0]));
	return 0;
}

static void a_counter_adds_up_per_label_set(void **state)
{
	struct metric_series *s = metric_with(&table[BYTES], "d1", "local");

	(void)state;
	metric_add(s, 3);
	metric_add(metric_with(&table[BYTES], "d1", "local"), 4);
	metric_add(metric_with(&table[BYTES], "d1", "origin"), UINT64_C(1) << 60);
	metric_add(metric_only(&table[PLAIN]), 1);
	assert_ptr_equal(s, metric_with(&table[BYTES], "d1", "local"));
	assert_line("test_bytes_total{dataset=\"d1\",source=\"local\"} 7");
	assert_line("test_bytes_total{dataset=\"d1\",source=\"origin\"} 1152921504606846976");
	assert_line("test_plain_total 1");
	assert_line("# TYPE test_bytes_total counter");
	assert_line("# HELP test_bytes_total Bytes \\\\ and\\nmore.");
}

static void label_values_of_any_bytes_are_escaped(void **state)
{
	char longer[1000];
	char *page;

	(void)state;
	metric_add(metric_with(&table[BYTES], "a\"b\\c\nd\xc3\xa9\xff\xc3", "\xed\xa0\x80"), 1);
	assert_line("test_bytes_total{dataset=\"a\\\"b\\\\c\\nd\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\","
		    "source=\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"} 1");
	/* A run that cannot be split into two labels by what it holds. */
	metric_add(metric_with(&table[BYTES], "x\",source=\"y", "z"), 1);
	assert_line("test_bytes_total{dataset=\"x\\\",source=\\\"y\",source=\"z\"} 1");
	memset(longer, 'l', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	metric_add(metric_with(&table[BYTES], longer, "l"), 1);
	page = render();
	assert_well_formed(page);
	assert_null(strstr(page, "NaN"));
	free(page);
}

static void a_gauge_shows_what_was_set_last(void **state)
{
	struct metric_series *s = metric_only(&table[TEMPERATURE]);
	char *page = render();

	(void)state;
	/* Unknown is absent, never 0. */
	assert_null(strstr(page, "test_temperature"));
	free(page);
	metric_set(s, 0.1);
	assert_line("test_temperature 0.1");
	metric_set(s, -1.5e300);
	assert_line("test_temperature -1.5e+300");
	metric_set(s, 1.0 / 3);
	assert_line("test_temperature 0.333333333333333"
		    "31");
	metric_set(s, INFINITY);
	assert_line("test_temperature +Inf");
	metric_set(s, NAN);
	assert_line("test_temperature NaN");
	metric_set(s, 12);
	assert_line("test_temperature 12");
}

static void numbers_do_not_follow_the_locale(void **state)
{
	(void)state;
	/* Where the machine has no such locale this says nothing, and passes. */
	setlocale(LC_ALL, "de_DE.UTF-8");
	metric_set(metric_only(&table[TEMPERATURE]), 0.5);
	assert_line("test_temperature 0.5");
	setlocale(LC_ALL, "C");
}

static void a_histogram_is_cumulative(void **state)
{
	struct metric_series *s = metric_with(&table[SECONDS], "h");

	(void)state;
	metric_observe(s, 0.05);
	metric_observe(s, 0.1); /* the upper bound belongs to the bucket */
	metric_observe(s, 2);
	metric_observe(s, 99);
	assert_line("test_seconds_bucket{dataset=\"h\",le=\"0.1\"} 2");
	assert_line("test_seconds_bucket{dataset=\"h\",le=\"1\"} 2");
	assert_line("test_seconds_bucket{dataset=\"h\",le=\"2.5\"} 3");
	assert_line("test_seconds_bucket{dataset=\"h\",le=\"+Inf\"} 4");
	assert_line("test_seconds_sum{dataset=\"h\"} 101.15");
	assert_line("test_seconds_count{dataset=\"h\"} 4");
	assert_line("# TYPE test_seconds histogram");
}

static void beyond_the_bound_series_share_one(void **state)
{
	struct metric_series *other;

	(void)state;
	metric_add(metric_with(&table[FEW], "a"), 1);
	metric_add(metric_with(&table[FEW], "b"), 1);
	other = metric_with(&table[FEW], "c");
	metric_add(other, 1);
	metric_add(metric_with(&table[FEW], "d"), 1);
	assert_ptr_equal(other, metric_with(&table[FEW], "d"));
	assert_line("test_few_total{who=\"a\"} 1");
	assert_line("test_few_total{who=\"other\"} 2");
}

static void set_gone(void *arg)
{
	int *round = arg;

	metric_clear(&table[GONE]);
	if (*round == 0)
		metric_set(metric_with(&table[GONE], "old"), 1);
	metric_set(metric_with(&table[GONE], "new"), 2 + *round);
}

static void a_collector_sets_and_forgets(void **state)
{
	int round = 0;
	struct metrics_collection *c = metrics_collect(set_gone, &round);
	char *page;

	(void)state;
	assert_line("test_gone{what=\"old\"} 1");
	assert_line("test_gone{what=\"new\"} 2");
	round = 1;
	page = render();
	assert_null(strstr(page, "what=\"old\""));
	free(page);
	assert_line("test_gone{what=\"new\"} 3");
	metrics_collect_remove(c);
	round = 2;
	assert_line("test_gone{what=\"new\"} 3");
	metrics_collect_remove(NULL);
}

static void *observe_often(void *arg)
{
	(void)arg;
	for (int i = 0; i < 20000; i++) {
		metric_observe(metric_only(&table[RACED]), 1);
		metric_add(metric_with(&table[BYTES], "raced", "x"), 1);
	}
	return NULL;
}

static void nothing_is_lost_between_threads(void **state)
{
	pthread_t threads[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, observe_often, NULL), 0);
	for (int i = 0; i < 20; i++)
		free(render());
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_line("test_raced_seconds_count 80000");
	assert_line("test_raced_seconds_sum 80000");
	assert_line("test_bytes_total{dataset=\"raced\",source=\"x\"} 80000");
}

/* ---- over HTTP ------------------------------------------------------------------------------- */

/* The whole answer to one request, at most 1 MiB. */
static char *fetch(const struct sockaddr *addr, socklen_t addr_len, const char *request)
{
	int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval limit = {.tv_sec = 10};
	char *answer = calloc(1, 1 << 20);
	size_t len = 0;
	ssize_t n;

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
	assert_int_equal(connect(fd, addr, addr_len), 0);
	assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
	while ((n = recv(fd, answer + len, (1 << 20) - 1 - len, 0)) > 0)
		len += (size_t)n;
	close(fd);
	return answer;
}

static char *fetch_port(int port, const char *request)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	return fetch((struct sockaddr *)&addr, sizeof(addr), request);
}

#define REQUEST(method, path) method " " path " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

static void check_status(int port, const char *request, const char *status)
{
	char *answer = fetch_port(port, request);

	if (strncmp(answer, status, strlen(status)) != 0)
		fail_msg("wanted \"%s\", got: %.200s", status, answer);
	free(answer);
}

static void promtool_accepts(const char *body)
{
	FILE *f;

	if (system("command -v promtool >/dev/null 2>&1") != 0) {
		print_message("promtool is not there: not asked about the page\n");
		return;
	}
	f = popen("promtool check metrics >/dev/null 2>&1", "w");
	assert_non_null(f);
	fputs(body, f);
	/* 3 is its opinion on names; 1 is "cannot be read". */
	assert_int_not_equal(WEXITSTATUS(pclose(f)), 1);
}

static void the_page_is_served_over_http(void **state)
{
	struct metrics_http *h;
	struct error err = ERROR_INIT;
	char *answer, *body;
	int port = 0;

	(void)state;
	assert_int_equal(metrics_http_start("127.0.0.1:0", &h, &port, &err), 0);
	assert_true(port > 0);
	answer = fetch_port(port, REQUEST("GET", "/metrics"));
	assert_int_equal(strncmp(answer, "HTTP/1.1 200 ", 13), 0);
	assert_non_null(strstr(answer, "text/plain; version=0.0.4"));
	body = strstr(answer, "\r\n\r\n") + 4;
	assert_non_null(strstr(body, "test_bytes_total{"));
	assert_non_null(strstr(body, "process_resident_memory_bytes "));
	assert_non_null(strstr(body, "# TYPE process_cpu_seconds_total counter"));
	assert_well_formed(body);
	promtool_accepts(body);
	free(answer);
	check_status(port, REQUEST("GET", "/healthz"), "HTTP/1.1 200 ");
	check_status(port, REQUEST("HEAD", "/metrics"), "HTTP/1.1 200 ");
	check_status(port, REQUEST("GET", "/"), "HTTP/1.1 404 ");
	check_status(port, REQUEST("DELETE", "/metrics"), "HTTP/1.1 405 ");
	check_status(port,
		"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nConnection: "
		"close\r\n\r\nabcd",
		"HTTP/1.1 405 ");
	/* May be answered or not; the next one is. */
	free(fetch_port(port, "nonsense\r\n\r\n"));
	check_status(port, REQUEST("GET", "/healthz"), "HTTP/1.1 200 ");
	metrics_http_stop(h);
	metrics_http_stop(NULL);
}

static void idle_connections_do_not_lock_others_out(void **state)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int idle[METRICS_HTTP_CONNECTIONS_MAX / 2];
	struct metrics_http *h;
	int port = 0;

	(void)state;
	assert_int_equal(metrics_http_start("127.0.0.1:0", &h, &port, NULL), 0);
	addr.sin_port = htons((uint16_t)port);
	for (size_t i = 0; i < sizeof(idle) / sizeof(idle[0]); i++) {
		idle[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(idle[i], (struct sockaddr *)&addr, sizeof(addr)), 0);
	}
	check_status(port, REQUEST("GET", "/healthz"), "HTTP/1.1 200 ");
	metrics_http_stop(h);
	for (size_t i = 0; i < sizeof(idle) / sizeof(idle[0]); i++)
		close(idle[i]);
}

static void a_unix_socket_serves_its_owner(void **state)
{
	char dir[] = "/tmp/metrics-test-XXXXXX";
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct metrics_http *h, *second;
	struct error err = ERROR_INIT;
	char address[128], *answer;
	struct stat st;
	int port = -1;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/m", dir);
	snprintf(address, sizeof(address), "unix:%s", addr.sun_path);
	assert_int_equal(metrics_http_start(address, &h, &port, &err), 0);
	assert_int_equal(port, 0);
	assert_int_equal(stat(addr.sun_path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	answer = fetch((struct sockaddr *)&addr, sizeof(addr), REQUEST("GET", "/healthz"));
	assert_int_equal(strncmp(answer, "HTTP/1.1 200 ", 13), 0);
	free(answer);
	assert_int_equal(metrics_http_start(address, &second, NULL, &err), -EADDRINUSE);
	metrics_http_stop(h);
	assert_int_equal(rmdir(dir), 0);
}

static void a_bad_address_is_refused(void **state)
{
	struct error err = ERROR_INIT;
	struct metrics_http *h, *second;
	char address[64];
	int port = 0;

	(void)state;
	assert_int_equal(metrics_http_start("9100", &h, NULL, &err), -EINVAL);
	assert_int_equal(metrics_http_start("127.0.0.1:99999", &h, NULL, &err), -EINVAL);
	assert_int_equal(metrics_http_start("192.0.2.1:9100", &h, NULL, &err), -EADDRNOTAVAIL);
	assert_int_equal(metrics_http_start("127.0.0.1:0", &h, &port, &err), 0);
	snprintf(address, sizeof(address), "127.0.0.1:%d", port);
	assert_int_equal(metrics_http_start(address, &second, NULL, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, address));
	metrics_http_stop(h);
}

/* As the collectors of datasets do, with time in between for another page. */
static void clear_and_set(void *arg)
{
	(void)arg;
	metric_clear(&table[GONE]);
	usleep(1000);
	metric_set(metric_with(&table[GONE], "scraped"), 7);
}

static void *scrape_often(void *arg)
{
	int *missing = arg;

	for (int i = 0; i < 50; i++) {
		char *page = render();

		*missing += !has_line(page, "test_gone{what=\"scraped\"} 7");
		free(page);
	}
	return NULL;
}

static void pages_rendered_at_once_are_each_complete(void **state)
{
	struct metrics_collection *c = metrics_collect(clear_and_set, NULL);
	int missing[4] = {0};
	pthread_t threads[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, scrape_often, &missing[i]), 0);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(missing[i], 0);
	}
	metrics_collect_remove(c);
	metric_clear(&table[GONE]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_counter_adds_up_per_label_set),
		cmocka_unit_test(label_values_of_any_bytes_are_escaped),
		cmocka_unit_test(a_gauge_shows_what_was_set_last),
		cmocka_unit_test(numbers_do_not_follow_the_locale),
		cmocka_unit_test(a_histogram_is_cumulative),
		cmocka_unit_test(beyond_the_bound_series_share_one),
		cmocka_unit_test(a_collector_sets_and_forgets),
		cmocka_unit_test(pages_rendered_at_once_are_each_complete),
		cmocka_unit_test(nothing_is_lost_between_threads),
		cmocka_unit_test(the_page_is_served_over_http),
		cmocka_unit_test(idle_connections_do_not_lock_others_out),
		cmocka_unit_test(a_unix_socket_serves_its_owner),
		cmocka_unit_test(a_bad_address_is_refused),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
