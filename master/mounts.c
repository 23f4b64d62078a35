#include "master/mounts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "master/text.h"
#include "scheduler/problem.h"

#define LOG_SUBSYSTEM "master"
#include "common/log.h"

struct mount_peer *mounts_find(const struct mounts *m, uint64_t id)
{
	struct mount_peer *found;

	HASH_FIND(hh, m->by_id, &id, sizeof(id), found);
	return found;
}

static struct mount_peer *add(struct mounts *m, uint64_t id, struct error *err)
{
	struct mount_peer *p;

	if (HASH_COUNT(m->by_id) >= MOUNTS_MAX) {
		error_set(err, -ENOSPC, "the master knows %d mounts and takes no more", MOUNTS_MAX);
		return NULL;
	}
	p = calloc(1, sizeof(*p));
	if (!p) {
		error_set(err, -ENOMEM, "no memory for another mount");
		return NULL;
	}
	p->id = id;
	HASH_ADD(hh, m->by_id, id, sizeof(p->id), p);
	return p;
}

static void set_live(struct mounts *m, struct mount_peer *p, struct dataset *d, bool live)
{
	size_t change = live ? 1 : (size_t)-1;

	if (p->live == live)
		return;
	p->live = live;
	d->live_mounts += change;
	m->live += change;
	m->live_by_limit[d->limit] += change;
}

/* ---- its job --------------------------------------------------------------------------------- */

struct job *mounts_job(const struct mount_peer *p, const struct jobs *jobs)
{
	struct job *j = p->job_id ? jobs_find(jobs, p->job) : NULL;

	return j && j->id == p->job_id ? j : NULL;
}

static void attach(struct mount_peer *p, struct job *j)
{
	if (p->job_id == (j ? j->id : 0))
		return;
	/* Another one of its name came after the one that it was for. */
	p->job_id = j ? j->id : 0;
	memcpy(p->job, j ? j->name : "", j ? sizeof(p->job) : 1);
	if (j)
		job_mount_came(j);
}

static void detach(struct mount_peer *p, struct jobs *jobs, bool closed, int64_t now_ms)
{
	struct job *j = mounts_job(p, jobs);

	if (j)
		job_mount_went(j, closed, now_ms);
	p->job_id = 0;
}

static void drop(struct mounts *m, struct mount_peer *p)
{
	HASH_DELETE(hh, m->by_id, p);
	free(p->mountpoint);
	free(p->host);
	free(p->host_id);
	free(p);
}

void mounts_remove(struct mounts *m, struct dataset_registry *datasets, struct jobs *jobs,
	struct mount_peer *p)
{
	struct dataset *d = dataset_registry_get(datasets, p->dataset_id);

	detach(p, jobs, true, clock_mono_ms());

	if (d)
		set_live(m, p, d, false);
	drop(m, p);
}

void mounts_deinit(struct mounts *m)
{
	struct mount_peer *p, *next;

	HASH_ITER (hh, m->by_id, p, next) {
		drop(m, p);
	}
}

/* ---- the database ---------------------------------------------------------------------------- */

struct load {
	struct mounts *m;
	int64_t now_ms;
};

static int load_one(
	void *arg, uint64_t id, uint64_t b, ProtobufCMessage **message, struct error *err)
{
	struct load *load = arg;
	const Granary__State__V1__MountState *s = (const Granary__State__V1__MountState *)*message;
	struct mount_peer *p = add(load->m, id, err);

	(void)b;
	if (!p)
		return -ENOSPC;
	p->dataset_id = s->dataset_id;
	p->assigned = p->shown = s->snapshot;
	p->hit_bytes = s->hit_bytes;
	p->miss_bytes = s->miss_bytes;
	p->failed_reads = s->failed_reads;
	p->direct_origin_bytes = s->direct_origin_bytes;
	p->consumed_bytes = s->consumed_bytes;
	for (size_t i = 0; i < s->n_read_waits_us && i < JOB_WAITS; i++)
		p->waits.us[i] = s->read_waits_us[i];
	p->direct = (struct origin_hold){.most = s->direct_bytes_per_s,
		.base = s->direct_base_bytes_per_s,
		.heard_ms = load->now_ms};
	p->seen_ms = load->now_ms;
	return 0;
}

int mounts_load(struct mounts *m, struct namespace_db *db, int64_t now_ms, struct error *err)
{
	struct load load = {.m = m, .now_ms = now_ms};

	return namespace_db_scan(db, NAMESPACE_MOUNT, &granary__state__v1__mount_state__descriptor,
		load_one, &load, err);
}

