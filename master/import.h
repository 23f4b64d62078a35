/*
 * An import: lists an origin and makes a manifest of it.
 *
 * The listing comes in no order and may hold ten million entries, so it is sorted on the disk
 * (namespace_scratch.h) and then streamed into the manifest builder: memory is bounded. What cannot
 * be mounted is left out and reported, never guessed at:
 *
 *	- names that manifest_path_check refuses;
 *	- devices, sockets, pipes and whatever else the origin cannot serve;
 *	- symlinks whose target is absolute or climbs out of the dataset;
 *	- a file or symlink of the same name as a directory: the directory is kept;
 *	- what is listed again: the first is kept.
 *
 * Parents that the origin did not list are made. A zero-size object "dir/" is the directory "dir".
 * With a filter only directories that lead to something kept are kept.
 *
 * Errors: -ECANCELED once *cancel is true, what origin_list says, -ENOSPC, -EIO. After a failure no
 * manifest and no scratch data stays.
 *
 * Threading: one thread runs it; others may read the progress and set *cancel.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "manifest/manifest.h"
#include "master/filter.h"
#include "master/import_report.h"
#include "master/namespace_db.h"
#include "origin/origin.h"

enum import_phase { IMPORT_LISTING, IMPORT_BUILDING };

struct import_progress {
	_Atomic int phase; /* enum import_phase */
	_Atomic uint64_t entries;
	_Atomic uint64_t bytes;
};

/* As origin_list. */
typedef int import_list_fn(struct origin *o, origin_entry_fn *fn, void *arg,
	const atomic_bool *cancel, int64_t deadline_ms, struct error *err);

struct import_job {
	struct namespace_db *db;
	struct origin *origin;
	import_list_fn *list; /* NULL: origin_list; tests put millions of entries here */
	const struct filter *filter;
	const char *manifest_dir;
	uint64_t dataset_id;
	uint64_t snapshot;
	int64_t created_s;	   /* of the snapshot */
	int64_t dirs_mtime_ns;	   /* of directories that the origin does not date; must not vary
				    * from one snapshot of a dataset to the next */
	struct manifest *previous; /* to count changes against; NULL: all is new */
	int64_t deadline_ms;
	const atomic_bool *cancel;
	struct import_progress *progress;
};

#define IMPORT_UNCHANGED 1 /* nothing differs from `previous`: no manifest was kept */

/* 0 or IMPORT_UNCHANGED; report is filled in by both. */
int import_run(const struct import_job *job, struct import_report *report,
	struct manifest_info *ret_info, struct error *err);
