#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <grpc/grpc_security.h>

#include "common/cleanup.h"
#include "common/rpc/rpc.h"
#include "common/rpc/rpc_address.h"
#include "common/rpc/rpc_server.h"
#include "common/sync.h"

/*
 * A unix socket has a lock file beside it, PATH.lock, whose flock the owner holds from before the
 * socket exists until after it is gone. The lock is what makes "is it stale?" a question without a
 * race: the library removes whatever is in the way of a bind, and removes its path when it closes,
 * so two owners would take each other's socket.
 */

/* The umask belongs to the process. */
static struct mutex umask_mu = MUTEX_INIT;

static int listen_core(struct rpc_server *s, const struct rpc_address *a)
{
	char target[RPC_ADDRESS_TARGET_BYTES];
	grpc_server_credentials *creds = grpc_insecure_server_credentials_create();
	int port;

	rpc_address_listen_target(a, target);
	port = grpc_server_add_http2_port(s->core, target, creds);
	grpc_server_credentials_release(creds);
	return port;
}

/* ---- unix sockets ---------------------------------------------------------------------------- */

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

static void drop_lock(const char *path, int fd)
{
	char lock[PATH_MAX];

	if (lock_path(path, lock, sizeof(lock)) == 0)
		unlink(lock);
	close(fd);
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

/* The binding takes the umask, so nobody else can connect before the mode is set. */
static int bind_private(struct rpc_server *s, const struct rpc_address *a)
{
	mode_t old;
	int port;

	mutex_guard(&umask_mu);
	old = umask(0177);
	port = listen_core(s, a);
	umask(old);
	return port;
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

static int listen_unix(struct rpc_server *s, struct rpc_listener *l, struct error *err)
{
	const char *path = l->address.path;
	cleanup_fd int lock = -1;
	int r;

	r = take_lock(path, &lock, err);
	if (r < 0)
		return r;
	r = remove_stale(path, err);
	if (r == 0 && bind_private(s, &l->address) == 0)
		r = error_set(err, -EIO, "cannot listen on unix:%s", path);
	else if (r == 0 && chmod(path, 0600) < 0)
		r = error_set_errno(err, -errno, "cannot set the mode of %s", path);
	else if (r == 0 && s->socket_group)
		r = set_group(path, s->socket_group, err);
	if (r < 0) {
		drop_lock(path, steal_fd(&lock));
		return r;
	}
	l->lock_fd = steal_fd(&lock);
	return 0;
}

/* ---- TCP ------------------------------------------------------------------------------------- */

/* The library says only that it could not; a bind of our own says why. */
static int probe_bind(const struct addrinfo *ai)
{
	cleanup_fd int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0)
		return -errno;
	/* Without listen, two sockets with SO_REUSEADDR may both bind. */
	return listen(fd, 1) < 0 ? -errno : 0;
}

static int probe_tcp(const struct rpc_address *a, const char *text, struct error *err)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct addrinfo *list;
	char port[8];
	int r;

	snprintf(port, sizeof(port), "%d", a->port);
	r = getaddrinfo(a->host, port, &hints, &list);
	if (r != 0)
		return error_set(err, -EINVAL, "cannot listen on %s: %s: %s", text, a->host,
			gai_strerror(r));
	r = probe_bind(list);
	freeaddrinfo(list);
	if (r == -EADDRINUSE)
		return error_set(
			err, r, "cannot listen on %s: another program has that port", text);
	if (r == -EADDRNOTAVAIL)
		return error_set(
			err, r, "cannot listen on %s: this machine has no such address", text);
	if (r < 0)
		return error_set_errno(err, r, "cannot listen on %s", text);
	return 0;
}

static int listen_tcp(struct rpc_server *s, const struct rpc_address *a, const char *text,
	int *ret_port, struct error *err)
{
	int port, r;

	if (!s->token)
		return error_set(err, -EINVAL,
			"%s: a server that listens on TCP needs a token (--token-file)", text);
	r = probe_tcp(a, text, err);
	if (r < 0)
		return r;
	port = listen_core(s, a);
	if (port == 0)
		return error_set(err, -EIO, "cannot listen on %s", text);
	s->has_tcp = true;
	if (ret_port)
		*ret_port = port;
	return 0;
}

int rpc_server_listen(struct rpc_server *s, const char *address, int *ret_port, struct error *err)
{
	struct rpc_listener *l = &s->listeners[s->n_listeners];
	int r;

	assert(s->state == RPC_SERVER_NEW);
	if (s->n_listeners == RPC_LISTENERS_MAX)
		return error_set(err, -EINVAL, "%s: a server listens on at most %d addresses",
			address, RPC_LISTENERS_MAX);
	r = rpc_address_parse(address, &l->address, err);
	if (r < 0)
		return r;
	l->lock_fd = -1;
	if (l->address.kind == RPC_ADDRESS_UNIX)
		r = listen_unix(s, l, err);
	else
		r = listen_tcp(s, &l->address, address, ret_port, err);
	if (r == 0)
		s->n_listeners++;
	return r;
}

void rpc_server_unlisten(struct rpc_server *s)
{
	for (unsigned i = 0; i < s->n_listeners; i++) {
		struct rpc_listener *l = &s->listeners[i];

		if (l->lock_fd >= 0)
			drop_lock(l->address.path, steal_fd(&l->lock_fd));
	}
	s->n_listeners = 0;
}
