/*
 * Servers for the origin tests: started on loopback, stopped by pid. A server that cannot be had
 * makes the test exit 77, "skipped".
 */
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SKIPPED 77

static inline int loopback_socket(int port, bool listening)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, r;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	r = listening ? bind(fd, (struct sockaddr *)&a, sizeof(a))
		      : connect(fd, (struct sockaddr *)&a, sizeof(a));
	if (r == 0 && listening)
		r = listen(fd, 64);
	if (r == 0)
		return fd;
	close(fd);
	return -1;
}

static inline int port_of(int fd)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);

	getsockname(fd, (struct sockaddr *)&a, &len);
	return ntohs(a.sin_port);
}

static inline int free_port(void)
{
	int fd = loopback_socket(0, true), port = port_of(fd);

	close(fd);
	return port;
}

/* Full path of a program, from the environment variable or PATH; NULL when it is not there. */
static inline const char *find_program(const char *variable, const char *name)
{
	static char path[4096];
	const char *given = variable ? getenv(variable) : NULL, *dirs = getenv("PATH");

	if (given)
		return access(given, X_OK) == 0 ? given : NULL;
	while (dirs && *dirs) {
		size_t n = strcspn(dirs, ":");

		snprintf(path, sizeof(path), "%.*s/%s", (int)n, dirs, name);
		if (access(path, X_OK) == 0)
			return path;
		dirs += n + (dirs[n] == ':');
	}
	/* Where tools/deps/test-servers.sh puts them. */
	if (getenv("GRANARY_DEPS"))
		snprintf(path, sizeof(path), "%s/go/bin/%s", getenv("GRANARY_DEPS"), name);
	else
		snprintf(path, sizeof(path), "%s/.cache/granary-dev/go/bin/%s",
			getenv("HOME") ? getenv("HOME") : "", name);
	if (access(path, X_OK) == 0)
		return path;
	snprintf(path, sizeof(path), "/usr/sbin/%s", name);
	return access(path, X_OK) == 0 ? path : NULL;
}

/* Starts a server with its output in `log`; it dies with the test. */
static inline pid_t start_server(const char *log, char *const argv[], char *const env[])
{
	pid_t parent = getpid(), pid = fork();

	if (pid == 0) {
		int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		dup2(fd, 1);
		dup2(fd, 2);
		for (size_t i = 0; env && env[i]; i++)
			putenv(env[i]);
		unsetenv("AWS_CA_BUNDLE");
		execv(argv[0], argv);
		_exit(127);
	}
	return pid;
}

static inline bool wait_for_port(pid_t pid, int port)
{
	for (int i = 0; i < 300; i++) {
		int fd = loopback_socket(port, false);

		if (fd >= 0) {
			close(fd);
			return true;
		}
		if (waitpid(pid, NULL, WNOHANG) == pid)
			return false;
		usleep(100000);
	}
	return false;
}

static inline void stop_server(pid_t pid)
{
	if (pid <= 0)
		return;
	kill(pid, SIGTERM);
	for (int i = 0; i < 50; i++) {
		if (waitpid(pid, NULL, WNOHANG) != 0)
			return;
		usleep(100000);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static inline int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static inline void remove_tree(const char *dir)
{
	nftw(dir, remove_one, 32, FTW_DEPTH | FTW_PHYS);
}

static inline void write_file(const char *path, const void *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	if (fd < 0 || write(fd, data, len) != (ssize_t)len)
		abort();
	close(fd);
}

static inline void write_text(const char *path, const char *text)
{
	write_file(path, text, strlen(text));
}
