#include "common/database/database_repair.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <rocksdb/c.h>

#include "common/cleanup.h"

#define COPY_BYTES ((size_t)1 << 30) /* of one call */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

int database_remove(const char *path)
{
	if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) < 0 && errno != ENOENT)
		return -errno;
	return 0;
}

/* As RocksDB takes it; held until the descriptor is closed. */
static int take_lock(const char *dir, int *ret_fd)
{
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/LOCK", dir);
	*ret_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (*ret_fd < 0)
		return -errno;
	return fcntl(*ret_fd, F_SETLK, &whole) < 0 ? -EBUSY : 0;
}

static int copy_bytes(int from, int to)
{
	ssize_t n;

	do {
		n = copy_file_range(from, NULL, to, NULL, COPY_BYTES, 0);
	} while (n > 0);
	return n < 0 ? -errno : 0;
}

static int copy_entry(int from_dir, int to_dir, const char *name)
{
	cleanup_fd int from = -1, to = -1;
	const char *suffix = strrchr(name, '.');
	struct stat st;

	if (fstatat(from_dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || strcmp(name, "LOCK") == 0)
		return 0;
	/* RocksDB never writes to a table that is whole. */
	if (suffix && strcmp(suffix, ".sst") == 0 && linkat(from_dir, name, to_dir, name, 0) == 0)
		return 0;
	from = openat(from_dir, name, O_RDONLY | O_CLOEXEC);
	if (from < 0)
		return -errno;
	to = openat(to_dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return to < 0 ? -errno : copy_bytes(from, to);
}

static int copy_database(const char *dir, const char *copy)
{
	cleanup_dir DIR *d = opendir(dir);
	cleanup_fd int to = -1;
	struct dirent *e;
	int r = 0;

	if (!d || mkdir(copy, 0700) < 0)
		return -errno;
	to = open(copy, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (to < 0)
		return -errno;
	while (r == 0 && (e = readdir(d)))
		r = copy_entry(dirfd(d), to, e->d_name);
	return r;
}

static int repair(const char *dir, struct error *err)
{
	rocksdb_options_t *o = rocksdb_options_create();
	char *text = NULL;
	int r = 0;

	rocksdb_options_set_compression(o, rocksdb_no_compression);
	rocksdb_options_set_info_log_level(o, 2 /* warnings */);
	rocksdb_repair_db(o, dir, &text);
	if (text)
		r = error_set(err, -EIO, "%s", text);
	rocksdb_free(text);
	rocksdb_options_destroy(o);
	return r;
}

/* With the exchange it is done. Where the original's name is, should that fail to change, is no
 * reason to refuse what was repaired. */
static int replace(const char *dir, const char *copy, const char *damaged)
{
	cleanup_fd int fd = open(copy, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r;

	if (fd < 0 || syncfs(fd) < 0)
		return -errno;
	r = database_remove(damaged);
	if (r < 0)
		return r;
	if (renameat2(AT_FDCWD, copy, AT_FDCWD, dir, RENAME_EXCHANGE) < 0)
		return -errno;
	(void)rename(copy, damaged);
	(void)syncfs(fd);
	return 0;
}

static void copy_path(const char *dir, char path[static PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s.repaired", dir);
}

void database_repair_clean(const char *dir)
{
	char copy[PATH_MAX];

	copy_path(dir, copy);
	database_remove(copy);
}

int database_repair_in_copy(const char *dir, struct error *err)
{
	char copy[PATH_MAX], damaged[PATH_MAX];
	cleanup_fd int lock = -1;
	int r = take_lock(dir, &lock);

	if (r < 0)
		return error_set_errno(err, r, "cannot lock the database %s", dir);
	copy_path(dir, copy);
	snprintf(damaged, sizeof(damaged), "%s.damaged", dir);
	r = database_remove(copy);
	if (r == 0)
		r = copy_database(dir, copy);
	if (r < 0) {
		database_remove(copy);
		return error_set_errno(
			err, r, "cannot copy the database %s to %s for a repair", dir, copy);
	}
	r = repair(copy, err);
	if (r == 0) {
		r = replace(dir, copy, damaged);
		if (r < 0)
			error_set_errno(err, r, "cannot put %s in the place of %s", copy, dir);
	}
	if (r < 0)
		database_remove(copy);
	return r;
}
