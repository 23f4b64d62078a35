#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/takeover.h"
#include "common/cleanup.h"
#include "common/clock.h"

#define DETACH_TIMEOUT_MS 10000
#define MOUNT_TABLE "/etc/mtab"
#define DATASET_ROOM 256
#define SOURCE "granary:" /* before the dataset's name in the table of mounts */
#define USER_ID "user_id="

struct found {
	char dataset[DATASET_ROOM];
	unsigned long uid; /* whose mount it is */
};

/* 1 when a Granary mount is there; 0 when none is. getmntent decodes the table's escapes. */
static int mounted(const char *mountpoint, struct found *ret)
{
	char line[PATH_MAX * 3];
	struct mntent entry;
	const char *uid;
	FILE *table = setmntent("/proc/self/mounts", "re");
	int found = 0;

	if (!table)
		return -errno;
	while (getmntent_r(table, &entry, line, sizeof(line))) {
		if (strcmp(entry.mnt_dir, mountpoint) != 0)
			continue;
		found = strcmp(entry.mnt_type, "fuse.granary") == 0;
		uid = strstr(entry.mnt_opts, USER_ID);
		ret->uid = uid ? strtoul(uid + strlen(USER_ID), NULL, 10) : 0;
		snprintf(ret->dataset, DATASET_ROOM, "%s",
			strncmp(entry.mnt_fsname, SOURCE, strlen(SOURCE)) == 0
				? entry.mnt_fsname + strlen(SOURCE)
				: "");
	}
	endmntent(table);
	return found;
}

/* What an unprivileged user has: fusermount3. */
static int by_fusermount(const char *mountpoint, bool lazy)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

		/* -q is not always quiet. */
		if (null >= 0)
			dup2(null, STDERR_FILENO);
		if (lazy)
			execlp("fusermount3", "fusermount3", "-q", "-u", "-z", mountpoint, NULL);
		else
			execlp("fusermount3", "fusermount3", "-q", "-u", mountpoint, NULL);
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	if (!WIFEXITED(status) || WEXITSTATUS(status) == 127)
		return -ENOENT;
	return WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

static int detach(const char *mountpoint, const struct found *found, bool lazy, struct error *err)
{
	int r = umount2(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) < 0 ? -errno : 0;

	if (r == -EPERM && found->uid != geteuid())
		return error_set(err, r, "the mount at %s belongs to user %lu: run this as %s",
			mountpoint, found->uid, found->uid ? "that user or root" : "root");
	if (r == -EPERM)
		r = by_fusermount(mountpoint, lazy);
	if (r == -EBUSY && geteuid() != 0 && access(MOUNT_TABLE, F_OK) < 0)
		return error_set(err, -ENOENT,
			"cannot unmount %s: fusermount3 reads " MOUNT_TABLE
			", which is not there; as root: ln -s /proc/self/mounts " MOUNT_TABLE,
			mountpoint);
	if (r == -EBUSY)
		return error_set(err, r,
			"%s is busy: close what uses it (`fuser -vm %s` lists it) or give --lazy",
			mountpoint, mountpoint);
	if (r < 0)
		return error_set_errno(err, r, "cannot unmount %s", mountpoint);
	return 0;
}

int command_umount(struct invocation *inv)
{
	const char *text = inv_argument(inv, 0);
	struct error err = ERROR_INIT;
	char mountpoint[PATH_MAX];
	struct found found, gone;
	bool lazy = inv_switch(inv, "lazy");
	int64_t deadline_ms;
	int r = takeover_resolve(text, mountpoint);

	if (r < 0)
		r = error_set_errno(&err, r, "cannot find %s", text);
	else if (mounted(mountpoint, &found) != 1)
		r = error_set(&err, -ENOENT,
			"no dataset is mounted at %s: `granary status` lists the mounts", text);
	else
		r = detach(mountpoint, &found, lazy, &err);
	if (r < 0)
		return inv_fail(inv, r, &err);
	deadline_ms = clock_deadline_ms(DETACH_TIMEOUT_MS);
	while (mounted(mountpoint, &gone) == 1 && !clock_passed(deadline_ms))
		usleep(10000);
	if (inv_json(inv))
		output_json(json_pack("{s:o, s:o, s:b}", "mountpoint", output_text(mountpoint),
			"dataset", output_text(found.dataset), "lazy", lazy));
	return EXIT_OK;
}
