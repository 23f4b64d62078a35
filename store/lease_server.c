/*
 * The owner's end of the local short circuit: one thread that answers views in other processes
 * (lease_proto.h). Who may connect is decided by the socket's mode, and without a group also by the
 * peer's user.
 */
#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/unix_socket.h"
#include "store/lease_proto.h"
#include "store/store_private.h"

#define LOG_SUBSYSTEM "store"
#include "common/log.h"

#define CLIENTS_MAX 64
#define HOLDS_MAX 65536u
#define REVOKES_MAX 4096u
/* Messages of one view before the others get their turn. */
#define TURN_MESSAGES 64
/* Whoever talks nonsense again and again is not logged more often than this. */
#define WARN_MS 1000
#define REFUSED_MS 60000
#define ACCEPT_PAUSE_MS 200

/* A file that a view has open, and how often. */
struct hold {
	uint32_t file;
	uint32_t count;
	UT_hash_handle hh;
};

struct client {
	int fd; /* -1: free */
	bool welcome;
	struct hold *holds;
};

struct store_lease_server {
	struct store *store;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	bool group;
	int listen_fd, wake_fd;
	pthread_t thread;
	/* owned by the thread */
	struct client clients[CLIENTS_MAX];
	int64_t warned_ms, refused_ms;
	int64_t accept_ms; /* no accept before: there was no descriptor for one */

	struct mutex mu; /* after the store's */
	bool stopping;
	uint32_t revokes[REVOKES_MAX];
	unsigned revoke_count;
};

/* ---- clients ---- */

static void hold_free(struct store_lease_server *l, struct client *c, struct hold *h)
{
	while (h->count-- > 0)
		store_release(l->store, h->file);
	HASH_DEL(c->holds, h);
	free(h);
}

static void client_close(struct store_lease_server *l, struct client *c)
{
	struct hold *h, *next;

	if (c->fd < 0)
		return;
	HASH_ITER (hh, c->holds, h, next)
		hold_free(l, c, h);
	close(c->fd);
	*c = (struct client){.fd = -1};
}

/* Whoever is turned away comes again every second. */
static void warn_refused(struct store_lease_server *l, const char *what)
{
	if (!clock_passed(l->refused_ms + REFUSED_MS))
		return;
	log_warn("%s: %s", l->path, what);
	l->refused_ms = clock_mono_ms();
}

static void accept_client(struct store_lease_server *l)
{
	cleanup_fd int fd = accept4(l->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		/* It stays in the queue and would wake us at once. */
		if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
			l->accept_ms = clock_deadline_ms(ACCEPT_PAUSE_MS);
		return;
	}
	if (!l->group && !unix_socket_peer_is_ours(fd)) {
		warn_refused(l, "a process of another user was turned away");
		return;
	}
	for (int i = 0; i < CLIENTS_MAX; i++) {
		if (l->clients[i].fd < 0) {
			l->clients[i] = (struct client){.fd = steal_fd(&fd)};
			return;
		}
	}
	warn_refused(l, "there are as many mounts as may be: one more was turned away and reads "
			"through the worker");
}

/* ---- messages ---- */

static int on_hello(struct store_lease_server *l, struct client *c, const struct lease_message *m)
{
	struct lease_message reply = {
		.magic = LEASE_MAGIC, .kind = LEASE_WELCOME, .file = LEASE_VERSION};
	int fd = directory_fd(l->store->directory);

	if (m->file != LEASE_VERSION)
		return -EPROTO;
	c->welcome = true;
	return lease_send(c->fd, &reply, &fd, 1);
}

static struct hold *hold_get(struct client *c, uint32_t file)
{
	struct hold *h;

	HASH_FIND(hh, c->holds, &file, sizeof(file), h);
	if (h || HASH_COUNT(c->holds) >= HOLDS_MAX)
		return h;
	h = calloc(1, sizeof(*h));
	if (!h)
		return NULL;
	h->file = file;
	HASH_ADD(hh, c->holds, file, sizeof(h->file), h);
	return h;
}

static void hold_put(struct store_lease_server *l, struct client *c, uint32_t file)
{
	struct hold *h;

	HASH_FIND(hh, c->holds, &file, sizeof(file), h);
	if (!h)
		return;
	if (h->count) {
		h->count--;
		store_release(l->store, file);
	}
	if (!h->count) {
		HASH_DEL(c->holds, h);
		free(h);
	}
}

