/*
 * Assembly: the parts of a mount, in the order in which they come up, and the thread that takes
 * them down when the kernel's side is gone.
 *
 *	mountpoint -> master link (plan) -> manifest -> fs -> session (the mount answers)
 *		-> switcher, heartbeats -> caretaker thread
 *
 * One that goes on with the mount of another process (mount_state.h) comes up in the same order, from
 * what was kept: it asks neither the mount point nor the master.
 */
#define LOG_SUBSYSTEM "mount"
#include "fuse/mount.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "fuse/fs.h"
#include "fuse/master_link.h"
#include "fuse/mountpoint.h"
#include "fuse/node_id.h"
#include "fuse/order_socket.h"
#include "fuse/origin_link.h"
#include "fuse/peers.h"
#include "fuse/session.h"
#include "fuse/source_chain.h"
#include "fuse/switcher.h"
#include "fuse/thread.h"

#define MANIFEST_TIMEOUT_MS 600000
#define KEPT_MANIFEST_TIMEOUT_MS 2000 /* readers wait */
#define ORDER_SOCKET_RETRY_MS 2000
#define ORDER_SOCKET_STEP_US 20000
#define MOUNTPOINT_ROOM 4096
#define JOB_ROOM 64
#define ORIGIN_ROOM 4096

struct mount {
	char mountpoint[MOUNTPOINT_ROOM];
	char job[JOB_ROOM];			 /* "": none */
	char origin_url[ORIGIN_ROOM];		 /* of the first plan */
	char digest[MANIFEST_DIGEST_TEXT_BYTES]; /* of the first plan */

	/* What is up, in the order of coming up. */
	bool rpc_up, peers_up, fs_up, switcher_up;
	struct peers peers;
	struct origin_link origin;
	struct source_chain chain;
	struct master_link *link;
	struct manifest_cache *manifests;
	struct mount_keep *keep; /* of the options; NULL: none */
	struct fs fs;
	struct order_socket *order_socket;
	struct switcher switcher;
	pthread_t caretaker;
	/* of the report being sent */
	char last_error[ERROR_TEXT_BYTES];
	Granary__V1__ReadWaits read_waits;

	struct mutex session_mu;
	struct session *session; /* guarded by session_mu against its end */

	struct mutex mu;
	struct cond changed;
	bool ended;	/* guarded by mu */
	bool switching; /* guarded by mu: the switcher takes what is wanted */
};

/* ---- what the master link asks for and tells ---------------------------------------------------
 */

static void learn_peers(struct mount *m, Granary__V1__WorkerRef *const *workers, size_t count)
{
	struct peer_ref *refs;

	/* A master that was started anew does not know yet who lives, and a dead worker costs
	 * little: it is put aside. */
	if (count == 0)
		return;
	refs = calloc(count, sizeof(*refs));
	if (!refs)
		return;
	for (size_t i = 0; i < count; i++)
		refs[i] = (struct peer_ref){
			.id = workers[i]->worker_id,
			.address = workers[i]->address,
			.local_address = workers[i]->local_address,
			.local_identity = workers[i]->local_identity,
			.lease_socket = workers[i]->lease_socket,
			.host_id = workers[i]->host_id,
			.capacity_bytes = workers[i]->capacity_bytes,
		};
	if (peers_update(&m->peers, refs, count) < 0)
		log_warn("out of memory: the workers of the last heartbeat are not used");
	free(refs);
}

static void on_heard(void *arg, const Granary__V1__DatasetPlan *plan,
	Granary__V1__WorkerRef *const *workers, size_t workers_count,
	const struct master_direct *direct)
{
	struct mount *m = arg;
	const char *digest = plan->snapshots[0]->manifest_digest;
	struct error err = ERROR_INIT;

	learn_peers(m, workers, workers_count);
	if (origin_link_configure(&m->origin, plan->origin, plan->options, plan->n_options,
		    plan->secrets, plan->n_secrets, &err) < 0)
		log_warn("reads past the workers will fail: %s", err.text);
	if (direct)
		direct_pace_lease(&m->origin.pace, direct->bytes_per_s, direct->until_ms,
			direct->base_bytes_per_s, direct->base_until_ms);
	else
		direct_pace_free(&m->origin.pace);
	mutex_guard(&m->mu);
	if (m->switching)
		switcher_want(&m->switcher, digest);
	if (!m->digest[0]) {
		strncpy(m->digest, digest, sizeof(m->digest) - 1);
		strncpy(m->origin_url, plan->origin, sizeof(m->origin_url) - 1);
	}
}

