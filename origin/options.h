/*
 * What the implementations ask of an origin's options beyond origin.h: typed values. The keys,
 * their defaults and their checks are in the one table of options.c; an unset key reads as its
 * default.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "origin/origin.h"

/* The value or the default; NULL when there is neither. */
const char *origin_options_text(const struct origin_options *o, const char *key);
bool origin_options_yes(const struct origin_options *o, const char *key);
uint64_t origin_options_number(const struct origin_options *o, const char *key);
/* For keys of kind duration ("10s", "500ms", bare numbers are seconds). */
int64_t origin_options_ms(const struct origin_options *o, const char *key);

/* Overwrites and frees a secret string; NULL is fine. */
void origin_secret_free(char *secret);
