/* JobService: see proto/granary/v1/job.proto for what each call means. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "master/master_state.h"
#include "scheduler/allocation.h"

#define LOG_SUBSYSTEM "master"
#include "common/log.h"

#define SERVICE "/granary.v1.JobService/"
#define PLAN_WAIT_MS 10000 /* for a reply that shows what was allocated */
#define SHARED_OUT 0.001   /* of a limit, left: nothing */

DEFINE_CLEANUP(struct namespace_batch *, namespace_batch_free)

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "the master is out of memory");
}

static struct job *find_locked(struct master *m, const char *name, struct error *err)
{
	struct job *j = jobs_find(&m->jobs, name);

	if (!j)
		error_set(err, -ENOENT,
			"there is no job '%.64s': `granary job ls` shows those there are", name);
	return j;
}

static Granary__V1__Job *message_locked(struct master *m, const struct job *j)
{
	const struct master_cluster *c = &m->cluster;
	struct dataset *d = dataset_registry_get(&m->datasets, j->dataset_id);
	struct job_origin origin = {.own = NULL};

	size_t limit = d ? master_limit_locked(m, d) : 0;

	if (limit)
		origin.own = &c->origins.list[limit - 1];
	origin.limited = c->origins.bytes_per_s > 0 || origin.own;
	if (origin.own) {
		const struct allocate_limit *l = &c->limits[limit - 1];

		origin.own_is_shared_out = l->bytes_per_s_left < SHARED_OUT * l->bytes_per_s;
	}
	return job_message(j, d, &origin, clock_mono_ms());
}

/* The job as the plan has it, once it has been made anew. */
static Granary__V1__Job *planned_job(struct master *m, const char *name, struct error *err)
{
	Granary__V1__Job *msg;
	struct job *j;

	mutex_guard(&m->mu);
	master_wait_planned_locked(m, clock_deadline_ms(PLAN_WAIT_MS));
	mounts_gather_loaders(&m->mounts, &m->jobs);
	j = find_locked(m, name, err);
	msg = j ? message_locked(m, j) : NULL;
	if (j && !msg)
		no_memory(err);
	return msg;
}

static void reply_planned(struct master *m, struct rpc_call *call, const char *name)
{
	struct error err = ERROR_INIT;
	Granary__V1__Job *msg = planned_job(m, name, &err);

	if (msg)
		rpc_call_reply(call, &msg->base);
	else
		rpc_call_fail(call, -ENOENT, err.text);
	granary__v1__job__free_unpacked(msg, NULL);
}

/* ---- Start and End --------------------------------------------------------------------------- */

static int find_dataset_locked(struct master *m, const Granary__V1__StartJobRequest *request,
	struct dataset **ret, struct error *err)
{
	const struct job *known = jobs_find(&m->jobs, request->name);
	struct dataset *d = NULL;

	if (request->dataset[0])
		d = dataset_registry_find(&m->datasets, request->dataset);
	else if (known)
		d = dataset_registry_get(&m->datasets, known->dataset_id);
	else
		return error_set(err, -EINVAL,
			"job %s is new: say which dataset it reads (--dataset)", request->name);
	if (!d || !d->in_database)
		return error_set(err, -ENOENT,
			"there is no dataset '%.128s': `granary dataset ls` shows those there are",
			request->dataset);
	*ret = d;
	return 0;
}

/* In memory first: a job that a failed write leaves there is at worst forgotten by a restart. */
static int start(struct master *m, const Granary__V1__StartJobRequest *request, struct error *err)
{
	CLEANUP(namespace_batch_free_ptr) struct namespace_batch *batch = namespace_batch_new();
	struct dataset *d = NULL;
	struct job *j;
	int r = job_request_check(request, err);

	if (r < 0)
		return r;
	if (!batch)
		return no_memory(err);
	mutex_guard(&m->state_mu);
	mutex_lock(&m->mu);
	r = find_dataset_locked(m, request, &d, err);
	if (r == 0)
		r = jobs_start(&m->jobs, request, d, workers_sum(&m->workers, d->id).cached_bytes,
			false, clock_mono_ms(), &j, err);
	if (r == 0 && job_put(j, batch) < 0)
		r = no_memory(err);
	if (r == 0)
		master_replan_locked(m);
	mutex_unlock(&m->mu);
	return r < 0 ? r : namespace_db_commit(m->db, batch, true, err);
}

static void on_start(struct rpc_call *call, void *arg)
{
	struct error err = ERROR_INIT;
	const Granary__V1__StartJobRequest *request =
		(const Granary__V1__StartJobRequest *)rpc_call_request(
			call, &granary__v1__start_job_request__descriptor);
	int r;

	if (!request)
		return;
	r = start(arg, request, &err);
	if (r < 0) {
		rpc_call_fail(call, r, err.text);
		return;
	}
	log_info("job %s was started", request->name);
	reply_planned(arg, call, request->name);
}

