#include "worker/heartbeat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/host_id.h"
#include "common/cleanup.h"
#include "common/unix_socket.h"

#define LOG_SUBSYSTEM "worker"
#include "common/log.h"

#define HEARTBEAT_PATH "/granary.v1.ClusterService/WorkerHeartbeat"
#define NS_PER_MS ((int64_t)1000000)
#define LEASE_MAX_MS 86400000u

struct heartbeat {
	struct heartbeat_options opts;
	char *master_address, *address, *local_address, *lease_socket;
	char host_id[HOST_ID_TEXT_BYTES];
	char local_identity[UNIX_SOCKET_IDENTITY_BYTES];
	pthread_t thread;
	bool started;
	struct mutex mu;
	struct cond changed;

	/* owned by the heartbeat thread */
	uint64_t plan_version;
	bool has_plan;
	bool lost; /* the master did not answer the last time */

	/* guarded by mu */
	uint64_t begun, done; /* beats */
	int last_result;
	int64_t interval_ms;
	bool wanted; /* somebody waits in refresh */
	bool stopping;
};

/* ---- what we say ----------------------------------------------------------------------------- */

struct report {
	Granary__V1__WorkerHeartbeatRequest request;
	Granary__V1__WorkerDataset *datasets;
	Granary__V1__WorkerDataset **pointers;
	char (*errors)[ERROR_TEXT_BYTES];
	struct origin_job_stat *job_stats;
	size_t job_count;
	Granary__V1__WorkerJob *jobs;
	Granary__V1__WorkerJob **job_pointers;
	Granary__V1__Scrub scrub;
	char degraded[128];
};

static void report_deinit(struct report *r)
{
	free(r->datasets);
	free(r->pointers);
	free(r->errors);
	free(r->job_stats);
	free(r->jobs);
	free(r->job_pointers);
}

/* Protobuf strings are UTF-8, paths and what servers say are not: the rest becomes '?'. */
static void make_ascii(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text >= 0x80 || (unsigned char)*text < 0x20)
			*text = '?';
}

static void add_stat(
	Granary__V1__WorkerDataset *w, const struct store_dataset_stat *stats, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (stats[i].dataset_id != w->dataset_id)
			continue;
		w->pinned_bytes = stats[i].pinned_bytes;
		w->filler_bytes = stats[i].filler_bytes;
		w->elastic_bytes = stats[i].elastic_bytes;
		w->corrupt_blocks = stats[i].corrupt_blocks;
		return;
	}
}

static int fill_datasets(struct heartbeat *h, struct report *r, struct dataset **list, size_t count)
{
	cleanup_free struct store_dataset_stat *stats = calloc(count + 64, sizeof(*stats));
	size_t stat_count;

	r->datasets = calloc(count + 1, sizeof(*r->datasets));
	r->pointers = calloc(count + 1, sizeof(*r->pointers));
	r->errors = calloc(count + 1, sizeof(*r->errors));
	if (!stats || !r->datasets || !r->pointers || !r->errors)
		return -ENOMEM;
	stat_count = store_dataset_stats(h->opts.store, stats, count + 64);
	if (stat_count > count + 64)
		stat_count = count + 64;
	for (size_t i = 0; i < count; i++) {
		Granary__V1__WorkerDataset *w = &r->datasets[i];

		granary__v1__worker_dataset__init(w);
		w->dataset_id = list[i]->id;
		w->origin_bytes = dataset_origin_bytes(list[i]);
		w->failed_fetches = atomic_load(&list[i]->failed_fetches);
		dataset_last_error(list[i], r->errors[i]);
		make_ascii(r->errors[i]);
		w->last_error = r->errors[i];
		add_stat(w, stats, stat_count);
		r->pointers[i] = w;
	}
	r->request.datasets = r->pointers;
	r->request.n_datasets = count;
	return 0;
}

static int fill_jobs(struct heartbeat *h, struct report *r)
{
	int e = origin_queue_jobs(h->opts.origins, &r->job_stats, &r->job_count);

	if (e < 0)
		return e;
	r->jobs = calloc(r->job_count + 1, sizeof(*r->jobs));
	r->job_pointers = calloc(r->job_count + 1, sizeof(*r->job_pointers));
	if (!r->jobs || !r->job_pointers)
		return -ENOMEM;
	for (size_t i = 0; i < r->job_count; i++) {
		granary__v1__worker_job__init(&r->jobs[i]);
		r->jobs[i].job = r->job_stats[i].name;
		r->jobs[i].origin_bytes = r->job_stats[i].origin_bytes;
		r->jobs[i].waited_us = r->job_stats[i].waited_us;
		r->job_pointers[i] = &r->jobs[i];
	}
	r->request.jobs = r->job_pointers;
	r->request.n_jobs = r->job_count;
	return 0;
}

