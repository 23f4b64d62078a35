/* Origins and their options as people write them: opened, or refused with a text; never a secret in
 * it. */
#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "origin/origin.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* The input is a URL, then lines of "key=value". */
static struct origin_options *parse_options(char *lines)
{
	struct origin_options *opts = origin_options_new();
	char *line;

	assert(opts);
	origin_options_set(opts, "http-password", "fuzz-secret", NULL);
	while (lines && (line = strsep(&lines, "\n"))) {
		char *value = strchr(line, '=');
		struct error err = ERROR_INIT;

		/* Files of this machine are none of the input's business. */
		if (!value || strstr(line, "-file"))
			continue;
		*value++ = '\0';
		if (origin_options_set(opts, line, value, &err) < 0)
			assert(err.text[0]);
	}
	origin_options_set(opts, "credentials-file", "/dev/null", NULL);
	origin_options_set(opts, "config-file", "/dev/null", NULL);
	return opts;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char *text = malloc(len + 1), *rest = text, *url;
	struct origin_options *opts;
	struct error err = ERROR_INIT;
	struct origin *o = NULL;
	bool named; /* by the input itself */
	int r;

	assert(text);
	memcpy(text, data, len);
	text[len] = '\0';
	named = strstr(text, "fuzz-secret") != NULL;
	url = strsep(&rest, "\n");
	opts = parse_options(rest);
	r = origin_open(url, opts, &o, &err);
	if (r < 0) {
		assert(r == -EINVAL && err.text[0] && !o);
		assert(named || !strstr(err.text, "fuzz-secret"));
	} else {
		assert(origin_url(o)[0] && (named || !strstr(origin_url(o), "fuzz-secret")));
	}
	origin_free(o);
	origin_options_free(opts);
	free(text);
	return 0;
}
