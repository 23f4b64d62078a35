/*
 * A dataset of the plan, as the block service and the fetches see it: where its bytes come from,
 * which snapshots may be read, what the master granted, and what was counted.
 *
 * The origin is opened once and lives as long as the dataset; new options or credentials renew it
 * in place, so fetches under way go on. A dataset whose origin does not open still serves what the
 * store has; its fetches fail with the reason.
 *
 * Threading: any thread. id, name and url never change; grant and threshold are single atomics.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/sync.h"
#include "granary/v1/cluster.pb-c.h"
#include "manifest/manifest.h"
#include "origin/origin.h"

#define DATASET_SNAPSHOTS_MAX 64 /* the current one and older ones that are still mounted */
#define DATASET_JOBS_MAX 64	 /* counted apart; the rest counts as "other" */
#define DATASET_JOB_BYTES 64
#define DATASET_OTHER_JOB "other"

struct dataset_snapshot {
	char digest[MANIFEST_DIGEST_TEXT_BYTES];
	struct manifest *manifest; /* NULL until somebody needed it */
};

struct dataset_job {
	char name[DATASET_JOB_BYTES];
	uint64_t origin_bytes;
};

struct dataset {
	atomic_uint refs;
	uint64_t id;
	char *name;
	char *url;
	struct origin *origin;	   /* NULL: origin_error says why */
	struct error origin_error; /* set by dataset_from_plan only */

	_Atomic uint64_t grant_bytes;
	_Atomic uint64_t threshold;
	atomic_bool elastic;   /* what is not pinned is kept as an LRU cache keeps it */
	atomic_bool undivided; /* its origin has sent all of an object for a part of it */
	_Atomic uint64_t failed_fetches;
	_Atomic int64_t open_retry_ms; /* no earlier try to open the current manifest */

	struct mutex mu;
	/* guarded by mu */
	uint64_t options_hash; /* of options and secrets, so that only new ones renew the origin */
	struct dataset_snapshot snapshots[DATASET_SNAPSHOTS_MAX]; /* [0] is the current one */
	size_t snapshot_count;
	struct dataset_job jobs[DATASET_JOBS_MAX];
	size_t job_count;
	char last_error[ERROR_TEXT_BYTES];
	int64_t logged_ms;   /* when a failure was last logged */
	uint64_t not_logged; /* failures since */
};

/* NULL when memory is out. */
struct dataset *dataset_from_plan(const Granary__V1__DatasetPlan *plan);
struct dataset *dataset_ref(struct dataset *d);
void dataset_unref(struct dataset *d); /* NULL is fine */

/* Takes over grant, threshold, snapshots and options of a newer plan for the same id and url. */
void dataset_update(struct dataset *d, const Granary__V1__DatasetPlan *plan);

/* The manifest of a snapshot that the plan names. 0 and a reference of the caller's;
 * DATASET_UNOPENED: the plan names it but nobody has opened it (dataset_put_manifest); -ENOENT: the
 * plan has no such snapshot. ret_current says whether it is the current one. */
#define DATASET_UNOPENED 1
int dataset_manifest(
	struct dataset *d, const char *digest, struct manifest **ret, bool *ret_current);
void dataset_put_manifest(struct dataset *d, struct manifest *m);
/* A chunk of it was damaged: the next reader opens it anew. */
void dataset_drop_manifest(struct dataset *d, const char *digest);
/* Digest of the current snapshot, "" when there is none. */
void dataset_current_digest(struct dataset *d, char ret[static MANIFEST_DIGEST_TEXT_BYTES]);

void dataset_count_origin(struct dataset *d, const char *job, uint64_t bytes);
/* Copies what was counted; returns how many there are. */
size_t dataset_jobs(struct dataset *d, struct dataset_job ret[static DATASET_JOBS_MAX]);
/* Counts a failed fetch, keeps its text for the status, logs it at most once a second. */
void dataset_count_failure(struct dataset *d, const char *text);
/* Body bytes that came from the origin, retried ones included. */
uint64_t dataset_origin_bytes(const struct dataset *d);
void dataset_last_error(struct dataset *d, char ret[static ERROR_TEXT_BYTES]);
