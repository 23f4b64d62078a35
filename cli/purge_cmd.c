#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/paths.h"
#include "common/cleanup.h"

static int check_unused(const char *dir, const char *lock, struct error *err)
{
	char path[PATH_MAX + 32];
	cleanup_fd int fd = -1;

	snprintf(path, sizeof(path), "%s/%s", dir, lock);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0)
		return error_set(err, -EBUSY, "granary still uses %s: stop it first", dir);
	return 0;
}

/* Only a folder that has our marker is removed, and only while nobody uses it. */
static int check(const char *dir, const char *marker, struct error *err)
{
	static const char *const locks[] = {
		PATHS_STATE_MARKER, PATHS_CACHE_MARKER, PATHS_WORKER_LOCK, PATHS_MOUNTS_LOCK};
	char path[PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s/%s", dir, marker);
	if (access(dir, F_OK) < 0)
		return errno == ENOENT ? 0 : error_set_errno(err, -errno, "cannot look at %s", dir);
	if (access(path, F_OK) < 0)
		return error_set(
			err, -EINVAL, "%s is no folder of granary: nothing was removed", dir);
	for (size_t i = 0; i < sizeof(locks) / sizeof(locks[0]); i++) {
		int r = check_unused(dir, locks[i], err);

		if (r < 0)
			return r;
	}
	return 1;
}

/* What was removed is added to the list `removed`. */
static int remove_tree(const char *dir, json_t *removed, struct error *err)
{
	char *const roots[] = {(char *)dir, NULL};
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_XDEV | FTS_NOCHDIR, NULL);
	uint64_t files = 0, bytes = 0;
	int r = 0;

	if (!fts)
		return error_set_errno(err, -errno, "cannot read %s", dir);
	for (FTSENT *e = fts_read(fts); e && r == 0; e = fts_read(fts)) {
		if (e->fts_info == FTS_D)
			continue;
		if (e->fts_info == FTS_DNR || e->fts_info == FTS_ERR) {
			r = error_set_errno(err, -e->fts_errno, "cannot read %s", e->fts_path);
		} else if (remove(e->fts_accpath) < 0) {
			r = error_set_errno(err, -errno, "cannot remove %s", e->fts_path);
		} else if (e->fts_info != FTS_DP) {
			files++;
			bytes += (uint64_t)e->fts_statp->st_blocks * 512;
		}
	}
	fts_close(fts);
	if (r == 0)
		json_array_append_new(
			removed, json_pack("{s:o, s:I, s:I}", "path", output_text(dir), "files",
					 (json_int_t)files, "bytes", (json_int_t)bytes));
	return r;
}

static int purge(const struct paths *p, bool yes, json_t *removed, struct error *err)
{
	int state = check(p->state_dir, PATHS_STATE_MARKER, err);
	int cache = state < 0 ? state : check(p->cache_dir, PATHS_CACHE_MARKER, err);
	int r = 0;

	if (state < 0 || cache < 0)
		return state < 0 ? state : cache;
	if (!state && !cache) {
		fprintf(stderr, "nothing to remove: neither %s nor %s is there\n", p->state_dir,
			p->cache_dir);
		return 0;
	}
	if (!yes)
		return error_set(err, -EINVAL,
			"this removes%s%s%s%s and all that is in it: say --yes", state ? " " : "",
			state ? p->state_dir : "", cache ? (state ? " and " : " ") : "",
			cache ? p->cache_dir : "");
	if (cache)
		r = remove_tree(p->cache_dir, removed, err);
	if (r == 0 && state)
		r = remove_tree(p->state_dir, removed, err);
	return r;
}

int command_purge(struct invocation *inv)
{
	json_t *removed = json_array();
	struct error err = ERROR_INIT;
	struct paths paths;
	int r = paths_find(inv, &paths, &err);

	if (r == 0)
		r = purge(&paths, inv_switch(inv, "yes"), removed, &err);
	if (r == 0 && inv_json(inv))
		output_json(json_pack("{s:O}", "removed", removed));
	json_decref(removed);
	return r < 0 ? inv_fail(inv, r, &err) : EXIT_OK;
}
