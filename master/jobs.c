#include "master/jobs.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "scheduler/problem.h"

#define LOG_SUBSYSTEM "master"
#include "common/log.h"

struct job *jobs_find(const struct jobs *jobs, const char *name)
{
	struct job *found;

	HASH_FIND_STR(jobs->by_name, name, found);
	return found;
}

void jobs_end(struct jobs *jobs, struct job *j)
{
	HASH_DELETE(hh, jobs->by_name, j);
	free(j);
}

void jobs_deinit(struct jobs *jobs)
{
	struct job *j, *next;

	HASH_ITER (hh, jobs->by_name, j, next) {
		jobs_end(jobs, j);
	}
}

static struct job *add(struct jobs *jobs, const char *name, uint64_t id, struct error *err)
{
	struct job *j;

	if (HASH_COUNT(jobs->by_name) >= JOBS_MAX) {
		error_set(err, -ENOSPC,
			"the master knows %d jobs and takes no more: `granary job end` those that "
			"are over",
			JOBS_MAX);
		return NULL;
	}
	j = calloc(1, sizeof(*j));
	if (!j) {
		error_set(err, -ENOMEM, "no memory for another job");
		return NULL;
	}
	j->id = id;
	strncat(j->name, name, sizeof(j->name) - 1);
	HASH_ADD_STR(jobs->by_name, name, j);
	return j;
}

/* ---- waits ----------------------------------------------------------------------------------- */

const char *const job_wait_names[JOB_WAITS] = {"share", "origin", "peer", "disk", "queue"};

struct job_waits job_waits_read(const Granary__V1__ReadWaits *said)
{
	struct job_waits none = {0};

	if (!said)
		return none;
	return (struct job_waits){
		{said->share_us, said->origin_us, said->peer_us, said->disk_us, said->queue_us}};
}

static Granary__V1__ReadWaits *waits_message(const struct job_waits *w)
{
	Granary__V1__ReadWaits *m = malloc(sizeof(*m));

	if (!m)
		return NULL;
	granary__v1__read_waits__init(m);
	m->share_us = w->us[0];
	m->origin_us = w->us[1];
	m->peer_us = w->us[2];
	m->disk_us = w->us[3];
	m->queue_us = w->us[4];
	return m;
}

/* ---- the database ---------------------------------------------------------------------------- */

struct load {
	struct jobs *jobs;
	int64_t now_ms;
};

static int load_one(
	void *arg, uint64_t id, uint64_t b, ProtobufCMessage **message, struct error *err)
{
	const Granary__State__V1__JobState *s = (const Granary__State__V1__JobState *)*message;
	struct load *load = arg;
	struct job *j = add(load->jobs, s->name, id, err);

	(void)b;
	if (!j)
		return -ENOSPC;
	if (id > load->jobs->last_id)
		load->jobs->last_id = id;
	j->dataset_id = s->dataset_id;
	j->gpus = s->gpus;
	j->ideal_bytes_per_s = s->ideal_bytes_per_s;
	j->weight = s->weight;
	j->min_remote_bytes_per_s = s->min_remote_bytes_per_s;
	j->epochs = s->epochs;
	j->irregular = s->irregular;
	j->implicit = s->implicit;
	j->started_s = s->started_s;
	j->had_mount = s->had_mount;
	j->cached_at_start = s->cached_at_start;
	j->mountless_ms = load->now_ms;
	j->share = (struct job_share){.cache_bytes = s->cache_bytes,
		.remote_bytes_per_s = s->remote_bytes_per_s,
		.hit_ratio = s->hit_ratio,
		.predicted_bytes_per_s = s->predicted_bytes_per_s};
	j->counters = (struct job_counters){s->hit_bytes, s->miss_bytes, s->origin_bytes,
		s->waited_us, s->consumed_bytes, {{0}}};
	for (size_t i = 0; i < s->n_read_waits_us && i < JOB_WAITS; i++)
		j->counters.waits.us[i] = s->read_waits_us[i];
	j->planned = (struct job_ideal){
		.bytes_per_s = s->planned_ideal_bytes_per_s, .error = s->planned_ideal_error};
	snprintf(j->planned.source, sizeof(j->planned.source), "%s", s->planned_ideal_source);
	j->unheard = true;
	return 0;
}

int jobs_load(struct jobs *jobs, struct namespace_db *db, int64_t now_ms, struct error *err)
{
	struct load load = {jobs, now_ms};

	return namespace_db_scan(db, NAMESPACE_JOB, &granary__state__v1__job_state__descriptor,
		load_one, &load, err);
}

