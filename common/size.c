#include "common/size.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_NUMBER_CHARS 32

/* Reads the leading decimal number; returns how many characters it took, 0 for none. */
static size_t number_parse(const char *text, long double *ret_value)
{
	char digits[MAX_NUMBER_CHARS + 1];
	size_t n = strspn(text, "0123456789.");
	char *end;

	if (n == 0 || n > MAX_NUMBER_CHARS || !isdigit((unsigned char)text[0]))
		return 0;
	memcpy(digits, text, n);
	digits[n] = '\0';
	*ret_value = strtold(digits, &end);
	return *end ? 0 : n;
}

/* The factor of "", "k", "M", "Gi", ... and the characters it took; 0 characters is a plain number. */
static size_t prefix_parse(const char *text, long double *ret_factor)
{
	static const char prefixes[] = "kmgtpe";
	const char *p = text[0] ? strchr(prefixes, tolower((unsigned char)text[0])) : NULL;
	int power;

	*ret_factor = 1;
	if (!p)
		return 0;
	power = (int)(p - prefixes) + 1;
	if (text[1] == 'i') {
		*ret_factor = powl(1024, power);
		return 2;
	}
	*ret_factor = powl(1000, power);
	return 1;
}

static int to_bytes(const char *text, long double value, uint64_t *ret_bytes, struct error *err)
{
	if (value >= 0x1p63L)
		return error_set(err, -ERANGE, "'%s' is too large", text);
	*ret_bytes = (uint64_t)value;
	return 0;
}

int size_parse(const char *text, uint64_t *ret_bytes, struct error *err)
{
	long double value, factor;
	size_t n = number_parse(text, &value);

	if (n) {
		n += prefix_parse(text + n, &factor);
		if (text[n] == 'B' || text[n] == 'b')
			n++;
	}
	if (n == 0 || text[n])
		return error_set(err, -EINVAL,
			"'%s' is not a size: write a number with an optional unit, like 500G "
			"or 1.5TiB",
			text);
	return to_bytes(text, value * factor, ret_bytes, err);
}

int rate_parse(const char *text, uint64_t *ret_bytes_per_s, struct error *err)
{
	long double value, factor;
	size_t n = number_parse(text, &value);

	if (n) {
		n += prefix_parse(text + n, &factor);
		value *= factor;
		if (strcmp(text + n, "bps") == 0 || strcmp(text + n, "bit/s") == 0) {
			value /= 8;
			n = strlen(text);
		} else {
			if (text[n] == 'B')
				n++;
			if (strcmp(text + n, "/s") == 0)
				n += 2;
		}
	}
	if (n == 0 || text[n])
		return error_set(err, -EINVAL,
			"'%s' is not a rate: write bytes like 800MB/s or bits like 10Gbps", text);
	return to_bytes(text, value, ret_bytes_per_s, err);
}

char *size_format(uint64_t bytes, char text[SIZE_TEXT_BYTES])
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
	double value = (double)bytes;
	int unit = 0;

	while (value >= 999.5 && unit < 6) {
		value /= 1000;
		unit++;
	}
	if (unit == 0)
		snprintf(text, SIZE_TEXT_BYTES, "%d B", (int)bytes);
	else
		snprintf(text, SIZE_TEXT_BYTES, "%.*f %s",
			value < 9.995	? 2
			: value < 99.95 ? 1
					: 0,
			value, units[unit]);
	return text;
}

char *rate_format(double bytes_per_s, char text[RATE_TEXT_BYTES])
{
	size_format((uint64_t)bytes_per_s, text);
	strcat(text, "/s");
	return text;
}
