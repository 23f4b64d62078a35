#define LOG_SUBSYSTEM "fuse"
#include "fuse/session.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "fuse/loop.h"
#include "fuse/mountpoint.h"
#include "fuse/node_id.h"
#include "fuse/ops.h"
#include "fuse/thread.h"

#define BACKGROUND_MAX 512
#define CONGESTION 384
#define START_TIMEOUT_MS 10000
#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x00004000U /* linux/stat.h since 6.8 */
#endif

struct session {
	struct fs *fs;
	struct fuse_session *se;
	char *mountpoint;
	dev_t dev;	   /* of the mount, 0 before it answered */
	uint64_t mount_id; /* unique for the machine's life, 0 where the kernel tells none */
	pthread_t loop, prober;
	struct loop requests;
	bool loop_started, prober_started;
	atomic_bool stopping;

	struct mutex mu;
	struct cond changed;
	/* guarded by mu */
	bool probed, ended;
	int probe_result;
};

/* ---- libfuse's messages -----------------------------------------------------------------------
 */

/* What libfuse says while this thread mounts is the cause of a failure: it becomes the error's
 * text. Everything else goes to the log. */
static __thread struct error *captured;

static void on_fuse_log(enum fuse_log_level level, const char *fmt, va_list args)
{
	char text[ERROR_TEXT_BYTES];
	size_t len;

	vsnprintf(text, sizeof(text), fmt, args);
	len = strlen(text);
	while (len > 0 && text[len - 1] == '\n')
		text[--len] = '\0';
	if (captured)
		error_set(captured, 0, "%s", text);
	else if (level <= FUSE_LOG_ERR)
		log_error("%s", text);
	else
		log_debug("%s", text);
}

static pthread_once_t log_once = PTHREAD_ONCE_INIT;
static void set_log(void)
{
	fuse_set_log_func(on_fuse_log);
}

/* ---- INIT -------------------------------------------------------------------------------------
 */

static void want(struct fuse_conn_info *conn, uint64_t flag)
{
	if (conn->capable_ext & flag)
		fuse_set_feature_flag(conn, flag);
}

static void negotiate(struct fs *fs, struct fuse_conn_info *conn)
{
	want(conn, FUSE_CAP_ASYNC_READ);
	want(conn, FUSE_CAP_PARALLEL_DIROPS);
	/* Each listing may have attributes then, and ops_readdirplus says which do. */
	want(conn, FUSE_CAP_READDIRPLUS);
	fuse_unset_feature_flag(conn, FUSE_CAP_READDIRPLUS_AUTO);
	want(conn, FUSE_CAP_NO_OPENDIR_SUPPORT);
	want(conn, FUSE_CAP_CACHE_SYMLINKS);
	/* Any node can be found again by its id, and ids are never used twice. */
	want(conn, FUSE_CAP_EXPORT_SUPPORT);
	/* A node's content never changes, so nothing is dropped but on request. */
	fuse_unset_feature_flag(conn, FUSE_CAP_AUTO_INVAL_DATA);
	want(conn, FUSE_CAP_EXPLICIT_INVAL_DATA);
	fuse_unset_feature_flag(conn, FUSE_CAP_ATOMIC_O_TRUNC);
	/* With it the kernel waits for every O_DIRECT read in a way that not even SIGKILL ends. */
	fuse_unset_feature_flag(conn, FUSE_CAP_ASYNC_DIO);
	fuse_unset_feature_flag(conn, FUSE_CAP_OVER_IO_URING);
	if (atomic_load(&fs->mode) == MOUNT_MODE_NO_OPEN) {
		if (conn->capable_ext & FUSE_CAP_NO_OPEN_SUPPORT)
			fuse_set_feature_flag(conn, FUSE_CAP_NO_OPEN_SUPPORT);
		else
			atomic_store(&fs->mode, MOUNT_MODE_OPEN);
	}
	if (atomic_load(&fs->mode) == MOUNT_MODE_OPEN && fs->passthrough.wanted &&
		(conn->capable_ext & FUSE_CAP_PASSTHROUGH) &&
		(fs->keep->device >= 0 || passthrough_permitted())) {
		fuse_set_feature_flag(conn, FUSE_CAP_PASSTHROUGH);
		/* The store is not on a stacked file system then, and one may be stacked on us. */
		conn->max_backing_stack_depth = 0;
		passthrough_on(&fs->passthrough);
	}
	/* The largest request follows from max_write, also on a mount that nobody writes to. */
	conn->max_write = READ_MAX_BYTES;
	conn->max_background = BACKGROUND_MAX;
	conn->congestion_threshold = CONGESTION;
	conn->time_gran = 1;
}