static struct manifest_info shown(struct fs *fs)
{
	struct manifest *now = snapshot_slots_get(&fs->slots, NODE_SLOT_CURRENT, NULL);
	struct manifest_info info = *manifest_info(now);

	manifest_unref(now);
	return info;
}

static void report_loaders(struct mount *m, Granary__V1__MountHeartbeatRequest *ret)
{
	struct manifest_info info = shown(&m->fs);
	struct loader_pace_stat st;

	loader_pace_stat(&m->fs.loaders, info.files ? (double)info.bytes / (double)info.files : 0,
		clock_mono_ms(), &st);
	ret->loaders = st.loaders;
	ret->ideal_bytes_per_s = st.ideal_bytes_per_s;
	ret->data_wait_ratio = st.wait_ratio;
	ret->loader_workers = st.workers;
}

static void report_sample(struct mount *m, Granary__V1__MountHeartbeatRequest *ret)
{
	struct sample_stat st;

	sample_stat(&m->fs.sample, &st);
	ret->sampled_windows = st.estimate.windows;
	ret->sampled_ideal_bytes_per_s = st.estimate.ideal_bytes_per_s;
	ret->sampled_ideal_error = st.estimate.error;
	ret->consumed_bytes = st.consumed_bytes;
}

static uint64_t waited_us(struct mount *m, enum read_wait cause)
{
	return atomic_load(&m->fs.counters.waits_ns[cause]) / 1000;
}

static void report_waits(struct mount *m, Granary__V1__MountHeartbeatRequest *ret)
{
	Granary__V1__ReadWaits *w = &m->read_waits;

	granary__v1__read_waits__init(w);
	w->share_us = waited_us(m, READ_WAIT_SHARE);
	w->origin_us = waited_us(m, READ_WAIT_ORIGIN);
	w->peer_us = waited_us(m, READ_WAIT_PEER);
	w->disk_us = waited_us(m, READ_WAIT_DISK);
	w->queue_us = waited_us(m, READ_WAIT_QUEUE);
	ret->read_waits = w;
}

static void on_report(void *arg, Granary__V1__MountHeartbeatRequest *ret)
{
	struct mount *m = arg;

	if (!m->fs_up)
		return;
	counters_keep(&m->fs.counters, &m->fs.keep->state->counters);
	counters_last_error(&m->fs.counters, m->last_error);
	ret->snapshot = shown(&m->fs).snapshot;
	ret->hit_bytes = counters_hit_bytes(&m->fs.counters);
	ret->miss_bytes = counters_miss_bytes(&m->fs.counters);
	ret->failed_reads = atomic_load(&m->fs.counters.failed_reads);
	ret->direct_origin_bytes = atomic_load(&m->fs.counters.bytes[BLOCK_FROM_ORIGIN]);
	ret->last_error = m->last_error;
	ret->mode = (char *)fs_mode_text(&m->fs);
	report_loaders(m, ret);
	report_sample(m, ret);
	report_waits(m, ret);
	ret->takeovers = atomic_load(&m->fs.keep->state->takeovers);
}

static void on_keep(void *arg, const void *packed, size_t bytes)
{
	struct mount *m = arg;

	if (mount_state_plan_set(m->keep->state, packed, bytes) < 0)
		log_warn("%s: the plan is too long to be kept", m->mountpoint);
}

/* Of the process that stands for the mount. */
static uint64_t on_pid(void *arg)
{
	struct mount *m = arg;
	uint64_t pid = m->keep ? atomic_load(&m->keep->state->supervisor_pid) : 0;

	return pid ? pid : (uint64_t)getpid();
}

