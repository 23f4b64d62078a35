#include "cli/supervised.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/lingering.h"
#include "cli/mount_settings.h"
#include "cli/supervisor.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "fuse/thread.h"

#define LOG_SUBSYSTEM "mount"
#include "common/log.h"

#define SELF "/proc/self/exe"
#define POLL_MS 1000
#define RETRY_MS 1000
#define REAP_STEP_US 10000
#define REAP_STEPS 20

extern char **environ;

/* ---- handing in ------------------------------------------------------------------------------ */

/* The thread, which sees the end of the socket, has another supervisor take it all. */
static void send_locked(struct supervised *s, enum keep_kind kind, uint64_t value, int fd)
{
	if (s->sock >= 0 && keep_send(s->sock, kind, value, fd) < 0)
		shutdown(s->sock, SHUT_RDWR);
}

static int keep(void *arg, int64_t what, int fd)
{
	enum keep_kind kind = what == MOUNT_KEEP_DEVICE ? KEEP_DEVICE : KEEP_MANIFEST;
	uint64_t number = what == MOUNT_KEEP_DEVICE ? 0 : (uint64_t)what;
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	struct supervised *s = arg;

	if (copy < 0)
		return -errno;
	mutex_guard(&s->mu);
	keep_set_put(&s->set, kind, number, copy);
	send_locked(s, kind, number, copy);
	return 0;
}

int supervised_init(struct supervised *s, int sock, const struct keep_set *set,
	struct mount_state *state, bool resume, bool tries, struct error *err)
{
	int r = 0;

	*s = (struct supervised){.state = state,
		.sock = sock,
		.self = -1,
		.set = *set,
		.settled = resume && !tries,
		.tries = tries};
	s->keep = (struct mount_keep){.state = state, .device = -1, .keep = keep, .arg = s};
	for (size_t i = 0; i < SNAPSHOT_SLOTS; i++)
		s->keep.manifests[i] = -1;
	mutex_init(&s->mu);
	if (resume) {
		r = mount_state_check(state, err);
		if (r < 0)
			return r;
		r = keep_set_lend(&s->set, &s->keep);
	}
	if (r == 0 && resume && s->keep.device < 0)
		r = -EBADF;
	return r < 0 ? error_set_errno(err, r, "the connection to the kernel was not kept") : 0;
}

int supervised_ready(struct supervised *s)
{
	uint32_t tried = 1;
	mutex_guard(&s->mu);

	if (s->tries && !atomic_compare_exchange_strong(&s->state->tried, &tried, 0))
		return -ECANCELED;
	s->settled = true;
	send_locked(s, KEEP_READY, 0, -1);
	return 0;
}

void supervised_bye(struct supervised *s)
{
	mutex_guard(&s->mu);
	s->ending = true;
	send_locked(s, KEEP_BYE, 0, -1);
}

/* ---- another supervisor ---------------------------------------------------------------------- */

static int spawn(struct supervised *s, int sock)
{
	const struct mount_settings *settings;
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none;
	int r;

	if (mount_settings_read(s->state, &settings, NULL) < 0)
		return -EPROTO;
	/* The names are for who looks at the list of processes. */
	{
		const char *argv[] = {"granary", SUPERVISOR_ARGUMENT, settings->mountpoint,
			settings->state_dir, NULL};

		sigemptyset(&none);
		posix_spawnattr_init(&attr);
		posix_spawnattr_setsigmask(&attr, &none);
		posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
		posix_spawn_file_actions_init(&actions);
		posix_spawn_file_actions_adddup2(&actions, sock, SUPERVISOR_SOCKET);
		r = posix_spawn(&s->child, SELF, &actions, &attr, (char *const *)argv, environ);
		posix_spawn_file_actions_destroy(&actions);
		posix_spawnattr_destroy(&attr);
	}
	if (r != 0)
		s->child = 0;
	return -r;
}

