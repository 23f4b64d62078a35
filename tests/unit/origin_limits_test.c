/* Limits of origins, as people write them, and which one holds for a URL. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "origin/limits.h"

static void add(struct origin_limits *l, const char *text)
{
	struct error err = ERROR_INIT;

	if (origin_limits_add(l, text, &err) < 0)
		fail_msg("%s: %s", text, err.text);
}

static void refuse(struct origin_limits *l, const char *text)
{
	struct origin_limits before = *l;
	struct error err = ERROR_INIT;

	if (origin_limits_add(l, text, &err) != -EINVAL)
		fail_msg("'%s' is not refused", text);
	assert_true(err.text[0] != '\0');
	assert_memory_equal(&before, l, sizeof(before));
}

/* NULL: none. */
static void holds(const struct origin_limits *l, const char *url, const char *prefix)
{
	const struct origin_limit *found = origin_limits_find(l, url);

	if (!found != !prefix || (found && strcmp(found->prefix, prefix) != 0))
		fail_msg("%s has the limit of %s", url, found ? found->prefix : "none");
}

static void a_rate_is_of_all_and_a_prefix_of_single_ones(void **state)
{
	struct origin_limits l = ORIGIN_LIMITS_INIT;
	char text[ORIGIN_LIMITS_TEXT_BYTES];

	(void)state;
	add(&l, "s3://bucket/year=2024=2Gbps");
	add(&l, "10Gbps");
	add(&l, "https://host/=100MB/s");
	assert_int_equal(l.bytes_per_s, 1250000000);
	origin_limits_text(&l, text);
	assert_string_equal(
		text, "1250000000, https://host=100000000, s3://bucket/year=2024=250000000");
	l = (struct origin_limits)ORIGIN_LIMITS_INIT;
	add(&l, "off");
	origin_limits_text(&l, text);
	assert_string_equal(text, "off");
}

static void the_longest_prefix_of_whole_components_holds(void **state)
{
	struct origin_limits l = ORIGIN_LIMITS_INIT;

	(void)state;
	add(&l, "s3://bucket/a/b=1MB/s");
	add(&l, "s3://bucket=2MB/s");
	add(&l, "file:///data/=1MB/s");
	holds(&l, "s3://bucket", "s3://bucket");
	holds(&l, "s3://bucket/", "s3://bucket");
	holds(&l, "s3://bucket/a", "s3://bucket");
	holds(&l, "s3://bucket/a/bc", "s3://bucket");
	holds(&l, "s3://bucket/a/b", "s3://bucket/a/b");
	holds(&l, "s3://bucket/a/b/c/", "s3://bucket/a/b");
	holds(&l, "s3://bucket2/a/b", NULL);
	holds(&l, "https://bucket/a/b", NULL);
	holds(&l, "file:///data", "file:///data");
	holds(&l, "file:///data/x", "file:///data");
	holds(&l, "file:///database", NULL);
	add(&l, "file:///=1MB/s");
	holds(&l, "file:///database", "file://");
	holds(&l, "file:///data/x", "file:///data");
}

static void one_host_may_be_written_in_many_ways(void **state)
{
	struct origin_limits l = ORIGIN_LIMITS_INIT;

	(void)state;
	add(&l, "HTTPS://Host:443/=1MB/s");
	add(&l, "http://host:8080=1MB/s");
	holds(&l, "https://host/a", "https://host");
	holds(&l, "https://user:pass@HOST:443/a", "https://host");
	holds(&l, "https://host:8443/a", NULL);
	holds(&l, "https://hostile/a", NULL);
	holds(&l, "http://host/a", NULL);
	holds(&l, "http://host:80/a", NULL);
	holds(&l, "http://host:8080/a", "http://host:8080");
}

static void what_is_longer_than_any_prefix_is_compared_as_well(void **state)
{
	struct origin_limits l = ORIGIN_LIMITS_INIT;
	char url[4096] = "s3://bucket/", text[4096 + 16];

	(void)state;
	memset(url + strlen(url), 'x', 3000);
	holds(&l, url, NULL);
	add(&l, "s3://bucket=1MB/s");
	holds(&l, url, "s3://bucket");
	snprintf(text, sizeof(text), "%s=1MB/s", url);
	refuse(&l, text);
}

static void nonsense_is_refused(void **state)
{
	static const char *const bad[] = {"", "fast", "-1", "=1MB/s", "bucket=1MB/s", "/data=1MB/s",
		"ftp://host=1MB/s", "s3://=1MB/s", "s3:///a=1MB/s", "https://=1MB/s",
		"file://data=1MB/s", "s3://b=", "s3://b=off", "s3://b=0", "s3://b=fast",
		"s3://a\n=1MB/s", " s3://a=1MB/s", "s3://b=-1", "s3://taken=2MB/s",
		"S3://taken/=1MB/s", "20MB/s", "off"};
	struct origin_limits l = ORIGIN_LIMITS_INIT;

	(void)state;
	add(&l, "10MB/s");
	add(&l, "s3://taken=1MB/s");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		refuse(&l, bad[i]);
}

static void their_number_and_length_are_bounded(void **state)
{
	struct origin_limits l = ORIGIN_LIMITS_INIT, m = ORIGIN_LIMITS_INIT;
	char text[ORIGIN_LIMITS_TEXT_BYTES];

	(void)state;
	for (int i = 0; i < ORIGIN_LIMITS_MAX; i++) {
		snprintf(text, sizeof(text), "s3://bucket-%d=9223372036854775807", i);
		add(&l, text);
	}
	refuse(&l, "s3://one-more=1MB/s");
	for (int i = 0; i < ORIGIN_LIMITS_MAX; i++) {
		snprintf(text, sizeof(text), "s3://%0200d=9223372036854775807", i);
		if (i < ORIGIN_PREFIXES_BYTES / 205)
			add(&m, text);
		else
			refuse(&m, text);
	}
	origin_limits_text(&l, text);
	assert_true(strlen(text) < ORIGIN_LIMITS_TEXT_BYTES - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_rate_is_of_all_and_a_prefix_of_single_ones),
		cmocka_unit_test(the_longest_prefix_of_whole_components_holds),
		cmocka_unit_test(one_host_may_be_written_in_many_ways),
		cmocka_unit_test(what_is_longer_than_any_prefix_is_compared_as_well),
		cmocka_unit_test(nonsense_is_refused),
		cmocka_unit_test(their_number_and_length_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
