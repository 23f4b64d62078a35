/* ClusterService: see proto/granary/v1/cluster.proto for what each call means. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "master/master_state.h"
#include "master/messages.h"

#define LOG_SUBSYSTEM "master"
#include "common/log.h"

#define SERVICE "/granary.v1.ClusterService/"
#define PLAN_WAIT_MS 500	   /* of a worker that registers */
#define OPEN_PLAN_WAIT_MS 2000	   /* of a mount that opens */
#define UNPLANNED_HEARTBEAT_MS 250 /* while the plan is being made, ask again soon */
#define CHUNK_BYTES ((size_t)1 << 20)

DEFINE_CLEANUP(struct namespace_batch *, namespace_batch_free)

/* ---- workers --------------------------------------------------------------------------------- */

struct worker_reply {
	Granary__V1__WorkerHeartbeatReply msg;
	struct plan_entry *entries;
	Granary__V1__DatasetPlan **list;
	size_t count;
};

static void worker_reply_deinit(struct worker_reply *r)
{
	for (size_t i = 0; i < r->count; i++)
		plan_entry_deinit(&r->entries[i]);
	free(r->entries);
	free(r->list);
}

/* Until the plan is made, an empty reply: a plan that is not finished would drop pinned blocks. */
static int worker_reply_fill_locked(struct master *m, struct worker_reply *r, bool local)
{
	size_t count = dataset_registry_count(&m->datasets);
	struct dataset *d, *next;

	if (r->msg.plan_version == m->plan_version)
		return 0;
	r->entries = calloc(count + 1, sizeof(*r->entries));
	r->list = calloc(count + 1, sizeof(*r->list));
	if (!r->entries || !r->list)
		return -ENOMEM;
	HASH_ITER (by_id, m->datasets.by_id, d, next) {
		if (!d->in_database || !d->current)
			continue;
		if (plan_entry_init(&r->entries[r->count], d, d->current, local) < 0)
			return -ENOMEM;
		r->list[r->count] = &r->entries[r->count].msg;
		r->count++;
	}
	r->msg.plan_version = m->plan_version;
	r->msg.datasets = r->list;
	r->msg.n_datasets = r->count;
	r->msg.has_plan = true;
	return 0;
}

static int worker_heard(struct master *m, const Granary__V1__WorkerHeartbeatRequest *request,
	bool local, struct worker_reply *reply, struct error *err)
{
	bool changed;
	int r;

	mutex_guard(&m->mu);
	r = workers_heard(&m->workers, &m->datasets, request, clock_mono_ms(), &changed, err);
	if (r < 0)
		return r;
	if (changed) {
		master_replan_locked(m);
		master_wait_planned_locked(m, clock_deadline_ms(PLAN_WAIT_MS));
	}
	reply->msg.plan_version = request->plan_version;
	reply->msg.interval_ms = MASTER_HEARTBEAT_MS;
	if (!master_is_planned_locked(m)) {
		reply->msg.interval_ms = UNPLANNED_HEARTBEAT_MS;
		return 0;
	}
	if (worker_reply_fill_locked(m, reply, local) < 0)
		return error_set(err, -ENOMEM, "the master is out of memory");
	return 0;
}

static void on_worker_heartbeat(struct rpc_call *call, void *arg)
{
	struct worker_reply reply = {.msg = GRANARY__V1__WORKER_HEARTBEAT_REPLY__INIT};
	struct error err = ERROR_INIT;
	const Granary__V1__WorkerHeartbeatRequest *request =
		(const Granary__V1__WorkerHeartbeatRequest *)rpc_call_request(
			call, &granary__v1__worker_heartbeat_request__descriptor);
	int r;

	if (!request)
		return;
	r = worker_heard(arg, request, rpc_call_is_local(call), &reply, &err);
	if (r < 0)
		rpc_call_fail(call, r, err.text);
	else
		rpc_call_reply(call, &reply.msg.base);
	worker_reply_deinit(&reply);
}

/* ---- mounts ---------------------------------------------------------------------------------- */

/* What OpenMount and MountHeartbeat have in common in their replies. */
struct mount_reply {
	struct plan_entry plan;
	Granary__V1__WorkerRef **workers;
	size_t workers_count;
};

static void mount_reply_deinit(struct mount_reply *r)
{
	plan_entry_deinit(&r->plan);
	for (size_t i = 0; i < r->workers_count; i++)
		granary__v1__worker_ref__free_unpacked(r->workers[i], NULL);
	free(r->workers);
}

