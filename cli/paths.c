#include "cli/paths.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "store/store.h"

#define TOKEN_MAX_BYTES 4096
#define TOKEN_MIN_BYTES 16

static int default_dir(const char *root, const char *variable, const char *below_home, char *ret,
	struct error *err)
{
	const char *base = getenv(variable), *home = getenv("HOME");
	int n;

	if (geteuid() == 0)
		n = snprintf(ret, PATH_MAX, "%s/granary", root);
	else if (base && base[0] == '/')
		n = snprintf(ret, PATH_MAX, "%s/granary", base);
	else if (home && home[0] == '/')
		n = snprintf(ret, PATH_MAX, "%s/%s/granary", home, below_home);
	else
		return error_set(err, -EINVAL, "HOME is not set: give --state-dir and --cache-dir");
	return n < PATH_MAX ? 0 : error_set(err, -ENAMETOOLONG, "%s is too long", variable);
}

int paths_absolute(const char *dir, char *ret, struct error *err)
{
	char cwd[PATH_MAX];
	int n;

	if (dir[0] == '/')
		n = snprintf(ret, PATH_MAX, "%s", dir);
	else if (getcwd(cwd, sizeof(cwd)))
		n = snprintf(ret, PATH_MAX, "%s/%s", cwd, dir);
	else
		return error_set_errno(err, -errno, "cannot find the working directory");
	if (!*dir || n >= PATH_MAX)
		return error_set(err, -EINVAL, "'%s' is no directory name", dir);
	while (n > 1 && ret[n - 1] == '/')
		ret[--n] = '\0';
	return 0;
}

static int join(char ret[PATH_MAX], const char *prefix, const char *dir, const char *name,
	struct error *err)
{
	if (snprintf(ret, PATH_MAX, "%s%s/%s", prefix, dir, name) >= PATH_MAX)
		return error_set(err, -ENAMETOOLONG, "%s is too long", dir);
	return 0;
}

static int check_socket(const char *path, const char *flag, struct error *err)
{
	struct sockaddr_un sun;

	if (strlen(path) >= sizeof(sun.sun_path))
		return error_set(err, -ENAMETOOLONG,
			"socket name %s is longer than the system's %zu bytes: choose a "
			"shorter %s",
			path, sizeof(sun.sun_path) - 1, flag);
	return 0;
}

int paths_find(const struct invocation *inv, struct paths *ret, struct error *err)
{
	const char *state = inv_text(inv, "state-dir"), *cache = inv_text(inv, "cache-dir");
	struct paths p;
	int r;

	r = state ? paths_absolute(state, p.state_dir, err)
		  : default_dir("/var/lib", "XDG_STATE_HOME", ".local/state", p.state_dir, err);
	if (r < 0)
		return r;
	r = cache ? paths_absolute(cache, p.cache_dir, err)
		  : default_dir("/var/cache", "XDG_CACHE_HOME", ".cache", p.cache_dir, err);
	if (r < 0)
		return r;
	if ((r = join(p.manifest_dir, "", p.state_dir, "manifests", err)) < 0 ||
		(r = join(p.socket, "unix:", p.state_dir, "granary.sock", err)) < 0 ||
		(r = join(p.lease_socket, "", p.cache_dir, "lease.sock", err)) < 0 ||
		(r = check_socket(p.socket + strlen("unix:"), "--state-dir", err)) < 0 ||
		(r = check_socket(p.lease_socket, "--cache-dir", err)) < 0)
		return r;
	*ret = p;
	return 0;
}

static int error_not_made(const char *dir, const char *flag, struct error *err)
{
	int error = errno;

	return error_set(err, -error, "cannot make directory %s (%s): choose another %s", dir,
		strerror(error), flag);
}

static int make_parents(const char *dir, const char *flag, struct error *err)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s", dir);
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			return error_not_made(path, flag, err);
		*slash = '/';
	}
	return 0;
}

static bool holds_other_things(const char *dir)
{
	cleanup_dir DIR *d = opendir(dir);

	for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
			strcmp(e->d_name, "lost+found") != 0)
			return true;
	}
	return false;
}

static int write_marker(const char *dir, const char *marker, struct error *err)
{
	/* The content that backup tools know; harmless in the other markers. */
	static const char tag[] = "Signature: 8a477f597d28d172789f06886806bc55\n"
				  "# This folder belongs to granary.\n";
	char path[PATH_MAX];
	cleanup_fd int fd = -1;

	if (join(path, "", dir, marker, err) < 0)
		return -ENAMETOOLONG;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 && errno == EEXIST)
		return 0;
	if (fd < 0 || write(fd, tag, sizeof(tag) - 1) < 0)
		return error_set_errno(err, -errno, "cannot write to directory %s", dir);
	return 0;
}