/* ---- coming up ---------------------------------------------------------------------------------
 */

static const char *mode_asked(enum mount_mode mode)
{
	switch (mode) {
	case MOUNT_MODE_NO_OPEN:
		return "no-open";
	case MOUNT_MODE_OPEN:
		return "open";
	case MOUNT_MODE_AUTO:
		break;
	}
	return "";
}

static bool resumes(const struct mount *m)
{
	return m->keep && m->keep->device >= 0;
}

static int meet_master(struct mount *m, const struct mount_options *opts, struct error *err)
{
	struct master_link_options link = {
		.address = opts->master_address,
		.token = opts->master_token,
		.dataset = opts->dataset,
		.job = m->job,
		.mountpoint = m->mountpoint,
		.mode = mode_asked(opts->mode),
		.heard = on_heard,
		.report = on_report,
		.pid = on_pid,
		.keep = m->keep ? on_keep : NULL,
		.arg = m,
	};
	char host_id[HOST_ID_TEXT_BYTES] = "";
	int r;

	rpc_init();
	m->rpc_up = true;
	if (host_id_get(host_id, err) < 0) {
		log_warn("no local short circuit: %s", err->text);
		host_id[0] = '\0';
	}
	r = peers_init(&m->peers, host_id, opts->master_token, err);
	if (r < 0)
		return r;
	origin_link_init(&m->origin);
	source_chain_init(&m->chain, &m->peers, &m->origin, opts->worker, m->job);
	m->peers_up = true;
	link.host_id = host_id;
	if (resumes(m)) {
		link.kept = mount_state_plan_get(m->keep->state, &link.kept_bytes);
		if (!link.kept)
			return error_set(err, -EPROTO, "no plan was kept");
	}
	return master_link_open(&link, &m->link, err);
}

/* By the descriptor that was kept, for the name may be gone; else as any other. */
static int shown_before(struct mount *m, uint32_t number, struct manifest **ret, struct error *err)
{
	int *fd = &m->keep->manifests[number % SNAPSHOT_SLOTS];
	char digest[MANIFEST_DIGEST_TEXT_BYTES], path[48];
	int r;

	if (!mount_state_shown(m->keep->state, number, digest))
		return error_set(err, -ENOENT, "it is not known which snapshot was shown");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", *fd);
	r = *fd < 0 ? -ENOENT : manifest_open(path, ret, err);
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	if (r == 0 && strcmp(manifest_info(*ret)->digest, digest) == 0)
		return 0;
	if (r == 0)
		manifest_unref(*ret);
	return manifest_cache_get(m->manifests, master_link_channel(m->link), digest,
		clock_deadline_ms(KEPT_MANIFEST_TIMEOUT_MS), ret, err);
}

/* What is lost of it answers ESTALE. */
static void show_older(struct mount *m)
{
	uint32_t current = atomic_load(&m->keep->state->current);

	for (uint32_t back = 1; back < SNAPSHOT_SLOTS && back <= current; back++) {
		struct error err = ERROR_INIT;
		struct manifest *older;

		if (shown_before(m, current - back, &older, &err) < 0) {
			log_warn("%s: what is open of an older snapshot is lost: %s", m->mountpoint,
				err.text);
			continue;
		}
		snapshot_slots_keep(&m->fs.slots, current - back, older);
		manifest_unref(older);
	}
}

static void hand_in_first(struct mount *m)
{
	int fd, r;

	if (!m->keep)
		return;
	fd = manifest_cache_file(m->manifests, m->digest);
	r = fd < 0 ? fd : m->keep->keep(m->keep->arg, 0, fd);
	if (fd >= 0)
		close(fd);
	if (r < 0)
		log_warn("%s: the manifest is not kept: %s", m->mountpoint, strerror(-r));
}