static void on_init(void *userdata, struct fuse_conn_info *conn)
{
	struct fs *fs = userdata;

	negotiate(fs, conn);
	fs->device.negotiated = true;
}

static const struct fuse_lowlevel_ops operations = {
	.init = on_init,
	.lookup = ops_lookup,
	.forget = ops_forget,
	.forget_multi = ops_forget_multi,
	.getattr = ops_getattr,
	.readlink = ops_readlink,
	.open = ops_open,
	.release = ops_release,
	.read = ops_read,
	.readdir = ops_readdir,
	.readdirplus = ops_readdirplus,
	.statfs = ops_statfs,
	.getxattr = ops_getxattr,
	.listxattr = ops_listxattr,
};

/* ---- threads ----------------------------------------------------------------------------------
 */

static void *loop_main(void *arg)
{
	struct session *s = arg;
	int r = loop_run(&s->requests);

	if (r < 0 && r != -ENOTCONN && r != -ENODEV)
		log_error(
			"%s: the connection to the kernel broke: %s", s->mountpoint, strerror(-r));
	mutex_guard(&s->mu);
	s->ended = true;
	cond_broadcast(&s->changed);
	return NULL;
}

/* The first stat waits for the whole way, INIT included. It gets a thread of its own so that
 * nothing hangs if the answer never comes. */
static void *probe_main(void *arg)
{
	struct session *s = arg;
	struct statx sx;
	int r = statx(AT_FDCWD, s->mountpoint, AT_NO_AUTOMOUNT,
		STATX_BASIC_STATS | STATX_MNT_ID_UNIQUE, &sx);

	if (r < 0)
		r = -errno;
	mutex_guard(&s->mu);
	if (r == 0) {
		s->dev = makedev(sx.stx_dev_major, sx.stx_dev_minor);
		s->mount_id = sx.stx_mask & STATX_MNT_ID_UNIQUE ? sx.stx_mnt_id : 0;
	}
	s->probe_result = r;
	s->probed = true;
	cond_broadcast(&s->changed);
	return NULL;
}

void session_wait(struct session *s)
{
	mutex_guard(&s->mu);

	while (!s->ended)
		cond_wait(&s->changed, &s->mu, CLOCK_NEVER);
}

/* ---- start ------------------------------------------------------------------------------------
 */

static int add_option(char **opts, const char *key, const char *value)
{
	cleanup_free char *text = NULL;

	if (asprintf(&text, "%s%s", key, value) < 0) {
		text = NULL;
		return -ENOMEM;
	}
	return fuse_opt_add_opt_escaped(opts, text) == 0 ? 0 : -ENOMEM;
}

static int make_options(const struct session *s, bool allow_other, char **ret)
{
	static const char *const fixed[] = {
		"ro", "nosuid", "nodev", "default_permissions", "subtype=granary"};
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(fixed) / sizeof(fixed[0]); i++)
		r = add_option(ret, fixed[i], "");
	if (r == 0)
		r = add_option(ret, "fsname=granary:", s->fs->dataset);
	if (r == 0 && allow_other)
		r = add_option(ret, "allow_other", "");
	return r;
}

static bool resumes(const struct session *s)
{
	return s->fs->keep->device >= 0;
}

/* Without it the mount works, and ends with this process. */
static void hand_in_device(struct session *s)
{
	struct mount_keep *keep = s->fs->keep;
	int r = 0;

	if (!resumes(s) && keep->keep)
		r = keep->keep(keep->arg, MOUNT_KEEP_DEVICE, fuse_session_fd(s->se));
	if (r < 0)
		log_warn("%s: its connection is not kept: %s", s->mountpoint, strerror(-r));
}

