#include "cli/table.h"

#include <assert.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"

#define COLUMNS_MAX 24
#define CELL_BYTES 512

struct table {
	size_t columns;
	bool right[COLUMNS_MAX];
	size_t width[COLUMNS_MAX];
	char **cells; /* headings first */
	size_t count, room;
};

static void add(struct table *t, const char *text)
{
	size_t column = t->count % t->columns, width = 0;

	if (t->count == t->room) {
		t->room = t->room ? t->room * 2 : 64;
		t->cells = realloc(t->cells, t->room * sizeof(char *));
		assert(t->cells);
	}
	t->cells[t->count] = strdup(text);
	assert(t->cells[t->count]);
	/* Continuation bytes of UTF-8 take no room. */
	for (const char *p = text; *p; p++)
		width += ((unsigned char)*p & 0xc0) != 0x80;
	if (width > t->width[column])
		t->width[column] = width;
	t->count++;
}

struct table *table_new(const char *headings)
{
	struct table *t = calloc(1, sizeof(*t));
	char *copy = strdup(headings), *save = NULL;

	assert(t && copy);
	for (const char *p = headings; *p; p++)
		t->columns += *p == '\t';
	t->columns++;
	assert(t->columns <= COLUMNS_MAX);
	for (char *h = strtok_r(copy, "\t", &save); h; h = strtok_r(NULL, "\t", &save)) {
		t->right[t->count] = *h == '>';
		add(t, h + (*h == '>'));
	}
	free(copy);
	return t;
}

void table_cell(struct table *t, const char *fmt, ...)
{
	char text[CELL_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* Names are arbitrary bytes: none may steer the terminal. */
	for (char *p = text; *p; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	}
	add(t, text);
}

static size_t shown_width(const char *text)
{
	size_t width = 0;

	for (; *text; text++)
		width += ((unsigned char)*text & 0xc0) != 0x80;
	return width;
}

void table_print(const struct table *t, FILE *out)
{
	for (size_t i = 0; i < t->count; i++) {
		size_t column = i % t->columns;
		int pad = (int)(t->width[column] - shown_width(t->cells[i]));
		bool last = column + 1 == t->columns;

		if (t->right[column])
			fprintf(out, "%*s%s", pad, "", t->cells[i]);
		else
			fprintf(out, "%s%*s", t->cells[i], last ? 0 : pad, "");
		fputs(last ? "\n" : "  ", out);
	}
}

void table_free(struct table *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->count; i++)
		free(t->cells[i]);
	free(t->cells);
	free(t);
}
