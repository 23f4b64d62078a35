#include "common/database/database_trial.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <rocksdb/c.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/database/database_repair.h"

#define LOG_SUBSYSTEM "database"
#include "common/log.h"

extern char **environ;

#define SELF "/proc/self/exe"
#define TRIAL_ARGUMENT "try-database"
#define OPEN "open"
#define REPAIR "repair"
#define TRIAL_MS ((int64_t)600000)
#define FAMILIES_MAX 256

static bool has_process;

/* ---- the process that may die ---------------------------------------------------------------- */

/* Whatever RocksDB says in words, it says again to the one who opens the database to use it. */
static void open_all_tables(const char *dir)
{
	rocksdb_column_family_handle_t *handles[FAMILIES_MAX];
	const rocksdb_options_t *options[FAMILIES_MAX];
	rocksdb_options_t *o = rocksdb_options_create();
	char **names, *text = NULL;
	size_t count = 0;

	rocksdb_options_set_max_open_files(
		o, -1); /* all tables are opened, not only the first few */
	names = rocksdb_list_column_families(o, dir, &count, &text);
	if (text || !names || count > FAMILIES_MAX)
		return;
	for (size_t i = 0; i < count; i++)
		options[i] = o;
	rocksdb_open_for_read_only_column_families(
		o, dir, (int)count, (const char *const *)names, options, handles, false, &text);
}

void database_trial_main(int argc, char **argv)
{
	const struct rlimit no_core = {0};
	struct error err = ERROR_INIT;
	int r = 0;

	if (argc != 4 || strcmp(argv[1], TRIAL_ARGUMENT) != 0) {
		has_process = true;
		return;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setrlimit(RLIMIT_CORE, &no_core);
	if (strcmp(argv[2], REPAIR) == 0)
		r = database_repair_in_copy(argv[3], &err);
	else
		open_all_tables(argv[3]);
	if (r < 0)
		dprintf(STDOUT_FILENO, "%s", err.text);
	_exit(-r);
}

/* ---- the one that waits for it --------------------------------------------------------------- */

static int spawn(const char *what, const char *dir, int out, pid_t *ret)
{
	const char *argv[] = {"granary", TRIAL_ARGUMENT, what, dir, NULL};
	posix_spawn_file_actions_t actions;
	int r;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	r = posix_spawn(ret, SELF, &actions, NULL, (char *const *)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	return -r;
}

/* Until it closes its end, which it does by ending. */
static int read_words(int fd, char words[static ERROR_TEXT_BYTES])
{
	int64_t deadline_ms = clock_deadline_ms(TRIAL_MS);
	size_t len = 0;

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left_ms = deadline_ms - clock_mono_ms();
		char rest[256];
		ssize_t n;

		if (left_ms <= 0)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)left_ms) <= 0)
			continue;
		n = read(fd, rest, sizeof(rest));
		if (n == 0)
			break;
		for (ssize_t i = 0; i < n && len + 1 < ERROR_TEXT_BYTES; i++)
			words[len++] = rest[i];
	}
	words[len] = '\0';
	return 0;
}

static bool died_of_it(int status)
{
	if (!WIFSIGNALED(status))
		return false;
	switch (WTERMSIG(status)) {
	case SIGABRT:
	case SIGBUS:
	case SIGFPE:
	case SIGILL:
	case SIGSEGV:
		return true;
	default: /* somebody ended it, or memory was out */
		return false;
	}
}

static int run(
	const char *what, const char *dir, int *ret_status, char words[static ERROR_TEXT_BYTES])
{
	int ends[2], r;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	r = spawn(what, dir, ends[1], &pid);
	close(ends[1]);
	if (r == 0) {
		r = read_words(ends[0], words);
		if (r < 0)
			kill(pid, SIGKILL);
		while (waitpid(pid, ret_status, 0) < 0 && errno == EINTR)
			;
	}
	close(ends[0]);
	return r;
}

static int died(const char *dir, int status, struct error *err)
{
	return error_set(err, -EBADMSG,
		"the database %s is damaged so that RocksDB dies of it (%s)", dir,
		strsignal(WTERMSIG(status)));
}

int database_try(const char *dir, struct error *err)
{
	char words[ERROR_TEXT_BYTES];
	int status, r;

	if (!has_process)
		return 0;
	r = run(OPEN, dir, &status, words);
	if (r < 0) {
		log_warn("no other process could open %s first: %s", dir, strerror(-r));
		return 0;
	}
	return died_of_it(status) ? died(dir, status, err) : 0;
}

int database_repair(const char *dir, struct error *err)
{
	char words[ERROR_TEXT_BYTES];
	int status, r;

	if (!has_process)
		return database_repair_in_copy(dir, err);
	r = run(REPAIR, dir, &status, words);
	if (r < 0 || WIFSIGNALED(status))
		database_repair_clean(dir);
	if (r < 0)
		return error_set_errno(err, r, "no process to repair %s", dir);
	if (died_of_it(status))
		return died(dir, status, err);
	if (!WIFEXITED(status))
		return error_set(err, -EIO, "the repair of %s was ended", dir);
	return WEXITSTATUS(status) == 0 ? 0 : error_set(err, -WEXITSTATUS(status), "%s", words);
}
