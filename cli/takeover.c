#include "cli/takeover.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <xxhash.h>

#include "cli/lingering.h"
#include "cli/mount_settings.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/unix_socket.h"

#define LOG_SUBSYSTEM "supervisor"
#include "common/log.h"

#define REPLY_MS 5000
#define GIVE_MS 10000 /* what the other end waits for the client's end */
#define ASKED_MS 5000
#define LEAVING_MS 8000
#define GIVEN_MS 30000
#define CLIENT_END_MS 5000

int takeover_resolve(const char *text, char ret[PATH_MAX])
{
	char copy[PATH_MAX], parent[PATH_MAX];
	char *slash;
	size_t n;

	snprintf(copy, sizeof(copy), "%s", text);
	for (n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
		copy[n - 1] = '\0';
	slash = strrchr(copy, '/');
	if (!slash) {
		if (!realpath(".", parent))
			return -errno;
		return snprintf(ret, PATH_MAX, "%s/%s", parent, copy) < PATH_MAX ? 0
										 : -ENAMETOOLONG;
	}
	*slash = '\0';
	if (!realpath(slash == copy ? "/" : copy, parent))
		return -errno;
	n = (size_t)snprintf(
		ret, PATH_MAX, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent, slash + 1);
	return n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static int address_of(const char *state_dir, const char *mountpoint, struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	return snprintf(ret->sun_path, sizeof(ret->sun_path), "%s/takeover-%016" PRIx64 ".sock",
		       state_dir, (uint64_t)XXH3_64bits(mountpoint, strlen(mountpoint))) <
			       (int)sizeof(ret->sun_path)
		       ? 0
		       : -ENAMETOOLONG;
}

static bool of_this_user(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.uid == geteuid();
}

/* ---- who asks -------------------------------------------------------------------------------- */

static int call(const char *state_dir, const char *mountpoint, int *ret, struct error *err)
{
	cleanup_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr;
	int r = fd < 0 ? -errno : address_of(state_dir, mountpoint, &addr);

	if (r < 0)
		return error_set_errno(err, r, "cannot ask for %s", mountpoint);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		if (errno != ENOENT && errno != ECONNREFUSED)
			return error_set_errno(err, -errno, "cannot ask for %s", mountpoint);
		return error_set(err, -ENOENT,
			"no `granary mount` of this state directory serves %s (what `granary up` "
			"serves cannot be taken over)",
			mountpoint);
	}
	if (!of_this_user(fd))
		return error_set(err, -EACCES, "%s is served by another user: run this as that one",
			mountpoint);
	*ret = steal_fd(&fd);
	return 0;
}

static int look_at_state(int conn, const char *dataset, struct keep_set *set,
	struct mount_state **ret_state, struct error *err)
{
	const struct mount_settings *settings;
	struct keep_message m;
	int fd = -1, r = keep_send(conn, KEEP_ASK, 0, -1);

	if (r == 0)
		r = keep_await(conn, clock_deadline_ms(REPLY_MS), &m, &fd);
	if (r == 0 && (m.kind != KEEP_STATE || !keep_set_put(set, KEEP_STATE, 0, fd)))
		r = -EPROTO;
	if (r == -EPIPE)
		return error_set(err, -EBUSY,
			"it is not ready to be taken over: is it starting, or taken already?");
	if (r < 0)
		return error_set_errno(err, r, "the process that serves it does not answer");
	r = mount_state_map(set->state, ret_state, err);
	if (r == 0)
		r = mount_settings_read(*ret_state, &settings, err);
	if (r == 0 && dataset && strcmp(dataset, settings->dataset) != 0)
		return error_set(err, -EINVAL, "%s shows dataset %s, not %s",
			(*ret_state)->mountpoint, settings->dataset, dataset);
	return r;
}

static int receive_rest(int conn, struct keep_set *set, struct error *err)
{
	int64_t deadline_ms = clock_deadline_ms(GIVE_MS);
	struct keep_message m;
	int fd, r = keep_send(conn, KEEP_LEAVE, 0, -1);

	while (r == 0) {
		r = keep_await(conn, deadline_ms, &m, &fd);
		if (r == 0 && m.kind == KEEP_BYE && fd < 0)
			break;
		if (r == 0 && !keep_set_put(set, (enum keep_kind)m.kind, m.value, fd))
			r = -EPROTO;
	}
	if (r == 0 && set->device < 0)
		r = -EPROTO;
	return r < 0 ? error_set_errno(err, r, "it was not handed over") : 0;
}

int takeover_ask(const char *state_dir, const char *dataset, const char *mountpoint,
	struct keep_set *ret, struct mount_state **ret_state, int *ret_conn, struct error *err)
{
	cleanup_fd int conn = -1;
	int r;

	keep_set_init(ret);
	*ret_state = NULL;
	r = call(state_dir, mountpoint, &conn, err);
	if (r == 0)
		r = look_at_state(conn, dataset, ret, ret_state, err);
	if (r == 0)
		r = receive_rest(conn, ret, err);
	if (r < 0) {
		mount_state_unmap(*ret_state);
		keep_set_close(ret);
		return r;
	}
	*ret_conn = steal_fd(&conn);
	return 0;
}

/* ---- who is asked ---------------------------------------------------------------------------- */

void giver_init(struct giver *g, struct mount_state *state)
{
	*g = (struct giver){.state = state, .lock = -1, .listener = -1, .conn = -1, .client = -1};
}

int giver_listen(struct giver *g, const char *state_dir, const char *mountpoint, struct error *err)
{
	struct sockaddr_un addr;
	int r = address_of(state_dir, mountpoint, &addr);

	if (r < 0)
		return error_set_errno(err, r, "%s cannot be taken over", mountpoint);
	r = unix_socket_claim(addr.sun_path, &g->lock, err);
	if (r < 0)
		return r;
	r = unix_socket_listen_as(addr.sun_path, SOCK_SEQPACKET, &g->listener, err);
	if (r < 0) {
		unix_socket_release(addr.sun_path, g->lock);
		g->lock = -1;
		return r;
	}
	strcpy(g->path, addr.sun_path);
	return 0;
}

static void close_at(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void giver_forget(struct giver *g)
{
	close_at(&g->listener);
	close_at(&g->conn);
	close_at(&g->client);
	close_at(&g->lock);
}

void giver_close(struct giver *g)
{
	int lock = g->lock;

	if (lock >= 0) {
		unlink(g->path);
		g->lock = -1;
		unix_socket_release(g->path, lock);
	}
	giver_forget(g);
}

void giver_accept(struct giver *g)
{
	cleanup_fd int fd = accept4(g->listener, NULL, NULL, SOCK_CLOEXEC);

	/* One at a time; the others hear the end of the connection. */
	if (fd < 0 || g->conn >= 0 || !of_this_user(fd))
		return;
	g->conn = steal_fd(&fd);
	g->phase = GIVER_IDLE;
	g->deadline_ms = clock_deadline_ms(ASKED_MS);
}

/* A client that was about to serve must be gone before another one is. */
static void end_other_client(struct giver *g)
{
	if (g->client < 0)
		return;
	pidfd_send_signal(g->client, SIGKILL, NULL, 0);
	if (lingering_await(g->client, g->client_pid, clock_deadline_ms(CLIENT_END_MS)) < 0)
		log_error("the client that was to take over does not end");
	close_at(&g->client);
}

static enum giver_event give_up(struct giver *g)
{
	enum giver_phase phase = g->phase;
	uint32_t tried = 1;

	close_at(&g->conn);
	g->phase = GIVER_IDLE;
	if (phase != GIVER_GIVEN)
		return GIVER_NOTHING;
	/* It serves already, and has or will have a supervisor. */
	if (!atomic_compare_exchange_strong(&g->state->tried, &tried, 0))
		return GIVER_TAKEN;
	end_other_client(g);
	return GIVER_BACK;
}

static int on_ask(struct giver *g, const struct keep_set *set, bool ready)
{
	if (g->phase != GIVER_IDLE || !ready)
		return -EPROTO;
	g->phase = GIVER_ASKED;
	g->deadline_ms = clock_deadline_ms(ASKED_MS);
	return keep_send(g->conn, KEEP_STATE, 0, set->state);
}

static enum giver_event take(struct giver *g, const struct keep_set *set, bool ready,
	const struct keep_message *m, int *fd)
{
	if (m->kind == KEEP_ASK && on_ask(g, set, ready) == 0)
		return GIVER_NOTHING;
	if (m->kind == KEEP_LEAVE && g->phase == GIVER_ASKED && ready) {
		g->phase = GIVER_LEAVING;
		g->deadline_ms = clock_deadline_ms(LEAVING_MS);
		return GIVER_LEAVE;
	}
	if (m->kind == KEEP_CLIENT && g->phase == GIVER_GIVEN && *fd >= 0) {
		close_at(&g->client);
		g->client = steal_fd(fd);
		g->client_pid = (pid_t)m->value;
		return GIVER_NOTHING;
	}
	if (m->kind == KEEP_READY && g->phase == GIVER_GIVEN && !atomic_load(&g->state->tried))
		return GIVER_TAKEN;
	return give_up(g);
}

enum giver_event giver_hear(struct giver *g, const struct keep_set *set, bool ready)
{
	struct keep_message m;
	cleanup_fd int fd = -1;
	int r = keep_receive(g->conn, &m, &fd);

	if (r == -EAGAIN)
		return GIVER_NOTHING;
	return r < 0 ? give_up(g) : take(g, set, ready, &m, &fd);
}

enum giver_event giver_tick(struct giver *g)
{
	return g->conn >= 0 && clock_passed(g->deadline_ms) ? give_up(g) : GIVER_NOTHING;
}

enum giver_event giver_give(struct giver *g, const struct keep_set *set)
{
	g->phase = GIVER_GIVEN;
	g->deadline_ms = clock_deadline_ms(GIVEN_MS);
	atomic_store(&g->state->tried, 1);
	if (keep_set_send(set, g->conn) < 0 || keep_send(g->conn, KEEP_BYE, 0, -1) < 0)
		return give_up(g);
	return GIVER_NOTHING;
}
