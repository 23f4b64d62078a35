#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/client.h"
#include "cli/commands.h"
#include "cli/daemonize.h"
#include "cli/mount_flags.h"
#include "cli/mount_report.h"
#include "cli/paths.h"
#include "cli/signals.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/metrics_http.h"
#include "common/rpc/rpc.h"

struct watcher {
	struct mount *mount;
	_Atomic bool ended;
};

static void *watch(void *arg)
{
	struct watcher *w = arg;

	mount_wait(w->mount);
	atomic_store(&w->ended, true);
	return NULL;
}

/* Until somebody unmounts it, or a signal comes. */
static int serve(struct mount *m, struct error *err)
{
	struct watcher w = {.mount = m};
	pthread_t thread;
	int r = pthread_create(&thread, NULL, watch, &w);

	if (r) {
		mount_stop(m);
		mount_wait(m);
		return error_set_errno(err, -r, "cannot start a thread");
	}
	while (!atomic_load(&w.ended)) {
		if (signals_wait(200))
			mount_stop(m);
	}
	pthread_join(thread, NULL);
	return 0;
}

/* `granary purge` leaves a state directory alone as long as one mount holds this. */
static int share_lock(const struct paths *paths, int *ret_fd, struct error *err)
{
	char path[PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s/%s", paths->state_dir, PATHS_MOUNTS_LOCK);
	*ret_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (*ret_fd < 0)
		return error_set_errno(err, -errno, "cannot open %s", path);
	if (flock(*ret_fd, LOCK_SH | LOCK_NB) < 0)
		return error_set(err, -EBUSY, "%s is being purged", paths->state_dir);
	return 0;
}

/* STATE/mount-mnt-imagenet.log: each mount point has a log of its own. */
static void log_name(const struct paths *paths, const char *mountpoint, char *ret, size_t room)
{
	size_t n = (size_t)snprintf(ret, room, "%s/mount", paths->state_dir);

	for (const char *p = mountpoint; *p && n + sizeof(".log") < room; p++)
		ret[n++] = *p == '/' ? '-' : *p;
	snprintf(ret + n, room - n, ".log");
}

static void report(struct mount *m, const struct mount_options *mo)
{
	struct mount_stat st;

	mount_stat(m, &st);
	mount_report_print(&(struct mount_report){
		.dataset = mo->dataset,
		.origin = st.origin,
		.mountpoint = mount_mountpoint(m),
		.mode = st.mode,
		.master = mo->master_address,
		.snapshot = st.snapshot,
		.files = st.files,
		.bytes = st.bytes,
		.pid = (uint64_t)getpid(),
	});
}

static int run(struct invocation *inv, struct mount_options *mo, const struct paths *paths,
	struct error *err)
{
	cleanup_fd int lock = -1;
	struct metrics_http *metrics[2] = {NULL, NULL};
	struct daemonize d = DAEMONIZE_INIT;
	char text[PATH_MAX + 64];
	struct mount *m = NULL;
	int r;

	if ((r = share_lock(paths, &lock, err)) < 0 ||
		(inv_switch(inv, "daemon") && (r = daemonize_fork(&d, err)) < 0))
		return r;
	signals_block();
	rpc_init();
	log_name(paths, mo->mountpoint, text, sizeof(text));
	r = d.ready_fd < 0 ? 0 : log_to_file(text, err);
	snprintf(text, sizeof(text), "unix:%s/mount-%ld.metrics.sock", paths->state_dir,
		(long)getpid());
	if (r == 0)
		r = metrics_http_start(text, &metrics[0], NULL, err);
	if (r == 0 && inv_text(inv, "metrics"))
		r = metrics_http_start(inv_text(inv, "metrics"), &metrics[1], NULL, err);
	if (r == 0)
		r = mount_start(mo, &m, err);
	if (r == 0) {
		fprintf(stderr, "mounted %s at %s%s\n", mo->dataset, mo->mountpoint,
			d.ready_fd < 0 ? "; Ctrl-C unmounts" : "");
		r = daemonize_prepare(&d, err);
		if (r == 0 && inv_json(inv))
			report(m, mo);
		if (r == 0)
			r = daemonize_ready(&d, err);
		if (r < 0)
			mount_stop(m);
		if (serve(m, r < 0 ? NULL : err) < 0)
			r = -EIO;
		mount_free(m);
	}
	metrics_http_stop(metrics[0]);
	metrics_http_stop(metrics[1]);
	rpc_deinit();
	return r;
}

int command_mount(struct invocation *inv)
{
	cleanup_free char *token = NULL;
	struct error err = ERROR_INIT;
	struct mount_options mo = {0};
	struct paths_made made = {0};
	struct paths paths;
	int r;

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
		r = run(inv, &mo, &paths, &err);
	}
	mount_flags_free(&mo);
	if (r < 0)
		paths_discard(&paths, &made);
	return r < 0 ? inv_fail(inv, r, &err) : EXIT_OK;
}
