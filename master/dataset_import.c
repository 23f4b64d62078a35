#include "master/dataset_import.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "master/import_task.h"

#define LOG_SUBSYSTEM "master"
#include "common/log.h"

#define IMPORT_MAX_MS ((int64_t)24 * 3600 * 1000) /* for clients that set no deadline */

DEFINE_CLEANUP(struct namespace_batch *, namespace_batch_free)
DEFINE_CLEANUP(struct manifest *, manifest_unref)
DEFINE_CLEANUP(struct filter *, filter_free)
DEFINE_CLEANUP(struct origin *, origin_free)

/* An import of a dataset that is marked as importing: what it goes by, copied from under mu. */
struct work {
	struct master *m;
	struct rpc_call *call;
	uint64_t dataset_id;
	struct dataset_config *config;
	struct dataset_secrets *secrets;
	uint64_t number;			   /* of the snapshot to make */
	char previous[MANIFEST_DIGEST_TEXT_BYTES]; /* "": none */
	bool switch_mounts;
	bool in_database; /* it was added before */
	struct manifest_info info;
	char guarantee[64];
	struct import_report *report; /* owned by the outcome */
};

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "no memory for the import");
}

void import_outcome_deinit(struct import_outcome *o)
{
	import_report_free(o->report);
	o->report = NULL;
}

/* ---- claiming -------------------------------------------------------------------------------- */

static int claim_locked(struct master *m, struct dataset *d, struct error *err)
{
	if (d->importing)
		return error_set(err, -ESTALE,
			"the origin of dataset %s is being listed already: wait until that "
			"ends, or stop the command that does it",
			d->config->msg->name);
	if (m->imports >= MASTER_IMPORTS_MAX)
		return error_set(err, -ENOSPC,
			"%d imports are running, which is all the master does at once: try "
			"again when one has ended",
			MASTER_IMPORTS_MAX);
	m->imports++;
	d->importing = true;
	return 0;
}

static void work_init_locked(struct work *w, struct dataset *d)
{
	const struct snapshot *s = dataset_current(d);

	w->dataset_id = d->id;
	w->config = dataset_config_ref(d->config);
	w->secrets = dataset_secrets_ref(d->secrets);
	w->number = d->last_snapshot + 1;
	w->in_database = d->in_database;
	if (s)
		memcpy(w->previous, s->state->digest, sizeof(w->previous));
}

static void work_deinit(struct work *w)
{
	dataset_config_unref(w->config);
	dataset_secrets_unref(w->secrets);
}

/* The import has ended. A dataset that never got a snapshot goes with its first import. */
static void release(struct work *w)
{
	struct master *m = w->m;
	struct dataset *d;

	mutex_guard(&m->mu);
	m->imports--;
	d = dataset_registry_get(&m->datasets, w->dataset_id);
	assert(d && d->importing); /* nobody removes one that is imported */
	d->importing = false;
	if (!d->in_database)
		dataset_registry_remove(&m->datasets, d);
}

/* ---- running --------------------------------------------------------------------------------- */

static int run(struct work *w, struct error *err)
{
	CLEANUP(origin_free_ptr) struct origin *origin = NULL;
	CLEANUP(filter_free_ptr) struct filter *filter = NULL;
	CLEANUP(manifest_unref_ptr) struct manifest *previous = NULL;
	const Granary__State__V1__DatasetConfig *c = w->config->msg;
	int64_t deadline_ms = clock_deadline_ms(IMPORT_MAX_MS);
	struct import_job job = {
		.db = w->m->db,
		.manifest_dir = manifest_store_dir(w->m->manifests),
		.dataset_id = w->dataset_id,
		.snapshot = w->number,
		.created_s = clock_wall_s(),
		.dirs_mtime_ns = c->created_s * 1000000000,
	};
	struct error old_err = ERROR_INIT;
	int r;

	r = dataset_origin_open(w->config, w->secrets, &origin, err);
	if (r == 0)
		r = filter_new(c->include, c->n_include, c->exclude, c->n_exclude, &filter, err);
	if (r < 0)
		return r;
	/* A damaged old manifest is what a refresh mends: then all counts as added. */
	if (w->previous[0] &&
		manifest_store_open(w->m->manifests, w->previous, &previous, &old_err) < 0)
		log_warn("cannot compare with the snapshot before: %s", old_err.text);
	if (rpc_call_deadline_ms(w->call) < deadline_ms)
		deadline_ms = rpc_call_deadline_ms(w->call);
	job.origin = origin;
	job.filter = filter;
	job.previous = previous;
	job.deadline_ms = deadline_ms;
	r = import_task_run(w->call, &job, w->report, &w->info, err);
	strncpy(w->guarantee, origin_guarantee(origin), sizeof(w->guarantee) - 1);
	return r;
}

