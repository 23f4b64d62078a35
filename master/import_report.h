/*
 * What an import left out and why: a count per reason and the first examples, bounded in number and
 * in bytes whatever the origin holds.
 *
 * Threading: the caller's.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "granary/v1/dataset.pb-c.h"

#define IMPORT_EXAMPLES_MAX 100	     /* of each reason */
#define IMPORT_EXAMPLE_MAX_BYTES 512 /* longer paths are cut */

enum import_skip {
	IMPORT_SKIP_EMPTY, /* the flaws of manifest_path_check */
	IMPORT_SKIP_ABSOLUTE,
	IMPORT_SKIP_DOTS,
	IMPORT_SKIP_NUL,
	IMPORT_SKIP_LONG,
	IMPORT_SKIP_DEEP,
	IMPORT_SKIP_OTHER_TYPE, /* device, socket, pipe */
	IMPORT_SKIP_LINK_LEAVES,
	IMPORT_SKIP_LINK_BAD,
	IMPORT_SKIP_VALIDATOR_LONG,
	IMPORT_SKIP_CLASH,
	IMPORT_SKIP_DUPLICATE,
	IMPORT_SKIP_REASONS
};

struct import_example {
	char *data;
	size_t len;
};

struct import_report {
	struct {
		uint64_t count;
		struct import_example examples[IMPORT_EXAMPLES_MAX];
		size_t examples_count;
	} skipped[IMPORT_SKIP_REASONS];
	uint64_t added, changed, removed;
};

struct import_report *import_report_new(void); /* NULL: no memory */
void import_report_free(struct import_report *r);
void import_report_skip(
	struct import_report *r, enum import_skip why, const char *path, size_t len);
/* For the wire; NULL: no memory. Free with granary__v1__import_report__free_unpacked. */
Granary__V1__ImportReport *import_report_message(const struct import_report *r);