static int fill(struct heartbeat *h, struct report *r)
{
	Granary__V1__WorkerHeartbeatRequest *q = &r->request;
	struct dataset **list;
	struct store_stat st;
	size_t count;
	int e;

	granary__v1__worker_heartbeat_request__init(q);
	store_stat(h->opts.store, &st);
	store_degraded(h->opts.store, r->degraded);
	make_ascii(r->degraded);
	q->worker_id = store_id(h->opts.store);
	q->address = h->address;
	q->local_address = h->local_address;
	q->local_identity = h->local_identity;
	q->lease_socket = h->lease_socket;
	q->host_id = h->host_id;
	q->capacity_bytes = st.capacity_bytes;
	q->used_bytes = st.charged_bytes;
	q->free_floor_bytes = st.free_floor_bytes;
	q->held_bytes = st.held_bytes;
	q->pin_ceiling = st.pin_ceiling;
	q->degraded = r->degraded;
	granary__v1__scrub__init(&r->scrub);
	r->scrub.bytes_per_s = st.scrub_bytes_per_s;
	r->scrub.read_bytes = st.scrubbed_bytes;
	r->scrub.damaged_blocks = st.scrub_damaged_blocks;
	r->scrub.passes = st.scrub_passes;
	q->scrub = &r->scrub;
	q->plan_version = h->has_plan ? h->plan_version : 0;
	origin_queue_part(h->opts.origins, &q->origin_part, &q->origin_base_part);
	e = dataset_table_list(h->opts.datasets, &list, &count);
	if (e < 0)
		return e;
	e = fill_datasets(h, r, list, count);
	dataset_list_free(list, count);
	return e < 0 ? e : fill_jobs(h, r);
}

/* ---- what we are told ------------------------------------------------------------------------ */

/* One that makes no sense changes nothing. */
static void take_share(struct heartbeat *h, const Granary__V1__OriginShare *message)
{
	struct origin_share *share;
	struct error err = ERROR_INIT;

	if (origin_share_new(message, &share, &err) < 0 ||
		origin_queue_apply(h->opts.origins, share, &err) < 0)
		log_error("the master's share of the origins' bandwidth is not taken, the last one "
			  "stays in force: %s",
			err.text);
}

static double sane_part(double part)
{
	return part >= 0 && part <= 1 ? part : 0;
}

static int64_t after_ns(int64_t asked_ns, uint64_t ms)
{
	return asked_ns + (int64_t)(ms < LEASE_MAX_MS ? ms : LEASE_MAX_MS) * NS_PER_MS;
}

/* Counted from when it was asked for: so it ends here before it does with the master. */
static void take_lease(struct heartbeat *h, const Granary__V1__OriginLease *told, int64_t asked_ns)
{
	struct origin_lease lease;

	if (!told)
		return;
	lease = (struct origin_lease){.part = sane_part(told->part),
		.base_part = sane_part(told->base_part),
		.until_ns = after_ns(asked_ns, told->lease_ms),
		.base_until_ns = after_ns(asked_ns, told->base_ms)};
	origin_queue_lease(h->opts.origins, &lease);
}

static void take_plan(struct heartbeat *h, Granary__V1__WorkerHeartbeatReply *reply)
{
	if (reply->has_plan && (!h->has_plan || reply->plan_version != h->plan_version)) {
		take_share(h, reply->origin_share);
		plan_announce(h->opts.plan, reply);
		dataset_table_apply(h->opts.datasets, reply->datasets, reply->n_datasets);
		h->plan_version = reply->plan_version;
		h->has_plan = true;
		log_debug("plan %llu: %zu datasets", (unsigned long long)reply->plan_version,
			reply->n_datasets);
		plan_take(h->opts.plan, reply);
		return;
	}
	protobuf_c_message_free_unpacked(&reply->base, NULL);
}

static int64_t clamp_interval(uint64_t ms)
{
	if (ms == 0)
		return HEARTBEAT_INTERVAL_MS;
	if (ms < HEARTBEAT_INTERVAL_MIN_MS)
		return HEARTBEAT_INTERVAL_MIN_MS;
	return ms > HEARTBEAT_INTERVAL_MAX_MS ? HEARTBEAT_INTERVAL_MAX_MS : (int64_t)ms;
}

static void note_lost(struct heartbeat *h, bool lost, const struct error *err)
{
	if (lost && !h->lost)
		log_warn("the master at %s does not answer, the last plan stays in force: %s",
			h->master_address, err->text);
	if (!lost && h->lost)
		log_info("the master at %s is back", h->master_address);
	h->lost = lost;
}

