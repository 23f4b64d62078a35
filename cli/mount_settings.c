#include "cli/mount_settings.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fuse/sample.h"

_Static_assert(sizeof(struct mount_settings) <= MOUNT_STATE_SETTINGS_BYTES, "they have to fit");

static int copy(char *to, size_t room, const char *text, const char *what, struct error *err)
{
	if (snprintf(to, room, "%s", text ? text : "") < (int)room)
		return 0;
	return error_set(err, -ENAMETOOLONG, "%s is too long", what);
}

static uint32_t log_level(void)
{
	uint32_t level = LOG_DEBUG;

	while (level > LOG_ERROR && !log_enabled((enum log_level)level))
		level--;
	return level;
}

int mount_settings_write(struct mount_state *state, const struct mount_options *mo,
	const struct paths *paths, const char *metrics, const char *log_file, struct error *err)
{
	struct mount_settings *s = (struct mount_settings *)state->settings;
	int r = 0;

	*s = (struct mount_settings){
		.pid = (uint64_t)getpid(),
		.order_memory_bytes = mo->order_memory_bytes,
		.read_timeout_ms = mo->read_timeout_ms,
		.uid = mo->uid,
		.gid = mo->gid,
		.mode = (uint32_t)mo->mode,
		.log_level = log_level(),
		.sample_ppm = mo->sample_ppm,
		.allow_other = mo->allow_other,
		.no_preload = mo->no_preload,
		.no_passthrough = mo->no_passthrough,
	};
#define COPY(member, text, what) \
	if (r == 0)              \
	r = copy(s->member, sizeof(s->member), text, what, err)
	COPY(dataset, mo->dataset, "the dataset's name");
	COPY(job, mo->job, "the job's name");
	COPY(mountpoint, mo->mountpoint, "the mount point");
	COPY(master_address, mo->master_address, "the master's address");
	COPY(master_token, mo->master_token, "the token");
	COPY(state_dir, paths->state_dir, "the state directory");
	COPY(manifest_dir, paths->manifest_dir, "the state directory");
	COPY(metrics_address, metrics, "the address of the metrics");
	COPY(log_file, log_file, "the log's name");
#undef COPY
	state->settings_bytes = sizeof(*s);
	return r;
}

void mount_settings_set_log(struct mount_state *state, const char *log_file)
{
	struct mount_settings *s = (struct mount_settings *)state->settings;

	snprintf(s->log_file, sizeof(s->log_file), "%s", log_file);
}

#define IS_TEXT(s, member) (memchr((s)->member, '\0', sizeof((s)->member)) != NULL)

int mount_settings_read(
	const struct mount_state *state, const struct mount_settings **ret, struct error *err)
{
	const struct mount_settings *s = (const struct mount_settings *)state->settings;

	if (state->settings_bytes != sizeof(*s) || !IS_TEXT(s, dataset) || !IS_TEXT(s, job) ||
		!IS_TEXT(s, mountpoint) || !IS_TEXT(s, master_address) ||
		!IS_TEXT(s, master_token) || !IS_TEXT(s, state_dir) || !IS_TEXT(s, manifest_dir) ||
		!IS_TEXT(s, metrics_address) || !IS_TEXT(s, log_file) ||
		s->mode > MOUNT_MODE_OPEN || s->log_level > LOG_DEBUG)
		return error_set(err, -EPROTO, "the mount's settings are not of this granary");
	*ret = s;
	return 0;
}

void mount_settings_options(const struct mount_settings *s, struct mount_options *ret)
{
	*ret = (struct mount_options){
		.dataset = s->dataset,
		.job = s->job[0] ? s->job : NULL,
		.mountpoint = s->mountpoint,
		.master_address = s->master_address,
		.master_token = s->master_token[0] ? s->master_token : NULL,
		.manifest_dir = s->manifest_dir,
		.socket_dir = s->state_dir,
		.allow_other = s->allow_other,
		.uid = s->uid,
		.gid = s->gid,
		.mode = (enum mount_mode)s->mode,
		.no_preload = s->no_preload,
		.no_passthrough = s->no_passthrough,
		.order_memory_bytes = s->order_memory_bytes,
		.sample_ppm = s->sample_ppm <= SAMPLE_PPM_MAX ? s->sample_ppm : 0,
		.read_timeout_ms = s->read_timeout_ms,
	};
}