static int show_first(struct mount *m, const struct mount_options *opts, struct error *err)
{
	struct fs_options fs = {
		.dataset = opts->dataset,
		.job = m->job,
		.origin = m->origin_url,
		.uid = opts->uid,
		.gid = opts->gid,
		.mode = opts->mode,
		.read_timeout_ms = opts->read_timeout_ms,
		.order_memory_bytes = opts->order_memory_bytes,
		.sample_ppm = opts->sample_ppm,
		.keep = m->keep,
	};
	struct manifest *manifest;
	int r;

	if (resumes(m))
		fs.mode = (enum mount_mode)m->keep->state->mode;
	r = manifest_cache_new(opts->manifest_dir, &m->manifests, err);
	if (r == 0 && resumes(m))
		r = shown_before(m, atomic_load(&m->keep->state->current), &manifest, err);
	else if (r == 0)
		r = manifest_cache_get(m->manifests, master_link_channel(m->link), m->digest,
			clock_deadline_ms(MANIFEST_TIMEOUT_MS), &manifest, err);
	if (r < 0)
		return error_prefix(err, r, "manifest of dataset %s", opts->dataset);
	r = fs_init(&m->fs, &fs, manifest, &m->chain.source, err);
	manifest_unref(manifest);
	m->fs_up = r == 0;
	if (r == 0 && resumes(m))
		show_older(m);
	else if (r == 0)
		hand_in_first(m);
	return r;
}

/* Everything else works without it. */
static void hear_orders(struct mount *m, const struct mount_options *opts)
{
	/* The client before may be held back by the kernel, with its socket, until this one has
	 * answered. */
	int64_t deadline_ms = clock_deadline_ms(resumes(m) ? ORDER_SOCKET_RETRY_MS : 0);
	struct error err = ERROR_INIT;
	int r;

	if (!opts->socket_dir)
		return;
	while ((r = order_socket_start(&m->fs.order, &m->fs.loaders, opts->socket_dir,
			m->mountpoint, opts->socket_group, &m->order_socket, &err)) ==
			-EADDRINUSE &&
		!clock_passed(deadline_ms))
		usleep(ORDER_SOCKET_STEP_US);
	if (r < 0)
		log_warn("%s: no order can be announced: %s", m->mountpoint, err.text);
	else
		atomic_store(&m->fs.order_path, strdup(order_socket_path(m->order_socket)));
}

/* From here on another process can go on with it. */
static void set_serving(struct mount *m)
{
	if (!m->keep || resumes(m))
		return;
	if (device_can_resend(m->keep->state))
		atomic_store(&m->keep->state->serving, 1);
	else
		log_warn("%s ends with the process that serves it: the kernel cannot repeat "
			 "requests (Linux 6.9 can)",
			m->mountpoint);
}

static int go_live(struct mount *m, const struct mount_options *opts, struct error *err)
{
	struct session_options session = {
		.mountpoint = m->mountpoint,
		.allow_other = opts->allow_other,
		.no_preload = opts->no_preload,
		.no_passthrough = opts->no_passthrough,
	};
	int r;

	if (!resumes(m))
		hear_orders(m, opts);
	r = session_start(&m->fs, &session, &m->session, err);
	if (r < 0)
		return r;
	if (resumes(m))
		hear_orders(m, opts);
	r = switcher_start(
		&m->switcher, &m->fs, m->session, m->manifests, master_link_channel(m->link), err);
	if (r < 0)
		return r;
	mutex_lock(&m->mu);
	m->switcher_up = m->switching = true;
	mutex_unlock(&m->mu);
	r = master_link_start(m->link, err);
	if (r == 0)
		set_serving(m);
	return r;
}

/* ---- going down --------------------------------------------------------------------------------
 */

/* What only a mount that serves needs, and the good-bye; each step may not have come up. The order
 * matters: heartbeats feed the switcher, the switcher talks to the session, and jobs of the pool
 * reply through it. */
static void go_down(struct mount *m)
{
	struct session *session;

	order_socket_stop(m->order_socket);
	if (m->session)
		session_stop(m->session);
	mutex_lock(&m->mu);
	m->switching = false;
	mutex_unlock(&m->mu);
	if (m->switcher_up)
		switcher_stop(&m->switcher);
	if (m->fs_up)
		fs_stop(&m->fs);
	mutex_lock(&m->session_mu);
	session = m->session;
	m->session = NULL;
	mutex_unlock(&m->session_mu);
	session_free(session);
	master_link_close(m->link);
	m->link = NULL;
}

