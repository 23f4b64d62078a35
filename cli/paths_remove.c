#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/paths.h"

#define LOCKS 4
static const char *const lock_names[LOCKS] = {
	PATHS_STATE_MARKER, PATHS_CACHE_MARKER, PATHS_WORKER_LOCK, PATHS_MOUNTS_LOCK};

/* Holds every lock that is there, so that nobody starts to use what goes away. */
static int lock_all(const char *dir, int fds[LOCKS], struct error *err)
{
	for (int i = 0; i < LOCKS; i++) {
		char path[PATH_MAX + 32];

		snprintf(path, sizeof(path), "%s/%s", dir, lock_names[i]);
		fds[i] = open(path, O_RDWR | O_CLOEXEC);
		if (fds[i] >= 0 && flock(fds[i], LOCK_EX | LOCK_NB) < 0)
			return error_set(err, -EBUSY, "granary still uses %s: stop it first", dir);
	}
	return 0;
}

static int remove_tree(const char *dir, struct paths_removed *ret, struct error *err)
{
	char *const roots[] = {(char *)dir, NULL};
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_XDEV | FTS_NOCHDIR, NULL);
	int r = 0;

	if (!fts)
		return error_set_errno(err, -errno, "cannot read %s", dir);
	for (FTSENT *e = fts_read(fts); e && r == 0; e = fts_read(fts)) {
		/* A disk of its own: the file system's folder and the mount point stay. */
		if (e->fts_level == 1 && strcmp(e->fts_name, "lost+found") == 0) {
			fts_set(fts, e, FTS_SKIP);
			continue;
		}
		if (e->fts_info == FTS_D)
			continue;
		if (e->fts_info == FTS_DNR || e->fts_info == FTS_ERR) {
			r = error_set_errno(err, -e->fts_errno, "cannot read %s", e->fts_path);
		} else if (remove(e->fts_accpath) < 0) {
			if (e->fts_level == 0 && errno == EBUSY)
				break;
			r = error_set_errno(err, -errno, "cannot remove %s", e->fts_path);
		} else if (e->fts_info != FTS_DP) {
			ret->files++;
			ret->bytes += (uint64_t)e->fts_statp->st_blocks * 512;
		}
	}
	fts_close(fts);
	return r;
}

int paths_remove(const char *dir, const char *marker, bool only_look, struct paths_removed *ret,
	struct error *err)
{
	int fds[LOCKS] = {-1, -1, -1, -1}, r;
	char path[PATH_MAX + 32];
	struct stat st;

	*ret = (struct paths_removed){0};
	snprintf(path, sizeof(path), "%s/%s", dir, marker);
	if (stat(dir, &st) < 0)
		return errno == ENOENT ? 1 : error_set_errno(err, -errno, "cannot look at %s", dir);
	if (stat(path, &st) < 0 && errno != ENOENT && errno != ENOTDIR)
		return error_set(err, -errno,
			"%s belongs to somebody else: run this as its owner or root; nothing was "
			"removed",
			dir);
	if (stat(path, &st) < 0)
		return error_set(
			err, -EINVAL, "%s is no folder of granary: nothing was removed", dir);
	r = lock_all(dir, fds, err);
	if (r == 0 && !only_look)
		r = remove_tree(dir, ret, err);
	for (int i = 0; i < LOCKS; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	return r;
}

void paths_discard(const struct paths *paths, const struct paths_made *made)
{
	struct paths_removed removed;

	if (made->state)
		(void)paths_remove(paths->state_dir, PATHS_STATE_MARKER, false, &removed, NULL);
	if (made->cache)
		(void)paths_remove(paths->cache_dir, PATHS_CACHE_MARKER, false, &removed, NULL);
}