static int mount_reply_fill_locked(struct master *m, struct mount_reply *r, struct dataset *d,
	const struct mount_peer *p, bool local, struct error *err)
{
	struct snapshot *shown = dataset_snapshot(d, p->shown);
	struct snapshot *assigned = dataset_snapshot(d, p->assigned);

	if (shown)
		shown->named_ms = clock_mono_ms();
	if (assigned)
		assigned->named_ms = clock_mono_ms();
	if (plan_entry_init(&r->plan, d, p->assigned, local) < 0 ||
		workers_refs(&m->workers, clock_mono_ms(), &r->workers, &r->workers_count) < 0)
		return error_set(err, -ENOMEM, "the master is out of memory");
	return 0;
}

static int find_mountable_locked(
	struct master *m, const char *name, struct dataset **ret, struct error *err)
{
	struct dataset *d = dataset_registry_find(&m->datasets, name);

	if (!d)
		return error_set(err, -ENOENT,
			"there is no dataset '%.128s': `granary dataset ls` shows those there "
			"are, `granary dataset add` makes one",
			name);
	if (!d->in_database)
		return error_set(err, -ENOENT,
			"dataset %s is still being added: wait until that ends", name);
	if (!d->current)
		return error_set(err, -ESTALE,
			"dataset %s has lost its snapshots: `granary dataset refresh %s` lists "
			"the origin again",
			name, name);
	*ret = d;
	return 0;
}

/* Enters the mount in memory and in the database. */
static int mount_enter(struct master *m, const Granary__V1__OpenMountRequest *request, uint64_t id,
	struct error *err)
{
	CLEANUP(namespace_batch_free_ptr) struct namespace_batch *batch = namespace_batch_new();
	struct mount_peer *p = NULL;
	struct dataset *d = NULL;
	int r;

	if (!batch)
		return error_set(err, -ENOMEM, "the master is out of memory");
	mutex_guard(&m->state_mu);
	mutex_lock(&m->mu);
	r = find_mountable_locked(m, request->dataset, &d, err);
	if (r == 0)
		r = mounts_open(&m->mounts, d, id, request, clock_mono_ms(), &p, err);
	if (r == 0 && mounts_put(p, batch) < 0)
		r = error_set(err, -ENOMEM, "the master is out of memory");
	if (r == 0 && d->live_mounts == 1)
		master_replan_locked(m);
	mutex_unlock(&m->mu);
	if (r == 0)
		r = namespace_db_commit(m->db, batch, true, err);
	if (r < 0 && p) {
		mutex_guard(&m->mu);
		mounts_remove(&m->mounts, &m->datasets, p);
	}
	return r;
}

static int mount_open(struct master *m, const Granary__V1__OpenMountRequest *request, uint64_t id,
	bool local, struct mount_reply *reply, struct error *err)
{
	struct mount_peer *p;
	struct dataset *d;
	int r = mount_enter(m, request, id, err);

	if (r < 0)
		return r;
	mutex_guard(&m->mu);
	master_wait_planned_locked(m, clock_deadline_ms(OPEN_PLAN_WAIT_MS));
	p = mounts_find(&m->mounts, id);
	d = p ? dataset_registry_get(&m->datasets, p->dataset_id) : NULL;
	if (!d)
		return error_set(err, -ENOENT, "dataset %.128s was just removed", request->dataset);
	return mount_reply_fill_locked(m, reply, d, p, local, err);
}

static void on_open_mount(struct rpc_call *call, void *arg)
{
	Granary__V1__OpenMountReply msg = GRANARY__V1__OPEN_MOUNT_REPLY__INIT;
	struct mount_reply reply = {0};
	struct error err = ERROR_INIT;
	const Granary__V1__OpenMountRequest *request =
		(const Granary__V1__OpenMountRequest *)rpc_call_request(
			call, &granary__v1__open_mount_request__descriptor);
	int r;

	if (!request)
		return;
	msg.mount_id = master_random_id();
	r = mount_open(arg, request, msg.mount_id, rpc_call_is_local(call), &reply, &err);
	if (r < 0) {
		rpc_call_fail(call, r, err.text);
	} else {
		log_info("%s mounted dataset %s at %s", request->host, request->dataset,
			request->mountpoint);
		msg.plan = &reply.plan.msg;
		msg.workers = reply.workers;
		msg.n_workers = reply.workers_count;
		msg.interval_ms = MASTER_HEARTBEAT_MS;
		rpc_call_reply(call, &msg.base);
	}
	mount_reply_deinit(&reply);
}