static int end(struct master *m, const char *name, struct error *err)
{
	CLEANUP(namespace_batch_free_ptr) struct namespace_batch *batch = namespace_batch_new();
	struct job *j;

	if (!batch)
		return no_memory(err);
	mutex_guard(&m->state_mu);
	mutex_lock(&m->mu);
	j = find_locked(m, name, err);
	if (j) {
		namespace_batch_delete(batch, NAMESPACE_JOB, j->id, 0);
		jobs_end(&m->jobs, j);
		master_replan_locked(m);
	}
	mutex_unlock(&m->mu);
	return j ? namespace_db_commit(m->db, batch, true, err) : -ENOENT;
}

static void on_end(struct rpc_call *call, void *arg)
{
	Granary__V1__EndJobReply reply = GRANARY__V1__END_JOB_REPLY__INIT;
	struct error err = ERROR_INIT;
	const Granary__V1__EndJobRequest *request =
		(const Granary__V1__EndJobRequest *)rpc_call_request(
			call, &granary__v1__end_job_request__descriptor);
	int r;

	if (!request)
		return;
	r = end(arg, request->name, &err);
	if (r < 0) {
		rpc_call_fail(call, r, err.text);
		return;
	}
	log_info("job %s was ended", request->name);
	rpc_call_reply(call, &reply.base);
}

/* ---- List and Get ---------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
	return strcmp((*(Granary__V1__Job *const *)a)->name, (*(Granary__V1__Job *const *)b)->name);
}

static int origins_message(const struct master_cluster *c, Granary__V1__ClusterShare *m)
{
	m->origins = calloc(c->origins.count + 1, sizeof(*m->origins));
	if (!m->origins)
		return -ENOMEM;
	for (size_t i = 0; i < c->origins.count; i++) {
		Granary__V1__SingleOrigin *o = malloc(sizeof(*o));

		if (!o)
			return -ENOMEM;
		granary__v1__single_origin__init(o);
		o->prefix = strdup(c->origins.list[i].prefix);
		o->bytes_per_s = (double)c->origins.list[i].bytes_per_s;
		o->bytes_per_s_left = c->limits[i].bytes_per_s_left;
		m->origins[m->n_origins++] = o;
	}
	return 0;
}

static Granary__V1__ClusterShare *cluster_message(const struct master_cluster *c)
{
	Granary__V1__ClusterShare *m = malloc(sizeof(*m));

	if (!m)
		return NULL;
	granary__v1__cluster_share__init(m);
	m->policy = strdup(gpu_policy_name(c->policy));
	m->storage = strdup(storage_policy_name(c->storage));
	m->cache_bytes = c->cache_bytes;
	m->cache_bytes_left = c->cache_bytes_left;
	m->origin_limited = c->origins.bytes_per_s > 0;
	m->origin_bytes_per_s = (double)c->origins.bytes_per_s;
	m->origin_bytes_per_s_left = c->origin_bytes_per_s_left;
	return m;
}

static int list_fill(struct master *m, Granary__V1__ListJobsReply *reply)
{
	struct job *j, *next;

	mutex_guard(&m->mu);
	mounts_gather_loaders(&m->mounts, &m->jobs);
	reply->jobs = calloc(HASH_COUNT(m->jobs.by_name) + 1, sizeof(*reply->jobs));
	reply->cluster = cluster_message(&m->cluster);
	if (!reply->jobs || !reply->cluster || origins_message(&m->cluster, reply->cluster) < 0)
		return -ENOMEM;
	HASH_ITER (hh, m->jobs.by_name, j, next) {
		reply->jobs[reply->n_jobs] = message_locked(m, j);
		if (!reply->jobs[reply->n_jobs])
			return -ENOMEM;
		reply->n_jobs++;
	}
	qsort(reply->jobs, reply->n_jobs, sizeof(*reply->jobs), by_name);
	return 0;
}

static void on_list(struct rpc_call *call, void *arg)
{
	Granary__V1__ListJobsReply *reply;

	if (!rpc_call_request(call, &granary__v1__list_jobs_request__descriptor))
		return;
	reply = malloc(sizeof(*reply));
	if (reply)
		granary__v1__list_jobs_reply__init(reply);
	if (!reply || list_fill(arg, reply) < 0)
		rpc_call_fail(call, -ENOMEM, "the master is out of memory");
	else
		rpc_call_reply(call, &reply->base);
	granary__v1__list_jobs_reply__free_unpacked(reply, NULL);
}

static void on_get(struct rpc_call *call, void *arg)
{
	const Granary__V1__GetJobRequest *request =
		(const Granary__V1__GetJobRequest *)rpc_call_request(
			call, &granary__v1__get_job_request__descriptor);

	if (request)
		reply_planned(arg, call, request->name);
}

void job_service_add(struct master *m, struct rpc_server *server)
{
	rpc_server_add(server, SERVICE "Start", on_start, m);
	rpc_server_add(server, SERVICE "End", on_end, m);
	rpc_server_add(server, SERVICE "List", on_list, m);
	rpc_server_add(server, SERVICE "Get", on_get, m);
	job_plan_add(m, server);
}
