#include "master/master.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "master/master_metrics.h"
#include "master/master_state.h"

#define LOG_SUBSYSTEM "master"
#include "common/log.h"

uint64_t master_random_id(void)
{
	uint64_t id = 0;

	while (id == 0) {
		ssize_t n = getrandom(&id, sizeof(id), 0);

		assert(n == (ssize_t)sizeof(id)); /* does not fail for so few bytes */
	}
	return id;
}

/* ---- the plan's clock ------------------------------------------------------------------------ */

void master_replan_locked(struct master *m)
{
	assert(mutex_held(&m->mu));
	m->plan_wanted++;
	cond_signal(&m->work);
}

void master_tell_locked(struct master *m)
{
	assert(mutex_held(&m->mu));
	m->plan_version++;
}

bool master_is_planned_locked(const struct master *m)
{
	return m->plan_done == m->plan_wanted;
}

bool master_wait_planned_locked(struct master *m, int64_t deadline_ms)
{
	uint64_t wanted = m->plan_wanted;

	while (m->plan_done < wanted && !m->stopping)
		if (cond_wait(&m->planned, &m->mu, deadline_ms) == -ETIMEDOUT)
			break;
	return m->plan_done >= wanted;
}

size_t master_limit_locked(const struct master *m, struct dataset *d)
{
	const struct origin_limits *o = &m->cluster.origins;
	const struct origin_limit *found;

	/* Neither the limits nor a dataset's origin ever change. */
	if (o->count > 0 && !d->limit_known) {
		found = origin_limits_find(o, d->config->msg->origin);
		d->limit = found ? (size_t)(found - o->list) + 1 : 0;
		d->limit_known = true;
	}
	return d->limit;
}

/* ---- life ------------------------------------------------------------------------------------ */

static bool digest_is_used(void *arg, const char *digest)
{
	struct master *m = arg;
	struct dataset *d, *next;

	HASH_ITER (by_id, m->datasets.by_id, d, next) {
		for (size_t i = 0; i < d->snapshots_count; i++)
			if (strcmp(d->snapshots[i].state->digest, digest) == 0)
				return true;
	}
	return false;
}

static int open_parts(struct master *m, const char *state_dir, struct error *err)
{
	cleanup_free char *db_dir = NULL, *manifest_dir = NULL;
	int r;

	if (mkdir(state_dir, 0700) < 0 && errno != EEXIST) {
		r = -errno;
		return error_set_errno(err, r,
			"cannot make the state directory %s (choose another with --state-dir)",
			state_dir);
	}
	if (asprintf(&db_dir, "%s/master", state_dir) < 0 ||
		asprintf(&manifest_dir, "%s/manifests", state_dir) < 0)
		return error_set(err, -ENOMEM, "no memory for the master");
	r = namespace_db_open(db_dir, &m->db, err);
	return r < 0 ? r : manifest_store_new(manifest_dir, &m->manifests, err);
}

static int load(struct master *m, struct error *err)
{
	int64_t now_ms = clock_mono_ms();
	int r = dataset_registry_load(&m->datasets, m->db, now_ms, err);

	if (r == 0)
		r = workers_load(&m->workers, m->db, now_ms, err);
	if (r == 0)
		r = mounts_load(&m->mounts, m->db, now_ms, err);
	if (r == 0)
		r = jobs_load(&m->jobs, m->db, now_ms, err);
	if (r < 0)
		return r;
	/* An empty database beside manifests may be a lost one, which a backup brings back. */
	if (dataset_registry_count(&m->datasets) > 0)
		manifest_store_sweep(m->manifests, digest_is_used, m);
	return 0;
}

int master_new(const struct master_options *opts, struct rpc_server *server, struct master **ret,
	struct error *err)
{
	struct master *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return error_set(err, -ENOMEM, "no memory for the master");
	mutex_init(&m->state_mu);
	mutex_init(&m->mu);
	cond_init(&m->work);
	cond_init(&m->planned);
	cond_init(&m->tick);
	m->started_s = clock_wall_s();
	m->started_ms = clock_mono_ms();
	m->saved_ms = clock_mono_ms();
	m->plan_version = master_random_id() >> 1; /* room to count up */
	m->plan_wanted = 1;
	m->cluster.policy = opts->policy;
	m->cluster.storage = opts->storage;
	if (opts->origins)
		m->cluster.origins = *opts->origins;
	r = open_parts(m, opts->state_dir, err);
	if (r == 0)
		r = load(m, err);
	if (r == 0 && !(m->metrics = master_metrics_start(m)))
		r = error_set(err, -ENOMEM, "no memory for the master");
	if (r < 0) {
		master_free(m);
		return r;
	}
	log_info("the master knows %zu datasets", dataset_registry_count(&m->datasets));
	dataset_service_add(m, server);
	cluster_service_add(m, server);
	job_service_add(m, server);
	*ret = m;
	return 0;
}

int master_start(struct master *m, struct error *err)
{
	int r = pthread_create(&m->planner, NULL, planner_main, m);

	if (r != 0)
		return error_set_errno(err, -r, "cannot start the master's planner");
	m->planner_runs = true;
	r = pthread_create(&m->housekeeper, NULL, housekeeping_main, m);
	if (r != 0)
		return error_set_errno(err, -r, "cannot start the master's housekeeping");
	m->housekeeper_runs = true;
	return 0;
}

static void stop_threads(struct master *m)
{
	mutex_lock(&m->mu);
	m->stopping = true;
	cond_broadcast(&m->work);
	cond_broadcast(&m->planned);
	cond_broadcast(&m->tick);
	mutex_unlock(&m->mu);
	if (m->planner_runs)
		pthread_join(m->planner, NULL);
	if (m->housekeeper_runs)
		pthread_join(m->housekeeper, NULL);
}

void master_free(struct master *m)
{
	if (!m)
		return;
	master_metrics_stop(m->metrics);
	stop_threads(m);
	if (m->db)
		housekeeping_save(m);
	mounts_deinit(&m->mounts);
	jobs_deinit(&m->jobs);
	workers_deinit(&m->workers);
	dataset_registry_deinit(&m->datasets);
	manifest_store_free(m->manifests);
	namespace_db_close(m->db);
	cond_deinit(&m->tick);
	cond_deinit(&m->planned);
	cond_deinit(&m->work);
	mutex_deinit(&m->mu);
	mutex_deinit(&m->state_mu);
	free(m);
}
