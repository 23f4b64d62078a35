/*
 * Include and exclude patterns of a dataset: which files and symlinks of the origin belong to it.
 *
 * A path is kept when an include pattern matches it (or there is none) and no exclude pattern does.
 * Patterns are globs over the path below the origin, as users of gitignore and rsync expect them:
 *
 *	*, ?, [a-z]	match within one component, never across '/'
 *	**		as a whole component: any number of components, also none
 *	cat.jpg		no '/': matches the name of the file or of any directory above it
 *	train/x		a '/' inside or in front: matches from the top of the dataset
 *	tmp/		a '/' at the end: matches directories only
 *
 * A pattern that matches a directory takes everything below it. Names are bytes; case matters; a
 * leading dot is nothing special. With any pattern given, only directories that lead to something
 * that was kept are kept.
 *
 * Threading: immutable after filter_new.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"

#define FILTER_PATTERNS_MAX 256
#define FILTER_PATTERN_MAX_BYTES 1024

struct filter;

/* -EINVAL names the pattern that makes no sense. Nothing of the arrays is kept. */
int filter_new(char *const *include, size_t includes, char *const *exclude, size_t excludes,
	struct filter **ret, struct error *err);
void filter_free(struct filter *f); /* NULL is fine */
bool filter_empty(const struct filter *f);
/* `path` is one that manifest_path_check accepts. */
bool filter_keeps(const struct filter *f, const char *path, size_t len);
