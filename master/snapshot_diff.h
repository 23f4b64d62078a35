/*
 * What differs between two snapshots of a dataset, found by walking both manifests in their common
 * order. Files and symlinks are counted as added, changed (content, as far as the validator tells,
 * or attributes) or removed; a difference in a directory is no count, but makes the snapshots
 * differ.
 */
#pragma once

#include <stdatomic.h>

#include "common/error.h"
#include "manifest/manifest.h"
#include "master/import_report.h"

#define SNAPSHOT_DIFF_SAME 1

/* 0: they differ, SNAPSHOT_DIFF_SAME: not at all; -ECANCELED, -EIO, -ENOMEM. */
int snapshot_diff(struct manifest *before, struct manifest *after, const atomic_bool *cancel,
	struct import_report *report, struct error *err);