/* ---- committing ------------------------------------------------------------------------------ */

static Granary__State__V1__SnapshotState *snapshot_state(const struct work *w)
{
	Granary__State__V1__SnapshotState *s = malloc(sizeof(*s));

	if (!s)
		return NULL;
	granary__state__v1__snapshot_state__init(s);
	s->digest = strdup(w->info.digest);
	s->guarantee = strdup(w->guarantee);
	if (!s->digest || !s->guarantee) {
		granary__state__v1__snapshot_state__free_unpacked(s, NULL);
		return NULL;
	}
	s->manifest_bytes = w->info.file_bytes;
	s->created_s = w->info.created_s;
	s->files = w->info.files;
	s->dirs = w->info.dirs;
	s->symlinks = w->info.symlinks;
	s->bytes = w->info.bytes;
	s->blocks = w->info.blocks;
	return s;
}

static int put_records(struct work *w, struct namespace_batch *batch,
	const Granary__State__V1__SnapshotState *snapshot)
{
	Granary__V1__ImportReport *report = import_report_message(w->report);
	Granary__State__V1__DatasetState state;
	const struct dataset *d;
	int r = report ? 0 : -ENOMEM;

	if (r == 0)
		r = namespace_batch_put(batch, NAMESPACE_REPORT, w->dataset_id, 0, &report->base);
	if (report)
		granary__v1__import_report__free_unpacked(report, NULL);
	if (r == 0)
		r = namespace_batch_put(
			batch, NAMESPACE_SNAPSHOT, w->dataset_id, w->number, &snapshot->base);
	if (r < 0)
		return r;
	mutex_guard(&w->m->mu);
	d = dataset_registry_get(&w->m->datasets, w->dataset_id);
	dataset_state(d, &state);
	state.current_snapshot = state.last_snapshot = w->number;
	r = namespace_batch_put(batch, NAMESPACE_DATASET, w->dataset_id, 0, &state.base);
	if (r == 0 && w->switch_mounts)
		r = mounts_switch(&w->m->mounts, d, w->number, batch);
	return r;
}

/* The commit was made: the same in memory. Takes the snapshot. */
static int apply(struct work *w, Granary__State__V1__SnapshotState *snapshot)
{
	struct master *m = w->m;
	struct dataset *d;
	int r;

	mutex_guard(&m->mu);
	d = dataset_registry_get(&m->datasets, w->dataset_id);
	r = dataset_add_snapshot(d, w->number, snapshot, clock_mono_ms());
	if (r < 0)
		return r;
	d->current = d->last_snapshot = w->number;
	d->in_database = true;
	if (w->switch_mounts)
		mounts_apply_switch(&m->mounts, d);
	master_replan_locked(m);
	master_tell_locked(m);
	return 0;
}

static int commit_snapshot(struct work *w, struct error *err)
{
	CLEANUP(namespace_batch_free_ptr) struct namespace_batch *batch = namespace_batch_new();
	Granary__State__V1__SnapshotState *snapshot = snapshot_state(w);
	int r;

	mutex_guard(&w->m->state_mu);
	if (!batch || !snapshot || put_records(w, batch, snapshot) < 0)
		r = no_memory(err);
	else
		r = namespace_db_commit(w->m->db, batch, true, err);
	if (r < 0) {
		granary__state__v1__snapshot_state__free_unpacked(snapshot, NULL);
		manifest_store_remove(w->m->manifests, w->info.digest);
		return r;
	}
	/* Should memory fail here, the next start reads what was committed. */
	return apply(w, snapshot) < 0 ? no_memory(err) : 0;
}

/* Nothing was made: the report is kept all the same, and mounts of older snapshots are moved. */
static int commit_unchanged(struct work *w, struct error *err)
{
	CLEANUP(namespace_batch_free_ptr) struct namespace_batch *batch = namespace_batch_new();
	Granary__V1__ImportReport *report = import_report_message(w->report);
	struct master *m = w->m;
	int r = batch && report ? 0 : -ENOMEM;

	mutex_guard(&m->state_mu);
	if (r == 0)
		r = namespace_batch_put(batch, NAMESPACE_REPORT, w->dataset_id, 0, &report->base);
	if (report)
		granary__v1__import_report__free_unpacked(report, NULL);
	if (r == 0 && w->switch_mounts) {
		mutex_guard(&m->mu);
		const struct dataset *d = dataset_registry_get(&m->datasets, w->dataset_id);

		r = mounts_switch(&m->mounts, d, d->current, batch);
	}
	if (r < 0)
		return no_memory(err);
	r = namespace_db_commit(m->db, batch, true, err);
	if (r == 0 && w->switch_mounts) {
		mutex_guard(&m->mu);
		mounts_apply_switch(&m->mounts, dataset_registry_get(&m->datasets, w->dataset_id));
	}
	return r;
}

