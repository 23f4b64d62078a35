#include "worker/dataset.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "common/cleanup.h"

#define LOG_SUBSYSTEM "worker"
#include "common/log.h"

#define LOG_INTERVAL_MS 1000

DEFINE_CLEANUP(struct origin_options *, origin_options_free)

/* ---- options --------------------------------------------------------------------------------- */

static void hash_options(XXH3_state_t *state, Granary__V1__Option *const *options, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		XXH3_64bits_update(state, options[i]->key, strlen(options[i]->key) + 1);
		XXH3_64bits_update(state, options[i]->value, strlen(options[i]->value) + 1);
	}
	XXH3_64bits_update(state, &count, sizeof(count));
}

/* Only compared in this process, never written down. */
static uint64_t plan_options_hash(const Granary__V1__DatasetPlan *plan)
{
	XXH3_state_t *state = XXH3_createState();
	uint64_t hash;

	if (!state)
		return 0;
	XXH3_64bits_reset(state);
	hash_options(state, plan->options, plan->n_options);
	hash_options(state, plan->secrets, plan->n_secrets);
	hash = XXH3_64bits_digest(state);
	XXH3_freeState(state);
	return hash;
}

static int set_options(struct origin_options *o, Granary__V1__Option *const *options, size_t count,
	struct error *err)
{
	int r = 0;

	for (size_t i = 0; i < count && r == 0; i++)
		r = origin_options_set(o, options[i]->key, options[i]->value, err);
	return r;
}

/* What the plan says; where it says nothing, what this process's environment says. */
static int plan_options(
	const Granary__V1__DatasetPlan *plan, struct origin_options **ret, struct error *err)
{
	CLEANUP(origin_options_free_ptr) struct origin_options *o = origin_options_new();
	int r;

	if (!o)
		return error_set(err, -ENOMEM, "out of memory");
	r = set_options(o, plan->options, plan->n_options, err);
	if (r == 0)
		r = set_options(o, plan->secrets, plan->n_secrets, err);
	if (r < 0)
		return r;
	origin_options_from_environment(o);
	*ret = steal(&o);
	return 0;
}

static int open_origin(struct dataset *d, const Granary__V1__DatasetPlan *plan, struct error *err)
{
	CLEANUP(origin_options_free_ptr) struct origin_options *o = NULL;
	int r;

	r = plan_options(plan, &o, err);
	if (r < 0)
		return r;
	return origin_open(d->url, o, &d->origin, err);
}

static void renew_origin(struct dataset *d, const Granary__V1__DatasetPlan *plan)
{
	CLEANUP(origin_options_free_ptr) struct origin_options *o = NULL;
	struct error err = ERROR_INIT;
	int r;

	r = plan_options(plan, &o, &err);
	if (r == 0)
		r = origin_renew(d->origin, o, &err);
	if (r < 0)
		log_warn("dataset %s: the new options of its origin are not used: %s", d->name,
			err.text);
}

/* ---- life ------------------------------------------------------------------------------------ */

struct dataset *dataset_from_plan(const Granary__V1__DatasetPlan *plan)
{
	struct dataset *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	atomic_init(&d->refs, 1);
	mutex_init(&d->mu);
	d->id = plan->dataset_id;
	d->name = strdup(plan->name);
	d->url = strdup(plan->origin);
	if (!d->name || !d->url) {
		dataset_unref(d);
		return NULL;
	}
	d->options_hash = plan_options_hash(plan);
	if (open_origin(d, plan, &d->origin_error) < 0)
		log_error("dataset %s: only what is cached can be read: %s", d->name,
			d->origin_error.text);
	dataset_update(d, plan);
	return d;
}

struct dataset *dataset_ref(struct dataset *d)
{
	atomic_fetch_add_explicit(&d->refs, 1, memory_order_relaxed);
	return d;
}

void dataset_unref(struct dataset *d)
{
	if (!d || atomic_fetch_sub_explicit(&d->refs, 1, memory_order_acq_rel) > 1)
		return;
	for (size_t i = 0; i < d->snapshot_count; i++)
		if (d->snapshots[i].manifest)
			manifest_unref(d->snapshots[i].manifest);
	origin_free(d->origin);
	mutex_deinit(&d->mu);
	free(d->name);
	free(d->url);
	free(d);
}

/* ---- plan ------------------------------------------------------------------------------------ */

static struct dataset_snapshot *find_snapshot_locked(struct dataset *d, const char *digest)
{
	assert(mutex_held(&d->mu));
	for (size_t i = 0; i < d->snapshot_count; i++)
		if (strcmp(d->snapshots[i].digest, digest) == 0)
			return &d->snapshots[i];
	return NULL;
}

static bool digest_fits(const char *digest)
{
	return digest[0] && strlen(digest) < MANIFEST_DIGEST_TEXT_BYTES;
}

/* Builds the plan's list, moving open manifests over from the old one. */
static size_t take_snapshots_locked(struct dataset *d, const Granary__V1__DatasetPlan *plan,
	struct dataset_snapshot list[static DATASET_SNAPSHOTS_MAX])
{
	size_t count = 0;

	for (size_t i = 0; i < plan->n_snapshots && count < DATASET_SNAPSHOTS_MAX; i++) {
		const char *digest = plan->snapshots[i]->manifest_digest;
		struct dataset_snapshot *old;

		if (!digest_fits(digest))
			continue;
		old = find_snapshot_locked(d, digest);
		strcpy(list[count].digest, digest);
		list[count].manifest = old ? steal(&old->manifest) : NULL;
		count++;
	}
	return count;
}