static int mount_heard(struct master *m, const Granary__V1__MountHeartbeatRequest *request,
	bool local, struct mount_reply *reply, struct error *err)
{
	struct mount_peer *p;
	struct dataset *d;
	bool revived;
	int r;

	mutex_guard(&m->mu);
	p = mounts_find(&m->mounts, request->mount_id);
	if (p) {
		d = dataset_registry_get(&m->datasets, p->dataset_id);
		r = d && d->current ? 0
				    : error_set(err, -ENOENT, "dataset %.128s was removed",
					      request->dataset);
	} else {
		r = find_mountable_locked(m, request->dataset, &d, err);
	}
	if (r == 0)
		r = mounts_heard(&m->mounts, d, request, clock_mono_ms(), &p, &revived, err);
	if (r < 0)
		return r;
	if (revived) {
		log_info(
			"%s mounts dataset %s at %s", p->host, d->config->msg->name, p->mountpoint);
		master_replan_locked(m);
	}
	return mount_reply_fill_locked(m, reply, d, p, local, err);
}

static void on_mount_heartbeat(struct rpc_call *call, void *arg)
{
	Granary__V1__MountHeartbeatReply msg = GRANARY__V1__MOUNT_HEARTBEAT_REPLY__INIT;
	struct mount_reply reply = {0};
	struct error err = ERROR_INIT;
	const Granary__V1__MountHeartbeatRequest *request =
		(const Granary__V1__MountHeartbeatRequest *)rpc_call_request(
			call, &granary__v1__mount_heartbeat_request__descriptor);
	int r;

	if (!request)
		return;
	r = mount_heard(arg, request, rpc_call_is_local(call), &reply, &err);
	if (r < 0) {
		rpc_call_fail(call, r, err.text);
	} else {
		msg.plan = &reply.plan.msg;
		msg.workers = reply.workers;
		msg.n_workers = reply.workers_count;
		msg.interval_ms = MASTER_HEARTBEAT_MS;
		rpc_call_reply(call, &msg.base);
	}
	mount_reply_deinit(&reply);
}

/* Closing an unknown mount is fine: it may have been lost, or closed by a call whose reply was. */
static int mount_close(
	struct master *m, const Granary__V1__CloseMountRequest *request, struct error *err)
{
	CLEANUP(namespace_batch_free_ptr) struct namespace_batch *batch = namespace_batch_new();
	Granary__State__V1__TotalsState totals;
	struct mount_peer *p;
	struct dataset *d;
	int r = 0;

	if (!batch)
		return error_set(err, -ENOMEM, "the master is out of memory");
	mutex_guard(&m->state_mu);
	mutex_lock(&m->mu);
	p = mounts_find(&m->mounts, request->mount_id);
	d = p ? dataset_registry_get(&m->datasets, p->dataset_id) : NULL;
	if (d) {
		if (request->last)
			mounts_count(p, d, request->last);
		dataset_totals(d, &totals);
		r = namespace_batch_put(batch, NAMESPACE_TOTALS, d->id, 0, &totals.base);
	}
	if (p) {
		namespace_batch_delete(batch, NAMESPACE_MOUNT, p->id, 0);
		mounts_remove(&m->mounts, &m->datasets, p);
	}
	if (d && d->live_mounts == 0)
		master_replan_locked(m);
	mutex_unlock(&m->mu);
	if (r < 0)
		return error_set(err, -ENOMEM, "the master is out of memory");
	return namespace_batch_empty(batch) ? 0 : namespace_db_commit(m->db, batch, true, err);
}

static void on_close_mount(struct rpc_call *call, void *arg)
{
	Granary__V1__CloseMountReply reply = GRANARY__V1__CLOSE_MOUNT_REPLY__INIT;
	struct error err = ERROR_INIT;
	const Granary__V1__CloseMountRequest *request =
		(const Granary__V1__CloseMountRequest *)rpc_call_request(
			call, &granary__v1__close_mount_request__descriptor);
	int r;

	if (!request)
		return;
	r = mount_close(arg, request, &err);
	if (r < 0)
		rpc_call_fail(call, r, err.text);
	else
		rpc_call_reply(call, &reply.base);
}

/* ---- manifests ------------------------------------------------------------------------------- */

static bool is_used(struct master *m, const char *digest)
{
	struct dataset *d, *next;

	mutex_guard(&m->mu);
	HASH_ITER (by_id, m->datasets.by_id, d, next) {
		for (size_t i = 0; i < d->snapshots_count; i++)
			if (strcmp(d->snapshots[i].state->digest, digest) == 0)
				return true;
	}
	return false;
}

/* Reads the next chunk into memory of its own, which the transport frees. 0: the end. */
static ssize_t read_chunk(int fd, off_t at, char **ret)
{
	char *chunk = malloc(CHUNK_BYTES);
	size_t got = 0;

	if (!chunk)
		return -ENOMEM;
	while (got < CHUNK_BYTES) {
		ssize_t n = pread(fd, chunk + got, CHUNK_BYTES - got, at + (off_t)got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			n = -errno;
			free(chunk);
			return n;
		}
		if (n == 0)
			break;
		got += (size_t)n;
	}
	*ret = chunk;
	return (ssize_t)got;
}

