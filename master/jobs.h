/*
 * The training jobs that the master knows: who reads which dataset, how fast it could, and what it
 * was allocated (planner.c).
 *
 * A job begins with JobService/Start or with the first mount that names it (then it is implicit), and
 * ends with JobService/End, or JOB_GRACE_MS after its last mount went; an implicit one at once when
 * that mount was closed in order. One that has not had a mount yet waits for it for ever: a batch
 * scheduler may announce jobs long before they run. Silence of a mount that lives ends nothing.
 *
 * Records are in the database, counters of what was read included.
 *
 * Threading: the caller's lock. Time is passed in.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <uthash.h>

#include "common/error.h"
#include "granary/v1/job.pb-c.h"
#include "master/dataset_registry.h"
#include "master/namespace_db.h"
#include "origin/limits.h"

#define JOBS_MAX 4096 /* as many as workers take shares of */
#define JOB_NAME_BYTES 64
#define JOB_GPUS_MAX 1000000
#define JOB_EPOCHS_MAX 1000000
#define JOB_GRACE_MS 60000
#define JOB_SAMPLE_MS 2000
#define JOB_SAMPLES 31 /* a minute */

/* For what reads of mounts waited, in microseconds. */
#define JOB_WAITS 5
struct job_waits {
	uint64_t us[JOB_WAITS];
};
/* "share", "origin", "peer", "disk", "queue". */
extern const char *const job_wait_names[JOB_WAITS];
/* NULL: nothing was said. */
struct job_waits job_waits_read(const Granary__V1__ReadWaits *said);

struct job_counters {
	uint64_t hit_bytes, miss_bytes, origin_bytes, waited_us;
	/* The page cache's answers included, as samples say; 0: none did. */
	uint64_t consumed_bytes;
	struct job_waits waits;
};

/* What the scheduler gave it last. */
struct job_share {
	uint64_t cache_bytes;
	double remote_bytes_per_s, hit_ratio, predicted_bytes_per_s;
	uint64_t limit; /* 1 and the index of its origin's own; 0: none */
};

/* What the loaders of a mount, or of all mounts of a job, measured. */
struct job_loaders {
	uint32_t count; /* 0: nothing */
	uint32_t workers;
	double ideal_bytes_per_s; /* of all of them */
	double wait_ratio;	  /* of their time, on average */
};

/* What the samples of a mount, or of all mounts of a job, show of how fast it could read. */
struct job_sampled {
	bool told,
		held_back; /* there was something to say; of a mount it was that its readers wait */
	double ideal_bytes_per_s; /* 0: not known */
	double error;		  /* relative, one standard deviation */
};

/* How fast it could read if nothing waited. */
struct job_ideal {
	double bytes_per_s; /* 0: unknown */
	double error;	    /* relative, one standard deviation; 0 unless it was sampled */
	char source[12];    /* "declared", "steps", "sampled", "" */
};

struct job {
	uint64_t id; /* grows with every job: the order of arrival */
	char name[JOB_NAME_BYTES];
	uint64_t dataset_id;
	uint64_t gpus;
	double ideal_bytes_per_s; /* 0: unknown */
	double weight, min_remote_bytes_per_s;
	uint32_t epochs; /* 0: unknown */
	bool irregular, implicit;
	int64_t started_s;

	size_t live_mounts;
	bool had_mount;
	int64_t mountless_ms; /* since when, while it has none */

	struct job_loaders loaders; /* as of the last mounts_gather_loaders */
	struct job_sampled sampled; /* as of then, too */
	struct job_ideal planned;   /* that the latest plan went by */
	bool unheard;		    /* `planned` is the master's before, and none of its mounts has
				     * told anything since */
	uint64_t cached_at_start;   /* pinned bytes of its dataset then */
	double effective_ratio;	    /* that the latest plan went by */
	struct job_share share;
	struct job_counters counters;
	struct job_sample {
		int64_t at_ms;
		uint64_t read_bytes, origin_bytes, consumed_bytes;
		struct job_waits waits;
	} samples[JOB_SAMPLES]; /* a ring */
	unsigned sample_count, sample_next;

	bool dirty; /* the record in the database is behind */
	UT_hash_handle hh;
};

struct jobs {
	struct job *by_name;
	uint64_t last_id;
};

int jobs_load(struct jobs *jobs, struct namespace_db *db, int64_t now_ms, struct error *err);
void jobs_deinit(struct jobs *jobs);

struct job *jobs_find(const struct jobs *jobs, const char *name); /* NULL: no such */

/* -EINVAL with the field named. The dataset is looked up by the caller. */
int job_request_check(const Granary__V1__StartJobRequest *request, struct error *err);
/* Of the dataset's bytes in stores, `cached_bytes`, those that can hit for the job now: what it
 * missed itself in its first epoch cannot. How much it has read is what its mounts served, or what
 * their samples show, should that be more: reads that the page cache answers are in the second
 * only. */
uint64_t job_effective_bytes(const struct job *j, uint64_t dataset_bytes, uint64_t cached_bytes);

/* A new job (cached_bytes: of its dataset now), or the fields that the request sets put into the
 * known one of that name (which keeps its dataset: -ESTALE for another one). -ENOSPC, -ENOMEM. */
int jobs_start(struct jobs *jobs, const Granary__V1__StartJobRequest *request,
	const struct dataset *d, uint64_t cached_bytes, bool implicit, int64_t now_ms,
	struct job **ret, struct error *err);
void jobs_end(struct jobs *jobs, struct job *j);

void jobs_clear_loaders(struct jobs *jobs);
void job_add_loaders(struct job *j, const struct job_loaders *more);
/* Of mounts that have something to say; the rate is not known where one of them has been held back. */
void job_add_sampled(struct job *j, const struct job_sampled *more);
/* What it read, as far as that is known. */
uint64_t job_read_bytes(const struct job *j);
/* As declared, or else as measured, or else as sampled; of the master before until one of its
 * mounts was heard from. */
struct job_ideal job_ideal(const struct job *j);
/* The latest plan did. */
void job_went_by(struct job *j);

/* A mount of the job came to life, or went; `closed`: in order. */
void job_mount_came(struct job *j);
void job_mount_went(struct job *j, bool closed, int64_t now_ms);
/* Ends those whose grace is over and those of removed datasets (their records go into `batch`); true
 * when there were any. Takes samples of the counters of the rest. */
bool jobs_expire(struct jobs *jobs, struct dataset_registry *datasets, int64_t now_ms,
	struct namespace_batch *batch);

struct job_rates {
	double seconds; /* that were looked at, a minute at most; 0: too early to say */
	double read_bytes_per_s, origin_bytes_per_s, consumed_bytes_per_s;
	struct job_waits waits; /* within them */
};
void job_measured(const struct job *j, int64_t now_ms, struct job_rates *ret);

int job_put(const struct job *j, struct namespace_batch *batch);
/* Adds the records that are behind to the batch. */
int jobs_save(struct jobs *jobs, struct namespace_batch *batch);

/* What bounds the origin of a job. */
struct job_origin {
	bool limited;			/* all origins together, or its own */
	const struct origin_limit *own; /* NULL: none */
	bool own_is_shared_out;
};

/* A copy for a reply; NULL: no memory. */
Granary__V1__Job *job_message(const struct job *j, const struct dataset *d,
	const struct job_origin *origin, int64_t now_ms);