static int on_open(struct store_lease_server *l, struct client *c, const struct lease_message *m)
{
	struct lease_message reply = {
		.magic = LEASE_MAGIC, .kind = LEASE_OPENED, .file = m->file, .hold = m->hold};
	bool sparse = m->hold != HOLD_SEGMENT;
	struct hold *h;
	int fds[2], r;

	if (m->hold > HOLD_WHOLE)
		return -EPROTO;
	h = sparse ? hold_get(c, m->file) : NULL;
	reply.status = sparse && !h ? -EMFILE
				    : store_hold(l->store, m->file, (enum hold_kind)m->hold, fds,
					      &reply.generation);
	if (reply.status < 0) {
		if (h && !h->count)
			hold_put(l, c, m->file);
		return lease_send(c->fd, &reply, NULL, 0);
	}
	if (h)
		h->count++;
	r = lease_send(c->fd, &reply, fds, fds[1] >= 0 ? 2 : 1);
	close(fds[0]);
	if (fds[1] >= 0)
		close(fds[1]);
	return r;
}

static int on_message(struct store_lease_server *l, struct client *c, const struct lease_message *m)
{
	if (!c->welcome && m->kind != LEASE_HELLO)
		return -EPROTO;
	switch (m->kind) {
	case LEASE_HELLO:
		return on_hello(l, c, m);
	case LEASE_OPEN:
		return on_open(l, c, m);
	case LEASE_RELEASE:
		hold_put(l, c, m->file);
		return 0;
	case LEASE_TOUCH:
		for (uint32_t i = 0; i < m->count; i++)
			store_touch(l->store, &m->ids[i]);
		return 0;
	case LEASE_CORRUPT:
		if (m->count == 1)
			store_drop_damaged(
				l->store, &(struct directory_entry){
						  .id = m->ids[0], .slot = m->slot, .seq = m->seq});
		return 0;
	default:
		return -EPROTO;
	}
}

static void serve_client(struct store_lease_server *l, struct client *c)
{
	struct lease_message m;
	int fds[2], r = 0;

	for (int i = 0; r == 0 && i < TURN_MESSAGES; i++) {
		r = lease_receive(c->fd, &m, fds);
		if (r < 0)
			break;
		for (int k = 0; k < 2; k++) {
			if (fds[k] >= 0)
				close(fds[k]);
		}
		r = on_message(l, c, &m);
		/* A view that does not read its replies is not one: it reconnects. */
		if (r == -EAGAIN)
			r = -EPIPE;
	}
	if (r == 0 || r == -EAGAIN)
		return;
	if (r != -EPIPE && clock_passed(l->warned_ms + WARN_MS)) {
		log_warn("%s: a mount was disconnected: %s", l->path, strerror(-r));
		l->warned_ms = clock_mono_ms();
	}
	client_close(l, c);
}

/* ---- asking for files back ---- */

static void queue_revoke(void *arg, uint32_t number)
{
	struct store_lease_server *l = arg;
	uint64_t one = 1;

	mutex_guard(&l->mu);
	/* One that does not fit is closed by the view once it is idle. */
	if (l->revoke_count == REVOKES_MAX)
		return;
	l->revokes[l->revoke_count++] = number;
	if (l->revoke_count == 1 && write(l->wake_fd, &one, sizeof(one)) < 0)
		return; /* it is awake already */
}

static void send_revokes(struct store_lease_server *l)
{
	struct lease_message m = {.magic = LEASE_MAGIC, .kind = LEASE_REVOKE};
	cleanup_free uint32_t *files = NULL;
	unsigned count;

	mutex_lock(&l->mu);
	count = l->revoke_count;
	if (count) {
		files = calloc(count, sizeof(*files));
		if (files)
			memcpy(files, l->revokes, count * sizeof(*files));
		l->revoke_count = 0;
	}
	mutex_unlock(&l->mu);
	for (unsigned i = 0; files && i < count; i++) {
		m.file = files[i];
		for (int k = 0; k < CLIENTS_MAX; k++) {
			struct client *c = &l->clients[k];

			if (c->fd >= 0 && c->welcome && lease_send(c->fd, &m, NULL, 0) < 0)
				client_close(l, c);
		}
	}
}

/* ---- the thread ---- */

static bool stopping(struct store_lease_server *l)
{
	mutex_guard(&l->mu);
	return l->stopping;
}

