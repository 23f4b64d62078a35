#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/client.h"
#include "cli/commands.h"
#include "cli/daemonize.h"
#include "cli/mount_flags.h"
#include "cli/mount_log.h"
#include "cli/mount_settings.h"
#include "cli/paths.h"
#include "cli/supervisor.h"
#include "common/cleanup.h"
#include "common/log.h"

/* From here on this process is the supervisor, and the client a child of it. */
static int run(struct invocation *inv, const struct mount_options *mo, const struct paths *paths,
	int *ret_code, bool *ret_served, struct error *err)
{
	struct daemonize d = DAEMONIZE_INIT;
	struct mount_state *state = NULL;
	struct supervisor s;
	struct keep_set set;
	char log[PATH_MAX + 64] = "";
	int r = 0;

	keep_set_init(&set);
	if (inv_switch(inv, "daemon") && (r = daemonize_fork(&d, err)) < 0)
		return r;
	if (d.ready_fd >= 0) {
		mount_log_name(paths->state_dir, mo->mountpoint, log, sizeof(log));
		r = log_to_file(log, err);
	}
	if (r == 0)
		r = mount_state_new(&state, &set.state, err);
	if (r == 0)
		r = mount_settings_write(state, mo, paths, inv_text(inv, "metrics"), log, err);
	if (r == 0)
		r = supervisor_init(&s, state, &set, err);
	if (r < 0)
		return r;
	s.daemon = &d;
	s.json = inv_json(inv);
	*ret_code = supervisor_run(&s);
	*ret_served = atomic_load(&state->serving);
	supervisor_deinit(&s);
	return 0;
}

int command_mount(struct invocation *inv)
{
	cleanup_free char *token = NULL;
	struct error err = ERROR_INIT;
	struct mount_options mo = {0};
	struct paths_made made = {0};
	struct paths paths;
	int code = EXIT_OK, r;
	bool served = false;

	if (inv_switch(inv, "takeover"))
		return command_takeover(inv);
	if (inv_argc(inv) < 2)
		return inv_fail(
			inv, error_set(&err, -EINVAL, "mount wants DATASET and MOUNTPOINT"), &err);
	if ((r = paths_find(inv, &paths, &err)) < 0 ||
		(r = paths_read_token(inv_text(inv, "token-file"), &token, &err)) < 0 ||
		(r = client_socket_probe(
			 inv_text(inv, "master") ? inv_text(inv, "master") : paths.socket, &err)) <
			0 ||
		(r = mount_flags_read(inv, inv_argument(inv, 0), inv_argument(inv, 1), &mo, &err)) <
			0)
		return inv_fail(inv, r, &err);
	r = paths_make_private(paths.state_dir, PATHS_STATE_MARKER, &err);
	made.state = r > 0;
	if (r >= 0 && mkdir(paths.manifest_dir, 0700) < 0 && errno != EEXIST)
		r = error_set_errno(&err, -errno, "cannot make directory %s", paths.manifest_dir);
	if (r >= 0) {
		mo.master_address =
			inv_text(inv, "master") ? inv_text(inv, "master") : paths.socket;
		mo.master_token = token;
		mo.manifest_dir = paths.manifest_dir;
		mo.socket_dir = paths.state_dir;
		r = run(inv, &mo, &paths, &code, &served, &err);
	}
	mount_flags_free(&mo);
	/* A client that has failed has said why. */
	if (r < 0 || (code != EXIT_OK && !served))
		paths_discard(&paths, &made);
	return r < 0 ? inv_fail(inv, r, &err) : code;
}
