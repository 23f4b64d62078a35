/*
 * Adding and refreshing: an import, and what it changes in the master's state. A dataset is
 * imported by one caller at a time, and at most MASTER_IMPORTS_MAX are at once. Until the first
 * import of a dataset has ended, its name is taken and nothing else shows.
 */
#pragma once

#include "common/rpc/rpc.h"
#include "master/import_report.h"
#include "master/master_state.h"

/* What an import came to. */
struct import_outcome {
	uint64_t dataset_id;
	bool unchanged;
	uint64_t entries, bytes;
	struct import_report *report;
};

/* The dataset is new: takes config and secrets, also when it fails. -EEXIST, -ESTALE: it is being
 * added already; else as import_run. */
int dataset_import_add(struct master *m, struct rpc_call *call, struct dataset_config *config,
	struct dataset_secrets *secrets, bool quota_limited, uint64_t quota_bytes,
	struct import_outcome *ret, struct error *err);
/* -ENOENT, -ESTALE: an import of it is running; else as import_run. */
int dataset_import_refresh(struct master *m, struct rpc_call *call, const char *name,
	bool switch_mounts, struct import_outcome *ret, struct error *err);
void import_outcome_deinit(struct import_outcome *o);
