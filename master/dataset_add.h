/*
 * What Add does before anything is imported: the request is judged, so that whatever a user can get
 * wrong is refused at once, with one line that says what to do.
 *
 * Errors: -EINVAL, -EPERM credentials from a peer that is not local, -EEXIST, -ENOMEM.
 */
#pragma once

#include "common/rpc/rpc.h"
#include "granary/v1/dataset.pb-c.h"
#include "master/master_state.h"

/* The outputs are set also on failure, and are the caller's: NULL or a reference. */
int dataset_add_check(struct rpc_call *call, const Granary__V1__AddDatasetRequest *request,
	struct dataset_config **ret_config, struct dataset_secrets **ret_secrets,
	struct error *err);

#define DATASET_ADD_THERE 1

/* With exists_ok: DATASET_ADD_THERE when the dataset is there and of the same origin, 0 when there
 * is none. Credentials that came along are taken over (*secrets becomes NULL): after a restart the
 * master has none. */
int dataset_add_existing(struct master *m, const struct dataset_config *config,
	struct dataset_secrets **secrets, struct error *err);
