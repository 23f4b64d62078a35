#include "cli/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/mount_client.h"
#include "cli/signals.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "fuse/device.h"
#include "fuse/mountpoint.h"

#define LOG_SUBSYSTEM "supervisor"
#include "common/log.h"

/* A client that lived for longer has not failed because of how it was started. */
#define STEADY_MS 1000
#define FAILURES_MAX 8u
#define RETRY_FIRST_MS 50 /* doubled each time, after one without a pause */
#define RETRY_MAX_MS 1600
#define READY_MS 20000 /* of a client that goes on with a mount */
#define LEAVE_MS 2000  /* a client that is to end for another is killed then */
#define LISTEN_RETRY_MS 50
#define LISTEN_GIVE_UP_MS 3600000
#define STEP_MS 500
#define REFUSE_MS 2000
#define PARTING_MS 2000 /* between the end of a client's socket and of the client */

/* The client rotates the log: the file of that name is another one by now, perhaps. */
static void reopen_log(const struct supervisor *s)
{
	if (s->log_file[0])
		log_to_file(s->log_file, NULL);
}

/* ---- the client ------------------------------------------------------------------------------ */

static void forget_client(struct supervisor *s)
{
	if (s->pidfd >= 0)
		close(s->pidfd);
	if (s->sock >= 0)
		close(s->sock);
	lingering_end(&s->dying);
	s->pidfd = s->sock = -1;
	s->pid = 0;
	s->ready = s->bye = false;
}

static void end(struct supervisor *s, int code)
{
	s->ended = true;
	s->code = code;
}

static bool goes_on(const struct supervisor *s)
{
	return s->set.device >= 0 && atomic_load(&s->state->serving);
}

static void client_main(struct supervisor *s, int sock)
{
	struct mount_client_options opts = {
		.state = s->state,
		.settings = s->settings,
		.set = &s->set,
		.sock = sock,
		.resume = goes_on(s),
		.tries = s->trial >= 0,
		.said = !goes_on(s)	? "mounted"
			: s->trial >= 0 ? "took over"
					: NULL,
		.daemon = s->daemon,
		.json = s->json,
	};

	giver_forget(&s->giver);
	if (s->trial >= 0)
		close(s->trial);
	close(s->signals);
	exit(mount_client_run(&opts));
}

static int start_client(struct supervisor *s)
{
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	if (goes_on(s))
		atomic_fetch_add(&s->state->takeovers, 1);
	reopen_log(s);
	fflush(NULL);
	s->pid = fork();
	if (s->pid == 0) {
		close(pair[0]);
		client_main(s, pair[1]);
	}
	r = s->pid < 0 ? -errno : 0;
	close(pair[1]);
	if (r < 0) {
		close(pair[0]);
		s->pid = 0;
		return r;
	}
	s->sock = pair[0];
	s->child = true;
	s->pidfd = pidfd_open(s->pid, 0);
	s->began_ms = clock_mono_ms();
	r = s->pidfd < 0 ? -errno : 0;
	if (r == 0 && s->trial >= 0)
		r = keep_send(s->trial, KEEP_CLIENT, (uint64_t)s->pid, s->pidfd);
	if (r == 0 && s->trial >= 0)
		r = keep_send(s->sock, KEEP_GO, 0, -1);
	/* Nobody would be told of its end. */
	if (r < 0) {
		kill(s->pid, SIGKILL);
		waitpid(s->pid, NULL, 0);
		forget_client(s);
	}
	return r;
}

/* ---- its end --------------------------------------------------------------------------------- */

/* What to say of it, and the exit code that stands for it. */
static int look_at_end(struct supervisor *s, char *ret_text, size_t room)
{
	int status;

	if (s->dying.stuck) {
		snprintf(ret_text, room, "was ended while the kernel holds it back");
		if (s->held_fd >= 0)
			close(s->held_fd);
		s->held = s->pid;
		s->held_fd = steal_fd(&s->pidfd);
		return EXIT_FAILED;
	}
	if (!s->child || waitpid(s->pid, &status, WNOHANG) != s->pid) {
		snprintf(ret_text, room, "ended");
		return EXIT_FAILED;
	}
	if (WIFSIGNALED(status)) {
		snprintf(ret_text, room, "was ended by signal %d", WTERMSIG(status));
		return EXIT_FAILED;
	}
	snprintf(ret_text, room, "ended with code %d", WEXITSTATUS(status));
	return WEXITSTATUS(status);
}

