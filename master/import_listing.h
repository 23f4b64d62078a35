/*
 * The first half of an import: every entry that the origin lists is judged, and either counted in
 * the report or put into the scratch table under its key. See import.h for the rules.
 *
 * Threading: the origin calls from its own threads, one at a time.
 */
#pragma once

#include "manifest/manifest_builder.h"
#include "master/import.h"
#include "master/namespace_scratch.h"

/* Lists job->origin into `scratch`. ret_root receives the attributes of the root directory, as far
 * as they were listed. */
int import_listing_run(const struct import_job *job, struct namespace_scratch *scratch,
	struct import_report *report, struct manifest_builder_entry *ret_root, struct error *err);

/* What the origin knows of its own directory. */
void import_root_attributes(struct manifest_builder_entry *root, const struct origin_entry *e);