int job_put(const struct job *j, struct namespace_batch *batch)
{
	Granary__State__V1__JobState s = GRANARY__STATE__V1__JOB_STATE__INIT;

	s.name = (char *)j->name;
	s.dataset_id = j->dataset_id;
	s.gpus = j->gpus;
	s.ideal_bytes_per_s = j->ideal_bytes_per_s;
	s.weight = j->weight;
	s.min_remote_bytes_per_s = j->min_remote_bytes_per_s;
	s.epochs = j->epochs;
	s.irregular = j->irregular;
	s.implicit = j->implicit;
	s.started_s = j->started_s;
	s.had_mount = j->had_mount;
	s.cached_at_start = j->cached_at_start;
	s.cache_bytes = j->share.cache_bytes;
	s.remote_bytes_per_s = j->share.remote_bytes_per_s;
	s.hit_ratio = j->share.hit_ratio;
	s.predicted_bytes_per_s = j->share.predicted_bytes_per_s;
	s.hit_bytes = j->counters.hit_bytes;
	s.miss_bytes = j->counters.miss_bytes;
	s.origin_bytes = j->counters.origin_bytes;
	s.waited_us = j->counters.waited_us;
	s.consumed_bytes = j->counters.consumed_bytes;
	s.n_read_waits_us = JOB_WAITS;
	s.read_waits_us = (uint64_t *)j->counters.waits.us;
	s.planned_ideal_bytes_per_s = j->planned.bytes_per_s;
	s.planned_ideal_error = j->planned.error;
	s.planned_ideal_source = (char *)j->planned.source;
	return namespace_batch_put(batch, NAMESPACE_JOB, j->id, 0, &s.base);
}

int jobs_save(struct jobs *jobs, struct namespace_batch *batch)
{
	struct job *j, *next;

	HASH_ITER (hh, jobs->by_name, j, next) {
		int r = j->dirty ? job_put(j, batch) : 0;

		if (r < 0)
			return r;
		j->dirty = false;
	}
	return 0;
}

/* ---- start ----------------------------------------------------------------------------------- */

static int rate_check(const char *what, double rate, struct error *err)
{
	if (rate >= 0 && rate <= PROBLEM_RATE_MAX)
		return 0;
	return error_set(err, -EINVAL, "%s is a number of bytes a second, at most %g", what,
		PROBLEM_RATE_MAX);
}

int job_request_check(const Granary__V1__StartJobRequest *request, struct error *err)
{
	struct error why = ERROR_INIT;
	int r = 0;

	if (strlen(request->name) >= JOB_NAME_BYTES)
		return error_set(
			err, -EINVAL, "the name of a job has %d bytes at most", JOB_NAME_BYTES - 1);
	if (dataset_name_check(request->name, &why) < 0)
		return error_set(err, -EINVAL, "a job is named as a dataset is: %s", why.text);
	if (request->gpus > JOB_GPUS_MAX)
		return error_set(err, -EINVAL, "a job has %d GPUs at most", JOB_GPUS_MAX);
	if (request->epochs > JOB_EPOCHS_MAX)
		return error_set(err, -EINVAL, "a job has %d epochs at most", JOB_EPOCHS_MAX);
	if (request->weight != 0 &&
		!(request->weight >= PROBLEM_WEIGHT_MIN && request->weight <= PROBLEM_WEIGHT_MAX))
		return error_set(err, -EINVAL, "a job's weight lies between %g and %g",
			PROBLEM_WEIGHT_MIN, PROBLEM_WEIGHT_MAX);
	r = rate_check("a job's ideal rate", request->ideal_bytes_per_s, err);
	return r < 0 ? r
		     : rate_check("a job's least bandwidth", request->min_remote_bytes_per_s, err);
}

static void take_fields(struct job *j, const Granary__V1__StartJobRequest *request)
{
	if (request->gpus)
		j->gpus = request->gpus;
	if (request->ideal_bytes_per_s > 0)
		j->ideal_bytes_per_s = request->ideal_bytes_per_s;
	if (request->weight > 0)
		j->weight = request->weight;
	if (request->epochs)
		j->epochs = request->epochs;
	if (request->min_remote_bytes_per_s > 0)
		j->min_remote_bytes_per_s = request->min_remote_bytes_per_s;
	j->irregular |= request->irregular;
}

int jobs_start(struct jobs *jobs, const Granary__V1__StartJobRequest *request,
	const struct dataset *d, uint64_t cached_bytes, bool implicit, int64_t now_ms,
	struct job **ret, struct error *err)
{
	struct job *j = jobs_find(jobs, request->name);

	if (j && j->dataset_id != d->id)
		return error_set(err, -ESTALE,
			"job %s reads another dataset: choose another name, or `granary job end "
			"%s` first",
			j->name, j->name);
	if (!j) {
		j = add(jobs, request->name, jobs->last_id + 1, err);
		if (!j)
			return -ENOSPC;
		jobs->last_id = j->id;
		j->dataset_id = d->id;
		j->gpus = 1;
		j->weight = 1;
		j->started_s = clock_wall_s();
		j->mountless_ms = now_ms;
		j->cached_at_start = cached_bytes;
		j->implicit = implicit;
	}
	/* Who starts a job by name wants to end it by name. */
	j->implicit &= implicit;
	take_fields(j, request);
	*ret = j;
	return 0;
}

