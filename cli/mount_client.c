#include "cli/mount_client.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/mount_report.h"
#include "cli/signals.h"
#include "cli/supervised.h"
#include "common/clock.h"
#include "common/metrics_http.h"
#include "common/rpc/rpc.h"

#define LOG_SUBSYSTEM "mount"
#include "common/log.h"

#define GO_MS 5000
#define METRICS_RETRY_MS 2000
#define METRICS_STEP_US 20000

struct client {
	const struct mount_client_options *opts;
	struct supervised supervised;
	struct metrics_http *metrics[2];
	struct mount *mount; /* also for the thread of `supervised` */
	_Atomic(struct mount *) up;
	_Atomic bool ended;
};

static void *watch(void *arg)
{
	struct client *c = arg;

	mount_wait(c->mount);
	atomic_store(&c->ended, true);
	return NULL;
}

/* Until somebody unmounts it, or a signal comes. */
static int serve(struct client *c, struct error *err)
{
	pthread_t thread;
	int r = pthread_create(&thread, NULL, watch, c);

	if (r) {
		mount_stop(c->mount);
		mount_wait(c->mount);
		return error_set_errno(err, -r, "cannot start a thread");
	}
	while (!atomic_load(&c->ended)) {
		if (signals_wait(200))
			mount_stop(c->mount);
	}
	pthread_join(thread, NULL);
	return 0;
}

static void report(struct client *c)
{
	const struct mount_settings *settings = c->opts->settings;
	struct mount_stat st;

	mount_stat(c->mount, &st);
	mount_report_print(&(struct mount_report){
		.dataset = settings->dataset,
		.origin = st.origin,
		.mountpoint = mount_mountpoint(c->mount),
		.mode = st.mode,
		.master = settings->master_address,
		.snapshot = st.snapshot,
		.files = st.files,
		.bytes = st.bytes,
		.pid = atomic_load(&c->opts->state->supervisor_pid),
	});
}

static int start_metrics(struct client *c, struct error *err)
{
	const struct mount_settings *settings = c->opts->settings;
	char address[PATH_MAX + 64];
	int r;

	snprintf(address, sizeof(address), "unix:%s/mount-%llu.metrics.sock", settings->state_dir,
		(unsigned long long)settings->pid);
	r = metrics_http_start(address, &c->metrics[0], NULL, err);
	if (r == 0 && settings->metrics_address[0])
		r = metrics_http_start(settings->metrics_address, &c->metrics[1], NULL, err);
	return r;
}

/* After another client, which may be held back by the kernel with its sockets until this one has
 * answered; and without them, should somebody else have their place. */
static void resume_metrics(struct client *c)
{
	int64_t deadline_ms = clock_deadline_ms(METRICS_RETRY_MS);
	struct error err = ERROR_INIT;
	int r;

	while ((r = start_metrics(c, &err)) < 0 && !clock_passed(deadline_ms)) {
		metrics_http_stop(c->metrics[0]);
		c->metrics[0] = NULL;
		usleep(METRICS_STEP_US);
	}
	if (r < 0)
		log_warn("no metrics: %s", err.text);
}

/* Says so, and lets go of the terminal; the supervisor lets the one who waits go. */
static int tell_ready(struct client *c, struct error *err)
{
	const struct mount_client_options *opts = c->opts;
	bool daemon = opts->daemon && opts->daemon->ready_fd >= 0;
	int r = 0;

	if (opts->said)
		fprintf(stderr, "%s %s at %s%s\n", opts->said, opts->settings->dataset,
			opts->settings->mountpoint, daemon ? "" : "; Ctrl-C unmounts");
	if (daemon)
		r = daemonize_prepare(opts->daemon, err);
	if (r == 0 && opts->json)
		report(c);
	fflush(NULL);
	if (r == 0 && daemon)
		daemonize_detach(opts->daemon);
	/* Another one has the mount again and waits for the end of this process. */
	if (r == 0 && supervised_ready(&c->supervised) < 0)
		_exit(EXIT_FAILED);
	return r;
}

static void leave(void *arg)
{
	struct client *c = arg;
	struct mount *mount = atomic_load(&c->up);

	if (mount)
		mount_keep_counters(mount);
}

static int run(struct client *c, struct error *err)
{
	struct mount_options mo;
	int r;

	mount_settings_options(c->opts->settings, &mo);
	mo.keep = &c->supervised.keep;
	r = c->opts->resume ? 0 : start_metrics(c, err);
	if (r == 0)
		r = mount_start(&mo, &c->mount, err);
	if (r < 0)
		return r;
	atomic_store(&c->up, c->mount);
	if (c->opts->resume)
		resume_metrics(c);
	r = tell_ready(c, err);
	if (r < 0)
		mount_stop(c->mount);
	if (serve(c, r < 0 ? NULL : err) < 0)
		r = -EIO;
	supervised_bye(&c->supervised);
	atomic_store(&c->up, NULL);
	mount_free(c->mount);
	return r;
}

/* Whoever has the mount until this one serves must be able to end it, should nothing come of it: two
 * clients would answer the same requests. */
static void await_go(int sock)
{
	struct keep_message m;
	int fd = -1;

	if (keep_await(sock, clock_deadline_ms(GO_MS), &m, &fd) < 0 || m.kind != KEEP_GO)
		_exit(EXIT_FAILED);
	if (fd >= 0)
		close(fd);
}

int mount_client_run(const struct mount_client_options *opts)
{
	struct client c = {.opts = opts};
	struct error err = ERROR_INIT;
	const struct mount_settings *settings;
	int r;

	if (opts->tries)
		await_go(opts->sock);
	/* Whoever died may have written nonsense over them. */
	r = mount_settings_read(opts->state, &settings, &err);
	if (r == 0)
		r = supervised_init(&c.supervised, opts->sock, opts->set, opts->state, opts->resume,
			opts->tries, &err);
	c.supervised.leave = leave;
	c.supervised.arg = &c;
	rpc_init();
	if (r == 0)
		r = supervised_start(&c.supervised, &err);
	if (r == 0)
		r = run(&c, &err);
	if (r < 0 && opts->resume) {
		/* The mount is the next one's: nothing of it may be taken down. */
		log_error("%s: cannot go on with the mount: %s", opts->state->mountpoint, err.text);
		_exit(EXIT_FAILED);
	}
	supervised_stop(&c.supervised);
	metrics_http_stop(c.metrics[0]);
	metrics_http_stop(c.metrics[1]);
	rpc_deinit();
	return r < 0 ? inv_fail(NULL, r, &err) : EXIT_OK;
}