int paths_make_private(const char *dir, const char *marker, struct error *err)
{
	const char *flag = strcmp(marker, PATHS_CACHE_MARKER) == 0 ? "--cache-dir" : "--state-dir";
	char path[PATH_MAX];
	struct stat st;
	bool made;
	int r = make_parents(dir, flag, err);

	if (r < 0)
		return r;
	made = mkdir(dir, 0700) == 0;
	if (!made && errno != EEXIST)
		return error_not_made(dir, flag, err);
	if (stat(dir, &st) < 0)
		return error_set_errno(err, -errno, "cannot use directory %s", dir);
	if (!S_ISDIR(st.st_mode))
		return error_set(
			err, -ENOTDIR, "%s is not a directory: choose another %s", dir, flag);
	if (st.st_uid != geteuid())
		return error_set(err, -EACCES,
			"directory %s belongs to another user: choose another %s", dir, flag);
	if (join(path, "", dir, marker, err) < 0)
		return -ENAMETOOLONG;
	if (access(path, F_OK) < 0 && holds_other_things(dir))
		return error_set(err, -ENOTEMPTY,
			"directory %s holds other things: choose an empty or a new one for %s", dir,
			flag);
	if ((st.st_mode & 077) && chmod(dir, 0700) < 0)
		return error_set_errno(err, -errno, "cannot make directory %s private", dir);
	r = write_marker(dir, marker, err);
	if (r < 0 && made)
		rmdir(dir);
	return r < 0 ? r : made;
}

int paths_admit_group(const char *dir, const char *group, struct error *err)
{
	struct group entry, *found = NULL;
	char room[16384];
	int r = getgrnam_r(group, &entry, room, sizeof(room), &found);

	if (!found)
		return error_set(err, r ? -r : -EINVAL,
			"there is no group '%s': `getent group` lists those there are", group);
	if (chown(dir, (uid_t)-1, entry.gr_gid) < 0 || chmod(dir, 0710) < 0)
		return error_set_errno(err, -errno, "cannot open %s to group %s", dir, group);
	return 0;
}

void paths_existing(const char *dir, char ret[PATH_MAX])
{
	char *slash;

	snprintf(ret, PATH_MAX, "%s", dir);
	while (access(ret, F_OK) < 0 && (slash = strrchr(ret, '/')) && slash != ret)
		*slash = '\0';
	if (access(ret, F_OK) < 0)
		strcpy(ret, "/");
}

/* What the cache holds already: it is ours to use again. */
static uint64_t allocated_below(const char *dir)
{
	char *const roots[] = {(char *)dir, NULL};
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_XDEV | FTS_NOCHDIR, NULL);
	uint64_t bytes = 0;

	if (!fts)
		return 0;
	for (FTSENT *e = fts_read(fts); e; e = fts_read(fts)) {
		if (e->fts_info == FTS_F)
			bytes += (uint64_t)e->fts_statp->st_blocks * 512;
	}
	fts_close(fts);
	return bytes;
}

int paths_cache_limits(const struct invocation *inv, const char *cache_dir,
	struct cache_limits *ret, struct error *err)
{
	struct statvfs vfs;
	uint64_t free_bytes, total, ours, capacity, floor;
	char text[2][SIZE_TEXT_BYTES], existing[PATH_MAX];

	paths_existing(cache_dir, existing);
	if (statvfs(existing, &vfs) < 0)
		return error_set_errno(
			err, -errno, "cannot look at the filesystem of %s", cache_dir);
	ours = allocated_below(cache_dir);
	total = (uint64_t)vfs.f_blocks * vfs.f_frsize;
	free_bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize + ours;
	capacity = inv_size(inv, "cache-size", free_bytes / 10 * 8);
	floor = inv_size(inv, "free-floor", UINT64_MAX);
	if (floor == UINT64_MAX) {
		uint64_t left = free_bytes > capacity ? free_bytes - capacity : 0;

		floor = total / 20 < left / 2 ? total / 20 : left / 2;
	}
	if (capacity < STORE_CAPACITY_MIN_BYTES)
		return error_set(err, -ENOSPC,
			"a cache of %s in %s is too small: give --cache-size at least %s, or "
			"--cache-dir a larger file system",
			size_format(capacity, text[0]), cache_dir,
			size_format(STORE_CAPACITY_MIN_BYTES, text[1]));
	if (capacity > total)
		return error_set(err, -EINVAL,
			"--cache-size %s is more than the %s of the filesystem of %s",
			size_format(capacity, text[0]), size_format(total, text[1]), cache_dir);
	ret->capacity_bytes = capacity;
	ret->free_floor_bytes = floor;
	ret->scrub_bytes_per_s = inv_rate(inv, "scrub-rate", STORE_SCRUB_WEEKLY);
	return 0;
}

int paths_read_token(const char *path, char **ret_token, struct error *err)
{
	char token[TOKEN_MAX_BYTES + 1];
	cleanup_fd int fd = -1;
	ssize_t n;

	*ret_token = NULL;
	if (!path)
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_set_errno(err, -errno, "cannot read token file %s", path);
	n = read(fd, token, TOKEN_MAX_BYTES);
	if (n < 0)
		return error_set_errno(err, -errno, "cannot read token file %s", path);
	while (n > 0 && isspace((unsigned char)token[n - 1]))
		n--;
	token[n] = '\0';
	if (n < TOKEN_MIN_BYTES || strlen(token) != (size_t)n)
		return error_set(err, -EINVAL,
			"token file %s holds less than %d characters: make one with "
			"`openssl rand -hex 32`",
			path, TOKEN_MIN_BYTES);
	for (ssize_t i = 0; i < n; i++) {
		if (!isgraph((unsigned char)token[i]))
			return error_set(err, -EINVAL,
				"token file %s holds more than one word: make one with "
				"`openssl rand -hex 32`",
				path);
	}
	*ret_token = strdup(token);
	return *ret_token ? 0 : error_set(err, -ENOMEM, "out of memory");
}
