/* ClusterService: see proto/granary/v1/cluster.proto for what each call means. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "master/master_state.h"
#include "master/messages.h"
#include "master/origin_ledger.h"

#define LOG_SUBSYSTEM "master"
#include "common/log.h"

#define SERVICE "/granary.v1.ClusterService/"
#define PLAN_WAIT_MS 200	   /* of a worker that registers */
#define UNPLANNED_HEARTBEAT_MS 250 /* while the plan is being made, ask again soon */
#define UNSETTLED_HEARTBEAT_MS 250
#define CHUNK_BYTES ((size_t)1 << 20)
#define FETCHES_MAX 16 /* of manifests at once; more wait for their turn */

/* ---- workers --------------------------------------------------------------------------------- */

struct worker_reply {
	Granary__V1__WorkerHeartbeatReply msg;
	struct plan_entry *entries;
	Granary__V1__DatasetPlan **list;
	size_t count;
	Granary__V1__OriginLease lease;
	Granary__V1__OriginShare origin_share;
	struct job_share_message {
		Granary__V1__JobShare msg;
		char name[JOB_NAME_BYTES];
	} *jobs;
	Granary__V1__JobShare **job_list;
	Granary__V1__SingleOriginShare *origins, **origin_list;
};

static void worker_reply_deinit(struct worker_reply *r)
{
	free(r->jobs);
	free(r->job_list);
	free(r->origins);
	free(r->origin_list);
	for (size_t i = 0; i < r->count; i++)
		plan_entry_deinit(&r->entries[i]);
	free(r->entries);
	free(r->list);
}

/* What a job is to have of the origins when it asks. Joint decides it; under the others it is max-min
 * fair over what jobs ask for, which equal weights come to by themselves, and a prediction would not:
 * an LRU that is said to have all of a dataset may have lost it. */
static double job_weight_locked(const struct master *m, const struct job *j)
{
	const struct master_cluster *c = &m->cluster;
	double total = (double)c->origins.bytes_per_s * origin_ledger_for_workers_locked(m);
	const struct allocate_limit *own = j->share.limit ? &c->limits[j->share.limit - 1] : NULL;
	double equal = (total - c->other_bytes_per_s) / (double)HASH_COUNT(m->jobs.by_name), of_own;

	if (c->storage == STORAGE_POLICY_JOINT)
		return j->share.remote_bytes_per_s;
	if (!own || own->jobs == 0)
		return equal;
	of_own = (own->bytes_per_s - own->other_bytes_per_s) / (double)own->jobs;
	return total > 0 && equal < of_own ? equal : of_own;
}

static int jobs_fill_locked(struct master *m, struct worker_reply *r)
{
	size_t count = HASH_COUNT(m->jobs.by_name);
	struct job *j, *next;

	r->jobs = calloc(count + 1, sizeof(*r->jobs));
	r->job_list = calloc(count + 1, sizeof(*r->job_list));
	if (!r->jobs || !r->job_list)
		return -ENOMEM;
	r->origin_share.jobs = r->job_list;
	HASH_ITER (hh, m->jobs.by_name, j, next) {
		struct job_share_message *to = &r->jobs[r->origin_share.n_jobs];

		granary__v1__job_share__init(&to->msg);
		memcpy(to->name, j->name, sizeof(to->name));
		to->msg.job = to->name;
		to->msg.bytes_per_s = job_weight_locked(m, j);
		r->job_list[r->origin_share.n_jobs++] = &to->msg;
	}
	return 0;
}

static int origins_fill_locked(const struct master *m, struct worker_reply *r)
{
	const struct origin_limits *o = &m->cluster.origins;

	r->origins = calloc(o->count + 1, sizeof(*r->origins));
	r->origin_list = calloc(o->count + 1, sizeof(*r->origin_list));
	if (!r->origins || !r->origin_list)
		return -ENOMEM;
	r->origin_share.origins = r->origin_list;
	r->origin_share.n_origins = o->count;
	for (size_t i = 0; i < o->count; i++) {
		granary__v1__single_origin_share__init(&r->origins[i]);
		/* The limits stay as they are while the master runs. */
		r->origins[i].prefix = (char *)o->list[i].prefix;
		r->origins[i].bytes_per_s = (double)o->list[i].bytes_per_s;
		r->origins[i].other_bytes_per_s = m->cluster.limits[i].other_bytes_per_s;
		r->origin_list[i] = &r->origins[i];
	}
	return 0;
}

/* What is to be had of the origins in the cluster. */
static int origin_share_fill_locked(struct master *m, struct worker_reply *r)
{
	const struct master_cluster *c = &m->cluster;
	granary__v1__origin_share__init(&r->origin_share);
	r->msg.origin_share = &r->origin_share;
	r->origin_share.limited = c->origins.bytes_per_s > 0;
	if (!r->origin_share.limited && c->origins.count == 0)
		return 0;
	r->origin_share.bytes_per_s = (double)c->origins.bytes_per_s;
	r->origin_share.other_bytes_per_s = c->other_bytes_per_s;
	if (jobs_fill_locked(m, r) < 0)
		return -ENOMEM;
	return origins_fill_locked(m, r);
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
	return origin_share_fill_locked(m, r);
}

/* While parts move between workers they ask more often. */
static void lease_fill_locked(struct master *m, struct worker_reply *reply,
	const Granary__V1__WorkerHeartbeatRequest *request)
{
	struct worker *w = workers_find(&m->workers, request->worker_id);
	bool settled = true;

	if (w && origin_ledger_worker_locked(m, w, request->origin_part, request->origin_base_part,
			 clock_mono_ms(), &reply->lease, &settled))
		reply->msg.origin_lease = &reply->lease;
	if (!settled)
		reply->msg.interval_ms = UNSETTLED_HEARTBEAT_MS;
}

static int worker_heard(struct master *m, const Granary__V1__WorkerHeartbeatRequest *request,
	bool local, struct worker_reply *reply, struct error *err)
{
	bool changed;
	int r;

	mutex_guard(&m->mu);
	r = workers_heard(
		&m->workers, &m->datasets, &m->jobs, request, clock_mono_ms(), &changed, err);
	if (r < 0)
		return r;
	if (changed) {
		m->ledger.summed_ms = 0;
		master_replan_locked(m);
		master_wait_planned_locked(m, clock_deadline_ms(PLAN_WAIT_MS));
	}
	reply->msg.plan_version = request->plan_version;
	reply->msg.interval_ms = MASTER_HEARTBEAT_MS;
	lease_fill_locked(m, reply, request);
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
	mount_calls_add(m, server);
	/* Many workers fetch a new manifest at once, some slowly: not on the heartbeats' threads.
	 */
	rpc_server_add_bounded(server, SERVICE "FetchManifest", on_fetch_manifest, m, FETCHES_MAX);
	rpc_server_add(server, SERVICE "Status", on_status, m);
}
