/*
 * ORIGIN on the command line: a URL as it is, or a directory, which becomes a file:// URL.
 */
#pragma once

#include "common/error.h"

/* *ret_url is freed by the caller. */
int origin_argument(const char *text, char **ret_url, struct error *err);
