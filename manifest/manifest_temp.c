#include "manifest/manifest_temp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"

#define TEMP_PREFIX ".manifest-"
#define MAKE_TRIES 100

/* mkostemp makes it 0600. */
static int make_file(const char *dir, char path[MANIFEST_TEMP_PATH_BYTES])
{
	int fd;

	if (snprintf(path, MANIFEST_TEMP_PATH_BYTES, "%s/" TEMP_PREFIX "XXXXXX", dir) >=
		MANIFEST_TEMP_PATH_BYTES)
		return -ENAMETOOLONG;
	fd = mkostemp(path, O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int manifest_temp_make(const char *dir, char ret_path[MANIFEST_TEMP_PATH_BYTES], struct error *err)
{
	for (int i = 0; i < MAKE_TRIES; i++) {
		cleanup_fd int fd = make_file(dir, ret_path);
		struct stat st;

		if (fd < 0)
			return error_set_errno(err, fd, "cannot write a manifest in %s", dir);
		/* A sweep may have taken the newborn for a dead one: then it is unlinked. */
		if (flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &st) == 0 && st.st_nlink == 1)
			return steal_fd(&fd);
		unlink(ret_path);
	}
	return error_set(err, -EBUSY,
		"cannot write a manifest in %s: its files are removed as "
		"they are made",
		dir);
}

int manifest_temp_stream(const char *dir, char *buffer, size_t buffer_bytes, FILE **ret)
{
	char path[MANIFEST_TEMP_PATH_BYTES];
	cleanup_fd int fd = make_file(dir, path);
	FILE *f;

	if (fd < 0)
		return fd;
	unlink(path);
	f = fdopen(fd, "w+");
	if (!f)
		return -errno;
	steal_fd(&fd);
	setvbuf(f, buffer, _IOFBF, buffer_bytes);
	*ret = f;
	return 0;
}

static void sweep_one(int dir_fd, const char *name)
{
	cleanup_fd int fd = openat(dir_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
		unlinkat(dir_fd, name, 0);
}

void manifest_temp_sweep(const char *dir)
{
	cleanup_dir DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		if (strncmp(e->d_name, TEMP_PREFIX, strlen(TEMP_PREFIX)) == 0)
			sweep_one(dirfd(d), e->d_name);
	}
}
