#include "master/import_report.h"

#include <stdlib.h>
#include <string.h>

#include "master/text.h"

struct import_report *import_report_new(void)
{
	return calloc(1, sizeof(struct import_report));
}

void import_report_free(struct import_report *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->skipped_count; i++)
		for (size_t j = 0; j < r->skipped[i].examples_count; j++)
			free(r->skipped[i].examples[j].data);
	free(r);
}

static struct import_skipped *skipped_of(struct import_report *r, const char *reason)
{
	char shown[IMPORT_REASON_BYTES];

	text_copy_printable(shown, sizeof(shown), reason);
	for (size_t i = 0; i < r->skipped_count; i++)
		if (strcmp(r->skipped[i].reason, shown) == 0)
			return &r->skipped[i];
	if (r->skipped_count == IMPORT_REASONS_MAX)
		return &r->skipped[IMPORT_REASONS_MAX - 1];
	if (r->skipped_count == IMPORT_REASONS_MAX - 1)
		strcpy(shown, "other reasons");
	strcpy(r->skipped[r->skipped_count].reason, shown);
	return &r->skipped[r->skipped_count++];
}

void import_report_skip(struct import_report *r, const char *reason, const char *path, size_t len)
{
	struct import_skipped *s = skipped_of(r, reason);
	struct import_example *example;

	s->count++;
	if (s->examples_count == IMPORT_EXAMPLES_MAX)
		return;
	example = &s->examples[s->examples_count];
	if (len > IMPORT_EXAMPLE_MAX_BYTES)
		len = IMPORT_EXAMPLE_MAX_BYTES;
	example->data = malloc(len + 1);
	if (!example->data)
		return; /* an example less; the count is right */
	memcpy(example->data, path, len);
	example->len = len;
	s->examples_count++;
}

static Granary__V1__ImportReport__Skipped *skipped_message(const struct import_skipped *s)
{
	Granary__V1__ImportReport__Skipped *m = malloc(sizeof(*m));

	if (!m)
		return NULL;
	granary__v1__import_report__skipped__init(m);
	m->count = s->count;
	m->reason = strdup(s->reason);
	m->examples = calloc(s->examples_count + 1, sizeof(*m->examples));
	for (size_t i = 0; m->examples && i < s->examples_count; i++) {
		const struct import_example *e = &s->examples[i];

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
	m->skipped = calloc(r->skipped_count + 1, sizeof(*m->skipped));
	for (size_t i = 0; m->skipped && i < r->skipped_count; i++) {
		m->skipped[m->n_skipped] = skipped_message(&r->skipped[i]);
		if (m->skipped[m->n_skipped])
			m->n_skipped++;
	}
	return m;
}