/* ---- loaders --------------------------------------------------------------------------------- */

void jobs_clear_loaders(struct jobs *jobs)
{
	struct job *j, *next;

	HASH_ITER (hh, jobs->by_name, j, next) {
		j->loaders = (struct job_loaders){0};
		j->sampled = (struct job_sampled){0};
	}
}

void job_add_loaders(struct job *j, const struct job_loaders *more)
{
	struct job_loaders *l = &j->loaders;
	double waited = l->wait_ratio * l->count + more->wait_ratio * more->count;

	l->count += more->count;
	l->workers += more->workers;
	l->ideal_bytes_per_s += more->ideal_bytes_per_s;
	l->wait_ratio = waited / l->count;
}

void job_add_sampled(struct job *j, const struct job_sampled *more)
{
	struct job_sampled *s = &j->sampled;
	double mine = s->error * s->ideal_bytes_per_s;
	double other = more->error * more->ideal_bytes_per_s;

	s->told |= more->told;
	s->held_back |= more->held_back;
	s->ideal_bytes_per_s += more->ideal_bytes_per_s;
	if (s->held_back)
		s->ideal_bytes_per_s = 0;
	s->error = s->ideal_bytes_per_s > 0 ? hypot(mine, other) / s->ideal_bytes_per_s : 0;
}

uint64_t job_read_bytes(const struct job *j)
{
	uint64_t served = j->counters.hit_bytes + j->counters.miss_bytes;

	return served > j->counters.consumed_bytes ? served : j->counters.consumed_bytes;
}

struct job_ideal job_ideal(const struct job *j)
{
	if (j->ideal_bytes_per_s > 0)
		return (struct job_ideal){j->ideal_bytes_per_s, 0, "declared"};
	if (j->loaders.ideal_bytes_per_s > 0)
		return (struct job_ideal){j->loaders.ideal_bytes_per_s, 0, "steps"};
	if (j->sampled.ideal_bytes_per_s > 0)
		return (struct job_ideal){
			j->sampled.ideal_bytes_per_s, j->sampled.error, "sampled"};
	return j->unheard ? j->planned : (struct job_ideal){.bytes_per_s = 0};
}

void job_went_by(struct job *j)
{
	struct job_ideal ideal = job_ideal(j);

	j->dirty |= ideal.bytes_per_s != j->planned.bytes_per_s;
	j->planned = ideal;
}

uint64_t job_effective_bytes(const struct job *j, uint64_t dataset_bytes, uint64_t cached_bytes)
{
	bool first = job_read_bytes(j) < dataset_bytes;

	return first && j->cached_at_start < cached_bytes ? j->cached_at_start : cached_bytes;
}

/* ---- mounts ---------------------------------------------------------------------------------- */

void job_mount_came(struct job *j)
{
	j->live_mounts++;
	j->dirty |= !j->had_mount;
	j->had_mount = true;
}

void job_mount_went(struct job *j, bool closed, int64_t now_ms)
{
	j->live_mounts--;
	if (j->live_mounts > 0)
		return;
	j->mountless_ms = now_ms;
	if (closed && j->implicit)
		j->mountless_ms -= JOB_GRACE_MS + 1;
}

static void take_sample(struct job *j, int64_t now_ms)
{
	unsigned last = (j->sample_next + JOB_SAMPLES - 1) % JOB_SAMPLES;

	if (j->sample_count > 0 && now_ms - j->samples[last].at_ms < JOB_SAMPLE_MS)
		return;
	j->samples[j->sample_next] =
		(struct job_sample){now_ms, j->counters.hit_bytes + j->counters.miss_bytes,
			j->counters.origin_bytes, j->counters.consumed_bytes, j->counters.waits};
	j->sample_next = (j->sample_next + 1) % JOB_SAMPLES;
	if (j->sample_count < JOB_SAMPLES)
		j->sample_count++;
}

bool jobs_expire(struct jobs *jobs, struct dataset_registry *datasets, int64_t now_ms,
	struct namespace_batch *batch)
{
	struct job *j, *next;
	bool ended = false;

	HASH_ITER (hh, jobs->by_name, j, next) {
		bool over = (j->had_mount || j->implicit) && j->live_mounts == 0 &&
			    now_ms - j->mountless_ms > JOB_GRACE_MS;

		if (!over && dataset_registry_get(datasets, j->dataset_id)) {
			take_sample(j, now_ms);
			continue;
		}
		log_info("job %s has ended: %s", j->name,
			over ? "it has no mount any more" : "its dataset was removed");
		namespace_batch_delete(batch, NAMESPACE_JOB, j->id, 0);
		jobs_end(jobs, j);
		ended = true;
	}
	return ended;
}