static int put_as(const struct mount_peer *p, uint64_t snapshot, struct namespace_batch *batch)
{
	Granary__State__V1__MountState s = GRANARY__STATE__V1__MOUNT_STATE__INIT;

	s.dataset_id = p->dataset_id;
	s.snapshot = snapshot;
	s.hit_bytes = p->hit_bytes;
	s.miss_bytes = p->miss_bytes;
	s.failed_reads = p->failed_reads;
	s.direct_origin_bytes = p->direct_origin_bytes;
	s.consumed_bytes = p->consumed_bytes;
	s.n_read_waits_us = JOB_WAITS;
	s.read_waits_us = (uint64_t *)p->waits.us;
	s.direct_bytes_per_s = p->direct.most;
	s.direct_base_bytes_per_s = p->direct.base;
	return namespace_batch_put(batch, NAMESPACE_MOUNT, p->id, 0, &s.base);
}

int mounts_put(const struct mount_peer *p, struct namespace_batch *batch)
{
	return put_as(p, p->assigned, batch);
}

int mounts_save(struct mounts *m, struct namespace_batch *batch)
{
	struct mount_peer *p, *next;

	HASH_ITER (hh, m->by_id, p, next) {
		int r = p->dirty ? mounts_put(p, batch) : 0;

		if (r < 0)
			return r;
		p->dirty = false;
	}
	return 0;
}

/* ---- heartbeats ------------------------------------------------------------------------------ */

static int text_check(const char *what, const char *text, size_t room, struct error *err)
{
	if (strlen(text) < room)
		return 0;
	return error_set(
		err, -EINVAL, "the %s of a mount can have %zu bytes at most", what, room - 1);
}

static int place_check(
	const char *mountpoint, const char *host, const char *host_id, struct error *err)
{
	int r = text_check("mount point", mountpoint, MOUNT_PATH_BYTES, err);

	if (r == 0)
		r = text_check("host", host, MOUNT_TEXT_BYTES, err);
	return r < 0 ? r : text_check("host id", host_id, MOUNT_TEXT_BYTES, err);
}

static int replace(char **dst, const char *src)
{
	char *copy;

	if (*dst && strcmp(*dst, src) == 0)
		return 0;
	copy = strdup(src);
	if (!copy)
		return -ENOMEM;
	free(*dst);
	*dst = copy;
	return 0;
}

static int place_set(struct mount_peer *p, const char *mountpoint, const char *host,
	const char *host_id, struct error *err)
{
	if (replace(&p->mountpoint, mountpoint) < 0 || replace(&p->host, host) < 0 ||
		replace(&p->host_id, host_id) < 0)
		return error_set(err, -ENOMEM, "no memory for another mount");
	return 0;
}

int mounts_open(struct mounts *m, struct dataset *d, struct job *j, uint64_t id,
	const Granary__V1__OpenMountRequest *request, int64_t now_ms, struct mount_peer **ret,
	struct error *err)
{
	struct mount_peer *p;
	int r = place_check(request->mountpoint, request->host, request->host_id, err);

	if (r < 0)
		return r;
	p = add(m, id, err);
	if (!p)
		return -ENOSPC;
	r = place_set(p, request->mountpoint, request->host, request->host_id, err);
	if (r < 0) {
		drop(m, p);
		return r;
	}
	p->dataset_id = d->id;
	p->pid = request->pid;
	text_copy_printable(p->mode, sizeof(p->mode), request->mode);
	p->assigned = p->shown = d->current;
	p->seen_ms = now_ms;
	set_live(m, p, d, true);
	attach(p, j);
	*ret = p;
	return 0;
}

/* A cumulative counter: what is new is added; one that went back started anew. */
static bool count_up(uint64_t *counted, uint64_t said, uint64_t *total)
{
	if (said == *counted)
		return false;
	*total += said > *counted ? said - *counted : said;
	*counted = said;
	return true;
}

/* What a mount added to its dataset's counters is its job's as well. */
static void count_job(
	struct job *j, const struct dataset *d, uint64_t hit, uint64_t miss, uint64_t origin)
{
	j->counters.hit_bytes += d->hit_bytes - hit;
	j->counters.miss_bytes += d->miss_bytes - miss;
	j->counters.origin_bytes += d->origin_bytes - origin;
	j->dirty = true;
}

/* What is counted of jobs only. False: nothing is new. */
static bool count_for_job(
	struct mount_peer *p, struct job *j, const Granary__V1__MountHeartbeatRequest *last)
{
	struct job_waits said = job_waits_read(last->read_waits);
	struct job_counters nobody = {0}, *to = j ? &j->counters : &nobody;
	bool dirty = count_up(&p->consumed_bytes, last->consumed_bytes, &to->consumed_bytes);