static void *server_main(void *arg)
{
	struct store_lease_server *l = arg;

	pthread_setname_np(pthread_self(), "store-leases");
	while (!stopping(l)) {
		struct pollfd polls[CLIENTS_MAX + 2] = {
			{.fd = l->wake_fd, .events = POLLIN},
			{.fd = -1, .events = POLLIN},
		};
		bool pause = !clock_passed(l->accept_ms);
		uint64_t ignored;

		if (!pause)
			polls[1].fd = l->listen_fd;

		for (int i = 0; i < CLIENTS_MAX; i++)
			polls[i + 2] = (struct pollfd){.fd = l->clients[i].fd, .events = POLLIN};
		if (poll(polls, CLIENTS_MAX + 2, pause ? ACCEPT_PAUSE_MS : 1000) < 0 &&
			errno != EINTR)
			log_warn("%s: %s", l->path, strerror(errno));
		if (polls[0].revents && read(l->wake_fd, &ignored, sizeof(ignored)) < 0)
			continue;
		send_revokes(l);
		for (int i = 0; i < CLIENTS_MAX; i++) {
			if (polls[i + 2].revents && l->clients[i].fd >= 0)
				serve_client(l, &l->clients[i]);
		}
		if (polls[1].revents)
			accept_client(l);
	}
	return NULL;
}

/* ---- start and stop ---- */

/* A socket that nobody listens on any more is in the way; a live one is an error. */
static int clear_path(const struct sockaddr_un *addr, struct error *err)
{
	cleanup_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;

	if (lstat(addr->sun_path, &st) < 0)
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return error_set(
			err, -EEXIST, "%s is in the way of the worker's socket", addr->sun_path);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0)
		return error_set(err, -EADDRINUSE, "another worker listens on %s", addr->sun_path);
	unlink(addr->sun_path);
	return 0;
}

static int listen_at(
	struct store_lease_server *l, const char *path, const char *group, struct error *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct group *g = NULL;
	int r;

	if (strlen(path) >= sizeof(addr.sun_path))
		return error_set(err, -ENAMETOOLONG, "%s is too long for a socket's name", path);
	strcpy(addr.sun_path, path);
	strcpy(l->path, path);
	if (group && !(g = getgrnam(group)))
		return error_set(err, -EINVAL, "there is no group %s", group);
	r = clear_path(&addr, err);
	if (r < 0)
		return r;
	l->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* The mode is given before the name exists, so that there is no moment without it. */
	if (l->listen_fd < 0 || fchmod(l->listen_fd, 0600) < 0 ||
		bind(l->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return error_set_errno(err, -errno, "cannot listen on %s", path);
	if (g && (chown(path, (uid_t)-1, g->gr_gid) < 0 || chmod(path, 0660) < 0))
		return error_set_errno(err, -errno, "cannot give %s to the group %s", path, group);
	l->group = g;
	if (listen(l->listen_fd, CLIENTS_MAX) < 0)
		return error_set_errno(err, -errno, "cannot listen on %s", path);
	return 0;
}

static void server_free(struct store_lease_server *l)
{
	for (int i = 0; i < CLIENTS_MAX; i++)
		client_close(l, &l->clients[i]);
	if (l->listen_fd >= 0)
		close(l->listen_fd);
	if (l->wake_fd >= 0)
		close(l->wake_fd);
	mutex_deinit(&l->mu);
	free(l);
}

int store_lease_server_start(struct store *s, const char *path, const char *group,
	struct store_lease_server **ret, struct error *err)
{
	struct store_lease_server *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return error_set(err, -ENOMEM, "out of memory");
	l->store = s;
	l->listen_fd = -1;
	l->refused_ms = -REFUSED_MS;
	mutex_init(&l->mu);
	for (int i = 0; i < CLIENTS_MAX; i++)
		l->clients[i].fd = -1;
	l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->wake_fd < 0)
		r = error_set_errno(err, -errno, "cannot make an eventfd");
	else
		r = listen_at(l, path, group, err);
	if (r == 0) {
		store_set_revoke(s, queue_revoke, l);
		r = -pthread_create(&l->thread, NULL, server_main, l);
		if (r < 0)
			error_set_errno(err, r, "cannot start the lease thread");
	}
	if (r < 0) {
		store_set_revoke(s, NULL, NULL);
		server_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

void store_lease_server_stop(struct store_lease_server *l)
{
	uint64_t one = 1;

	if (!l)
		return;
	store_set_revoke(l->store, NULL, NULL);
	mutex_lock(&l->mu);
	l->stopping = true;
	mutex_unlock(&l->mu);
	if (write(l->wake_fd, &one, sizeof(one)) < 0)
		log_debug("%s: already awake", l->path);
	pthread_join(l->thread, NULL);
	unlink(l->path);
	server_free(l);
}
