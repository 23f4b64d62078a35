/*
 * Tables for eyes: columns as wide as their content, numbers to the right.
 */
#pragma once

#include <stddef.h>
#include <stdio.h>

struct table;

/* Headings separated by '\t'; one that starts with '>' is aligned to the right. */
struct table *table_new(const char *headings);
/* The next cell of the row, escaped; a row ends by itself after its last column. */
void table_cell(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void table_print(const struct table *t, FILE *out);
void table_free(struct table *t);