/* 0 when all was sent; -ECANCELED when nobody listens any more. */
static int send_file(struct rpc_call *call, int fd, const char *digest, struct error *err)
{
	Granary__V1__ManifestChunk head = GRANARY__V1__MANIFEST_CHUNK__INIT;

	for (off_t at = 0;;) {
		char *chunk = NULL;
		ssize_t got = read_chunk(fd, at, &chunk);

		if (got < 0)
			return error_set_errno(
				err, (int)got, "cannot read the manifest %s", digest);
		if (got == 0) {
			free(chunk);
			return 0;
		}
		/* The field's number is the one of ManifestChunk.data. */
		if (rpc_call_send_bytes(call, &head.base, 1, chunk, (size_t)got, free, chunk) < 0)
			return error_set(err, -ECANCELED, "the client went away");
		at += got;
	}
}

static void on_fetch_manifest(struct rpc_call *call, void *arg)
{
	struct master *m = arg;
	cleanup_fd int fd = -1;
	struct error err = ERROR_INIT;
	const Granary__V1__FetchManifestRequest *request =
		(const Granary__V1__FetchManifestRequest *)rpc_call_request(
			call, &granary__v1__fetch_manifest_request__descriptor);
	int r;

	if (!request)
		return;
	if (!manifest_store_is_digest(request->digest))
		r = error_set(&err, -EINVAL, "a manifest's digest has 32 hex digits");
	else if (!is_used(m, request->digest))
		r = error_set(&err, -ENOENT, "no snapshot has the manifest %s", request->digest);
	else
		r = manifest_store_open_fd(m->manifests, request->digest, &fd, &err);
	if (r == 0)
		r = send_file(call, fd, request->digest, &err);
	if (r < 0)
		rpc_call_fail(call, r, err.text);
	else
		rpc_call_end(call);
}

/* ---- status ---------------------------------------------------------------------------------- */

static int status_fill(struct master *m, Granary__V1__StatusReply *reply)
{
	int64_t now_ms = clock_mono_ms();
	int r = dataset_list_message(m, &reply->datasets, &reply->n_datasets);

	reply->version = strdup(GRANARY_VERSION);
	reply->started_s = m->started_s;
	mutex_guard(&m->mu);
	if (r == 0)
		r = workers_status(&m->workers, now_ms, &reply->workers, &reply->n_workers);
	if (r == 0)
		r = mounts_status(
			&m->mounts, &m->datasets, now_ms, &reply->mounts, &reply->n_mounts);
	return r;
}

/* A cluster of thousands may be too much for one message: the details go first. */
static void status_shorten(Granary__V1__StatusReply *reply)
{
	size_t room = RPC_MESSAGE_MAX_BYTES - (1u << 16);

	if (granary__v1__status_reply__get_packed_size(reply) <= room)
		return;
	for (size_t i = 0; i < reply->n_workers; i++) {
		Granary__V1__WorkerStatus *w = reply->workers[i];

		for (size_t j = 0; j < w->n_datasets; j++)
			granary__v1__worker_dataset__free_unpacked(w->datasets[j], NULL);
		w->n_datasets = 0;
	}
	for (size_t i = 0; i < reply->n_datasets; i++)
		message_dataset_shorten(reply->datasets[i]);
	while (reply->n_mounts > 0 && granary__v1__status_reply__get_packed_size(reply) > room)
		for (size_t half = reply->n_mounts / 2; reply->n_mounts > half;)
			granary__v1__mount_status__free_unpacked(
				reply->mounts[--reply->n_mounts], NULL);
}

static void on_status(struct rpc_call *call, void *arg)
{
	Granary__V1__StatusReply *reply;

	if (!rpc_call_request(call, &granary__v1__status_request__descriptor))
		return;
	reply = malloc(sizeof(*reply));
	if (reply)
		granary__v1__status_reply__init(reply);
	if (!reply || status_fill(arg, reply) < 0) {
		rpc_call_fail(call, -ENOMEM, "the master is out of memory");
	} else {
		status_shorten(reply);
		rpc_call_reply(call, &reply->base);
	}
	granary__v1__status_reply__free_unpacked(reply, NULL);
}

void cluster_service_add(struct master *m, struct rpc_server *server)
{
	rpc_server_add(server, SERVICE "WorkerHeartbeat", on_worker_heartbeat, m);
	rpc_server_add(server, SERVICE "OpenMount", on_open_mount, m);
	rpc_server_add(server, SERVICE "MountHeartbeat", on_mount_heartbeat, m);
	rpc_server_add(server, SERVICE "CloseMount", on_close_mount, m);
	rpc_server_add(server, SERVICE "FetchManifest", on_fetch_manifest, m);
	rpc_server_add(server, SERVICE "Status", on_status, m);
}
