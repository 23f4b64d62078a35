/*
 * All datasets in memory, by id and by name. Bounded: DATASETS_MAX of them, and so many bytes of
 * configuration that a plan of all of them fits one message.
 *
 * Threading: the caller's lock.
 */
#pragma once

#include "master/dataset.h"
#include "master/namespace_db.h"

#define DATASETS_MAX 10000
#define DATASETS_CONFIG_MAX_BYTES ((size_t)6 << 20)

struct dataset_registry {
	struct dataset *by_id, *by_name;
	size_t config_bytes; /* of all configs and secrets, with an allowance for each dataset */
};

/* Reads all datasets and snapshots from the database. */
int dataset_registry_load(
	struct dataset_registry *r, struct namespace_db *db, int64_t now_ms, struct error *err);
void dataset_registry_deinit(struct dataset_registry *r);

struct dataset *dataset_registry_find(struct dataset_registry *r, const char *name);
struct dataset *dataset_registry_get(struct dataset_registry *r, uint64_t id);
/* Takes d when it succeeds. -ENOSPC: the bound; the name and the id must be new. */
int dataset_registry_insert(struct dataset_registry *r, struct dataset *d, struct error *err);
void dataset_registry_remove(struct dataset_registry *r, struct dataset *d); /* frees d */
/* Replaces the secrets; takes the reference when it succeeds. */
int dataset_registry_set_secrets(struct dataset_registry *r, struct dataset *d,
	struct dataset_secrets *secrets, struct error *err);
size_t dataset_registry_count(const struct dataset_registry *r);
