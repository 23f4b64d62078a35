#include "cli/output.h"

#include <stdio.h>

void output_json(json_t *value)
{
	json_dumpf(value, stdout, JSON_INDENT(2));
	putchar('\n');
	fflush(stdout);
	json_decref(value);
}

json_t *output_text(const char *text)
{
	json_t *value = text ? json_string(text) : NULL;

	return value ? value : json_null();
}