void dataset_update(struct dataset *d, const Granary__V1__DatasetPlan *plan)
{
	struct dataset_snapshot list[DATASET_SNAPSHOTS_MAX] = {0};
	struct manifest *out[DATASET_SNAPSHOTS_MAX];
	uint64_t hash = plan_options_hash(plan);
	size_t outs = 0, count;
	bool renew;

	atomic_store(&d->grant_bytes, plan->granted_bytes);
	atomic_store(&d->threshold, plan->threshold);
	atomic_store(&d->elastic, plan->elastic);
	mutex_lock(&d->mu);
	count = take_snapshots_locked(d, plan, list);
	for (size_t i = 0; i < d->snapshot_count; i++)
		if (d->snapshots[i].manifest)
			out[outs++] = d->snapshots[i].manifest;
	memcpy(d->snapshots, list, sizeof(list));
	d->snapshot_count = count;
	renew = hash != d->options_hash;
	d->options_hash = hash;
	mutex_unlock(&d->mu);
	while (outs > 0)
		manifest_unref(out[--outs]);
	if (renew && d->origin)
		renew_origin(d, plan);
}

int dataset_manifest(
	struct dataset *d, const char *digest, struct manifest **ret, bool *ret_current)
{
	const struct dataset_snapshot *s;

	mutex_guard(&d->mu);
	s = find_snapshot_locked(d, digest);
	if (!s)
		return -ENOENT;
	*ret_current = s == &d->snapshots[0];
	if (!s->manifest)
		return DATASET_UNOPENED;
	*ret = manifest_ref(s->manifest);
	return 0;
}

void dataset_put_manifest(struct dataset *d, struct manifest *m)
{
	struct dataset_snapshot *s;

	mutex_guard(&d->mu);
	s = find_snapshot_locked(d, manifest_info(m)->digest);
	if (s && !s->manifest)
		s->manifest = manifest_ref(m);
}

void dataset_drop_manifest(struct dataset *d, const char *digest)
{
	struct manifest *m = NULL;
	struct dataset_snapshot *s;

	mutex_lock(&d->mu);
	s = find_snapshot_locked(d, digest);
	if (s)
		m = steal(&s->manifest);
	mutex_unlock(&d->mu);
	if (m)
		manifest_unref(m);
}

void dataset_current_digest(struct dataset *d, char ret[static MANIFEST_DIGEST_TEXT_BYTES])
{
	mutex_guard(&d->mu);
	strcpy(ret, d->snapshot_count > 0 ? d->snapshots[0].digest : "");
}

/* ---- counters -------------------------------------------------------------------------------- */

static struct dataset_job *job_locked(struct dataset *d, const char *name)
{
	struct dataset_job *j;

	assert(mutex_held(&d->mu));
	for (size_t i = 0; i < d->job_count; i++)
		if (strcmp(d->jobs[i].name, name) == 0)
			return &d->jobs[i];
	if (d->job_count == DATASET_JOBS_MAX)
		return &d->jobs[DATASET_JOBS_MAX - 1];
	j = &d->jobs[d->job_count++];
	if (d->job_count == DATASET_JOBS_MAX)
		name = DATASET_OTHER_JOB; /* the last record takes all further jobs */
	strcpy(j->name, name);		  /* cut to fit by the caller */
	return j;
}

void dataset_count_origin(struct dataset *d, const char *job, uint64_t bytes)
{
	char name[DATASET_JOB_BYTES] = "";

	strncat(name, job, sizeof(name) - 1);
	mutex_guard(&d->mu);
	job_locked(d, name)->origin_bytes += bytes;
}

size_t dataset_jobs(struct dataset *d, struct dataset_job ret[static DATASET_JOBS_MAX])
{
	mutex_guard(&d->mu);
	memcpy(ret, d->jobs, d->job_count * sizeof(d->jobs[0]));
	return d->job_count;
}

void dataset_count_failure(struct dataset *d, const char *text)
{
	int64_t now_ms = clock_mono_ms();
	uint64_t not_logged;
	bool log;

	atomic_fetch_add(&d->failed_fetches, 1);
	mutex_lock(&d->mu);
	d->last_error[0] = '\0';
	strncat(d->last_error, text, sizeof(d->last_error) - 1);
	log = d->logged_ms == 0 || now_ms - d->logged_ms >= LOG_INTERVAL_MS;
	not_logged = d->not_logged;
	if (log) {
		d->logged_ms = now_ms;
		d->not_logged = 0;
	} else {
		d->not_logged++;
	}
	mutex_unlock(&d->mu);
	if (log && not_logged > 0)
		log_error("dataset %s: %s (and %llu failures before it that were not logged)",
			d->name, text, (unsigned long long)not_logged);
	else if (log)
		log_error("dataset %s: %s", d->name, text);
}

uint64_t dataset_origin_bytes(const struct dataset *d)
{
	return d->origin ? origin_bytes_received(d->origin) : 0;
}

void dataset_last_error(struct dataset *d, char ret[static ERROR_TEXT_BYTES])
{
	mutex_guard(&d->mu);
	strcpy(ret, d->last_error[0] ? d->last_error : d->origin_error.text);
}
