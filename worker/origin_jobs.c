#include "worker/origin_jobs.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

/* A get that had to wait for the limit of all is not to cost its origin that time. */
#define CREDIT_NS ((int64_t)100000000)

/* ---- limited origins -------------------------------------------------------------------------- */

static struct limited_origin *find_prefix(const struct origin_jobs *js, const char *prefix)
{
	struct limited_origin *o;

	DL_FOREACH (js->origins, o)
		if (strcmp(o->prefix, prefix) == 0)
			return o;
	return NULL;
}

/* Of those listed the one with the longest prefix of the URL. */
static struct limited_origin *find_origin(const struct origin_jobs *js, const char *url)
{
	char plain[ORIGIN_PREFIX_BYTES + 1];
	struct limited_origin *o, *found = NULL;

	if (!js->origins || !url)
		return NULL;
	origin_url_plain(url, plain);
	DL_FOREACH (js->origins, o)
		if (o->listed && origin_prefix_covers(o->prefix, plain) &&
			(!found || strlen(o->prefix) > strlen(found->prefix)))
			found = o;
	return found;
}

static int add_origin(struct origin_jobs *js, const char *prefix)
{
	struct limited_origin *o = calloc(1, sizeof(*o));

	if (!o)
		return -ENOMEM;
	strcpy(o->prefix, prefix);
	o->window.credit_ns = CREDIT_NS;
	o->nameless.job = &js->nameless;
	o->nameless.origin = o;
	o->nameless.fair.group = &o->group;
	DL_APPEND(js->origins, o);
	return 0;
}

static void forget_origin(struct origin_jobs *js, struct limited_origin *o)
{
	assert(o->nameless.open == 0 && !o->window.begun);
	DL_DELETE(js->origins, o);
	free(o);
}

/* ---- flows ------------------------------------------------------------------------------------ */

static struct origin_flow *add_flow(struct origin_job *j, struct limited_origin *o)
{
	struct origin_flow *f = calloc(1, sizeof(*f));

	if (!f)
		return &o->nameless;
	f->job = j;
	f->origin = o;
	f->fair.group = &o->group;
	DL_PREPEND(j->flows, f);
	return f;
}

struct origin_flow *origin_jobs_flow(struct origin_jobs *js, struct origin_job *j, const char *url)
{
	struct limited_origin *o = find_origin(js, url);
	struct origin_flow *f;

	if (!o)
		return &j->elsewhere;
	if (j == &js->nameless)
		return &o->nameless;
	DL_FOREACH (j->flows, f)
		if (f->origin == o)
			return f;
	return add_flow(j, o);
}

static void forget_flow(struct origin_job *j, struct origin_flow *f)
{
	assert(f->open == 0);
	DL_DELETE(j->flows, f);
	free(f);
}

void origin_jobs_each_flow(
	struct origin_jobs *js, void (*fn)(void *arg, struct origin_flow *f), void *arg)
{
	struct limited_origin *o;
	struct origin_flow *f;
	struct origin_job *j;

	fn(arg, &js->nameless.elsewhere);
	DL_FOREACH (js->origins, o)
		fn(arg, &o->nameless);
	DL_FOREACH (js->by_use, j) {
		fn(arg, &j->elsewhere);
		DL_FOREACH (j->flows, f)
			fn(arg, f);
	}
}

/* ---- jobs ------------------------------------------------------------------------------------- */

struct origin_job *origin_jobs_find(const struct origin_jobs *js, const char *name)
{
	struct origin_job *j;

	HASH_FIND_STR(js->by_name, name, j);
	return j;
}

static bool forgettable(const struct origin_job *j)
{
	return j->open == 0 && j->reported_bytes == j->origin_bytes && j->granted_bytes_per_s == 0;
}

static void forget_job(struct origin_jobs *js, struct origin_job *j)
{
	struct origin_flow *f, *next;

	DL_FOREACH_SAFE (j->flows, f, next)
		forget_flow(j, f);
	HASH_DEL(js->by_name, j);
	DL_DELETE(js->by_use, j);
	free(j);
}

/* True when there is room for one more. */
static bool make_room(struct origin_jobs *js)
{
	struct origin_job *j;

	if (HASH_COUNT(js->by_name) < ORIGIN_JOBS_MAX + js->share->job_count)
		return true;
	if (!js->by_use)
		return false;
	/* From the tail, which utlist has as the head's prev. */
	for (j = js->by_use->prev;; j = j->prev) {
		if (forgettable(j)) {
			forget_job(js, j);
			return true;
		}
		if (j == js->by_use)
			return false;
	}
}

static double granted(const struct origin_jobs *js, const char *name)
{
	const struct origin_share_job *s = origin_share_find(js->share, name);

	return s ? s->bytes_per_s * js->part : 0;
}

static struct origin_job *add_job(struct origin_jobs *js, const char *name)
{
	struct origin_job *j;

	if (!make_room(js))
		return NULL;
	j = calloc(1, sizeof(*j));
	if (!j)
		return NULL;
	strcpy(j->name, name);
	j->granted_bytes_per_s = granted(js, name);
	j->elsewhere.job = j;
	HASH_ADD_STR(js->by_name, name, j);
	DL_PREPEND(js->by_use, j);
	return j;
}

struct origin_job *origin_jobs_use(struct origin_jobs *js, const char *job)
{
	char name[DATASET_JOB_BYTES] = "";
	struct origin_job *j;