void job_measured(const struct job *j, int64_t now_ms, struct job_rates *ret)
{
	const struct job_sample *oldest =
		&j->samples[j->sample_count < JOB_SAMPLES ? 0 : j->sample_next];
	const struct job_counters *c = &j->counters;
	double seconds;

	*ret = (struct job_rates){0};
	if (j->sample_count == 0 || now_ms - oldest->at_ms < JOB_SAMPLE_MS)
		return;
	seconds = (double)(now_ms - oldest->at_ms) / 1000;
	*ret = (struct job_rates){
		.seconds = seconds,
		.read_bytes_per_s =
			(double)(c->hit_bytes + c->miss_bytes - oldest->read_bytes) / seconds,
		.origin_bytes_per_s = (double)(c->origin_bytes - oldest->origin_bytes) / seconds,
		.consumed_bytes_per_s =
			(double)(c->consumed_bytes - oldest->consumed_bytes) / seconds,
	};
	for (int i = 0; i < JOB_WAITS; i++)
		ret->waits.us[i] = c->waits.us[i] - oldest->waits.us[i];
}

/* ---- replies --------------------------------------------------------------------------------- */

static const char *reason(const struct job *j, const struct job_origin *origin)
{
	double ideal = job_ideal(j).bytes_per_s;

	if (ideal <= 0)
		return "how fast it could read is not known: it is counted with an equal share";
	if (j->share.predicted_bytes_per_s >= 0.999 * ideal)
		return "compute bound: it runs as fast as it can with what it has";
	if (!origin->limited)
		return "the origins are not limited";
	if (origin->own_is_shared_out)
		return "IO bound: its origin's own limit is shared out; more cache or a higher limit "
		       "would make it faster";
	return "IO bound: more cache or more bandwidth would make it faster";
}

Granary__V1__Job *job_message(const struct job *j, const struct dataset *d,
	const struct job_origin *origin, int64_t now_ms)
{
	Granary__V1__Job *m = malloc(sizeof(*m));
	struct job_ideal ideal = job_ideal(j);
	struct job_rates rates;
	const struct snapshot *s = d && d->current ? dataset_current((struct dataset *)d) : NULL;

	if (!m)
		return NULL;
	granary__v1__job__init(m);
	m->name = strdup(j->name);
	m->dataset = strdup(d ? d->config->msg->name : "");
	m->ideal_source = strdup(ideal.source);
	m->reason = strdup(reason(j, origin));
	m->gpus = j->gpus;
	m->weight = j->weight;
	m->epochs = j->epochs;
	m->irregular = j->irregular;
	m->min_remote_bytes_per_s = j->min_remote_bytes_per_s;
	m->implicit = j->implicit;
	m->started_s = j->started_s;
	m->mounts = j->live_mounts;
	m->no_mount_for_s = j->live_mounts ? 0 : (now_ms - j->mountless_ms) / 1000;
	m->ideal_bytes_per_s = ideal.bytes_per_s;
	m->origin_limited = origin->limited;
	m->limited_origin = strdup(origin->own ? origin->own->prefix : "");
	m->limited_origin_bytes_per_s = origin->own ? (double)origin->own->bytes_per_s : 0;
	m->loaders = j->loaders.count;
	m->measured_ideal_bytes_per_s = j->loaders.ideal_bytes_per_s;
	m->data_wait_ratio = j->loaders.wait_ratio;
	m->loader_workers = j->loaders.workers;
	m->sampled_ideal_bytes_per_s = j->sampled.ideal_bytes_per_s;
	m->sampled_ideal_error = j->sampled.error;
	m->ideal_error = ideal.error;
	m->dataset_bytes = s ? s->state->bytes : 0;
	m->cache_bytes = j->share.cache_bytes;
	m->remote_bytes_per_s = j->share.remote_bytes_per_s;
	m->hit_ratio = j->share.hit_ratio;
	if (ideal.bytes_per_s > 0)
		m->predicted_bytes_per_s = j->share.predicted_bytes_per_s;
	job_measured(j, now_ms, &rates);
	m->measured_s = rates.seconds;
	m->read_bytes_per_s = rates.read_bytes_per_s;
	m->origin_bytes_per_s = rates.origin_bytes_per_s;
	m->consumed_bytes_per_s = rates.consumed_bytes_per_s;
	m->hit_bytes = j->counters.hit_bytes;
	m->miss_bytes = j->counters.miss_bytes;
	m->origin_bytes = j->counters.origin_bytes;
	m->waited_us = j->counters.waited_us;
	m->consumed_bytes = j->counters.consumed_bytes;
	m->read_waits = waits_message(&j->counters.waits);
	m->read_waits_measured = waits_message(&rates.waits);
	return m;
}
