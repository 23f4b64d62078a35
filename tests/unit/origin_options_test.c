#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "origin/options.h"

static int setup(void **state)
{
	*state = origin_options_new();
	return 0;
}

static int teardown(void **state)
{
	origin_options_free(*state);
	return 0;
}

static void unset_keys_read_as_their_defaults(void **state)
{
	assert_null(origin_options_get(*state, "timeout"));
	assert_int_equal(origin_options_ms(*state, "timeout"), 60000);
	assert_true(origin_options_yes(*state, "sign"));
	assert_int_equal(origin_options_number(NULL, "max-connections"), 64);
	assert_null(origin_options_text(NULL, "endpoint"));
}

static void set_values_are_kept_and_copied(void **state)
{
	struct origin_options *copy;

	assert_int_equal(origin_options_set(*state, "endpoint", "http://h:1", NULL), 0);
	assert_int_equal(origin_options_set(*state, "timeout", "500ms", NULL), 0);
	assert_int_equal(origin_options_set(*state, "sign", "no", NULL), 0);
	copy = origin_options_copy(*state);
	assert_string_equal(origin_options_get(copy, "endpoint"), "http://h:1");
	assert_int_equal(origin_options_ms(copy, "timeout"), 500);
	assert_false(origin_options_yes(copy, "sign"));
	origin_options_free(copy);
}

static void unknown_keys_and_malformed_values_are_refused_by_name(void **state)
{
	static const char *const bad[][2] = {
		{"no-such-key", "x"},
		{"sign", "maybe"},
		{"timeout", "soon"},
		{"timeout", "-1s"},
		{"timeout", "1ms"},
		{"timeout", "99999999999999999999"},
		{"max-connections", "0"},
		{"max-connections", "10x"},
		{"list-parallel", "1000"},
		{"addressing", "sideways"},
		{"http-token", "a\r\nX: y"},
		{"max-connections", ""},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct error err = ERROR_INIT;

		assert_int_equal(origin_options_set(*state, bad[i][0], bad[i][1], &err), -EINVAL);
		assert_non_null(strstr(err.text, bad[i][0]));
		assert_null(origin_options_get(*state, bad[i][0]));
	}
}

static void a_refused_secret_is_not_in_the_text(void **state)
{
	struct error err = ERROR_INIT;

	assert_int_equal(
		origin_options_set(*state, "secret-access-key", "hush\nhush", &err), -EINVAL);
	assert_null(strstr(err.text, "hush"));
}

static void the_environment_fills_only_what_is_unset(void **state)
{
	setenv("AWS_REGION", "from-environment", 1);
	setenv("AWS_ENDPOINT_URL", "http://general", 1);
	setenv("AWS_ENDPOINT_URL_S3", "http://special", 1);
	setenv("AWS_SESSION_TOKEN", "of-another-key", 1);
	setenv("AWS_EC2_METADATA_DISABLED", "nonsense", 1);
	origin_options_set(*state, "region", "mine", NULL);
	origin_options_set(*state, "access-key-id", "mine", NULL);
	origin_options_from_environment(*state);
	assert_string_equal(origin_options_get(*state, "region"), "mine");
	assert_string_equal(origin_options_get(*state, "endpoint"), "http://special");
	assert_null(origin_options_get(*state, "session-token"));
	assert_false(origin_options_yes(*state, "metadata-disabled"));
}

static void proxies_come_from_the_variables_that_curl_reads(void **state)
{
	unsetenv("http_proxy");
	unsetenv("https_proxy");
	unsetenv("all_proxy");
	setenv("HTTP_PROXY", "http://of-a-cgi-request", 1);
	setenv("HTTPS_PROXY", "http://upper", 1);
	setenv("ALL_PROXY", "http://all", 1);
	setenv("no_proxy", "here", 1);
	origin_options_from_environment(*state);
	assert_string_equal(origin_options_get(*state, "http-proxy"), "http://all");
	assert_string_equal(origin_options_get(*state, "https-proxy"), "http://upper");
	assert_string_equal(origin_options_get(*state, "no-proxy"), "here");
	origin_options_free(*state);
	*state = origin_options_new();
	unsetenv("HTTPS_PROXY");
	setenv("http_proxy", "http://lower", 1);
	origin_options_from_environment(*state);
	assert_string_equal(origin_options_get(*state, "http-proxy"), "http://lower");
	assert_string_equal(origin_options_get(*state, "https-proxy"), "http://all");
}

static void the_table_names_every_secret(void **state)
{
	unsigned secrets = 0, keys = 0;

	(void)state;
	for (const struct origin_option_info *i = origin_option_table(); i->key; i++) {
		assert_non_null(i->doc);
		keys++;
		secrets += i->secret;
		if (strstr(i->key, "password") || strstr(i->key, "secret"))
			assert_true(i->secret);
	}
	assert_true(keys > 20);
	assert_int_equal(secrets, 9);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(unset_keys_read_as_their_defaults),
		T(set_values_are_kept_and_copied),
		T(unknown_keys_and_malformed_values_are_refused_by_name),
		T(a_refused_secret_is_not_in_the_text),
		T(the_environment_fills_only_what_is_unset),
		T(proxies_come_from_the_variables_that_curl_reads),
		T(the_table_names_every_secret),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