static void *caretaker_main(void *arg)
{
	struct mount *m = arg;

	session_wait(m->session);
	go_down(m);
	log_info("%s is unmounted", m->mountpoint);
	mutex_guard(&m->mu);
	m->ended = true;
	cond_broadcast(&m->changed);
	return NULL;
}

static void release(struct mount *m)
{
	if (m->fs_up)
		fs_deinit(&m->fs);
	manifest_cache_free(m->manifests);
	if (m->peers_up) {
		peers_deinit(&m->peers);
		origin_link_deinit(&m->origin);
	}
	if (m->rpc_up)
		rpc_deinit();
	cond_deinit(&m->changed);
	mutex_deinit(&m->mu);
	mutex_deinit(&m->session_mu);
	free(m);
}

/* ---- the interface -----------------------------------------------------------------------------
 */

static int take_job(struct mount *m, const char *job, struct error *err)
{
	if (!job)
		return 0;
	if (strlen(job) >= sizeof(m->job))
		return error_set(err, -EINVAL, "the name of a job has %zu bytes at most",
			sizeof(m->job) - 1);
	strcpy(m->job, job);
	return 0;
}

int mount_start(const struct mount_options *opts, struct mount **ret, struct error *err)
{
	struct mount *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return error_set(err, -ENOMEM, "out of memory");
	mutex_init(&m->session_mu);
	mutex_init(&m->mu);
	cond_init(&m->changed);
	m->keep = opts->keep;
	r = take_job(m, opts->job, err);
	if (resumes(m))
		snprintf(m->mountpoint, sizeof(m->mountpoint), "%s", m->keep->state->mountpoint);
	else if (r == 0)
		r = mountpoint_prepare(opts->mountpoint, opts->allow_other, m->mountpoint, err);
	if (r == 0)
		r = meet_master(m, opts, err);
	if (r == 0)
		r = show_first(m, opts, err);
	if (r == 0)
		r = go_live(m, opts, err);
	if (r == 0) {
		r = thread_start(&m->caretaker, caretaker_main, m);
		if (r < 0)
			error_set_errno(err, r, "cannot start a thread");
	}
	/* Going down would take the mount away that another process can still go on with. */
	if (r < 0 && resumes(m))
		return r;
	if (r < 0) {
		go_down(m);
		release(m);
		return r;
	}
	log_info("dataset %s is mounted on %s, mode %s", opts->dataset, m->mountpoint,
		fs_mode_text(&m->fs));
	*ret = m;
	return 0;
}

void mount_wait(struct mount *m)
{
	mutex_guard(&m->mu);

	while (!m->ended)
		cond_wait(&m->changed, &m->mu, CLOCK_NEVER);
}

void mount_stop(struct mount *m)
{
	mutex_guard(&m->session_mu);

	if (m->session)
		session_stop(m->session);
}

void mount_free(struct mount *m)
{
	if (!m)
		return;
	pthread_join(m->caretaker, NULL);
	release(m);
}

const char *mount_mountpoint(const struct mount *m)
{
	return m->mountpoint;
}

void mount_keep_counters(struct mount *m)
{
	counters_keep(&m->fs.counters, &m->fs.keep->state->counters);
}

void mount_stat(struct mount *m, struct mount_stat *ret)
{
	struct manifest_info info = shown(&m->fs);

	*ret = (struct mount_stat){
		.hit_bytes = counters_hit_bytes(&m->fs.counters),
		.miss_bytes = counters_miss_bytes(&m->fs.counters),
		.failed_reads = atomic_load(&m->fs.counters.failed_reads),
		.requests = counters_requests(&m->fs.counters),
		.snapshot = info.snapshot,
		.files = info.files,
		.bytes = info.bytes,
		.mode = fs_mode_text(&m->fs),
		.origin = m->fs.origin,
	};
}
