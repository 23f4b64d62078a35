#include "fuse/mountpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mntent.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include "common/cleanup.h"

#define DEAD_MAX 16 /* dead mounts on top of each other that are detached */
#define FUSE_DEVICE "/dev/fuse"
#define FUSE_CONF "/etc/fuse.conf"
#define FUSERMOUNT "fusermount3"
#define GRANARY_FSTYPE "fuse.granary"
#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x00004000U /* linux/stat.h since 6.8 */
#endif

extern char **environ;

/* ---- unmounting ------------------------------------------------------------------------------ */

static int fusermount_unmount(const char *path, bool lazy)
{
	const char *argv[] = {FUSERMOUNT, "-u", "-q", lazy ? "-z" : "--", lazy ? "--" : path,
		lazy ? path : NULL, NULL};
	posix_spawn_file_actions_t actions;
	int status, r;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	r = posix_spawnp(&pid, FUSERMOUNT, &actions, NULL, (char *const *)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (r != 0)
		return -r;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

static int unmount(const char *path, bool lazy)
{
	if (umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
		return 0;
	return errno == EPERM ? fusermount_unmount(path, lazy) : -errno;
}

bool mountpoint_is(const char *path, uint64_t mount_id)
{
	struct statx sx;

	return mount_id &&
	       statx(AT_FDCWD, path, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT,
		       STATX_TYPE | STATX_MNT_ID_UNIQUE, &sx) == 0 &&
	       (sx.stx_mask & STATX_MNT_ID_UNIQUE) && sx.stx_mnt_id == mount_id;
}

int mountpoint_unmount(const char *path, struct error *err)
{
	int r = unmount(path, false);

	if (r == -EBUSY)
		r = unmount(path, true);
	if (r < 0)
		return error_set_errno(err, r, "cannot unmount %s", path);
	return 0;
}

/* ---- what is there --------------------------------------------------------------------------- */

/* Whether a granary is mounted exactly there, and the dataset's name for the message. */
static bool granary_mounted(const char *path, char *ret_source, size_t room)
{
	FILE *mounts = setmntent("/proc/self/mounts", "r");
	char strings[3 * PATH_MAX];
	struct mntent entry;
	bool found = false;

	if (!mounts)
		return false;
	while (getmntent_r(mounts, &entry, strings, sizeof(strings))) {
		/* The last one is on top. */
		if (strcmp(entry.mnt_dir, path) != 0)
			continue;
		found = !strcmp(entry.mnt_type, GRANARY_FSTYPE);
		snprintf(ret_source, room, "%s", entry.mnt_fsname);
	}
	endmntent(mounts);
	return found;
}

static bool is_dead(int error)
{
	return error == ENOTCONN || error == ECONNABORTED;
}

/* Attributes may come from the kernel's cache long after the server died; statfs never does. */
static int probe(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 ? 0 : -errno;
}

static int detach_dead(const char *path, struct error *err)
{
	for (int i = 0; i < DEAD_MAX; i++) {
		int r = probe(path);

		if (r == 0 || !is_dead(-r))
			return r == 0 ? 0 : error_set_errno(err, r, "cannot look at %s", path);
		r = unmount(path, true);
		if (r < 0)
			return error_set_errno(err, r,
				"a dead mount is in the way at %s and cannot be detached; try "
				"`umount -l %s` as root",
				path, path);
	}
	return error_set(err, -EBUSY, "more than %d dead mounts at %s", DEAD_MAX, path);
}

static int check_empty(const char *path, struct error *err)
{
	cleanup_dir DIR *dir = opendir(path);
	struct dirent *entry;

	if (!dir)
		return error_set_errno(err, -errno, "cannot open mount point %s", path);
	while ((entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			return error_set(err, -ENOTEMPTY,
				"mount point %s is not empty (there is \"%s\"): mount on an "
				"empty directory",
				path, entry->d_name);
	}
	return 0;
}

/* ---- what the system allows ------------------------------------------------------------------ */

static int check_device(struct error *err)
{
	cleanup_fd int fd = open(FUSE_DEVICE, O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		return 0;
	switch (errno) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
		return error_set(err, -ENODEV,
			"there is no %s: load the module (modprobe fuse), or give the "
			"container the device (--device %s)",
			FUSE_DEVICE, FUSE_DEVICE);
	case EACCES:
	case EPERM:
		return error_set(err, -EACCES,
			"no permission to open %s: it should have mode 0666 (chmod 666 %s as "
			"root), or run as root",
			FUSE_DEVICE, FUSE_DEVICE);
	default:
		return error_set_errno(err, -errno, "cannot open %s", FUSE_DEVICE);
	}
}

static bool user_allow_other_set(void)
{
	cleanup_file FILE *conf = fopen(FUSE_CONF, "re");
	char line[256], word[32];

	while (conf && fgets(line, sizeof(line), conf)) {
		if (sscanf(line, " %31s", word) == 1 && !strcmp(word, "user_allow_other"))
			return true;
	}
	return false;
}

static bool in_path(const char *program)
{
	const char *path = getenv("PATH");
	char file[PATH_MAX];
	int len;

	for (path = path ? path : "/usr/bin:/bin"; *path; path += len + (path[len] == ':')) {
		len = (int)strcspn(path, ":");
		snprintf(file, sizeof(file), "%.*s/%s", len, path, program);
		if (access(file, X_OK) == 0)
			return true;
	}
	return access("/usr/bin/" FUSERMOUNT, X_OK) == 0;
}

static int check_unprivileged(const char *path, bool allow_other, struct error *err)
{
	if (!in_path(FUSERMOUNT))
		return error_set(err, -EPERM,
			"mounting without root needs %s: install the package fuse3", FUSERMOUNT);
	if (access(path, W_OK) < 0)
		return error_set(err, -EACCES,
			"you may not write to mount point %s, so %s does not let you mount there: "
			"choose a directory of your own",
			path, FUSERMOUNT);
	if (allow_other && !user_allow_other_set())
		return error_set(err, -EPERM,
			"allow-other without root needs the line user_allow_other in %s",
			FUSE_CONF);
	return 0;
}

int mountpoint_prepare(
	const char *path, bool allow_other, char ret_path[static 4096], struct error *err)
{
	char source[256] = "";
	struct stat st;
	int r;

	if (lstat(path, &st) < 0 && errno == ENOENT)
		return error_set(err, -ENOENT,
			"mount point %s does not exist: make it with `mkdir -p %s`", path, path);
	r = detach_dead(path, err);
	if (r < 0)
		return r;
	if (!realpath(path, ret_path))
		return error_set_errno(err, -errno, "cannot use mount point %s", path);
	if (stat(ret_path, &st) < 0)
		return error_set_errno(err, -errno, "cannot use mount point %s", path);
	if (!S_ISDIR(st.st_mode))
		return error_set(err, -ENOTDIR,
			"mount point %s is not a directory: mount on an empty directory", path);
	if (granary_mounted(ret_path, source, sizeof(source)))
		return error_set(err, -EBUSY,
			"%s is mounted at %s already: unmount it first (granary umount %s), or "
			"choose another directory",
			source, path, path);
	r = check_empty(ret_path, err);
	if (r == 0)
		r = check_device(err);
	if (r == 0 && geteuid() != 0)
		r = check_unprivileged(ret_path, allow_other, err);
	return r;
}
