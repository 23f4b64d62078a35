/*
 * The flags of `up` that hold for a whole process: its cache, where it listens, its log. A second
 * `up` with the same state directory cannot change them, and is told so.
 */
#pragma once

#include <limits.h>

#include "cli/paths.h"

#define HOST_SETTINGS 13

struct host_settings {
	struct {
		const char *flag;     /* without the dashes */
		char value[PATH_MAX]; /* paths absolute, sizes and rates in bytes; "" for none */
	} all[HOST_SETTINGS];
};

/* What the flags come to for this process. limits: of its cache; NULL when it has none yet. */
int host_settings_read(const struct invocation *inv, const struct paths *paths,
	const struct cache_limits *limits, struct host_settings *ret, struct error *err);

struct client;
/* Asks the process at the other end. -EEXIST with their names when flags were given that it has
 * with other values; -EOPNOTSUPP when it is no `up`. */
int host_settings_agree(const struct invocation *inv, const struct paths *paths,
	struct client *running, struct error *err);