static int mount_it(struct session *s, bool allow_other, struct error *err)
{
	cleanup_free char *opts = NULL;
	struct error cause = ERROR_INIT;
	char device[32], program[] = "granary", flag[] = "-o",
			 *argv[] = {program, flag, NULL, NULL};
	struct fuse_args args = {.argc = 3, .argv = argv};
	int r;

	if (make_options(s, allow_other, &opts) < 0)
		return error_set(err, -ENOMEM, "out of memory");
	argv[2] = opts;
	/* libfuse takes a device that is there already by this name. */
	if (resumes(s))
		snprintf(device, sizeof(device), "/dev/fd/%d", s->fs->keep->device);
	captured = &cause;
	s->se = fuse_session_new(&args, &operations, sizeof(operations), s->fs);
	r = s->se ? fuse_session_mount(s->se, resumes(s) ? device : s->mountpoint) : -1;
	captured = NULL;
	fuse_opt_free_args(&args);
	if (r == 0)
		loop_attach(&s->requests, s->se, &s->fs->device);
	if (r != 0)
		return error_set(err, -EIO, "cannot mount on %s: %s", s->mountpoint,
			cause.text[0]
				? cause.text
				: "not permitted, and fusermount3 could not help; a container "
				  "needs the capability SYS_ADMIN");
	passthrough_attach(&s->fs->passthrough, fuse_session_fd(s->se));
	hand_in_device(s);
	return 0;
}

static int await_answer_locked(struct session *s)
{
	int64_t deadline_ms = clock_deadline_ms(START_TIMEOUT_MS);
	int r = 0;

	while (!s->probed && !s->ended && r == 0)
		r = cond_wait(&s->changed, &s->mu, deadline_ms);
	if (s->probed)
		return s->probe_result;
	return s->ended ? -EIO : r;
}

static void start_window(struct session *s)
{
	kernel_window_start(
		&s->fs->window, s->dev, atomic_load(&s->fs->mode) == MOUNT_MODE_NO_OPEN);
}

/* What whoever resumes has to know; the mount is as the kernel was told once. */
static void keep_facts(struct session *s)
{
	struct mount_state *state = s->fs->keep->state;

	state->mode = (uint32_t)atomic_load(&s->fs->mode);
	state->passthrough = passthrough_is_on(&s->fs->passthrough);
	state->device_number = s->dev;
	state->mount_id = s->mount_id;
	snprintf(state->mountpoint, sizeof(state->mountpoint), "%s", s->mountpoint);
}

/* Nobody looks at the path: somebody else may have mounted there since, over what is still open. */
static int resume(struct session *s, struct error *err)
{
	const struct mount_state *state = s->fs->keep->state;
	int r = device_replay(&s->fs->device, s->se, err);

	if (r < 0)
		return r;
	s->dev = state->device_number;
	s->mount_id = state->mount_id;
	start_window(s);
	passthrough_resume(&s->fs->passthrough);
	r = thread_start(&s->loop, loop_main, s);
	if (r < 0)
		return error_set_errno(err, r, "cannot start a thread");
	s->loop_started = true;
	return 0;
}

static int start_threads(struct session *s, struct error *err)
{
	int r = thread_start(&s->loop, loop_main, s);

	if (r < 0)
		return error_set_errno(err, r, "cannot start a thread");
	s->loop_started = true;
	r = thread_start(&s->prober, probe_main, s);
	if (r < 0)
		return error_set_errno(err, r, "cannot start a thread");
	s->prober_started = true;
	{
		mutex_guard(&s->mu);
		r = await_answer_locked(s);
	}
	if (r < 0)
		return error_set_errno(err, r, "the mount on %s does not answer", s->mountpoint);
	start_window(s);
	keep_facts(s);
	return 0;
}

static void start_passthrough(struct session *s)
{
	struct error err = ERROR_INIT;

	if (passthrough_start(&s->fs->passthrough, &err) < 0)
		log_warn("large files are not verified for passthrough: %s", err.text);
}

static void start_preload(struct session *s, const struct session_options *opts)
{
	struct error err = ERROR_INIT;

	if (!opts->no_preload && preload_start(&s->fs->preload, s->se, &err) < 0)
		log_warn("no preloading: %s", err.text);
}

static void start_sample(struct session *s)
{
	struct error err = ERROR_INIT;

	if (sample_start(&s->fs->sample, s->se, &err) < 0)
		log_warn("nothing is sampled: %s", err.text);
}

int session_start(
	struct fs *fs, const struct session_options *opts, struct session **ret, struct error *err)
{
	struct session *s = calloc(1, sizeof(*s));
	int r;

