/* The part of ClusterService that mounts call: see proto/granary/v1/cluster.proto. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "master/master_state.h"
#include "master/messages.h"
#include "master/origin_ledger.h"

#define LOG_SUBSYSTEM "master"
#include "common/log.h"

#define SERVICE "/granary.v1.ClusterService/"
/* Of a mount that opens: what it reads before its plan is made comes past the cache. A plan for so
 * many files takes seconds, and nobody waits for that. */
#define OPEN_PLAN_WAIT_MS 2000
#define OPEN_PLAN_LARGE_WAIT_MS 200
#define OPEN_PLAN_LARGE_FILES ((uint64_t)1 << 20)

DEFINE_CLEANUP(struct namespace_batch *, namespace_batch_free)

/* What OpenMount and MountHeartbeat have in common in their replies. */
struct mount_reply {
	struct plan_entry plan;
	Granary__V1__WorkerRef **workers;
	size_t workers_count;
	Granary__V1__DirectShare direct;
	bool directed;
};

static void mount_reply_deinit(struct mount_reply *r)
{
	plan_entry_deinit(&r->plan);
	for (size_t i = 0; i < r->workers_count; i++)
		granary__v1__worker_ref__free_unpacked(r->workers[i], NULL);
	free(r->workers);
}

/* `said`: in its heartbeat; NULL: it has just come. */
static int mount_reply_fill_locked(struct master *m, struct mount_reply *r, struct dataset *d,
	struct mount_peer *p, const Granary__V1__MountHeartbeatRequest *said, bool local,
	struct error *err)
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
	r->directed = origin_ledger_direct_locked(m, p, d, said ? said->direct_bytes_per_s : 0,
		said ? said->direct_base_bytes_per_s : 0, clock_mono_ms(), &r->direct);
	return 0;
}

/* A name that was removed and added anew is another dataset: a mount of the old one is no mount of
 * it, its counters and its snapshot's number mean nothing there. An id of 0 is not known. */
static int check_same(
	const char *name, uint64_t mounted_id, const struct dataset *d, struct error *err)
{
	if (mounted_id == 0 || mounted_id == d->id)
		return 0;
	return error_set(err, -ENOENT,
		"the dataset '%.128s' that is mounted was removed, and another was added under its "
		"name: unmount and mount again to see that one",
		name);
}

/* `id` is that of the dataset which the mount shows already; 0: none or unknown. */
static int find_mountable_locked(
	struct master *m, const char *name, uint64_t id, struct dataset **ret, struct error *err)
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
	return check_same(name, id, d, err);
}

/* The job that a mount of d names, started when it is unknown; NULL for none. */
static int find_job_locked(
	struct master *m, const char *name, struct dataset *d, struct job **ret, struct error *err)
{
	Granary__V1__StartJobRequest start = GRANARY__V1__START_JOB_REQUEST__INIT;
	int r;

	*ret = NULL;
	if (name[0] == '\0')
		return 0;
	start.name = (char *)name;
	r = job_request_check(&start, err);
	return r < 0 ? r
		     : jobs_start(&m->jobs, &start, d, workers_sum(&m->workers, d->id).cached_bytes,
			       true, clock_mono_ms(), ret, err);
}

/* Enters the mount in memory and in the database. */
static int mount_enter(struct master *m, const Granary__V1__OpenMountRequest *request, uint64_t id,
	struct error *err)
{
	CLEANUP(namespace_batch_free_ptr) struct namespace_batch *batch = namespace_batch_new();
	struct mount_peer *p = NULL;
	struct dataset *d = NULL;
	struct job *j = NULL;
	int r;

	if (!batch)
		return error_set(err, -ENOMEM, "the master is out of memory");
	mutex_guard(&m->state_mu);
	mutex_lock(&m->mu);
	r = find_mountable_locked(m, request->dataset, request->dataset_id, &d, err);
	if (r == 0)
		r = find_job_locked(m, request->job, d, &j, err);
	if (r == 0)
		master_limit_locked(m, d);
	if (r == 0)
		r = mounts_open(&m->mounts, d, j, id, request, clock_mono_ms(), &p, err);
	if (r == 0 && (mounts_put(p, batch) < 0 || (j && job_put(j, batch) < 0)))
		r = error_set(err, -ENOMEM, "the master is out of memory");
	if (r == 0 && (d->live_mounts == 1 || j || m->jobs.by_name))
		master_replan_locked(m);
	mutex_unlock(&m->mu);
	if (r == 0)
		r = namespace_db_commit(m->db, batch, true, err);
	if (r < 0 && p) {
		mutex_guard(&m->mu);
		mounts_remove(&m->mounts, &m->datasets, &m->jobs, p);
	}
	return r;
}

