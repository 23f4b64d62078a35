#include "cli/nearest.h"

#include <string.h>

static size_t least(size_t a, size_t b, size_t c)
{
	size_t m = a < b ? a : b;

	return m < c ? m : c;
}

/* Letters inserted, removed or replaced (Levenshtein), a row at a time. */
static size_t distance(const char *a, const char *b)
{
	size_t row[NEAREST_NAME_BYTES + 1], n = strlen(b);

	for (size_t k = 0; k <= n; k++)
		row[k] = k;
	for (size_t i = 0; a[i]; i++) {
		size_t diagonal = row[0];

		row[0] = i + 1;
		for (size_t k = 0; k < n; k++) {
			size_t above = row[k + 1];

			row[k + 1] = least(above + 1, row[k] + 1, diagonal + (a[i] != b[k]));
			diagonal = above;
		}
	}
	return row[n];
}

void nearest_init(struct nearest *n, const char *wanted)
{
	*n = (struct nearest){.wanted = wanted};
	/* Farther than a third of the letters, it is another word. */
	n->distance = strlen(wanted) / 3 + 2;
}

void nearest_offer(struct nearest *n, const char *name)
{
	size_t d;

	if (strlen(n->wanted) > NEAREST_NAME_BYTES || strlen(name) > NEAREST_NAME_BYTES)
		return;
	d = distance(n->wanted, name);
	if (d < n->distance) {
		n->distance = d;
		n->found = name;
	}
}
