/* A supervisor that a client has started in place of one that died: `granary supervise-mount`. */
#include <errno.h>

#include "cli/command.h"
#include "cli/supervisor.h"
#include "common/clock.h"

#define LOG_SUBSYSTEM "supervisor"
#include "common/log.h"

#define HAND_OVER_MS 5000

static int await(enum keep_kind kind, int *ret_fd, uint64_t *ret_value)
{
	int64_t deadline_ms = clock_deadline_ms(HAND_OVER_MS);
	struct keep_message m;
	int r = keep_await(SUPERVISOR_SOCKET, deadline_ms, &m, ret_fd);

	if (r == 0 && (m.kind != kind || *ret_fd < 0))
		r = -EPROTO;
	*ret_value = m.value;
	return r;
}

static int meet_client(struct supervisor *s, struct error *err)
{
	struct mount_state *state;
	struct keep_set set;
	uint64_t pid;
	int fd = -1, r;

	keep_set_init(&set);
	r = await(KEEP_STATE, &set.state, &pid);
	if (r == 0)
		r = await(KEEP_CLIENT, &fd, &pid);
	if (r < 0)
		return error_set_errno(err, r, "the client did not hand over the mount");
	r = mount_state_map(set.state, &state, err);
	if (r == 0)
		r = supervisor_init(s, state, &set, err);
	if (r < 0)
		return r;
	s->pidfd = fd;
	s->pid = (pid_t)pid;
	s->sock = SUPERVISOR_SOCKET;
	s->ready = true;
	s->began_ms = clock_mono_ms();
	log_set_level((enum log_level)s->settings->log_level);
	if (s->log_file[0])
		log_to_file(s->log_file, NULL);
	return 0;
}

int supervisor_main(void)
{
	struct error err = ERROR_INIT;
	struct supervisor s;

	if (meet_client(&s, &err) < 0) {
		log_error("%s", err.text);
		return EXIT_FAILED;
	}
	supervisor_run(&s);
	supervisor_deinit(&s);
	return s.code;
}
