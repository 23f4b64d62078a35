#include "cli/host.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "cli/signals.h"
#include "common/address.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/metrics_http.h"
#include "common/rpc/rpc.h"
#include "common/sync.h"
#include "fuse/sample.h"
#include "granary/v1/host.pb-c.h"
#include "master/master.h"
#include "worker/worker.h"

#define LOG_SUBSYSTEM "host"
#include "common/log.h"

#define HOST_MOUNTS_MAX 256
#define HOST_THREADS 16 /* control calls; what waits for origins has threads of its own */
#define STOP_GRACE_MS 2000
#define WAIT_STEP_MS 200
#define WORKER_WAIT_MS 3000
#define METRICS_MAX 2

struct hosted_mount {
	struct mount *mount; /* owned by its thread until ended */
	pthread_t thread;
	_Atomic bool ended;
	struct host *host;
};

struct host {
	unsigned parts;
	char *state_dir, *socket_group, *manifest_dir, *token, *master_address, *master_token;
	char address[PATH_MAX + 32]; /* of the own server */
	int state_lock_fd, cache_lock_fd;
	struct rpc_server *server;
	struct rpc_health *health;
	struct master *master;
	struct worker *worker;
	struct metrics_http *metrics[METRICS_MAX];
	const struct host_settings *settings;
	bool serving;

	struct mutex mu;
	/* guarded by mu */
	struct hosted_mount *mounts[HOST_MOUNTS_MAX];
	size_t mount_count, starting;
	bool stopping;
};