static int64_t plan_wait_ms(struct master *m, uint64_t mount_id)
{
	const struct mount_peer *p = mounts_find(&m->mounts, mount_id);
	struct dataset *d = p ? dataset_registry_get(&m->datasets, p->dataset_id) : NULL;
	const struct snapshot *s = d ? dataset_current(d) : NULL;

	return s && s->state->files > OPEN_PLAN_LARGE_FILES ? OPEN_PLAN_LARGE_WAIT_MS
							    : OPEN_PLAN_WAIT_MS;
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
	master_wait_planned_locked(m, clock_deadline_ms(plan_wait_ms(m, id)));
	p = mounts_find(&m->mounts, id);
	d = p ? dataset_registry_get(&m->datasets, p->dataset_id) : NULL;
	if (!d)
		return error_set(err, -ENOENT, "dataset %.128s was just removed", request->dataset);
	return mount_reply_fill_locked(m, reply, d, p, NULL, local, err);
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
		msg.direct = reply.directed ? &reply.direct : NULL;
		rpc_call_reply(call, &msg.base);
	}
	mount_reply_deinit(&reply);
}

static int mount_heard(struct master *m, const Granary__V1__MountHeartbeatRequest *request,
	bool local, struct mount_reply *reply, struct error *err)
{
	struct mount_peer *p;
	struct dataset *d;
	struct job *j = NULL;
	bool revived;
	int r;

	mutex_guard(&m->mu);
	p = mounts_find(&m->mounts, request->mount_id);
	if (p) {
		d = dataset_registry_get(&m->datasets, p->dataset_id);
		r = d && d->current ? 0
				    : error_set(err, -ENOENT, "dataset %.128s was removed",
					      request->dataset);
		if (r == 0)
			r = check_same(request->dataset, request->dataset_id, d, err);
	} else {
		r = find_mountable_locked(m, request->dataset, request->dataset_id, &d, err);
	}
	/* A job that a known mount names and the master does not has been ended: the mount goes on
	 * without one. */
	if (r == 0 && p)
		j = jobs_find(&m->jobs, request->job);
	else if (r == 0)
		r = find_job_locked(m, request->job, d, &j, err);
	if (j && j->dataset_id != d->id)
		j = NULL;
	if (r == 0)
		master_limit_locked(m, d);
	if (r == 0)
		r = mounts_heard(&m->mounts, d, j, request, clock_mono_ms(), &p, &revived, err);
	if (r < 0)
		return r;
	if (revived) {
		log_info(
			"%s mounts dataset %s at %s", p->host, d->config->msg->name, p->mountpoint);
		master_replan_locked(m);
	}
	return mount_reply_fill_locked(m, reply, d, p, request, local, err);
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
		msg.direct = reply.directed ? &reply.direct : NULL;
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
			mounts_count(p, d, mounts_job(p, &m->jobs), request->last);
		dataset_totals(d, &totals);
		r = namespace_batch_put(batch, NAMESPACE_TOTALS, d->id, 0, &totals.base);
	}
	if (p) {
		namespace_batch_delete(batch, NAMESPACE_MOUNT, p->id, 0);
		mounts_remove(&m->mounts, &m->datasets, &m->jobs, p);
	}
	if (d && (d->live_mounts == 0 || m->jobs.by_name))
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

void mount_calls_add(struct master *m, struct rpc_server *server)
{
	rpc_server_add(server, SERVICE "OpenMount", on_open_mount, m);
	rpc_server_add(server, SERVICE "MountHeartbeat", on_mount_heartbeat, m);
	rpc_server_add(server, SERVICE "CloseMount", on_close_mount, m);
}
