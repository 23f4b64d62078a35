/* `granary mount --takeover`: this process becomes the supervisor of a mount that another one
 * serves. */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/daemonize.h"
#include "cli/mount_log.h"
#include "cli/paths.h"
#include "cli/supervisor.h"
#include "cli/takeover.h"
#include "common/log.h"

static int become_supervisor(const char *dataset, const char *mountpoint, const struct paths *paths,
	struct supervisor *ret, struct error *err)
{
	struct mount_state *state;
	struct keep_set set;
	int conn, r = takeover_ask(paths->state_dir, dataset, mountpoint, &set, &state, &conn, err);

	if (r < 0)
		return r;
	r = supervisor_init(ret, state, &set, err);
	ret->trial = conn;
	return r;
}

static int run(struct invocation *inv, const char *dataset, const char *mountpoint,
	const struct paths *paths, int *ret_code, struct error *err)
{
	struct daemonize d = DAEMONIZE_INIT;
	char log[PATH_MAX + 64] = "";
	struct supervisor s;
	int r = 0;

	if (inv_switch(inv, "daemon"))
		r = daemonize_fork(&d, err);
	if (r == 0 && d.ready_fd >= 0) {
		mount_log_name(paths->state_dir, mountpoint, log, sizeof(log));
		r = log_to_file(log, err);
	}
	if (r == 0)
		r = become_supervisor(dataset, mountpoint, paths, &s, err);
	if (r < 0)
		return r;
	strcpy(s.log_file, log);
	s.daemon = &d;
	s.json = inv_json(inv);
	*ret_code = supervisor_run(&s);
	supervisor_deinit(&s);
	return 0;
}

int command_takeover(struct invocation *inv)
{
	const char *text = inv_argument(inv, inv_argc(inv) - 1);
	const char *dataset = inv_argc(inv) > 1 ? inv_argument(inv, 0) : NULL;
	struct error err = ERROR_INIT;
	char mountpoint[PATH_MAX];
	struct paths paths;
	int code = EXIT_OK, r = paths_find(inv, &paths, &err);

	if (r == 0) {
		r = takeover_resolve(text, mountpoint);
		if (r < 0)
			error_set_errno(&err, r, "cannot find %s", text);
	}
	if (r == 0)
		r = run(inv, dataset, mountpoint, &paths, &code, &err);
	return r < 0 ? inv_fail(inv, r, &err) : code;
}
