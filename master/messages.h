/*
 * The master's state as messages.
 *
 * A Dataset is a copy that lives on its own. A plan entry borrows from the dataset's immutable
 * parts by reference, so that thousands of them are made quickly under the lock and sent without
 * it.
 */
#pragma once

#include "granary/v1/cluster.pb-c.h"
#include "granary/v1/dataset.pb-c.h"
#include "master/dataset.h"
#include "master/workers.h"

/* NULL: no memory. Without the import's report, which is only in the database. Free it with
 * granary__v1__dataset__free_unpacked. */
Granary__V1__Dataset *message_dataset(const struct dataset *d, const struct workers *workers);
/* Of the bytes under its threshold, those that the living workers have room to pin. */
uint64_t dataset_pin_expected_bytes(const struct dataset *d, const struct workers *workers);
/* Takes away what makes a list of thousands of them too large for a message: patterns, options and
 * most of a long error. */
void message_dataset_shorten(Granary__V1__Dataset *m);

struct plan_entry {
	Granary__V1__DatasetPlan msg;
	struct dataset_config *config;
	struct dataset_secrets *secrets;
	struct plan_snapshot {
		Granary__V1__SnapshotRef ref;
		char digest[MANIFEST_DIGEST_TEXT_BYTES];
	} *snapshots;
	Granary__V1__SnapshotRef **refs;
};

/* `first` is the snapshot to name first. Secrets only when `local`. -ENOMEM. */
int plan_entry_init(struct plan_entry *e, struct dataset *d, uint64_t first, bool local);
void plan_entry_deinit(struct plan_entry *e); /* all zero is fine */