static int beat(struct heartbeat *h, int64_t *interval_ms)
{
	struct report report = {.datasets = NULL};
	Granary__V1__WorkerHeartbeatReply *reply;
	ProtobufCMessage *message = NULL;
	struct error err = ERROR_INIT;
	int64_t asked_ns;
	int r;

	r = fill(h, &report);
	asked_ns = clock_mono_ns();
	if (r < 0)
		error_set(&err, r, "out of memory");
	else
		r = rpc_unary(h->opts.master, HEARTBEAT_PATH, &report.request.base,
			&granary__v1__worker_heartbeat_reply__descriptor, &message,
			clock_deadline_ms(HEARTBEAT_TIMEOUT_MS), &err);
	if (r == 0)
		origin_queue_reported(h->opts.origins, report.job_stats, report.job_count);
	report_deinit(&report);
	note_lost(h, r < 0, &err);
	if (r < 0)
		return r;
	reply = (Granary__V1__WorkerHeartbeatReply *)message;
	*interval_ms = clamp_interval(reply->interval_ms);
	take_lease(h, reply->origin_lease, asked_ns);
	take_plan(h, reply);
	return 0;
}

/* ---- the thread ------------------------------------------------------------------------------ */

/* Until it is time, or somebody wants it now, but never without a pause. */
static void rest_locked(struct heartbeat *h, int64_t begun_ms)
{
	int64_t earliest_ms = begun_ms + HEARTBEAT_INTERVAL_MIN_MS;

	while (!h->stopping && !h->wanted &&
		cond_wait(&h->changed, &h->mu, begun_ms + h->interval_ms) == 0)
		;
	while (!h->stopping && cond_wait(&h->changed, &h->mu, earliest_ms) == 0)
		;
}

static void *thread_main(void *arg)
{
	struct heartbeat *h = arg;
	int64_t begun_ms, interval_ms = HEARTBEAT_INTERVAL_MS;
	int r;

	mutex_lock(&h->mu);
	while (!h->stopping) {
		begun_ms = clock_mono_ms();
		h->wanted = false;
		h->begun++;
		mutex_unlock(&h->mu);
		r = beat(h, &interval_ms);
		if (h->opts.tick)
			h->opts.tick(h->opts.arg);
		mutex_lock(&h->mu);
		h->done = h->begun;
		h->last_result = r < 0 ? -EAGAIN : 0;
		h->interval_ms = interval_ms;
		cond_broadcast(&h->changed);
		rest_locked(h, begun_ms);
	}
	mutex_unlock(&h->mu);
	return NULL;
}

int heartbeat_refresh(struct heartbeat *h, int64_t deadline_ms)
{
	uint64_t target;
	int r = 0;

	mutex_guard(&h->mu);
	target = h->begun + 1;
	h->wanted = true;
	cond_broadcast(&h->changed);
	while (h->done < target && !h->stopping && r == 0)
		r = cond_wait(&h->changed, &h->mu, deadline_ms);
	return h->done < target ? -ETIMEDOUT : h->last_result;
}

static char *copy(const char *text)
{
	return strdup(text ? text : "");
}

int heartbeat_new(const struct heartbeat_options *opts, struct heartbeat **ret, struct error *err)
{
	struct heartbeat *h = calloc(1, sizeof(*h));
	struct error why = ERROR_INIT;

	if (!h)
		return error_set(err, -ENOMEM, "out of memory");
	h->opts = *opts;
	h->interval_ms = HEARTBEAT_INTERVAL_MS;
	mutex_init(&h->mu);
	cond_init(&h->changed);
	h->master_address = copy(opts->master_address);
	h->address = copy(opts->address);
	h->local_address = copy(opts->local_address);
	h->lease_socket = copy(opts->lease_socket);
	if (!h->master_address || !h->address || !h->local_address || !h->lease_socket) {
		heartbeat_free(h);
		return error_set(err, -ENOMEM, "out of memory");
	}
	if (host_id_get(h->host_id, &why) < 0)
		log_warn("no local short circuit: %s", why.text);
	*ret = h;
	return 0;
}

/* Without an identity nobody uses the socket: local mounts come by the address of all. */
static void identify_socket(struct heartbeat *h)
{
	const char *address = h->local_address;

	if (strncmp(address, "unix:", strlen("unix:")) == 0 &&
		unix_socket_identity(address + strlen("unix:"), h->local_identity) < 0)
		log_warn("there is no socket at %s", address);
}

int heartbeat_start(struct heartbeat *h, struct error *err)
{
	int r;

	identify_socket(h);
	r = pthread_create(&h->thread, NULL, thread_main, h);

	if (r != 0)
		return error_set_errno(err, -r, "cannot start a thread");
	h->started = true;
	return 0;
}

void heartbeat_stop(struct heartbeat *h)
{
	mutex_lock(&h->mu);
	h->stopping = true;
	cond_broadcast(&h->changed);
	mutex_unlock(&h->mu);
	if (h->started)
		pthread_join(h->thread, NULL);
	h->started = false;
}

void heartbeat_free(struct heartbeat *h)
{
	if (!h)
		return;
	assert(!h->started);
	free(h->master_address);
	free(h->address);
	free(h->local_address);
	free(h->lease_socket);
	cond_deinit(&h->changed);
	mutex_deinit(&h->mu);
	free(h);
}
