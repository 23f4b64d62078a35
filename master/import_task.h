/*
 * An import on a thread of its own, and its progress sent to the client that asked for it. The task
 * is cancelled when the client goes away; it is always joined.
 */
#pragma once

#include "common/rpc/rpc.h"
#include "master/import.h"

#define IMPORT_PROGRESS_MS 250

/* Runs `job` (whose cancel and progress are filled in here) and sends ImportProgress messages, but
 * for the last one. Returns what import_run returns. */
int import_task_run(struct rpc_call *call, struct import_job *job, struct import_report *report,
	struct manifest_info *ret_info, struct error *err);
