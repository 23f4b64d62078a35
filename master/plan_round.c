#include "master/plan_round.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "master/origin_ledger.h"

#define LOG_SUBSYSTEM "master"
#include "common/log.h"

#define IDEAL_MOVED 0.05   /* of the rate that a job could read at */
#define SAMPLED_MOVED 0.10 /* of one that was sampled, or as much as it may be wrong by */
#define RATIO_MOVED 0.01   /* of what can hit for a job, before it is worth another plan */

/* The oldest first; the id makes it one order. */
static int by_age(const void *a, const void *b)
{
	const struct plan_item *x = a, *y = b;

	if (x->created_s != y->created_s)
		return x->created_s > y->created_s ? 1 : -1;
	return (x->dataset_id > y->dataset_id) - (x->dataset_id < y->dataset_id);
}

/* Of each limit, what jobs can have: of workers, or of their mounts when there are none. */
static double part_locked(const struct master *m)
{
	double workers = origin_ledger_for_workers_locked(m);

	return workers > 0 ? workers : 1;
}

static struct allocate_limit *limits_new_locked(const struct master *m)
{
	const struct origin_limits *o = &m->cluster.origins;
	struct allocate_limit *limits = calloc(o->count + 1, sizeof(*limits));

	for (size_t i = 0; limits && i < o->count; i++)
		limits[i].bytes_per_s = (double)o->list[i].bytes_per_s * part_locked(m);
	return limits;
}

static struct plan_item *items_new_locked(
	struct master *m, struct allocate_limit *limits, size_t *ret_count)
{
	size_t count = 0;
	struct plan_item *items = calloc(dataset_registry_count(&m->datasets) + 1, sizeof(*items));
	struct dataset *d, *next;
	size_t limit;

	if (!items)
		return NULL;
	HASH_ITER (by_id, m->datasets.by_id, d, next) {
		const struct snapshot *s = dataset_current(d);
		struct plan_item *item = &items[count];

		if (!s)
			continue;
		count++;
		item->dataset_id = d->id;
		item->created_s = d->config->msg->created_s;
		memcpy(item->digest, s->state->digest, sizeof(item->digest));
		item->bytes = s->state->bytes;
		item->blocks = s->state->blocks;
		item->quota_limited = d->quota_limited;
		item->quota_bytes = d->quota_bytes;
		item->mounted = d->live_mounts > 0;
		limit = master_limit_locked(m, d);
		item->limit = limit ? &limits[limit - 1] : NULL;
		/* What was decided last, to be compared with what is granted now. */
		item->known = strcmp(d->planned_digest, item->digest) == 0;
		item->granted_bytes = d->granted_bytes;
		item->threshold = d->threshold;
		item->pin_target_bytes = d->pin_target_bytes;
	}
	qsort(items, count, sizeof(*items), by_age);
	for (size_t i = 0; i < count; i++)
		dataset_registry_get(&m->datasets, items[i].dataset_id)->plan_item = i;
	*ret_count = count;
	return items;
}

static uint64_t remaining_bytes(const struct job *j, uint64_t dataset_bytes)
{
	uint64_t read = job_read_bytes(j), all;

	if (j->epochs == 0)
		return dataset_bytes;
	if (__builtin_mul_overflow(dataset_bytes, (uint64_t)j->epochs, &all) ||
		all > PROBLEM_BYTES_MAX)
		all = PROBLEM_BYTES_MAX;
	return all > read ? all - read : 0;
}

static uint64_t effective_bytes_locked(struct master *m, const struct job *j, struct dataset *d)
{
	return job_effective_bytes(
		j, dataset_current(d)->state->bytes, workers_sum(&m->workers, d->id).cached_bytes);
}

static double effective_ratio_locked(struct master *m, const struct job *j, struct dataset *d)
{
	uint64_t bytes = dataset_current(d)->state->bytes;

	return bytes ? (double)effective_bytes_locked(m, j, d) / (double)bytes : 1;
}

static bool ideal_moved(const struct job *j)
{
	struct job_ideal ideal = job_ideal(j);
	double error = ideal.error;
	double tolerance = error == 0 ? IDEAL_MOVED : error > SAMPLED_MOVED ? error : SAMPLED_MOVED;

	return fabs(ideal.bytes_per_s - j->planned.bytes_per_s) >
	       tolerance * j->planned.bytes_per_s;
}

bool plan_round_is_stale_locked(struct master *m)
{
	struct job *j, *next;

	mounts_gather_loaders(&m->mounts, &m->jobs);
	HASH_ITER (hh, m->jobs.by_name, j, next) {
		struct dataset *d = dataset_registry_get(&m->datasets, j->dataset_id);
		double moved;

		if (!d || !dataset_current(d))
			continue;
		if (ideal_moved(j))
			return true;
		moved = effective_ratio_locked(m, j, d) - j->effective_ratio;
		if (moved > RATIO_MOVED || moved < -RATIO_MOVED)
			return true;
	}
	return false;
}

