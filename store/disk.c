#include "store/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <linux/fs.h>

#include "common/cleanup.h"

/* Nobody asks when a file of the store was read last, and with a read that is passed through the
 * kernel looked at it: 4.5 % of one of 4 KiB. Not all file systems can leave it out. */
static void without_access_time(int fd)
{
	int flags;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0 || (flags & FS_NOATIME_FL))
		return;
	flags |= FS_NOATIME_FL;
	(void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

static int real_open(void *ctx, const char *path, int flags)
{
	int fd;

	(void)ctx;
	fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	if (flags & O_RDWR)
		without_access_time(fd);
	return fd;
}

static void real_close(void *ctx, int fd)
{
	(void)ctx;
	close(fd);
}

static ssize_t real_pwritev(void *ctx, int fd, const struct iovec *iov, int count, uint64_t offset)
{
	ssize_t n;

	(void)ctx;
	do {
		n = pwritev(fd, iov, count, (off_t)offset);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static ssize_t real_preadv(void *ctx, int fd, const struct iovec *iov, int count, uint64_t offset)
{
	ssize_t n;

	(void)ctx;
	do {
		n = preadv(fd, iov, count, (off_t)offset);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static int real_fallocate(void *ctx, int fd, uint64_t offset, uint64_t len)
{
	int r;

	(void)ctx;
	do {
		r = fallocate(fd, 0, (off_t)offset, (off_t)len);
	} while (r < 0 && errno == EINTR);
	if (r == 0)
		return 0;
	if (errno != EOPNOTSUPP)
		return -errno;
	/* Without preallocation the writes allocate: the size is all that is wanted then. */
	return ftruncate(fd, (off_t)(offset + len)) < 0 ? -errno : 0;
}

static int real_punch(void *ctx, int fd, uint64_t offset, uint64_t len)
{
	int r;

	(void)ctx;
	do {
		r = fallocate(
			fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len);
	} while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

static int real_truncate(void *ctx, int fd, uint64_t size)
{
	(void)ctx;
	return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
}

static int real_datasync(void *ctx, int fd)
{
	(void)ctx;
	return fdatasync(fd) < 0 ? -errno : 0;
}

static int real_syncdir(void *ctx, const char *path)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	(void)ctx;
	if (fd < 0)
		return -errno;
	return fsync(fd) < 0 ? -errno : 0;
}

static int real_mkdir(void *ctx, const char *path)
{
	(void)ctx;
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int real_unlink(void *ctx, const char *path)
{
	(void)ctx;
	return unlink(path) < 0 ? -errno : 0;
}

static int real_list(void *ctx, const char *path, disk_list_fn *fn, void *arg)
{
	cleanup_dir DIR *dir = opendir(path);
	struct dirent *entry;
	int r;

	(void)ctx;
	if (!dir)
		return -errno;
	while (errno = 0, (entry = readdir(dir))) {
		if (entry->d_name[0] == '.' &&
			(!entry->d_name[1] || (entry->d_name[1] == '.' && !entry->d_name[2])))
			continue;
		r = fn(arg, entry->d_name);
		if (r < 0)
			return r;
	}
	return -errno;
}

static int real_stat(void *ctx, const char *path, struct disk_stat *ret)
{
	struct stat st;

	(void)ctx;
	if (lstat(path, &st) < 0)
		return -errno;
	ret->size_bytes = (uint64_t)st.st_size;
	ret->allocated_bytes = (uint64_t)st.st_blocks * 512;
	return 0;
}

static int real_free_bytes(void *ctx, const char *path, uint64_t *ret)
{
	struct statvfs st;

	(void)ctx;
	if (statvfs(path, &st) < 0)
		return -errno;
	*ret = (uint64_t)st.f_bavail * st.f_frsize;
	return 0;
}

/* A write lease is granted only on a file that nobody else has open, and a mapping keeps its file
 * open, in passthrough that of the store. The lease is given back at once: whoever opens the file in
 * between waits for that, and the signal that tells of him is one that nobody minds. */
static int real_in_use(void *ctx, int fd)
{
	(void)ctx;
	if (fcntl(fd, F_SETSIG, SIGURG) < 0 || fcntl(fd, F_SETLEASE, F_WRLCK) < 0)
		return errno == EAGAIN ? 1 : -errno;
	fcntl(fd, F_SETLEASE, F_UNLCK);
	return 0;
}

/* A file without a name is used by nobody else; where that cannot be seen, nothing can. */
static bool real_tells_use(void *ctx, const char *dir)
{
	cleanup_fd int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	cleanup_fd int other = -1;
	char path[64];

	if (fd < 0 || real_in_use(ctx, fd) != 0)
		return false;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	other = open(path, O_RDONLY | O_CLOEXEC);
	return other >= 0 && real_in_use(ctx, fd) == 1;
}

static int real_first_hole(void *ctx, int fd, uint64_t *ret)
{
	off_t at = lseek(fd, 0, SEEK_HOLE);

	(void)ctx;
	if (at < 0)
		return -errno;
	*ret = (uint64_t)at;
	return 0;
}

static int real_lock(void *ctx, const char *path, int *ret_fd)
{
	cleanup_fd int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	(void)ctx;
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	*ret_fd = steal_fd(&fd);
	return 0;
}

const struct store_disk store_disk_real = {
	.open = real_open,
	.close = real_close,
	.pwritev = real_pwritev,
	.preadv = real_preadv,
	.fallocate = real_fallocate,
	.punch = real_punch,
	.truncate = real_truncate,
	.datasync = real_datasync,
	.syncdir = real_syncdir,
	.mkdir = real_mkdir,
	.unlink = real_unlink,
	.list = real_list,
	.stat = real_stat,
	.free_bytes = real_free_bytes,
	.tells_use = real_tells_use,
	.in_use = real_in_use,
	.first_hole = real_first_hole,
	.lock = real_lock,
	.index = &index_rocksdb_ops,
};

int disk_write_all(
	const struct store_disk *d, int fd, struct iovec *iov, int count, uint64_t offset)
{
	while (count > 0) {
		ssize_t n = d->pwritev(d->ctx, fd, iov, count, offset);

		if (n < 0)
			return (int)n;
		if (n == 0)
			return -EIO;
		offset += (uint64_t)n;
		while (count > 0 && (size_t)n >= iov->iov_len) {
			n -= (ssize_t)iov->iov_len;
			iov++;
			count--;
		}
		if (count > 0) {
			iov->iov_base = (char *)iov->iov_base + n;
			iov->iov_len -= (size_t)n;
		}
	}
	return 0;
}

struct usage {
	const struct store_disk *disk;
	const char *path;
	uint64_t bytes;
};

static int usage_entry(void *arg, const char *name)
{
	struct usage *u = arg;
	struct disk_stat st;
	char path[PATH_MAX];

	if ((size_t)snprintf(path, sizeof(path), "%s/%s", u->path, name) >= sizeof(path))
		return 0;
	/* A file that vanishes meanwhile is not an error: RocksDB removes its own. */
	if (u->disk->stat(u->disk->ctx, path, &st) == 0)
		u->bytes += st.allocated_bytes;
	return 0;
}

uint64_t disk_usage(const struct store_disk *d, const char *path)
{
	struct usage u = {.disk = d, .path = path};
	struct disk_stat st;

	if (d->stat(d->ctx, path, &st) == 0)
		u.bytes = st.allocated_bytes;
	d->list(d->ctx, path, usage_entry, &u);
	return u.bytes;
}
