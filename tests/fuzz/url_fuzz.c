/* Origin URLs and options: refused with a text, or opened; nothing is asked of any server. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "origin/origin.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* "URL\0KEY\0VALUE\0KEY\0VALUE...": a key that is none is tried by its number in the table. */
static void set_options(struct origin_options *options, const char *text, const char *end)
{
	size_t keys = 0;

	while (origin_option_table()[keys].key)
		keys++;
	for (int n = 0; text + 1 < end && n < 16; n++) {
		const char *key = origin_option_table()[(unsigned char)*text % keys].key;
		const char *value = text + 1;
		struct error err = ERROR_INIT;
		int r = origin_options_set(options, key, value, &err);

		assert(r == 0 || (r < 0 && err.text[0]));
		assert(origin_options_set(options, value, key, &err) <= 0);
		text = value + strlen(value) + 1;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct origin_options *options = origin_options_new();
	char *text = malloc(len + 1);
	struct error err = ERROR_INIT;
	struct origin *origin = NULL;
	int r;

	assert(text && options);
	memcpy(text, data, len);
	text[len] = '\0';
	if (strlen(text) < len)
		set_options(options, text + strlen(text) + 1, text + len);
	r = origin_open(text, options, &origin, &err);
	if (r == 0)
		assert(origin && origin_url(origin) && origin_guarantee(origin));
	else
		assert(r < 0 && err.text[0] && !origin);
	origin_free(origin);
	origin_options_free(options);
	free(text);
	return 0;
}
