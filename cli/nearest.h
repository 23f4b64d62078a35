/*
 * "Did you mean ...": the known name that takes the fewest changed letters.
 */
#pragma once

#include <stddef.h>

#define NEAREST_NAME_BYTES 64

struct nearest {
	const char *wanted;
	const char *found; /* NULL when nothing is near */
	size_t distance;
};

void nearest_init(struct nearest *n, const char *wanted);
/* `name` is borrowed. */
void nearest_offer(struct nearest *n, const char *name);