/* The last of it may have read another request on its way out: what is being answered is repeated,
 * and answered once more. */
static void on_held_end(struct supervisor *s)
{
	waitpid(s->held, NULL, WNOHANG);
	close(s->held_fd);
	s->held_fd = -1;
	s->held = 0;
	device_resend(s->set.device);
}

static void take_mount_away(struct supervisor *s)
{
	struct error err = ERROR_INIT;

	if (mountpoint_is(s->state->mountpoint, s->state->mount_id) &&
		mountpoint_unmount(s->state->mountpoint, &err) < 0)
		log_warn("%s", err.text);
}

/* Doubled, but for the first, which readers wait for. */
static int64_t pause_ms(unsigned failures)
{
	int64_t ms = failures < 2 ? 0 : RETRY_FIRST_MS;

	for (unsigned i = 2; i < failures && ms < RETRY_MAX_MS; i++)
		ms *= 2;
	return ms;
}

static void retry(struct supervisor *s, const char *what)
{
	s->failures++;
	reopen_log(s);
	if (s->failures > FAILURES_MAX) {
		log_error(
			"%s: the client %s, the last of %u in a row that failed: the mount is let "
			"go, and what is open in it fails with ENOTCONN; mount again",
			s->state->mountpoint, what, s->failures);
		/* A client that the kernel holds back has the connection open, too. */
		device_refuse(s->set.device, clock_deadline_ms(REFUSE_MS));
		end(s, EXIT_FAILED);
		return;
	}
	log_warn("%s: the client %s: another one goes on", s->state->mountpoint, what);
	s->retry_ms = clock_mono_ms() + pause_ms(s->failures);
}

/* What the other end of --takeover has come to. */
static void on_giver(struct supervisor *s, enum giver_event event)
{
	switch (event) {
	case GIVER_NOTHING:
		break;
	case GIVER_LEAVE:
		s->leave_ms = clock_deadline_ms(LEAVE_MS);
		if (!s->pid) {
			s->retry_ms = 0;
			on_giver(s, giver_give(&s->giver, &s->set));
		} else if (s->sock < 0 || keep_send(s->sock, KEEP_LEAVE, 0, -1) < 0) {
			pidfd_send_signal(s->pidfd, SIGKILL, NULL, 0);
		}
		break;
	case GIVER_BACK:
		atomic_store(&s->state->supervisor_pid, (uint64_t)getpid());
		reopen_log(s);
		log_warn("%s: it was not taken over: another client goes on", s->state->mountpoint);
		s->retry_ms = clock_mono_ms();
		break;
	case GIVER_TAKEN:
		reopen_log(s);
		log_info("%s: process %llu has taken it over", s->state->mountpoint,
			(unsigned long long)atomic_load(&s->state->supervisor_pid));
		end(s, EXIT_OK);
		break;
	}
}

static void on_client_end(struct supervisor *s)
{
	bool bye = s->bye, steady = s->ready && clock_passed(s->began_ms + STEADY_MS);
	pid_t pid = s->pid;
	char how[64], what[128];
	int code = look_at_end(s, how, sizeof(how));

	snprintf(what, sizeof(what), "(process %d) %s", (int)pid, how);
	if (!s->child)
		code = EXIT_OK;
	forget_client(s);
	if (bye) {
		end(s, code);
	} else if (s->giver.phase == GIVER_LEAVING) {
		on_giver(s, giver_give(&s->giver, &s->set));
	} else if (s->trial >= 0) {
		log_error("%s: the client %s: the mount stays with the process before",
			s->state->mountpoint, what);
		end(s, EXIT_FAILED);
	} else if (!goes_on(s)) {
		if (!strncmp(how, "was", 3))
			log_error("%s: the client %s", s->settings->mountpoint, what);
		end(s, code);
	} else if (s->stopping) {
		take_mount_away(s);
		end(s, EXIT_OK);
	} else {
		if (steady)
			s->failures = 0;
		retry(s, what);
	}
}

/* ---- events ---------------------------------------------------------------------------------- */

