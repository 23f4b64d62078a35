#include "master/origin_ledger.h"

#include <assert.h>

static_assert(ORIGIN_BASE_MS + ORIGIN_SETTLE_MS < WORKER_FORGET_MS &&
		      ORIGIN_BASE_MS + ORIGIN_SETTLE_MS < MOUNT_FORGET_MS,
	"none is forgotten before");

#define SETTLED 0.999
#define SUM_MS 500 /* sums are made anew so often */

static double most(double a, double b)
{
	return a > b ? a : b;
}

static double least(double a, double b)
{
	return a < b ? a : b;
}

double origin_ledger_for_workers_locked(const struct master *m)
{
	return HASH_COUNT(m->workers.by_id) > 0 ? 1 - ORIGIN_DIRECT_RATIO : 0;
}

/* ---- what is in use --------------------------------------------------------------------------- */

static bool is_silent(const struct worker *w, int64_t now_ms)
{
	return now_ms - w->origins.heard_ms > ORIGIN_LEASE_MS + ORIGIN_SETTLE_MS;
}

static void add_worker(struct origin_ledger *l, const struct worker *w, int64_t now_ms)
{
	double in_use = origin_hold_in_use(&w->origins, now_ms);

	l->workers_part += in_use;
	if (is_silent(w, now_ms))
		l->silent_part += in_use;
	else
		l->capacity += (double)w->capacity_bytes;
}

static void add_mount_locked(struct master *m, const struct mount_peer *p, int64_t now_ms)
{
	struct origin_ledger *l = &m->ledger;
	struct dataset *d = dataset_registry_get(&m->datasets, p->dataset_id);
	size_t limit = d ? master_limit_locked(m, d) : 0;
	double in_use = origin_hold_in_use(&p->direct, now_ms);

	l->mounts_bytes_per_s += in_use;
	if (limit)
		l->own_bytes_per_s[limit - 1] += in_use;
}

static void sum_locked(struct master *m, int64_t now_ms)
{
	struct worker *w, *next_worker;
	struct mount_peer *p, *next;

	if (m->ledger.summed_ms && now_ms - m->ledger.summed_ms < SUM_MS)
		return;
	m->ledger = (struct origin_ledger){.summed_ms = now_ms};
	HASH_ITER (hh, m->workers.by_id, w, next_worker)
		add_worker(&m->ledger, w, now_ms);
	HASH_ITER (hh, m->mounts.by_id, p, next)
		add_mount_locked(m, p, now_ms);
}

/* The limits that hold for a dataset. */
struct bounds {
	double all, own; /* bytes/s; 0: none */
	size_t limit;	 /* master_limit_locked */
};

static struct bounds bounds_locked(struct master *m, struct dataset *d)
{
	const struct origin_limits *o = &m->cluster.origins;
	struct bounds b = {.all = (double)o->bytes_per_s, .limit = master_limit_locked(m, d)};

	if (b.limit)
		b.own = (double)o->list[b.limit - 1].bytes_per_s;
	return b;
}

/* The largest part of any limit that mounts may be using. */
static double mounts_part(const struct master *m)
{
	const struct origin_limits *o = &m->cluster.origins;
	double part = 0;

	if (o->bytes_per_s > 0)
		part = m->ledger.mounts_bytes_per_s / (double)o->bytes_per_s;
	for (size_t i = 0; i < o->count; i++)
		part = most(part, m->ledger.own_bytes_per_s[i] / (double)o->list[i].bytes_per_s);
	return part;
}

/* ---- workers ---------------------------------------------------------------------------------- */

/* By capacity, of what the silent do not hold. */
static double target_locked(const struct master *m, const struct worker *w)
{
	double left = origin_ledger_for_workers_locked(m) - m->ledger.silent_part;

	return m->ledger.capacity > 0
		       ? most(left, 0) * (double)w->capacity_bytes / m->ledger.capacity
		       : 0;
}

/* Takes in what it says, and counts it. Returns what it may be using. */
static double hear_locked(
	struct master *m, struct worker *w, double has, double has_base, int64_t now_ms)
{
	double before = origin_hold_in_use(&w->origins, now_ms), in_use;

	if (is_silent(w, now_ms)) {
		m->ledger.silent_part -= before;
		m->ledger.capacity += (double)w->capacity_bytes;
	}
	/* Nobody has more than all; so do those that say what is no number. */
	origin_hold_heard(&w->origins, has <= 1 ? has : 1, has_base <= 1 ? has_base : 1, now_ms);
	in_use = origin_hold_in_use(&w->origins, now_ms);
	m->ledger.workers_part += in_use - before;
	return in_use;
}