/* One process per role and directory; `granary purge` looks at the same locks. */
static int take_lock(const char *dir, const char *name, int *ret_fd, struct error *err)
{
	char path[PATH_MAX + 16];
	cleanup_fd int fd = -1;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_set_errno(err, -errno, "cannot open %s", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return error_set(err, -EBUSY,
			"another granary process uses %s: stop it, or give another "
			"--state-dir and --cache-dir",
			dir);
	*ret_fd = steal_fd(&fd);
	return 0;
}

static int take_locks(struct host *h, const struct paths *paths, struct error *err)
{
	bool master = h->parts & HOST_MASTER;
	int r = take_lock(paths->state_dir, master ? PATHS_STATE_MARKER : PATHS_WORKER_LOCK,
		&h->state_lock_fd, err);

	if (r == 0 && (h->parts & HOST_WORKER))
		r = take_lock(paths->cache_dir, PATHS_CACHE_MARKER, &h->cache_lock_fd, err);
	return r;
}

/* ---- HostService ----------------------------------------------------------------------------- */

static void serve_settings(struct rpc_call *call, void *arg)
{
	const struct host *h = arg;
	Granary__V1__HostSettingsReply reply = GRANARY__V1__HOST_SETTINGS_REPLY__INIT;
	Granary__V1__HostSetting settings[HOST_SETTINGS], *pointers[HOST_SETTINGS];

	if (!rpc_call_request(call, &granary__v1__host_settings_request__descriptor))
		return;
	if (!rpc_call_is_local(call)) {
		rpc_call_fail(call, -EPERM, "settings are told to local callers only");
		return;
	}
	for (int i = 0; i < HOST_SETTINGS; i++) {
		granary__v1__host_setting__init(&settings[i]);
		settings[i].flag = (char *)h->settings->all[i].flag;
		settings[i].value = (char *)h->settings->all[i].value;
		pointers[i] = &settings[i];
	}
	reply.pid = (uint64_t)getpid();
	reply.n_settings = HOST_SETTINGS;
	reply.settings = pointers;
	rpc_call_reply(call, &reply.base);
}

static void serve_mount(struct rpc_call *call, void *arg)
{
	const Granary__V1__HostMountRequest *q =
		(const void *)rpc_call_request(call, &granary__v1__host_mount_request__descriptor);
	Granary__V1__HostMountReply reply = GRANARY__V1__HOST_MOUNT_REPLY__INIT;
	struct error err = ERROR_INIT;
	struct host_mounted mounted;
	struct mount_options opts;
	int r;

	if (!q)
		return;
	if (!rpc_call_is_local(call)) {
		rpc_call_fail(call, -EPERM, "mounts are made for local callers only");
		return;
	}
	opts = (struct mount_options){
		.dataset = q->dataset,
		.job = q->job,
		.mountpoint = q->mountpoint,
		.allow_other = q->allow_other,
		.uid = q->uid,
		.gid = q->gid,
		.no_preload = q->no_preload,
		.order_memory_bytes = q->order_memory_bytes,
		.sample_ppm = q->sample_ppm <= SAMPLE_PPM_MAX ? q->sample_ppm : SAMPLE_PPM_MAX,
		.no_passthrough = q->no_passthrough,
		.read_timeout_ms = (int64_t)q->read_timeout_ms,
	};
	r = mount_mode_parse(q->mode, &opts.mode);
	if (r == 0)
		r = host_mount(arg, &opts, &mounted, &err);
	else
		error_set(&err, r, "'%s' is no mount mode", q->mode);
	if (r < 0) {
		rpc_call_fail(call, r, err.text);
		return;
	}
	reply.pid = (uint64_t)getpid();
	reply.mountpoint = mounted.mountpoint;
	reply.mode = (char *)mounted.mode;
	rpc_call_reply(call, &reply.base);
}

/* ---- life ------------------------------------------------------------------------------------ */

static int listen_all(struct host *h, const struct host_options *opts, struct error *err)
{
	int r = rpc_server_listen(h->server, h->address, NULL, err);

	if (r == 0 && opts->listen)
		r = rpc_server_listen(h->server, opts->listen, NULL, err);
	return r;
}

/* What the master tells other hosts of this one: never an address that means "every address". */
static int reachable_address(
	const struct host_options *opts, char *ret, size_t room, struct error *err)
{
	const char *text = opts->advertise ? opts->advertise : opts->listen;
	struct address a;
	int r = address_parse(text, &a, err);

	if (r < 0)
		return r;
	if (a.kind == ADDRESS_UNIX || a.port == 0)
		return error_set(err, -EINVAL,
			"other hosts cannot be told '%s': give --listen a port, or --advertise "
			"HOST:PORT",
			text);
	if (strcmp(a.host, "0.0.0.0") != 0 && strcmp(a.host, "::") != 0) {
		snprintf(ret, room, "%s", text);
		return 0;
	}
	if (gethostname(a.host, sizeof(a.host)) < 0)
		return error_set_errno(err, -errno, "cannot find this host's name");
	a.host[sizeof(a.host) - 1] = '\0';
	snprintf(ret, room, "%s:%d", a.host, a.port);
	return 0;
}

static int add_parts(struct host *h, const struct host_options *opts, struct error *err)
{
	char reachable[ADDRESS_HOST_BYTES + 16];
	int r = 0;

	if (h->parts & HOST_MASTER) {
		struct master_options mo = {.state_dir = opts->paths->state_dir,
			.origins = &opts->sharing.origins,
			.policy = opts->sharing.policy,
			.storage = opts->sharing.storage};

		r = master_new(&mo, h->server, &h->master, err);
	}
	if (r == 0 && opts->listen)
		r = reachable_address(opts, reachable, sizeof(reachable), err);
	if (r == 0 && (h->parts & HOST_WORKER)) {
		struct worker_options wo = {
			.cache_dir = opts->paths->cache_dir,
			.capacity_bytes = opts->limits.capacity_bytes,
			.free_floor_bytes = opts->limits.free_floor_bytes,
			.scrub_bytes_per_s = opts->limits.scrub_bytes_per_s,
			.manifest_dir = h->manifest_dir,
			.master_address = h->master_address,
			.master_token = h->master_token,
			.address = opts->listen ? reachable : h->address,
			.local_address = h->address,
			.lease_socket = opts->paths->lease_socket,
			.socket_group = opts->socket_group,
		};

		r = worker_new(&wo, h->server, &h->worker, err);
	}
	if (r == 0 && (h->parts & HOST_MOUNTS)) {
		rpc_server_add(h->server, "/granary.v1.HostService/Settings", serve_settings, h);
		rpc_server_add(h->server, "/granary.v1.HostService/Mount", serve_mount, h);
	}
	return r;
}

static int make_directories(const struct host_options *opts, struct error *err)
{
	int r = paths_make_private(opts->paths->state_dir, PATHS_STATE_MARKER, err);

	opts->made->state = r > 0;
	if (r >= 0 && (opts->parts & HOST_WORKER)) {
		r = paths_make_private(opts->paths->cache_dir, PATHS_CACHE_MARKER, err);
		opts->made->cache = r > 0;
	}
	if (r < 0)
		return r;
	r = 0;
	if (opts->socket_group)
		r = paths_admit_group(opts->paths->state_dir, opts->socket_group, err);
	if (r == 0 && opts->socket_group && (opts->parts & HOST_WORKER))
		r = paths_admit_group(opts->paths->cache_dir, opts->socket_group, err);
	if (r == 0 && mkdir(opts->paths->manifest_dir, 0700) < 0 && errno != EEXIST)
		r = error_set_errno(
			err, -errno, "cannot make directory %s", opts->paths->manifest_dir);
	return r;
}

int host_new(const struct host_options *opts, struct host **ret, struct error *err)
{
	struct rpc_server_options so = {
		.threads = HOST_THREADS,
		.token = opts->token,
		.socket_group = opts->socket_group,
	};
	bool master = opts->parts & HOST_MASTER;
	struct host *h;
	int r;

	/* Libraries make files, too: none of them is for others. */
	umask(077);
	r = make_directories(opts, err);
	if (r < 0)
		return r;
	h = calloc(1, sizeof(*h));
	if (!h)
		return error_set(err, -ENOMEM, "out of memory");
	mutex_init(&h->mu);
	h->parts = opts->parts;
	h->settings = opts->settings;
	h->state_lock_fd = -1;
	h->cache_lock_fd = -1;
	snprintf(h->address, sizeof(h->address), "unix:%s/%s", opts->paths->state_dir,
		master ? "granary.sock" : "worker.sock");
	h->master_address =
		strdup(opts->master_address ? opts->master_address : opts->paths->socket);
	h->state_dir = strdup(opts->paths->state_dir);
	h->socket_group = opts->socket_group ? strdup(opts->socket_group) : NULL;
	h->manifest_dir = strdup(opts->paths->manifest_dir);
	h->token = opts->token ? strdup(opts->token) : NULL;
	h->master_token = h->token ? strdup(h->token) : NULL;
	r = take_locks(h, opts->paths, err);
	if (r == 0 && opts->log_file)
		r = log_to_file(opts->log_file, err);
	if (r < 0)
		goto fail;
	rpc_init();
	h->serving = true;
	if ((r = rpc_server_new(&so, &h->server, err)) < 0 ||
		(r = rpc_health_new(h->server, &h->health, err)) < 0 ||
		(r = add_parts(h, opts, err)) < 0 || (r = listen_all(h, opts, err)) < 0)
		goto fail;
	*ret = h;
	return 0;
fail:
	host_free(h);
	return r;
}

static int start_metrics(struct host *h, const char *address, struct error *err)
{
	char socket[PATH_MAX + 32];
	int r;

	snprintf(socket, sizeof(socket), "%.*s.metrics.sock",
		(int)(strlen(h->address) - strlen(".sock")), h->address);
	r = metrics_http_start(socket, &h->metrics[0], NULL, err);
	if (r == 0 && address)
		r = metrics_http_start(address, &h->metrics[1], NULL, err);
	return r;
}

int host_start(struct host *h, const char *metrics_address, struct error *err)
{
	int r = rpc_server_start(h->server, err);

	if (r == 0 && h->master)
		r = master_start(h->master, err);
	if (r == 0 && h->worker)
		r = worker_start(h->worker, err);
	if (r == 0)
		r = start_metrics(h, metrics_address, err);
	if (r == 0)
		rpc_health_set(h->health, "", true);
	return r;
}

const char *host_address(const struct host *h)
{
	return h->address;
}

/* ---- mounts ---------------------------------------------------------------------------------- */

static void *mount_main(void *arg)
{
	struct hosted_mount *m = arg;

	mount_wait(m->mount);
	log_info("unmounted %s", mount_mountpoint(m->mount));
	atomic_store(&m->ended, true);
	return NULL;
}

/* Joins and removes those that ended; returns how many live or are being made. */
static size_t reap(struct host *h)
{
	struct hosted_mount *ended[HOST_MOUNTS_MAX];
	size_t count = 0, left;

	mutex_lock(&h->mu);
	for (size_t i = 0; i < h->mount_count;) {
		if (atomic_load(&h->mounts[i]->ended)) {
			ended[count++] = h->mounts[i];
			h->mounts[i] = h->mounts[--h->mount_count];
		} else {
			i++;
		}
	}
	left = h->mount_count + h->starting;
	mutex_unlock(&h->mu);
	for (size_t i = 0; i < count; i++) {
		pthread_join(ended[i]->thread, NULL);
		mount_free(ended[i]->mount);
		free(ended[i]);
	}
	return left;
}

static int reserve_mount(struct host *h, struct error *err)
{
	mutex_guard(&h->mu);
	if (h->stopping)
		return error_set(err, -EAGAIN, "this process is stopping: try again");
	if (h->mount_count + h->starting == HOST_MOUNTS_MAX)
		return error_set(
			err, -ENOSPC, "one process serves at most %d mounts", HOST_MOUNTS_MAX);
	h->starting++;
	return 0;
}

static void settle_mount(struct host *h, struct hosted_mount *m)
{
	mutex_guard(&h->mu);
	h->starting--;
	if (m)
		h->mounts[h->mount_count++] = m;
}

int host_mount(struct host *h, const struct mount_options *opts, struct host_mounted *ret,
	struct error *err)
{
	struct mount_options mo = *opts;
	struct mount_stat st;
	struct hosted_mount *m;
	int r = reserve_mount(h, err);

	if (r < 0)
		return r;
	mo.master_address = h->master_address;
	mo.master_token = h->master_token;
	mo.manifest_dir = h->manifest_dir;
	mo.socket_dir = h->state_dir;
	mo.socket_group = h->socket_group;
	m = calloc(1, sizeof(*m));
	if (!m) {
		r = error_set(err, -ENOMEM, "out of memory");
		goto fail;
	}
	m->host = h;
	/* So that the mount is told of this worker at once, and finds the cache warm. */
	if (h->worker)
		worker_refresh(h->worker, clock_deadline_ms(WORKER_WAIT_MS));
	mo.worker = h->worker ? worker_embedded(h->worker) : NULL;
	r = mount_start(&mo, &m->mount, err);
	if (r < 0)
		goto fail;
	mount_stat(m->mount, &st);
	snprintf(ret->mountpoint, sizeof(ret->mountpoint), "%s", mount_mountpoint(m->mount));
	ret->mode = st.mode;
	r = pthread_create(&m->thread, NULL, mount_main, m);
	if (r) {
		r = error_set_errno(err, -r, "cannot start a thread");
		mount_stop(m->mount);
		mount_wait(m->mount);
		mount_free(m->mount);
		goto fail;
	}
	settle_mount(h, m);
	return 0;
fail:
	free(m);
	settle_mount(h, NULL);
	return r;
}

void host_wait(struct host *h)
{
	for (;;) {
		int sig = signals_wait(WAIT_STEP_MS);

		if (sig) {
			log_info("signal %d: stopping", sig);
			return;
		}
		if (reap(h) == 0 && (h->parts & HOST_MOUNTS))
			return;
	}
}

static void stop_mounts(struct host *h)
{
	mutex_lock(&h->mu);
	h->stopping = true;
	for (size_t i = 0; i < h->mount_count; i++)
		mount_stop(h->mounts[i]->mount);
	mutex_unlock(&h->mu);
	while (reap(h) > 0)
		usleep(10000);
}

void host_free(struct host *h)
{
	if (!h)
		return;
	if (h->server)
		stop_mounts(h);
	for (int i = 0; i < METRICS_MAX; i++)
		metrics_http_stop(h->metrics[i]);
	if (h->server)
		rpc_server_stop(h->server, STOP_GRACE_MS);
	worker_free(h->worker);
	master_free(h->master);
	rpc_health_free(h->health);
	rpc_server_free(h->server);
	if (h->serving)
		rpc_deinit();
	if (h->state_lock_fd >= 0)
		close(h->state_lock_fd);
	if (h->cache_lock_fd >= 0)
		close(h->cache_lock_fd);
	mutex_deinit(&h->mu);
	free(h->state_dir);
	free(h->socket_group);
	free(h->manifest_dir);
	free(h->token);
	free(h->master_token);
	free(h->master_address);
	free(h);
}