	pthread_once(&log_once, set_log);
	if (!s || !(s->mountpoint = strdup(opts->mountpoint))) {
		free(s);
		return error_set(err, -ENOMEM, "out of memory");
	}
	s->fs = fs;
	fs->passthrough.wanted = resumes(s) ? fs->keep->state->passthrough : !opts->no_passthrough;
	mutex_init(&s->mu);
	cond_init(&s->changed);
	loop_init(&s->requests);
	r = mount_it(s, opts->allow_other, err);
	if (r == 0) {
		r = resumes(s) ? resume(s, err) : start_threads(s, err);
		if (r == 0) {
			start_preload(s, opts);
			start_sample(s);
			order_start(&fs->order);
			start_passthrough(s);
			*ret = s;
			return 0;
		}
	}
	if (!resumes(s))
		session_free(s);
	return r;
}

/* ---- end --------------------------------------------------------------------------------------
 */

/* Somebody else may have unmounted it, and mounted something of his own there. Numbers of devices
 * are used again at once, so without unique mount ids a closed connection is taken for an unmount,
 * though it may have been aborted (/sys/fs/fuse/connections). */
static bool still_mounted(const struct session *s)
{
	struct pollfd device = {.fd = fuse_session_fd(s->se), .events = 0};
	bool closed = poll(&device, 1, 0) == 1 && (device.revents & POLLERR);
	struct statx sx;

	if (s->dev == 0)
		return !closed;
	if (statx(AT_FDCWD, s->mountpoint, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT,
		    STATX_TYPE | STATX_MNT_ID_UNIQUE, &sx) < 0)
		return !closed;
	if (s->mount_id && (sx.stx_mask & STATX_MNT_ID_UNIQUE))
		return sx.stx_mnt_id == s->mount_id;
	return !closed && makedev(sx.stx_dev_major, sx.stx_dev_minor) == s->dev;
}

void session_stop(struct session *s)
{
	struct error err = ERROR_INIT;

	if (atomic_exchange(&s->stopping, true))
		return;
	/* While the session still answers: both may wait for a read of the same file. */
	preload_stop(&s->fs->preload);
	sample_stop(&s->fs->sample);
	order_stop(&s->fs->order);
	passthrough_stop(&s->fs->passthrough);
	if (still_mounted(s) && mountpoint_unmount(s->mountpoint, &err) < 0)
		log_warn("%s", err.text);
	fuse_session_exit(s->se);
	loop_stop(&s->requests);
}

void session_free(struct session *s)
{
	if (!s)
		return;
	if (s->loop_started) {
		session_stop(s);
		pthread_join(s->loop, NULL);
	}
	passthrough_end(&s->fs->passthrough);
	/* Closes the device, which also wakes a prober that was never answered. */
	if (s->se)
		fuse_session_destroy(s->se);
	if (s->prober_started)
		pthread_join(s->prober, NULL);
	loop_deinit(&s->requests);
	cond_deinit(&s->changed);
	mutex_deinit(&s->mu);
	free(s->mountpoint);
	free(s);
}

/* ---- another snapshot -------------------------------------------------------------------------
 */

static int forget_children(struct session *s, struct manifest *m)
{
	struct manifest_entry root = {0}, child;
	int r = m ? manifest_entry(m, 0, &root) : 0;

	for (uint32_t i = 0; r == 0 && i < root.children; i++) {
		r = manifest_entry(m, root.first_child + i, &child);
		if (r < 0)
			break;
		r = fuse_lowlevel_notify_inval_entry(s->se, NODE_ROOT, child.name, child.name_len);
		if (r == -ENOENT)
			r = 0;
	}
	return r;
}

int session_forget_root(struct session *s, struct manifest *old)
{
	struct manifest *now = snapshot_slots_get(&s->fs->slots, NODE_SLOT_CURRENT, NULL);
	int r = forget_children(s, old);

	if (r == 0)
		r = forget_children(s, now);
	manifest_unref(now);
	return r;
}

int session_invalidate(struct session *s, struct manifest *old, struct error *err)
{
	int r = fuse_lowlevel_notify_increment_epoch(s->se);

	if (r < 0)
		r = session_forget_root(s, old);
	if (r == 0)
		r = fuse_lowlevel_notify_inval_inode(s->se, NODE_ROOT, 0, 0);
	if (r < 0 && r != -ENOENT)
		return error_set_errno(
			err, r, "the kernel did not drop what it knew of %s", s->mountpoint);
	return 0;
}