void plan_round_went_by_locked(struct master *m)
{
	struct job *j, *next;

	HASH_ITER (hh, m->jobs.by_name, j, next) {
		struct dataset *d = dataset_registry_get(&m->datasets, j->dataset_id);

		if (!d || !dataset_current(d))
			continue;
		j->effective_ratio = effective_ratio_locked(m, j, d);
		job_went_by(j);
	}
}

static int by_id(const void *a, const void *b)
{
	const struct allocate_job *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

/* The jobs whose dataset is among the items, in the order of their arrival. */
static int jobs_new_locked(struct master *m, struct plan_round *round)
{
	struct job *j, *next;

	mounts_gather_loaders(&m->mounts, &m->jobs);
	round->jobs = calloc(HASH_COUNT(m->jobs.by_name) + 2, sizeof(*round->jobs));
	if (!round->jobs)
		return -ENOMEM;
	HASH_ITER (hh, m->jobs.by_name, j, next) {
		struct dataset *d = dataset_registry_get(&m->datasets, j->dataset_id);

		if (!d || !dataset_current(d))
			continue;
		round->jobs[round->job_count++] = (struct allocate_job){
			.id = j->id,
			.item = d->plan_item,
			.gpus = j->gpus,
			.remaining_bytes = remaining_bytes(j, round->items[d->plan_item].bytes),
			.ideal_bytes_per_s = job_ideal(j).bytes_per_s,
			.weight = j->weight,
			.min_remote_bytes_per_s = j->min_remote_bytes_per_s,
			.effective_bytes = effective_bytes_locked(m, j, d),
			.irregular = j->irregular,
		};
	}
	qsort(round->jobs, round->job_count, sizeof(*round->jobs), by_id);
	return 0;
}

const struct allocate_job *plan_round_job(const struct plan_round *round, uint64_t id)
{
	const struct allocate_job key = {.id = id};

	return bsearch(&key, round->jobs, round->job_count, sizeof(key), by_id);
}

void plan_round_deinit(struct plan_round *round)
{
	free(round->items);
	free(round->jobs);
	free(round->cluster.limits);
}

static void count_others_locked(struct master *m, struct plan_round *round)
{
	struct mount_peer *p, *next;

	HASH_ITER (hh, m->mounts.by_id, p, next) {
		struct dataset *d = dataset_registry_get(&m->datasets, p->dataset_id);

		if (!p->live || p->job_id)
			continue;
		round->cluster.others++;
		if (d && dataset_current(d) && round->items[d->plan_item].limit)
			round->items[d->plan_item].limit->others++;
	}
}

int plan_round_init_locked(struct master *m, struct plan_round *round)
{
	round->cluster = (struct allocate_cluster){
		.capacity_bytes = workers_capacity(&m->workers, clock_mono_ms()),
		.origin_limited = m->cluster.origins.bytes_per_s > 0,
		.origin_bytes_per_s = (double)m->cluster.origins.bytes_per_s * part_locked(m),
		.limits = limits_new_locked(m),
		.limit_count = m->cluster.origins.count,
		.policy = m->cluster.policy,
		.storage = m->cluster.storage,
	};
	if (!round->cluster.limits)
		return -ENOMEM;
	round->items = items_new_locked(m, round->cluster.limits, &round->count);
	if (!round->items)
		return -ENOMEM;
	count_others_locked(m, round);
	return jobs_new_locked(m, round);
}

/* Nobody else wants any of the origins. */
static void leave_origins_to_others(struct allocate_cluster *c)
{
	c->other_bytes_per_s = c->origin_bytes_per_s;
	for (size_t i = 0; i < c->limit_count; i++)
		c->limits[i].other_bytes_per_s = c->limits[i].bytes_per_s;
}

/* Without jobs quotas and equal shares decide, as long as nothing asks for an LRU. */
int plan_round_divide(struct plan_round *round)
{
	struct error err = ERROR_INIT;
	int r;

	if (round->job_count > 0 || round->cluster.storage == STORAGE_POLICY_LRU) {
		r = allocate(round->items, round->count, round->jobs, round->job_count,
			&round->cluster, &err);
		if (r != -EINVAL)
			return r;
		log_error("the jobs were left out of the plan: the scheduler refuses %s", err.text);
	}
	leave_origins_to_others(&round->cluster);
	return plan_grant(round->items, round->count, round->cluster.capacity_bytes);
}