static void on_ready(struct supervisor *s)
{
	struct error err = ERROR_INIT;

	s->ready = true;
	/* A failure means that the one before is gone. */
	if (s->trial >= 0) {
		keep_send(s->trial, KEEP_READY, 0, -1);
		close(s->trial);
		s->trial = -1;
		mount_settings_set_log(s->state, s->log_file);
	}
	s->json = false;
	if (!s->daemon)
		return;
	if (daemonize_prepare(s->daemon, &err) < 0 || daemonize_ready(s->daemon, &err) < 0)
		log_warn("%s", err.text);
	s->daemon = NULL;
}

static void take(struct supervisor *s, const struct keep_message *m, int fd)
{
	if (m->kind == KEEP_DEVICE || m->kind == KEEP_MANIFEST) {
		if (keep_set_put(&s->set, (enum keep_kind)m->kind, m->value, fd))
			return;
	} else if (m->kind == KEEP_THREAD && fd >= 0) {
		lingering_begin(&s->dying, fd);
		return;
	} else if (m->kind == KEEP_READY) {
		on_ready(s);
	} else if (m->kind == KEEP_BYE) {
		s->bye = true;
	}
	if (fd >= 0)
		close(fd);
}

/* A client that lives and has closed its socket has another supervisor: this one is one too many, and
 * must not touch anything. */
static void on_parting(struct supervisor *s)
{
	struct pollfd p = {.fd = s->pidfd, .events = POLLIN};

	close(s->sock);
	s->sock = -1;
	if (poll(&p, 1, PARTING_MS) > 0)
		return;
	log_warn("%s: the client has another supervisor", s->state->mountpoint);
	end(s, EXIT_FAILED);
}

static void receive_all(struct supervisor *s)
{
	struct keep_message m;
	int fd, r = -EAGAIN;

	while (s->sock >= 0 && (r = keep_receive(s->sock, &m, &fd)) == 0)
		take(s, &m, fd);
	if (s->sock >= 0 && r != -EAGAIN)
		on_parting(s);
}

