/*
 * What commands say to programs (-o json): one JSON value on stdout. Errors go to stderr as ever.
 */
#pragma once

#include <jansson.h>

/* Takes the reference. Flushed at once: the command may go on for days, or lose its stdout. */
void output_json(json_t *value);

/* Names are arbitrary bytes: what is not UTF-8 is shown as null rather than refused. NULL is null,
 * too. */
json_t *output_text(const char *text);
