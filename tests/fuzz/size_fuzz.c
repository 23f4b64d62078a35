/* Sizes and rates as people write them: nothing but 0, -EINVAL and -ERANGE comes out. */
#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/size.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

typedef int parse_fn(const char *text, uint64_t *ret, struct error *err);

static void try_parse(parse_fn *parse, const char *text)
{
	struct error err = ERROR_INIT;
	char shown[SIZE_TEXT_BYTES];
	uint64_t value = UINT64_MAX;
	int r = parse(text, &value, &err);

	if (r < 0) {
		assert((r == -EINVAL || r == -ERANGE) && err.text[0] && value == UINT64_MAX);
		return;
	}
	assert(r == 0 && value <= INT64_MAX);
	assert(size_format(value, shown) == shown && strlen(shown) < SIZE_TEXT_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char *text = malloc(len + 1);

	assert(text);
	memcpy(text, data, len);
	text[len] = '\0';
	try_parse(size_parse, text);
	try_parse(rate_parse, text);
	free(text);
	return 0;
}
