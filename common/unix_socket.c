#include "common/unix_socket.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/sync.h"

#define LISTEN_BACKLOG 64

static struct mutex umask_mu = MUTEX_INIT;

static int lock_path(const char *path, char *lock, size_t room)
{
	return snprintf(lock, room, "%s.lock", path) < (int)room ? 0 : -ENAMETOOLONG;
}

/* 0 and the locked file; a file that was unlinked between its open and its lock is no lock. */
static int take_lock(const char *path, int *ret_fd, struct error *err)
{
	char lock[PATH_MAX];
	struct stat mine, there;
	int r = lock_path(path, lock, sizeof(lock));

	while (r == 0) {
		cleanup_fd int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

		if (fd < 0)
			return error_set_errno(err, -errno, "cannot create %s", lock);
		if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
			if (errno == EWOULDBLOCK)
				return error_set(err, -EADDRINUSE,
					"unix:%s is in use by a running process", path);
			return error_set_errno(err, -errno, "cannot lock %s", lock);
		}
		if (fstat(fd, &mine) == 0 && stat(lock, &there) == 0 &&
			mine.st_ino == there.st_ino && mine.st_dev == there.st_dev) {
			*ret_fd = steal_fd(&fd);
			return 0;
		}
	}
	return error_set_errno(err, r, "cannot lock %s", path);
}

void unix_socket_release(const char *path, int lock_fd)
{
	char lock[PATH_MAX];

	if (lock_path(path, lock, sizeof(lock)) == 0)
		unlink(lock);
	close(lock_fd);
}

/* Somebody without the lock may listen there: a program that is not ours. */
static bool is_live(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	strcpy(addr.sun_path, path);
	if (fd < 0)
		return true;
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
		return true;
	return errno != ECONNREFUSED && errno != ENOENT;
}

static int remove_stale(const char *path, struct error *err)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0
				       : error_set_errno(err, -errno, "cannot look at %s", path);
	if (!S_ISSOCK(st.st_mode))
		return error_set(err, -EEXIST,
			"%s is in the way and is no socket; remove it or choose another path",
			path);
	if (is_live(path))
		return error_set(err, -EADDRINUSE, "unix:%s is in use by a running process", path);
	if (unlink(path) < 0 && errno != ENOENT)
		return error_set_errno(err, -errno, "cannot remove the stale socket %s", path);
	return 0;
}

int unix_socket_claim(const char *path, int *ret_lock_fd, struct error *err)
{
	int lock = -1;
	int r = take_lock(path, &lock, err);

	if (r < 0)
		return r;
	r = remove_stale(path, err);
	if (r < 0)
		unix_socket_release(path, lock);
	else
		*ret_lock_fd = lock;
	return r;
}

mode_t unix_socket_private_begin(void)
{
	mutex_lock(&umask_mu);
	return umask(0177);
}

void unix_socket_private_end(mode_t old)
{
	umask(old);
	mutex_unlock(&umask_mu);
}

static int set_group(const char *path, const char *group, struct error *err)
{
	char room[16384];
	struct group g, *found = NULL;
	int r = getgrnam_r(group, &g, room, sizeof(room), &found);

	if (!found)
		return error_set(err, -EINVAL, "there is no group \"%s\"%s%s", group, r ? ": " : "",
			r ? strerror(r) : "");
	if (chown(path, (uid_t)-1, found->gr_gid) < 0)
		return error_set_errno(err, -errno, "cannot give %s to group %s", path, group);
	if (chmod(path, 0660) < 0)
		return error_set_errno(err, -errno, "cannot set the mode of %s", path);
	return 0;
}

int unix_socket_admit(const char *path, const char *group, struct error *err)
{
	if (chmod(path, 0600) < 0)
		return error_set_errno(err, -errno, "cannot set the mode of %s", path);
	return group ? set_group(path, group, err) : 0;
}

int unix_socket_identity(const char *path, char ret_text[UNIX_SOCKET_IDENTITY_BYTES])
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return -errno;
	if (!S_ISSOCK(st.st_mode))
		return -ENOTSOCK;
	snprintf(ret_text, UNIX_SOCKET_IDENTITY_BYTES, "%" PRIx64 ":%" PRIx64, (uint64_t)st.st_dev,
		(uint64_t)st.st_ino);
	return 0;
}

int unix_socket_listen(const char *path, int *ret_fd, struct error *err)
{
	return unix_socket_listen_as(path, SOCK_STREAM, ret_fd, err);
}

int unix_socket_listen_as(const char *path, int type, int *ret_fd, struct error *err)
{
	cleanup_fd int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	mode_t old;
	int r;

	if (fd < 0)
		return error_set_errno(err, -errno, "cannot make a unix socket");
	assert(strlen(path) < sizeof(addr.sun_path));
	strcpy(addr.sun_path, path);
	old = unix_socket_private_begin();
	r = bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
	unix_socket_private_end(old);
	if (r == 0 && listen(fd, LISTEN_BACKLOG) < 0)
		r = -errno;
	if (r < 0)
		return error_set_errno(err, r, "cannot listen on unix:%s", path);
	r = unix_socket_admit(path, NULL, err);
	if (r == 0)
		*ret_fd = steal_fd(&fd);
	return r;
}

bool unix_socket_peer_is_ours(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
	       (peer.uid == geteuid() || peer.uid == 0);
}