	for (int i = 0; i < JOB_WAITS; i++)
		dirty |= count_up(&p->waits.us[i], said.us[i], &to->waits.us[i]);
	return dirty;
}

void mounts_count(struct mount_peer *p, struct dataset *d, struct job *j,
	const Granary__V1__MountHeartbeatRequest *last)
{
	uint64_t hit = d->hit_bytes, miss = d->miss_bytes, origin = d->origin_bytes;
	bool failed = last->failed_reads != p->failed_reads, dirty;

	dirty = count_up(&p->hit_bytes, last->hit_bytes, &d->hit_bytes);
	dirty |= count_up(&p->miss_bytes, last->miss_bytes, &d->miss_bytes);
	dirty |= count_up(&p->failed_reads, last->failed_reads, &d->failed_reads);
	dirty |= count_up(&p->direct_origin_bytes, last->direct_origin_bytes, &d->origin_bytes);
	d->totals_dirty |= dirty;
	dirty |= count_for_job(p, j, last);
	p->dirty |= dirty;
	if (j && dirty)
		count_job(j, d, hit, miss, origin);
	if (failed && last->last_error[0])
		dataset_set_error(d, last->last_error);
	text_copy_printable(p->last_error, sizeof(p->last_error), last->last_error);
}

/* A mount that not even the database knows: it was forgotten, or is another master's. Nobody can
 * tell what of its counters was counted, so counting starts here: nothing is counted twice. */
static struct mount_peer *adopt(struct mounts *m, struct dataset *d,
	const Granary__V1__MountHeartbeatRequest *request, struct error *err)
{
	struct mount_peer *p = add(m, request->mount_id, err);

	if (!p)
		return NULL;
	p->dataset_id = d->id;
	p->assigned = dataset_snapshot(d, request->snapshot) ? request->snapshot : d->current;
	p->hit_bytes = request->hit_bytes;
	p->miss_bytes = request->miss_bytes;
	p->failed_reads = request->failed_reads;
	p->direct_origin_bytes = request->direct_origin_bytes;
	p->consumed_bytes = request->consumed_bytes;
	p->waits = job_waits_read(request->read_waits);
	p->dirty = true;
	return p;
}

/* Numbers that are none, or beyond all sense, count as not measured. */
static void take_loaders(struct mount_peer *p, const Granary__V1__MountHeartbeatRequest *request)
{
	bool sane = request->ideal_bytes_per_s >= 0 &&
		    request->ideal_bytes_per_s <= PROBLEM_RATE_MAX &&
		    request->data_wait_ratio >= 0 && request->data_wait_ratio <= 1;

	p->loaders = (struct job_loaders){0};
	if (sane)
		p->loaders = (struct job_loaders){request->loaders, request->loader_workers,
			request->ideal_bytes_per_s, request->data_wait_ratio};
}

/* A client that has just taken over has nothing to say yet. */
static void take_sampled(struct mount_peer *p, const Granary__V1__MountHeartbeatRequest *request)
{
	double ideal = request->sampled_ideal_bytes_per_s, error = request->sampled_ideal_error;

	if (request->sampled_windows == 0 || !(ideal >= 0 && ideal <= PROBLEM_RATE_MAX) ||
		!(error >= 0 && error <= 1))
		return;
	p->sampled = (struct job_sampled){true, ideal == 0, ideal, error};
}

int mounts_heard(struct mounts *m, struct dataset *d, struct job *j,
	const Granary__V1__MountHeartbeatRequest *request, int64_t now_ms, struct mount_peer **ret,
	bool *ret_revived, struct error *err)
{
	struct mount_peer *p = mounts_find(m, request->mount_id);
	int r = place_check(request->mountpoint, request->host, request->host_id, err);

	if (r < 0)
		return r;
	if (request->mount_id == 0)
		return error_set(err, -EINVAL, "a mount's heartbeat must have a mount_id");
	if (p && p->dataset_id != d->id)
		return error_set(err, -EINVAL, "mount %016" PRIx64 " is not one of dataset %s",
			p->id, d->config->msg->name);
	if (!p)
		p = adopt(m, d, request, err);
	if (!p)
		return -ENOSPC;
	r = place_set(p, request->mountpoint, request->host, request->host_id, err);
	if (r < 0)
		return r;
	p->pid = request->pid;
	p->takeovers = request->takeovers;
	p->seen_ms = now_ms;
	p->shown = request->snapshot;
	if (!dataset_snapshot(d, p->assigned)) {
		p->assigned = d->current; /* collected while the mount was lost */
		p->dirty = true;
	}
	text_copy_printable(p->mode, sizeof(p->mode), request->mode);
	mounts_count(p, d, j, request);
	take_loaders(p, request);
	take_sampled(p, request);
	if (j)
		j->unheard = false;
	*ret_revived = !p->live;
	set_live(m, p, d, true);
	attach(p, j);
	*ret = p;
	return 0;
}

