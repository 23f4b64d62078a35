#include "cli/lingering.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL /* linux/pidfd.h since 6.9 */
#endif
#define STUCK_LOOKS 3u

/* R, S, D, Z, ...; '\0': it is gone. */
static char state_of(pid_t pid, const char *thread)
{
	char path[300], line[512] = "";
	cleanup_file FILE *f = NULL;
	const char *end;

	snprintf(path, sizeof(path), "/proc/%d/task/%s/stat", (int)pid, thread);
	f = fopen(path, "re");
	if (!f || !fgets(line, sizeof(line), f))
		return '\0';
	end = strrchr(line, ')');
	return end && end[1] ? end[2] : '\0';
}

static bool all_are_held(pid_t pid)
{
	char path[48];
	cleanup_dir DIR *dir = NULL;
	const struct dirent *e;
	bool held = false;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	if (!dir)
		return false;
	while ((e = readdir(dir))) {
		char state = e->d_name[0] == '.' ? '\0' : state_of(pid, e->d_name);

		if (state == 'D')
			held = true;
		else if (state != '\0' && state != 'Z' && state != 'X')
			return false;
	}
	return held;
}

int lingering_thread(void)
{
	int fd = pidfd_open(gettid(), PIDFD_THREAD);

	return fd < 0 ? -errno : fd;
}

void lingering_begin(struct lingering *l, int thread)
{
	lingering_end(l);
	l->thread = thread;
}

void lingering_end(struct lingering *l)
{
	if (l->thread >= 0)
		close(l->thread);
	*l = (struct lingering){.thread = -1};
}

bool lingering_look(struct lingering *l, pid_t pid)
{
	l->stuck = all_are_held(pid) ? l->stuck + 1 : 0;
	return l->stuck >= STUCK_LOOKS;
}

int lingering_await(int pidfd, pid_t pid, int64_t deadline_ms)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	struct lingering l = {.thread = -1};

	while (poll(&p, 1, LINGERING_STEP_MS) <= 0) {
		if (lingering_look(&l, pid))
			return 0;
		if (clock_passed(deadline_ms))
			return -ETIMEDOUT;
	}
	return 0;
}
