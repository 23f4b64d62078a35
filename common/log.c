#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"

#define LINE_BYTES 2048

static struct {
	_Atomic int level;
	pthread_mutex_t mu;

	/* guarded by mu */
	int fd;
	uint64_t file_bytes;
	char path[4096]; /* "" while lines go to stderr */
} state = {.level = LOG_INFO, .mu = PTHREAD_MUTEX_INITIALIZER, .fd = STDERR_FILENO};

static const char *const level_names[] = {"error", "warn", "info", "debug"};

void log_set_level(enum log_level level)
{
	atomic_store(&state.level, level);
}

int log_level_parse(const char *text, enum log_level *ret_level)
{
	for (int i = 0; i <= LOG_DEBUG; i++) {
		if (strcmp(text, level_names[i]) == 0) {
			*ret_level = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

bool log_enabled(enum log_level level)
{
	return (int)level <= atomic_load_explicit(&state.level, memory_order_relaxed);
}

static int open_file(const char *path, uint64_t *ret_bytes)
{
	struct stat st;
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	*ret_bytes = fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
	return fd;
}

int log_to_file(const char *path, struct error *err)
{
	uint64_t bytes = 0;
	int fd;

	if (strlen(path) >= sizeof(state.path) - 8)
		return error_set(err, -ENAMETOOLONG, "log file name is too long: %s", path);
	fd = open_file(path, &bytes);
	if (fd < 0)
		return error_set_errno(err, fd, "cannot open log file %s", path);
	pthread_mutex_lock(&state.mu);
	if (state.fd != STDERR_FILENO)
		close(state.fd);
	state.fd = fd;
	state.file_bytes = bytes;
	strcpy(state.path, path);
	pthread_mutex_unlock(&state.mu);
	return 0;
}

/* What cannot be rotated begins anew: the bound holds in any case. */
static void rotate_locked(void)
{
	char from[sizeof(state.path) + 12], to[sizeof(state.path) + 12];
	int fd;

	snprintf(from, sizeof(from), "%s.new", state.path);
	fd = open(from, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0) {
		state.file_bytes = ftruncate(state.fd, 0) < 0 ? state.file_bytes : 0;
		return;
	}
	for (int i = LOG_FILE_KEEP - 1; i >= 0; i--) {
		if (i == 0)
			snprintf(from, sizeof(from), "%s", state.path);
		else
			snprintf(from, sizeof(from), "%s.%d", state.path, i);
		snprintf(to, sizeof(to), "%s.%d", state.path, i + 1);
		(void)rename(from, to);
	}
	snprintf(from, sizeof(from), "%s.new", state.path);
	(void)rename(from, state.path);
	close(state.fd);
	state.fd = fd;
	state.file_bytes = 0;
}

static size_t escape(char *dst, size_t room, const char *src)
{
	size_t n = 0;

	for (; *src && n + 5 < room; src++) {
		unsigned char c = (unsigned char)*src;

		if (c < 0x20 || c == 0x7f)
			n += (size_t)snprintf(dst + n, room - n, "\\x%02x", c);
		else
			dst[n++] = (char)c;
	}
	return n;
}

void log_write(enum log_level level, const char *subsystem, const char *fmt, ...)
{
	char text[LINE_BYTES], line[LINE_BYTES + 128];
	struct timespec now;
	struct tm tm;
	size_t n;
	va_list ap;

	if (!log_enabled(level))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	n = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
	n += (size_t)snprintf(line + n, sizeof(line) - n, ".%03ldZ %s %s: ", now.tv_nsec / 1000000,
		level_names[level], subsystem);
	n += escape(line + n, sizeof(line) - n - 1, text);
	line[n++] = '\n';

	pthread_mutex_lock(&state.mu);
	if (state.path[0] && state.file_bytes + n > LOG_FILE_BYTES)
		rotate_locked();
	if (write(state.fd, line, n) > 0)
		state.file_bytes += n;
	pthread_mutex_unlock(&state.mu);
}
