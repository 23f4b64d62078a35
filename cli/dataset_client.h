/*
 * What `up` and the dataset commands share: adding and refreshing with a progress line, and a
 * dataset as JSON or text.
 */
#pragma once

#include <jansson.h>

#include "cli/client.h"
#include "granary/v1/dataset.pb-c.h"
#include "origin/origin.h"

struct dataset_spec {
	const char *name, *origin;
	char **include, **exclude;
	size_t includes, excludes;
	const struct origin_options *options;
	bool quota_limited;
	uint64_t quota_bytes;
	bool exists_ok;
};

/* Options for an origin from the flags of the command, then from the environment. Free with
 * origin_options_free. */
int dataset_options(const struct invocation *inv, const char *origin, struct origin_options **ret,
	struct error *err);
/* "SIZE" or "unlimited". */
int dataset_quota_parse(
	const char *text, bool *ret_limited, uint64_t *ret_bytes, struct error *err);

/* ret is freed by granary__v1__dataset__free_unpacked(ret, NULL). */
int dataset_add(struct client *c, const struct dataset_spec *spec, Granary__V1__Dataset **ret,
	struct error *err);
int dataset_refresh(struct client *c, const char *name, bool switch_mounts,
	Granary__V1__Dataset **ret, struct error *err);
int dataset_get(struct client *c, const char *name, Granary__V1__Dataset **ret, struct error *err);
/* Hands the environment's credentials to the master, in memory; nothing to hand over is fine. */
int dataset_renew(struct client *c, const char *name, const struct origin_options *options,
	struct error *err);

json_t *dataset_to_json(const Granary__V1__Dataset *d);
/* What the import left out, for people; nothing when there is nothing. */
void dataset_print_report(const Granary__V1__ImportReport *report);
/* Flags that were given and that a known dataset has with other values: it keeps its own, and a
 * line on stderr says so. */
void dataset_print_kept(const struct invocation *inv, const struct dataset_spec *spec,
	const Granary__V1__Dataset *d);