static void on_signals(struct supervisor *s)
{
	struct signalfd_siginfo info;

	if (read(s->signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	s->stopping = true;
	if (s->giver.phase == GIVER_GIVEN)
		return;
	if (s->pid) {
		pidfd_send_signal(s->pidfd, SIGTERM, NULL, 0);
		return;
	}
	take_mount_away(s);
	end(s, EXIT_OK);
}

/* The socket of a supervisor that was there before is given up by then, or with the next try. */
static void listen_for_takeover(struct supervisor *s)
{
	struct error err = ERROR_INIT;
	int r;

	if (s->giver.listener >= 0 || !goes_on(s) || s->trial >= 0 || !clock_passed(s->listen_ms))
		return;
	r = giver_listen(&s->giver, s->settings->state_dir, s->state->mountpoint, &err);
	s->listen_ms = clock_deadline_ms(r == -EADDRINUSE ? LISTEN_RETRY_MS : LISTEN_GIVE_UP_MS);
	if (r < 0 && r != -EADDRINUSE)
		log_warn("%s: %s", s->state->mountpoint, err.text);
}

static void on_time(struct supervisor *s)
{
	listen_for_takeover(s);
	on_giver(s, giver_tick(&s->giver));
	if (s->giver.phase == GIVER_LEAVING && s->pid && clock_passed(s->leave_ms))
		pidfd_send_signal(s->pidfd, SIGKILL, NULL, 0);
	if (s->stopping && !s->pid && s->giver.phase != GIVER_GIVEN && !s->ended) {
		take_mount_away(s);
		end(s, EXIT_OK);
	}
	if (s->ended)
		return;
	if (!s->pid && s->retry_ms && clock_passed(s->retry_ms)) {
		int r;

		s->retry_ms = 0;
		r = start_client(s);
		if (r < 0)
			retry(s, strerror(-r));
	}
	/* One that has said good-bye is waited for: nobody comes after it. */
	if (s->pid && s->dying.ending && !s->bye && lingering_look(&s->dying, s->pid)) {
		receive_all(s);
		on_client_end(s);
		return;
	}
	if (s->pid && !s->ready && goes_on(s) && clock_passed(s->began_ms + READY_MS))
		pidfd_send_signal(s->pidfd, SIGKILL, NULL, 0);
}

static int wait_ms(const struct supervisor *s)
{
	bool steps = s->giver.conn >= 0 || (s->pid && !s->ready && goes_on(s));
	int64_t ms = steps ? STEP_MS : -1, left;

	if (s->retry_ms && (ms < 0 || clock_left_ms(s->retry_ms) < ms))
		ms = clock_left_ms(s->retry_ms);
	if (s->giver.listener < 0 && s->trial < 0 && goes_on(s)) {
		left = clock_left_ms(s->listen_ms);
		ms = ms < 0 || left < ms ? left : ms;
	}
	return s->pid && s->dying.ending && !s->bye ? LINGERING_STEP_MS : (int)ms;
}

static void step(struct supervisor *s)
{
	struct pollfd polls[] = {
		{.fd = s->signals, .events = POLLIN},
		{.fd = s->sock, .events = POLLIN},
		{.fd = s->pidfd, .events = POLLIN},
		{.fd = s->giver.listener, .events = POLLIN},
		{.fd = s->giver.conn, .events = POLLIN},
		{.fd = s->dying.ending ? -1 : s->dying.thread, .events = POLLIN},
		{.fd = s->held_fd, .events = POLLIN},
	};

	if (poll(polls, sizeof(polls) / sizeof(polls[0]), wait_ms(s)) < 0)
		return;
	if (polls[0].revents)
		on_signals(s);
	if (polls[1].revents)
		receive_all(s);
	/* All that it said has been heard by then, for it said it before it ended. */
	if (polls[2].revents && s->pid) {
		receive_all(s);
		on_client_end(s);
	}
	if (polls[5].revents && s->pid)
		s->dying.ending = true;
	if (polls[6].revents)
		on_held_end(s);
	if (polls[3].revents)
		giver_accept(&s->giver);
	if (polls[4].revents && s->giver.conn >= 0)
		on_giver(s, giver_hear(&s->giver, &s->set, goes_on(s) && !s->stopping));
	if (!s->ended)
		on_time(s);
}

/* ---- the interface --------------------------------------------------------------------------- */

/* `granary purge` leaves a state directory alone as long as one mount holds this. */
static int share_lock(struct supervisor *s, struct error *err)
{
	char path[PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s/%s", s->settings->state_dir, PATHS_MOUNTS_LOCK);
	s->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (s->lock < 0)
		return error_set_errno(err, -errno, "cannot open %s", path);
	if (flock(s->lock, LOCK_SH | LOCK_NB) < 0)
		return error_set(err, -EBUSY, "%s is being purged", s->settings->state_dir);
	return 0;
}

int supervisor_init(struct supervisor *s, struct mount_state *state, const struct keep_set *set,
	struct error *err)
{
	sigset_t stop;
	int r;

	*s = (struct supervisor){.state = state,
		.set = *set,
		.trial = -1,
		.lock = -1,
		.signals = -1,
		.pidfd = -1,
		.sock = -1,
		.held_fd = -1,
		.dying = {.thread = -1}};
	giver_init(&s->giver, state);
	r = mount_settings_read(state, &s->settings, err);
	if (r < 0)
		return r;
	snprintf(s->log_file, sizeof(s->log_file), "%s", s->settings->log_file);
	r = share_lock(s, err);
	if (r < 0)
		return r;
	signals_block();
	sigemptyset(&stop);
	sigaddset(&stop, SIGINT);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGHUP);
	s->signals = signalfd(-1, &stop, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signals < 0)
		return error_set_errno(err, -errno, "cannot wait for signals");
	atomic_store(&state->supervisor_pid, (uint64_t)getpid());
	return 0;
}

int supervisor_run(struct supervisor *s)
{
	int r = s->pid ? 0 : start_client(s);

	if (r < 0) {
		log_error("%s: cannot start a client: %s", s->settings->mountpoint, strerror(-r));
		return EXIT_FAILED;
	}
	while (!s->ended)
		step(s);
	return s->code;
}

void supervisor_deinit(struct supervisor *s)
{
	forget_client(s);
	giver_close(&s->giver);
	if (s->signals >= 0)
		close(s->signals);
	if (s->lock >= 0)
		close(s->lock);
	keep_set_close(&s->set);
}