bool mounts_expire(struct mounts *m, struct dataset_registry *datasets, struct jobs *jobs,
	int64_t now_ms, struct namespace_batch *batch)
{
	struct mount_peer *p, *next;
	bool changed = false;

	HASH_ITER (hh, m->by_id, p, next) {
		struct dataset *d = dataset_registry_get(datasets, p->dataset_id);

		if (d && p->live && now_ms - p->seen_ms > MOUNT_LOST_MS) {
			log_warn("mount %016" PRIx64 " at %s on %s is lost", p->id, p->mountpoint,
				p->host);
			set_live(m, p, d, false);
			detach(p, jobs, false, now_ms);
			changed = true;
		}
		if (!d || now_ms - p->seen_ms > MOUNT_FORGET_MS) {
			namespace_batch_delete(batch, NAMESPACE_MOUNT, p->id, 0);
			detach(p, jobs, false, now_ms);
			drop(m, p);
		}
	}
	return changed;
}

int mounts_switch(
	struct mounts *m, const struct dataset *d, uint64_t snapshot, struct namespace_batch *batch)
{
	struct mount_peer *p, *next;

	HASH_ITER (hh, m->by_id, p, next) {
		int r = p->dataset_id == d->id ? put_as(p, snapshot, batch) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

void mounts_apply_switch(struct mounts *m, const struct dataset *d)
{
	struct mount_peer *p, *next;

	HASH_ITER (hh, m->by_id, p, next) {
		if (p->dataset_id != d->id)
			continue;
		p->assigned = d->current;
		p->dirty = true; /* one may have come between the batch and now */
	}
}

void mounts_gather_loaders(const struct mounts *m, struct jobs *jobs)
{
	struct mount_peer *p, *next;

	jobs_clear_loaders(jobs);
	HASH_ITER (hh, m->by_id, p, next) {
		struct job *j = p->live ? mounts_job(p, jobs) : NULL;

		if (j && p->loaders.count)
			job_add_loaders(j, &p->loaders);
		if (j && p->sampled.told)
			job_add_sampled(j, &p->sampled);
	}
}

bool mounts_hold(const struct mounts *m, uint64_t dataset_id, uint64_t snapshot)
{
	struct mount_peer *p, *next;

	HASH_ITER (hh, m->by_id, p, next) {
		if (p->live && p->dataset_id == dataset_id &&
			(p->assigned == snapshot || p->shown == snapshot))
			return true;
	}
	return false;
}

/* ---- replies --------------------------------------------------------------------------------- */

static char *printable(const char *text)
{
	size_t room = strlen(text) + 1;
	char *copy = malloc(room);

	if (copy)
		text_copy_printable(copy, room, text);
	return copy;
}

static Granary__V1__MountStatus *status_new(
	const struct mount_peer *p, const struct dataset *d, int64_t now_ms)
{
	Granary__V1__MountStatus *m = malloc(sizeof(*m));

	if (!m)
		return NULL;
	granary__v1__mount_status__init(m);
	m->mount_id = p->id;
	m->dataset = strdup(d->config->msg->name);
	m->mountpoint = printable(p->mountpoint);
	m->host = printable(p->host);
	m->pid = p->pid;
	m->takeovers = p->takeovers;
	m->snapshot = p->shown;
	m->mode = strdup(p->mode);
	m->job = strdup(p->job_id ? p->job : "");
	m->hit_bytes = p->hit_bytes;
	m->miss_bytes = p->miss_bytes;
	m->failed_reads = p->failed_reads;
	m->last_error = strdup(p->last_error);
	m->seen_ms_ago = (uint64_t)(now_ms > p->seen_ms ? now_ms - p->seen_ms : 0);
	return m;
}

int mounts_status(const struct mounts *m, struct dataset_registry *datasets, int64_t now_ms,
	Granary__V1__MountStatus ***ret, size_t *ret_count)
{
	struct mount_peer *p, *next;

	*ret_count = 0;
	*ret = calloc(HASH_COUNT(m->by_id) + 1, sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	HASH_ITER (hh, m->by_id, p, next) {
		const struct dataset *d =
			p->live ? dataset_registry_get(datasets, p->dataset_id) : NULL;

		if (!d)
			continue;
		(*ret)[*ret_count] = status_new(p, d, now_ms);
		*ret_count += (*ret)[*ret_count] != NULL;
	}
	return 0;
}
