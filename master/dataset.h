/*
 * A dataset as the master holds it in memory: what it is, its snapshots, what it is granted, and
 * what was counted.
 *
 * What never changes (config) and the credentials (secrets) are immutable, counted objects, so that
 * a reply can be made from them without a lock and without a copy. Secrets are wiped when the last
 * reference goes; nothing else ever holds them.
 *
 * Threading: a dataset belongs to the registry's lock; config and secrets to whoever has a
 * reference.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <uthash.h>

#include "common/error.h"
#include "manifest/manifest.h"
#include "master/state.pb-c.h"
#include "origin/origin.h"

#define DATASET_NAME_MAX_BYTES 128
#define DATASET_ORIGIN_MAX_BYTES 4096
#define DATASET_OPTIONS_MAX 64
#define DATASET_OPTION_MAX_BYTES 4096
#define DATASET_SECRETS_MAX_BYTES 65536

struct dataset_config {
	_Atomic unsigned refs;
	size_t packed_bytes;
	Granary__State__V1__DatasetConfig *msg;
};

/* Takes `msg` (also when it fails); NULL: no memory. */
struct dataset_config *dataset_config_new(Granary__State__V1__DatasetConfig *msg);
struct dataset_config *dataset_config_ref(struct dataset_config *c);
void dataset_config_unref(struct dataset_config *c); /* NULL is fine */

struct dataset_secrets {
	_Atomic unsigned refs;
	size_t bytes;
	size_t count;
	Granary__V1__Option **options;
};

/* Copies. -EINVAL names a key that is unknown or not secret, or says that they are too large. */
int dataset_secrets_new(Granary__V1__Option *const *options, size_t count,
	struct dataset_secrets **ret, struct error *err);
struct dataset_secrets *dataset_secrets_ref(struct dataset_secrets *s); /* NULL is fine */
void dataset_secrets_unref(struct dataset_secrets *s);			/* NULL is fine */

/* 0, or -EINVAL with what a name may be. */
int dataset_name_check(const char *name, struct error *err);
/* Options that may be stored and shown: known, and not secret. */
int dataset_options_check(Granary__V1__Option *const *options, size_t count, struct error *err);

/* True for scheme://user@host and scheme://user:password@host. */
bool dataset_url_has_credentials(const char *url);

/* The origin that the config and the secrets (may be NULL) describe. */
int dataset_origin_open(const struct dataset_config *config, const struct dataset_secrets *secrets,
	struct origin **ret, struct error *err);

struct snapshot {
	uint64_t number;
	Granary__State__V1__SnapshotState *state;
	int64_t named_ms; /* when a heartbeat last named it */
};

struct dataset {
	uint64_t id;
	struct dataset_config *config;
	struct dataset_secrets *secrets; /* NULL: none */
	bool quota_limited;
	uint64_t quota_bytes;
	uint64_t current;	/* snapshot number; 0 while the first import runs */
	uint64_t last_snapshot; /* number that was given last */
	bool importing;
	bool in_database; /* false until the first import has ended: then only its name is taken */

	struct snapshot *snapshots; /* in the order of their numbers */
	size_t snapshots_count;
	size_t live_mounts;
	size_t limit; /* master_limit_locked */
	bool limit_known;

	/* What the planner decided last, and for what. */
	uint64_t granted_bytes, threshold, pin_target_bytes;
	bool elastic;
	size_t plan_item; /* the planner's, from one look at the registry to the end of it */
	char planned_digest[MANIFEST_DIGEST_TEXT_BYTES];

	/* Counters that outlive everything; written from time to time. */
	uint64_t hit_bytes, miss_bytes, failed_reads, origin_bytes;
	bool totals_dirty;
	char last_error[ERROR_TEXT_BYTES];

	UT_hash_handle by_id, by_name;
};

/* Takes config and secrets (references) also when it fails; NULL: no memory. */
struct dataset *dataset_new(
	uint64_t id, struct dataset_config *config, struct dataset_secrets *secrets);
void dataset_free(struct dataset *d); /* NULL is fine */

struct snapshot *dataset_snapshot(struct dataset *d, uint64_t number); /* NULL: no such */
struct snapshot *dataset_current(struct dataset *d);		       /* NULL: none yet */
/* Numbers only grow. Takes `state` also when it fails. */
int dataset_add_snapshot(struct dataset *d, uint64_t number,
	Granary__State__V1__SnapshotState *state, int64_t now_ms);
void dataset_drop_snapshot(struct dataset *d, uint64_t number);

/* What goes to the database; points into d. `ret_totals` the same for the counters. */
void dataset_state(const struct dataset *d, Granary__State__V1__DatasetState *ret);
void dataset_totals(const struct dataset *d, Granary__State__V1__TotalsState *ret);

/* Remembers the latest failure, made printable. */
void dataset_set_error(struct dataset *d, const char *text);
