/*
 * How a mount's client is started: what `granary mount` was told, in a form that another process can
 * go on with. It lies in the mount's state (fuse/mount_state.h), whose version covers it.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "cli/paths.h"
#include "common/log.h"
#include "fuse/mount.h"
#include "fuse/mount_state.h"

#define MOUNT_SETTINGS_TOKEN_BYTES 8192

struct mount_settings {
	char dataset[256], mountpoint[PATH_MAX]; /* as asked for */
	char job[64];				 /* "": none */
	char master_address[PATH_MAX + 32];
	char master_token[MOUNT_SETTINGS_TOKEN_BYTES]; /* "": none */
	char state_dir[PATH_MAX], manifest_dir[PATH_MAX];
	char metrics_address[PATH_MAX]; /* besides the unix socket; "": none */
	char log_file[PATH_MAX];	/* "": stderr */
	uint64_t pid;			/* of the first process: it names the metrics' socket */
	uint64_t order_memory_bytes;
	int64_t read_timeout_ms;
	uint32_t uid, gid, mode, log_level, sample_ppm;
	bool allow_other, no_preload, no_passthrough;
};

/* -ENAMETOOLONG when something does not fit. `metrics` and `log_file` may be NULL. */
int mount_settings_write(struct mount_state *state, const struct mount_options *mo,
	const struct paths *paths, const char *metrics, const char *log_file, struct error *err);
/* Where whoever comes next logs to. */
void mount_settings_set_log(struct mount_state *state, const char *log_file);
/* -EPROTO: not this version's. It lives as long as the state is mapped. */
int mount_settings_read(
	const struct mount_state *state, const struct mount_settings **ret, struct error *err);
void mount_settings_options(const struct mount_settings *s, struct mount_options *ret);
