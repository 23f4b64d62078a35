/*
 * The functions behind the commands of the table, one file each.
 */
#pragma once

#include "cli/command.h"

command_fn command_up, command_master, command_worker, command_mount, command_umount;
command_fn command_dataset_add, command_dataset_refresh, command_dataset_ls, command_dataset_stat,
	command_dataset_rm;
command_fn command_quota_set, command_quota_ls, command_status, command_doctor, command_purge;
command_fn command_job_start, command_job_end, command_job_ls, command_job_explain, command_job_top;
command_fn command_epoch, command_hint, command_plan, command_sim;
command_fn command_completion, command_man, command_version;
command_fn command_takeover; /* mount --takeover */
