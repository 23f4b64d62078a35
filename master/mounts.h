/*
 * The mounts that the master knows: which snapshot each is to show, and what of its cumulative
 * counters was counted into its dataset already (kept in the database, so that neither a restart of
 * the master nor a partition counts anything twice).
 *
 * A mount is live while it was heard within MOUNT_LOST_MS; only live ones hold snapshots and keep a
 * dataset from being removed. One that comes back is known until MOUNT_FORGET_MS; later it is taken
 * for new, and counted from where it stands.
 *
 * Threading: the caller's lock. Time is passed in.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <uthash.h>

#include "common/error.h"
#include "granary/v1/cluster.pb-c.h"
#include "master/dataset_registry.h"
#include "master/jobs.h"
#include "master/origin_hold.h"
#include "origin/limits.h"

#define MOUNTS_MAX 65536
#define MOUNT_LOST_MS 30000
#define MOUNT_FORGET_MS 600000
#define MOUNT_PATH_BYTES 4096
#define MOUNT_TEXT_BYTES 256

struct mount_peer {
	uint64_t id;
	uint64_t dataset_id;
	char *mountpoint, *host, *host_id; /* NULL: only known from the database */
	uint64_t pid;
	uint64_t takeovers;
	char mode[32];
	char job[JOB_NAME_BYTES]; /* while it is live and job_id is not 0 */
	uint64_t job_id;	  /* that may have ended since; 0: none */
	uint64_t assigned;	  /* the snapshot that it is to show */
	uint64_t shown;		  /* that it says it shows */
	uint64_t hit_bytes, miss_bytes, failed_reads, direct_origin_bytes;
	uint64_t consumed_bytes; /* as its sample says; cumulative */
	struct job_waits waits;
	struct origin_hold direct; /* bytes/s, of what it reads past the workers */
	struct job_loaders loaders;
	struct job_sampled sampled;
	char last_error[ERROR_TEXT_BYTES];
	int64_t seen_ms;
	bool live;
	bool dirty; /* the record in the database is behind */
	UT_hash_handle hh;
};

struct mounts {
	struct mount_peer *by_id;
	/* Live ones, and of these those whose origin has a limit of its own, by dataset.limit,
	 * which is known of datasets that are mounted. */
	size_t live, live_by_limit[ORIGIN_LIMITS_MAX + 1];
};

int mounts_load(struct mounts *m, struct namespace_db *db, int64_t now_ms, struct error *err);
void mounts_deinit(struct mounts *m);

struct mount_peer *mounts_find(const struct mounts *m, uint64_t id);

/* A new mount of d, live, to show d's current snapshot, for the job j (NULL: for none). -EINVAL,
 * -ENOSPC. */
int mounts_open(struct mounts *m, struct dataset *d, struct job *j, uint64_t id,
	const Granary__V1__OpenMountRequest *request, int64_t now_ms, struct mount_peer **ret,
	struct error *err);
/* A heartbeat of a mount of d for the job j (NULL: none); an unknown one is entered from its fields.
 * *ret_revived: it was not live before. */
int mounts_heard(struct mounts *m, struct dataset *d, struct job *j,
	const Granary__V1__MountHeartbeatRequest *request, int64_t now_ms, struct mount_peer **ret,
	bool *ret_revived, struct error *err);
/* NULL: none, or one that has ended. */
struct job *mounts_job(const struct mount_peer *p, const struct jobs *jobs);
/* Counts the final counters; j: its job, or NULL. */
void mounts_count(struct mount_peer *p, struct dataset *d, struct job *j,
	const Granary__V1__MountHeartbeatRequest *last);
/* It was closed in order, or never opened. */
void mounts_remove(struct mounts *m, struct dataset_registry *datasets, struct jobs *jobs,
	struct mount_peer *p);

/* Marks the lost, forgets the long lost and those of removed datasets (their records go into
 * `batch`); true when some dataset has fewer live mounts than before. */
bool mounts_expire(struct mounts *m, struct dataset_registry *datasets, struct jobs *jobs,
	int64_t now_ms, struct namespace_batch *batch);
/* All mounts of d are to show its current snapshot; adds their records to the batch. */
int mounts_switch(struct mounts *m, const struct dataset *d, uint64_t snapshot,
	struct namespace_batch *batch);
void mounts_apply_switch(struct mounts *m, const struct dataset *d);
/* Puts what the live mounts' loaders measured, and their samples show, into their jobs. */
void mounts_gather_loaders(const struct mounts *m, struct jobs *jobs);
bool mounts_hold(const struct mounts *m, uint64_t dataset_id, uint64_t snapshot);

int mounts_put(const struct mount_peer *p, struct namespace_batch *batch);
/* Adds the records that are behind to the batch. */
int mounts_save(struct mounts *m, struct namespace_batch *batch);

/* For replies; freed by the reply's free_unpacked. */
int mounts_status(const struct mounts *m, struct dataset_registry *datasets, int64_t now_ms,
	Granary__V1__MountStatus ***ret, size_t *ret_count);
