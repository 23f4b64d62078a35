/* The daemons of a cluster: master and worker apart. `up` is the same parts in one process. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/daemonize.h"
#include "cli/host.h"
#include "cli/output.h"
#include "cli/signals.h"
#include "common/cleanup.h"

static void report(const struct host *h, const struct host_options *ho, const char *role)
{
	output_json(json_pack("{s:s, s:o, s:o, s:I, s:o}", "role", role, "address",
		output_text(host_address(h)), "listen", output_text(ho->listen), "pid",
		(json_int_t)getpid(), "state_dir", output_text(ho->paths->state_dir)));
}

static int run(
	struct invocation *inv, struct host_options *ho, const char *log_name, struct error *err)
{
	struct daemonize d = DAEMONIZE_INIT;
	char log_file[PATH_MAX + 32];
	struct paths_made made = {0};
	struct host *h = NULL;
	bool started;
	int r = 0;

	ho->made = &made;
	snprintf(log_file, sizeof(log_file), "%s/%s.log", ho->paths->state_dir, log_name);
	if (inv_switch(inv, "daemon")) {
		ho->log_file = log_file;
		r = daemonize_fork(&d, err);
		if (r < 0)
			return r;
	}
	signals_block();
	r = host_new(ho, &h, err);
	if (r == 0)
		r = host_start(h, inv_text(inv, "metrics"), err);
	started = r == 0;
	if (started)
		fprintf(stderr, "%s serves at %s%s%s\n", log_name, host_address(h),
			ho->listen ? " and " : "", ho->listen ? ho->listen : "");
	if (r == 0)
		r = daemonize_prepare(&d, err);
	if (r == 0 && inv_json(inv))
		report(h, ho, log_name);
	if (r == 0)
		r = daemonize_ready(&d, err);
	if (r == 0)
		host_wait(h);
	host_free(h);
	if (!started)
		paths_discard(ho->paths, &made);
	return r;
}

static int prepare(struct invocation *inv, struct paths *paths, struct host_options *ho,
	char **ret_token, struct error *err)
{
	int r = paths_find(inv, paths, err);

	if (r == 0)
		r = paths_read_token(inv_text(inv, "token-file"), ret_token, err);
	if (r < 0)
		return r;
	ho->paths = paths;
	ho->listen = inv_text(inv, "listen");
	ho->advertise = inv_text(inv, "advertise");
	ho->token = *ret_token;
	ho->socket_group = inv_text(inv, "group");
	if (ho->listen && !*ret_token)
		return error_set(err, -EINVAL,
			"--listen wants a --token-file, so that not everybody "
			"on the network can use the cache");
	return 0;
}

int command_master(struct invocation *inv)
{
	struct host_options ho = {.parts = HOST_MASTER};
	cleanup_free char *token = NULL;
	struct error err = ERROR_INIT;
	struct paths paths;
	int r = prepare(inv, &paths, &ho, &token, &err);

	if (r == 0)
		r = sharing_flags(inv, &ho.sharing, &err);
	if (r == 0)
		r = run(inv, &ho, "master", &err);
	return r < 0 ? inv_fail(inv, r, &err) : EXIT_OK;
}

int command_worker(struct invocation *inv)
{
	struct host_options ho = {.parts = HOST_WORKER};
	cleanup_free char *token = NULL;
	struct error err = ERROR_INIT;
	struct paths paths;
	int r = prepare(inv, &paths, &ho, &token, &err);

	ho.master_address = inv_text(inv, "master");
	if (r == 0)
		r = paths_cache_limits(inv, paths.cache_dir, &ho.limits, &err);
	if (r == 0)
		r = run(inv, &ho, "worker", &err);
	return r < 0 ? inv_fail(inv, r, &err) : EXIT_OK;
}
