#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/size.h"

static void check_size(const char *text, uint64_t want)
{
	struct error err = ERROR_INIT;
	uint64_t got;

	assert_int_equal(size_parse(text, &got, &err), 0);
	assert_int_equal(got, want);
}

static void sizes_are_read_as_people_write_them(void **state)
{
	(void)state;
	check_size("0", 0);
	check_size("4096", 4096);
	check_size("500G", 500000000000);
	check_size("500GB", 500000000000);
	check_size("1.5TiB", 1649267441664);
	check_size("64Mi", 64u << 20);
	check_size("10k", 10000);
}

static void malformed_sizes_are_refused(void **state)
{
	static const char *const bad[] = {"", " ", "-1", "+1", "1.5.2G", ".5G", "G", "5X", "5GBB",
		"5 G", "0x10", "1e9", "nan", "5iB", "99999999999999999999999999999999999999"};
	(void)state;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct error err = ERROR_INIT;
		uint64_t got = 7;

		assert_int_equal(size_parse(bad[i], &got, &err), -EINVAL);
		assert_int_equal(got, 7);
		assert_true(err.text[0] != '\0');
	}
}

static void sizes_past_63_bits_are_refused(void **state)
{
	struct error err = ERROR_INIT;
	uint64_t got;

	(void)state;
	assert_int_equal(size_parse("8EiB", &got, &err), -ERANGE);
	assert_int_equal(size_parse("7EiB", &got, &err), 0);
}

static void check_rate(const char *text, uint64_t want)
{
	struct error err = ERROR_INIT;
	uint64_t got;

	assert_int_equal(rate_parse(text, &got, &err), 0);
	assert_int_equal(got, want);
}

static void rates_are_bytes_or_bits(void **state)
{
	struct error err = ERROR_INIT;
	uint64_t got;

	(void)state;
	check_rate("800MB/s", 800000000);
	check_rate("800MB", 800000000);
	check_rate("10Gbps", 1250000000);
	check_rate("1Mi/s", 1048576);
	assert_int_equal(rate_parse("10Gbit", &got, &err), -EINVAL);
	assert_int_equal(rate_parse("fast", &got, &err), -EINVAL);
}

static void sizes_are_shown_with_three_digits(void **state)
{
	char text[SIZE_TEXT_BYTES];

	(void)state;
	assert_string_equal(size_format(0, text), "0 B");
	assert_string_equal(size_format(999, text), "999 B");
	assert_string_equal(size_format(1000, text), "1.00 kB");
	assert_string_equal(size_format(123456789, text), "123 MB");
	assert_string_equal(size_format(1500000000000, text), "1.50 TB");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_read_as_people_write_them),
		cmocka_unit_test(malformed_sizes_are_refused),
		cmocka_unit_test(sizes_past_63_bits_are_refused),
		cmocka_unit_test(rates_are_bytes_or_bits),
		cmocka_unit_test(sizes_are_shown_with_three_digits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