	if (!job[0])
		return &js->nameless;
	strncat(name, job, sizeof(name) - 1);
	j = origin_jobs_find(js, name);
	if (!j)
		j = add_job(js, name);
	if (!j)
		return &js->nameless;
	if (js->by_use != j) {
		DL_DELETE(js->by_use, j);
		DL_PREPEND(js->by_use, j);
	}
	return j;
}

/* ---- weights ---------------------------------------------------------------------------------- */

static struct origin_flow *flow_of(struct fair_flow *f)
{
	return (struct origin_flow *)((char *)f - offsetof(struct origin_flow, fair));
}

/* Those that wait now for the same limit (of all, when there is no own one), and of those that have
 * the same limit those without a grant. */
static void count_waiting(const struct fair_queue *q, const struct limited_origin *limit,
	unsigned *all, unsigned *others)
{
	struct fair_flow *waiting;

	*all = *others = 0;
	DL_FOREACH (q->waiting, waiting) {
		const struct origin_flow *f = flow_of(waiting);
		bool same = f->origin == limit;

		*all += same || !limit;
		*others += same && f->job->granted_bytes_per_s == 0;
	}
}

double origin_flow_weight(const struct origin_jobs *js, const struct fair_queue *q,
	double total_bytes_per_s, const struct origin_flow *f)
{
	const struct limited_origin *own = f->origin && f->origin->listed ? f->origin : NULL;
	double limit = own ? own->window.bytes_per_s : total_bytes_per_s;
	double weight = f->job->granted_bytes_per_s, floor;
	unsigned all, others;

	count_waiting(q, own, &all, &others);
	floor = limit * ORIGIN_FLOOR / (all ? all : 1);
	if (weight == 0)
		weight = (own ? own->other_bytes_per_s : js->share->other_bytes_per_s * js->part) /
			 (others ? others : 1);
	return weight > floor ? weight : floor;
}

/* ---- shares ----------------------------------------------------------------------------------- */

static int add_origins(struct origin_jobs *js, const struct origin_share *share)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < share->origin_count; i++)
		if (!find_prefix(js, share->origins[i].prefix))
			r = add_origin(js, share->origins[i].prefix);
	return r;
}

static double at_least(double bytes_per_s)
{
	return bytes_per_s < ORIGIN_RATE_MIN_BYTES_PER_S ? ORIGIN_RATE_MIN_BYTES_PER_S
							 : bytes_per_s;
}

static void set_origin(struct limited_origin *o, const struct origin_share *share, double part)
{
	const struct origin_share_origin *s = NULL;

	for (size_t i = 0; i < share->origin_count && !s; i++)
		if (strcmp(share->origins[i].prefix, o->prefix) == 0)
			s = &share->origins[i];
	o->listed = s != NULL;
	o->other_bytes_per_s = s ? s->other_bytes_per_s * part : 0;
	o->group.blocked = false;
	origin_window_set(&o->window, s ? at_least(s->bytes_per_s * part) : 0);
}

/* By the share and the part that there are. */
static void set_all(struct origin_jobs *js)
{
	struct limited_origin *o;
	struct origin_job *j;
	bool was_listed;

	DL_FOREACH (js->origins, o) {
		was_listed = o->listed;
		set_origin(o, js->share, js->part);
		js->generation += o->listed != was_listed;
	}
	DL_FOREACH (js->by_use, j)
		j->granted_bytes_per_s = granted(js, j->name);
}

void origin_jobs_set_part(struct origin_jobs *js, double part)
{
	js->part = part;
	set_all(js);
}

int origin_jobs_apply(struct origin_jobs *js, struct origin_share **share)
{
	struct origin_share *before = js->share;

	if (add_origins(js, *share) < 0) {
		origin_jobs_prune(js);
		return -ENOMEM;
	}
	js->share = *share;
	set_all(js);
	*share = before;
	return 0;
}

static void prune_flows(struct origin_job *j)
{
	struct origin_flow *f, *next;

	DL_FOREACH_SAFE (j->flows, f, next)
		if (!f->origin->listed && f->open == 0)
			forget_flow(j, f);
}

static bool has_flow_at(const struct origin_jobs *js, const struct limited_origin *o)
{
	const struct origin_job *j;
	const struct origin_flow *f;

	DL_FOREACH (js->by_use, j)
		DL_FOREACH (j->flows, f)
			if (f->origin == o)
				return true;
	return o->nameless.open > 0;
}

void origin_jobs_prune(struct origin_jobs *js)
{
	struct limited_origin *o, *next;
	struct origin_job *j;

	DL_FOREACH (js->by_use, j)
		prune_flows(j);
	DL_FOREACH_SAFE (js->origins, o, next)
		if (!o->listed && !has_flow_at(js, o))
			forget_origin(js, o);
}

/* ---- life ------------------------------------------------------------------------------------- */

int origin_jobs_init(struct origin_jobs *js)
{
	struct error err = ERROR_INIT;

	*js = (struct origin_jobs){.part = 1};
	js->nameless.elsewhere.job = &js->nameless;
	return origin_share_new(NULL, &js->share, &err);
}

void origin_jobs_deinit(struct origin_jobs *js)
{
	struct limited_origin *o, *next_origin;
	struct origin_job *j, *next;

	HASH_ITER (hh, js->by_name, j, next) {
		assert(j->open == 0);
		forget_job(js, j);
	}
	DL_FOREACH_SAFE (js->origins, o, next_origin)
		forget_origin(js, o);
	origin_share_free(js->share);
}
