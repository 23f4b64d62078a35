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

#define IMPORT_REASONS_MAX 24 /* further ones are counted as "other reasons" */
#define IMPORT_REASON_BYTES 96

struct import_example {
	char *data;
	size_t len;
};

struct import_skipped {
	char reason[IMPORT_REASON_BYTES];
	uint64_t count;
	struct import_example examples[IMPORT_EXAMPLES_MAX];
	size_t examples_count;
};

struct import_report {
	struct import_skipped skipped[IMPORT_REASONS_MAX];
	size_t skipped_count;
	uint64_t added, changed, removed;
};

struct import_report *import_report_new(void); /* NULL: no memory */
void import_report_free(struct import_report *r);
/* `reason` is for people: "a device". */
void import_report_skip(struct import_report *r, const char *reason, const char *path, size_t len);
/* For the wire; NULL: no memory. Free with granary__v1__import_report__free_unpacked. */
Granary__V1__ImportReport *import_report_message(const struct import_report *r);