static int hand_over_locked(struct supervised *s, int sock)
{
	cleanup_fd int self = pidfd_open(getpid(), 0);
	int r = self < 0 ? -errno : keep_send(sock, KEEP_STATE, 0, s->set.state);

	if (r == 0)
		r = keep_send(sock, KEEP_CLIENT, (uint64_t)getpid(), self);
	if (r == 0 && s->self >= 0)
		r = keep_send(sock, KEEP_THREAD, 0, s->self);
	return r < 0 ? r : keep_set_send(&s->set, sock);
}

static int start_supervisor(struct supervised *s)
{
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	r = spawn(s, pair[1]);
	close(pair[1]);
	if (r < 0) {
		close(pair[0]);
		return r;
	}
	mutex_guard(&s->mu);
	r = hand_over_locked(s, pair[0]);
	if (r < 0)
		close(pair[0]);
	else
		s->sock = pair[0];
	return r;
}

/* One that hangs is left to whoever inherits it. */
static void reap(struct supervised *s)
{
	for (int i = 0; s->child > 0 && i < REAP_STEPS; i++) {
		if (waitpid(s->child, NULL, WNOHANG) != 0)
			s->child = 0;
		else
			usleep(REAP_STEP_US);
	}
	s->child = 0;
}

/* 0, or -ECANCELED when none is wanted any more. */
static int drop_socket(struct supervised *s)
{
	mutex_guard(&s->mu);

	if (s->ending)
		return -ECANCELED;
	if (!s->settled)
		_exit(1);
	if (s->sock >= 0)
		close(s->sock);
	s->sock = -1;
	return 0;
}

/* False: the process is about to end. */
static bool replace_supervisor(struct supervised *s)
{
	int r = drop_socket(s);

	if (r < 0)
		return false;
	reap(s);
	r = start_supervisor(s);
	if (r == 0) {
		log_warn("%s: its supervisor was gone: another one, process %d, goes on",
			s->state->mountpoint, (int)s->child);
		return true;
	}
	log_warn("%s: there is no supervisor, and none can be started: %s", s->state->mountpoint,
		strerror(-r));
	usleep(RETRY_MS * 1000);
	return true;
}

/* ---- the thread ------------------------------------------------------------------------------ */

static void take(struct supervised *s, const struct keep_message *m)
{
	if (m->kind == KEEP_LEAVE) {
		s->leave(s->arg);
		_exit(0);
	}
}

/* All that has come; -EAGAIN as long as there may be more. */
static int hear(struct supervised *s, int sock)
{
	struct keep_message m;
	int fd, r;

	while ((r = keep_receive(sock, &m, &fd)) == 0) {
		if (fd >= 0)
			close(fd);
		take(s, &m);
	}
	return r;
}

static void tell_thread(struct supervised *s)
{
	mutex_guard(&s->mu);

	s->self = lingering_thread();
	if (s->self >= 0)
		send_locked(s, KEEP_THREAD, 0, s->self);
}

static int current_socket(struct supervised *s)
{
	mutex_guard(&s->mu);

	return s->sock;
}

static void *supervised_main(void *arg)
{
	struct supervised *s = arg;
	bool go_on = true;

	pthread_setname_np(pthread_self(), "supervised");
	tell_thread(s);
	while (go_on) {
		struct pollfd p = {.fd = current_socket(s), .events = POLLIN};

		if (p.fd >= 0)
			poll(&p, 1, POLL_MS);
		if (p.fd < 0 || hear(s, p.fd) != -EAGAIN)
			go_on = replace_supervisor(s);
	}
	return NULL;
}

int supervised_start(struct supervised *s, struct error *err)
{
	int r = thread_start(&s->thread, supervised_main, s);

	s->started = r == 0;
	return r < 0 ? error_set_errno(err, r, "cannot start a thread") : 0;
}

void supervised_stop(struct supervised *s)
{
	if (!s->started)
		return;
	{
		mutex_guard(&s->mu);
		s->ending = true;
		/* Wakes the thread; the other end sees nothing of it. */
		if (s->sock >= 0)
			shutdown(s->sock, SHUT_RD);
	}
	pthread_join(s->thread, NULL);
}
