#include "master/import_report.h"

#include <stdlib.h>
#include <string.h>

static const char *const reasons[IMPORT_SKIP_REASONS] = {
	[IMPORT_SKIP_EMPTY] = "empty path component",
	[IMPORT_SKIP_ABSOLUTE] = "absolute path",
	[IMPORT_SKIP_DOTS] = "'.' or '..' in the path",
	[IMPORT_SKIP_NUL] = "NUL in the path",
	[IMPORT_SKIP_LONG] = "name over 255 or path over 4,095 bytes",
	[IMPORT_SKIP_DEEP] = "more than 255 levels",
	[IMPORT_SKIP_OTHER_TYPE] = "device, socket or pipe",
	[IMPORT_SKIP_LINK_LEAVES] = "symlink whose target is not surely inside the dataset",
	[IMPORT_SKIP_LINK_BAD] = "symlink whose target is empty or over 4,095 bytes",
	[IMPORT_SKIP_VALIDATOR_LONG] = "etag over 255 bytes",
	[IMPORT_SKIP_CLASH] = "file with the name of a directory (the directory was kept)",
	[IMPORT_SKIP_DUPLICATE] = "listed more than once (the first was kept)",
};

struct import_report *import_report_new(void)
{
	return calloc(1, sizeof(struct import_report));
}

void import_report_free(struct import_report *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < IMPORT_SKIP_REASONS; i++)
		for (size_t j = 0; j < r->skipped[i].examples_count; j++)
			free(r->skipped[i].examples[j].data);
	free(r);
}

void import_report_skip(struct import_report *r, enum import_skip why, const char *path, size_t len)
{
	struct import_example *example;

	r->skipped[why].count++;
	if (r->skipped[why].examples_count == IMPORT_EXAMPLES_MAX)
		return;
	example = &r->skipped[why].examples[r->skipped[why].examples_count];
	if (len > IMPORT_EXAMPLE_MAX_BYTES)
		len = IMPORT_EXAMPLE_MAX_BYTES;
	example->data = malloc(len + 1);
	if (!example->data)
		return; /* an example less; the count is right */
	memcpy(example->data, path, len);
	example->len = len;
	r->skipped[why].examples_count++;
}

static Granary__V1__ImportReport__Skipped *skipped_message(
	const struct import_report *r, enum import_skip why)
{
	Granary__V1__ImportReport__Skipped *m = malloc(sizeof(*m));
	size_t count = r->skipped[why].examples_count;

	if (!m)
		return NULL;
	granary__v1__import_report__skipped__init(m);
	m->count = r->skipped[why].count;
	m->reason = strdup(reasons[why]);
	m->examples = calloc(count + 1, sizeof(*m->examples));
	for (size_t i = 0; m->examples && i < count; i++) {
		const struct import_example *e = &r->skipped[why].examples[i];

		m->examples[i].data = malloc(e->len + 1);
		if (!m->examples[i].data)
			break;
		memcpy(m->examples[i].data, e->data, e->len);
		m->examples[i].len = e->len;
		m->n_examples++;
	}
	return m;
}

Granary__V1__ImportReport *import_report_message(const struct import_report *r)
{
	Granary__V1__ImportReport *m = malloc(sizeof(*m));

	if (!m)
		return NULL;
	granary__v1__import_report__init(m);
	m->added = r->added;
	m->changed = r->changed;
	m->removed = r->removed;
	m->skipped = calloc(IMPORT_SKIP_REASONS, sizeof(*m->skipped));
	for (size_t i = 0; m->skipped && i < IMPORT_SKIP_REASONS; i++) {
		if (r->skipped[i].count == 0)
			continue;
		m->skipped[m->n_skipped] = skipped_message(r, (enum import_skip)i);
		if (m->skipped[m->n_skipped])
			m->n_skipped++;
	}
	return m;
}
