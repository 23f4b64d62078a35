#include "cli/daemonize.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* The parent: ends as the child says. */
static void wait_for_child(pid_t pid, int fd)
{
	int status = 0;
	char byte;
	ssize_t n;

	do {
		n = read(fd, &byte, 1);
	} while (n < 0 && errno == EINTR);
	if (n == 1)
		_exit(0);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

int daemonize_fork(struct daemonize *d, struct error *err)
{
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return error_set_errno(err, -errno, "cannot make a pipe");
	pid = fork();
	if (pid < 0) {
		int r = -errno;

		close(fds[0]);
		close(fds[1]);
		return error_set_errno(err, r, "cannot start the background process");
	}
	if (pid > 0) {
		close(fds[1]);
		wait_for_child(pid, fds[0]);
	}
	close(fds[0]);
	/* Ctrl-C at the waiting parent ends the child too, until it is ready. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	setsid();
	d->ready_fd = fds[1];
	return 0;
}

int daemonize_prepare(struct daemonize *d, struct error *err)
{
	if (d->ready_fd < 0)
		return 0;
	d->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (d->null_fd < 0)
		return error_set_errno(err, -errno, "cannot open /dev/null");
	return chdir("/") < 0 ? error_set_errno(err, -errno, "cannot go to /") : 0;
}

static void leave_terminal(struct daemonize *d)
{
	for (int fd = 0; fd <= 2; fd++)
		dup2(d->null_fd, fd);
	close(d->null_fd);
	d->null_fd = -1;
}

void daemonize_detach(struct daemonize *d)
{
	leave_terminal(d);
	close(d->ready_fd);
	d->ready_fd = -1;
}

int daemonize_ready(struct daemonize *d, struct error *err)
{
	if (d->ready_fd < 0)
		return 0;
	leave_terminal(d);
	prctl(PR_SET_PDEATHSIG, 0);
	if (write(d->ready_fd, "", 1) != 1)
		return error_set_errno(err, -errno, "cannot tell that the mount is ready");
	close(d->ready_fd);
	d->ready_fd = -1;
	return 0;
}