bool origin_ledger_worker_locked(struct master *m, struct worker *w, double has, double has_base,
	int64_t now_ms, Granary__V1__OriginLease *ret, bool *ret_settled)
{
	struct origin_hold before = w->origins;
	double target, in_use, room;

	*ret_settled = true;
	if (m->cluster.origins.bytes_per_s == 0 && m->cluster.origins.count == 0)
		return false;
	sum_locked(m, now_ms);
	in_use = hear_locked(m, w, has, has_base, now_ms);
	target = target_locked(m, w);
	room = least(origin_ledger_for_workers_locked(m), 1 - mounts_part(m)) -
	       (m->ledger.workers_part - in_use);
	granary__v1__origin_lease__init(ret);
	ret->part = least(target, most(room, 0));
	ret->base_part = HASH_COUNT(m->workers.by_id) > 1 ? ret->part / 2 : ret->part;
	ret->lease_ms = ORIGIN_LEASE_MS;
	ret->base_ms = ORIGIN_BASE_MS;
	origin_hold_give(&w->origins, ret->part, ret->base_part);
	m->ledger.workers_part += origin_hold_in_use(&w->origins, now_ms) - in_use;
	*ret_settled = ret->part >= target * SETTLED && w->origins.most * SETTLED <= ret->part;
	w->dirty |= before.most != w->origins.most || before.base != w->origins.base;
	return true;
}

/* ---- mounts ----------------------------------------------------------------------------------- */

static double equal_part(double limit, size_t mounts)
{
	return limit * ORIGIN_DIRECT_RATIO / (double)(mounts ? mounts : 1);
}

/* Each mount's part of what is kept for all of them. */
static double reserve_locked(const struct master *m, const struct bounds *b)
{
	double part = PROBLEM_RATE_MAX;

	if (b->all > 0)
		part = equal_part(b->all, m->mounts.live);
	if (b->own > 0)
		part = least(part, equal_part(b->own, m->mounts.live_by_limit[b->limit]));
	return part;
}

static size_t others_elsewhere(const struct master_cluster *c)
{
	size_t n = c->others;

	for (size_t i = 0; i < c->origins.count; i++)
		n -= c->limits[i].others;
	return n;
}

/* Its job's share by the job's mounts, or what is for readers without one by theirs. */
static double share_locked(struct master *m, const struct mount_peer *p, const struct bounds *b)
{
	const struct master_cluster *c = &m->cluster;
	const struct job *j = mounts_job(p, &m->jobs);
	double share = c->other_bytes_per_s;
	size_t mounts = others_elsewhere(c);

	if (j) {
		share = j->share.remote_bytes_per_s;
		mounts = j->live_mounts;
	} else if (b->limit) {
		share = c->limits[b->limit - 1].other_bytes_per_s;
		mounts = c->limits[b->limit - 1].others;
	}
	return share / (double)(mounts ? mounts : 1);
}

/* Of a limit, what nobody else may be using. */
static double free_of(double limit, double workers, double mounts, double own)
{
	return limit > 0 ? most(limit * (1 - workers) - (mounts - own), 0) : PROBLEM_RATE_MAX;
}

static double room_locked(
	const struct master *m, const struct mount_peer *p, const struct bounds *b, int64_t now_ms)
{
	double own = origin_hold_in_use(&p->direct, now_ms);
	double workers = most(origin_ledger_for_workers_locked(m), m->ledger.workers_part);
	double room = free_of(b->all, workers, m->ledger.mounts_bytes_per_s, own);

	if (b->limit)
		room = least(room,
			free_of(b->own, workers, m->ledger.own_bytes_per_s[b->limit - 1], own));
	/* What the one before gave last may not have been saved. */
	return now_ms - m->started_ms <= ORIGIN_LEASE_MS + ORIGIN_SETTLE_MS ? least(room, own)
									    : room;
}

static void count_given_locked(struct master *m, const struct bounds *b, double more)
{
	m->ledger.mounts_bytes_per_s += more;
	if (b->limit)
		m->ledger.own_bytes_per_s[b->limit - 1] += more;
}

bool origin_ledger_direct_locked(struct master *m, struct mount_peer *p, struct dataset *d,
	double has, double has_base, int64_t now_ms, Granary__V1__DirectShare *ret)
{
	struct bounds b = bounds_locked(m, d);
	struct origin_hold held = p->direct;
	double before, wanted, reserve;

	if (b.all == 0 && b.own == 0)
		return false;
	sum_locked(m, now_ms);
	before = origin_hold_in_use(&p->direct, now_ms);
	has = has <= most(b.all, b.own) ? has : most(b.all, b.own);
	origin_hold_heard(&p->direct, has, has_base <= has ? has_base : has, now_ms);
	count_given_locked(m, &b, origin_hold_in_use(&p->direct, now_ms) - before);
	reserve = reserve_locked(m, &b);
	wanted = HASH_COUNT(m->workers.by_id) > 0 ? reserve : share_locked(m, p, &b);
	granary__v1__direct_share__init(ret);
	ret->bytes_per_s = least(wanted, room_locked(m, p, &b, now_ms));
	ret->base_bytes_per_s = least(ret->bytes_per_s, reserve);
	ret->lease_ms = ORIGIN_LEASE_MS;
	ret->base_ms = ORIGIN_BASE_MS;
	before = origin_hold_in_use(&p->direct, now_ms);
	origin_hold_give(&p->direct, ret->bytes_per_s, ret->base_bytes_per_s);
	count_given_locked(m, &b, origin_hold_in_use(&p->direct, now_ms) - before);
	p->dirty |= held.most != p->direct.most || held.base != p->direct.base;
	return true;
}
