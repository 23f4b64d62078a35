#define LOG_SUBSYSTEM "mount"
#include "cli/mount_flags.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "fuse/sample.h"

#define ID_MAX (UINT32_MAX - 1)

/* Not realpath: the mount point may be a dead mount that nothing can look into. */
static int absolute_mountpoint(const char *text, char **ret, struct error *err)
{
	char cwd[PATH_MAX];
	size_t n;

	if (text[0] == '/')
		*ret = strdup(text);
	else if (!*text || !getcwd(cwd, sizeof(cwd)) || asprintf(ret, "%s/%s", cwd, text) < 0)
		return error_set(err, -EINVAL, "'%s' is no mount point", text);
	if (!*ret)
		return error_set(err, -ENOMEM, "out of memory");
	for (n = strlen(*ret); n > 1 && (*ret)[n - 1] == '/'; n--)
		(*ret)[n - 1] = '\0';
	return 0;
}

/* Without a job nobody asks what it reads. */
static int read_sample(const struct invocation *inv, uint32_t *ret_ppm, struct error *err)
{
	const char *text = inv_text(inv, "sample");
	char *end = NULL;
	double percent;

	*ret_ppm = inv_text(inv, "job") ? SAMPLE_PPM_DEFAULT : 0;
	if (!text)
		return 0;
	percent = strtod(text, &end);
	if (end == text || !(percent >= 0 && percent <= 100) || (strcmp(end, "%") && *end))
		return error_set(err, -EINVAL, "--sample is 0 to 100 %%, not '%s'", text);
	if (*ret_ppm)
		*ret_ppm = (uint32_t)(percent * SAMPLE_PPM_MAX / 100);
	else if (percent > 0)
		log_warn("--sample has no effect without --job: nobody would ask what was read");
	return 0;
}

int mount_flags_read(const struct invocation *inv, const char *dataset, const char *mountpoint,
	struct mount_options *ret, struct error *err)
{
	uint64_t uid = inv_number(inv, "uid", geteuid()), gid = inv_number(inv, "gid", getegid());
	uint64_t order_memory = inv_size(inv, "order-memory", 0);
	uint32_t sample_ppm;
	char *absolute;
	int r;

	if (uid > ID_MAX || gid > ID_MAX)
		return error_set(err, -EINVAL, "--uid and --gid are at most %u", ID_MAX);
	if (inv_text(inv, "order-memory") &&
		(order_memory < ORDER_MEMORY_LEAST_BYTES || order_memory > ORDER_MEMORY_MOST_BYTES))
		return error_set(err, -EINVAL, "--order-memory is 16MiB to 16GiB");
	r = read_sample(inv, &sample_ppm, err);
	if (r < 0)
		return r;
	r = absolute_mountpoint(mountpoint, &absolute, err);
	if (r < 0)
		return r;
	*ret = (struct mount_options){
		.dataset = dataset,
		.job = inv_text(inv, "job"),
		.mountpoint = absolute,
		.allow_other = inv_text(inv, "allow-other") ? inv_switch(inv, "allow-other")
							    : geteuid() == 0,
		.uid = (uint32_t)uid,
		.gid = (uint32_t)gid,
		.order_memory_bytes = order_memory,
		.sample_ppm = sample_ppm,
		.no_preload = inv_switch(inv, "no-preload"),
		.no_passthrough = inv_switch(inv, "no-passthrough"),
		.read_timeout_ms = (int64_t)inv_number(inv, "read-timeout", 60) * 1000,
	};
	return mount_mode_parse(inv_text(inv, "mode"), &ret->mode);
}

void mount_flags_free(struct mount_options *opts)
{
	free((char *)opts->mountpoint);
	opts->mountpoint = NULL;
}