/* Secrets are in memory only: after a restart the master lists without them until somebody hands
 * them over again, and what the origin says then sounds as if they were wrong. */
static int explain_refusal(const struct work *w, int r, struct error *err)
{
	const char *name = w->config->msg->name;
	struct error said = *err;

	if (r != -EACCES || w->secrets || !w->in_database ||
		strncmp(w->config->msg->origin, "file:", 5) == 0)
		return r;
	return error_set(err, r,
		"%.200s; the master has no secrets for dataset %s (it keeps them in memory only, "
		"so a restart loses them): run `granary dataset refresh %s` or `granary up` on "
		"the master's host with the credentials in the environment, which hands them over",
		said.text, name, name);
}

/* Runs a claimed import to its end and gives the claim back. */
static int run_claimed(struct work *w, struct import_outcome *ret, struct error *err)
{
	int r;

	ret->dataset_id = w->dataset_id;
	w->report = ret->report = import_report_new();
	r = ret->report ? explain_refusal(w, run(w, err), err) : no_memory(err);
	ret->unchanged = r == IMPORT_UNCHANGED;
	if (r == 0)
		r = commit_snapshot(w, err);
	else if (r == IMPORT_UNCHANGED)
		r = commit_unchanged(w, err);
	ret->entries = w->info.entries;
	ret->bytes = w->info.bytes;
	release(w);
	return r < 0 ? r : 0;
}

/* ---- the two ways ---------------------------------------------------------------------------- */

static int enter_locked(struct master *m, struct dataset *d, struct error *err)
{
	const char *name = d->config->msg->name;
	struct dataset *there = dataset_registry_find(&m->datasets, name);

	if (there && !there->in_database)
		return error_set(err, -ESTALE,
			"dataset %s is being added already: wait until that ends, or stop the "
			"command that does it",
			name);
	if (there)
		return error_set(err, -EEXIST,
			"there is a dataset %s already (of %s): choose another name", name,
			there->config->msg->origin);
	return dataset_registry_insert(&m->datasets, d, err);
}

int dataset_import_add(struct master *m, struct rpc_call *call, struct dataset_config *config,
	struct dataset_secrets *secrets, bool quota_limited, uint64_t quota_bytes,
	struct import_outcome *ret, struct error *err)
{
	struct work w = {.m = m, .call = call};
	struct dataset *d = dataset_new(master_random_id(), config, secrets);
	int r;

	memset(ret, 0, sizeof(*ret));
	if (!d)
		return no_memory(err);
	d->quota_limited = quota_limited;
	d->quota_bytes = quota_bytes;
	mutex_lock(&m->mu);
	r = enter_locked(m, d, err);
	if (r < 0) {
		mutex_unlock(&m->mu);
		dataset_free(d);
		return r;
	}
	r = claim_locked(m, d, err);
	if (r < 0)
		dataset_registry_remove(&m->datasets, d);
	else
		work_init_locked(&w, d);
	mutex_unlock(&m->mu);
	if (r == 0)
		r = run_claimed(&w, ret, err);
	work_deinit(&w);
	return r;
}

int dataset_import_refresh(struct master *m, struct rpc_call *call, const char *name,
	bool switch_mounts, struct import_outcome *ret, struct error *err)
{
	struct work w = {.m = m, .call = call, .switch_mounts = switch_mounts};
	struct dataset *d;
	int r;

	memset(ret, 0, sizeof(*ret));
	mutex_lock(&m->mu);
	d = dataset_registry_find(&m->datasets, name);
	r = d ? claim_locked(m, d, err)
	      : error_set(err, -ENOENT,
			"there is no dataset '%.128s': `granary dataset ls` shows those there are",
			name);
	if (r == 0)
		work_init_locked(&w, d);
	mutex_unlock(&m->mu);
	if (r == 0)
		r = run_claimed(&w, ret, err);
	work_deinit(&w);
	return r;
}
