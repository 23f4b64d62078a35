#include "worker/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/sync.h"

#define LOG_SUBSYSTEM "worker"
#include "common/log.h"

#include <uthash.h>

/* What the store was last told of a dataset. */
struct applied {
	uint64_t id;
	uint64_t grant_bytes, threshold;
	bool elastic;
	char digest[MANIFEST_DIGEST_TEXT_BYTES]; /* of the snapshot that its blocks were held
						    against */
	bool told;				 /* false: the numbers above mean nothing yet */
	bool fresh;  /* announced; no plan that names it has been applied yet */
	bool wanted; /* by the plan that is being applied */
	UT_hash_handle hh;
};

struct plan {
	struct store *store;
	struct manifest_cache *manifests;
	struct rpc_channel *master;
	pthread_t thread;
	bool started;
	struct mutex mu;
	struct cond changed;

	/* owned by the plan's thread */
	Granary__V1__WorkerHeartbeatReply *current;

	/* guarded by mu */
	Granary__V1__WorkerHeartbeatReply *next;
	struct applied *applied;
	bool dirty; /* `current` is not fully applied */
	bool stopping;
};

static const char *current_digest(const Granary__V1__DatasetPlan *d)
{
	const char *digest = d->n_snapshots > 0 ? d->snapshots[0]->manifest_digest : "";

	return strlen(digest) < MANIFEST_DIGEST_TEXT_BYTES ? digest : "";
}

/* ---- the blocks of a snapshot ---------------------------------------------------------------- */

struct walk {
	struct manifest *manifest;
	uint64_t entry, block, blocks;
	struct object_id object;
};

/* A store_live_fn. */
static int walk_next(void *arg, struct block_id *ret_id)
{
	struct walk *w = arg;
	uint64_t size;
	int r;

	while (w->block == w->blocks) {
		if (w->entry == manifest_info(w->manifest)->entries)
			return 0;
		r = manifest_file(w->manifest, (uint32_t)w->entry++, &w->object, &size);
		if (r < 0)
			return r;
		w->block = 0;
		w->blocks = r == 0 ? block_count(size) : 0;
	}
	*ret_id = block_id_make(&w->object, w->block++);
	return 1;
}

/* ---- one dataset ----------------------------------------------------------------------------- */

static struct applied *find_locked(struct plan *p, uint64_t id)
{
	struct applied *a;

	assert(mutex_held(&p->mu));
	HASH_FIND(hh, p->applied, &id, sizeof(id), a);
	return a;
}

static struct applied *get_locked(struct plan *p, uint64_t id)
{
	struct applied *a = find_locked(p, id);

	if (a)
		return a;
	a = calloc(1, sizeof(*a));
	if (!a)
		return NULL;
	a->id = id;
	HASH_ADD(hh, p->applied, id, sizeof(a->id), a);
	return a;
}

static void remember(struct plan *p, const Granary__V1__DatasetPlan *d, bool digest_too, bool fresh)
{
	struct applied *a;

	mutex_guard(&p->mu);
	a = get_locked(p, d->dataset_id);
	if (!a)
		return;
	a->grant_bytes = d->granted_bytes;
	a->threshold = d->threshold;
	a->elastic = d->elastic;
	if (digest_too)
		strcpy(a->digest, current_digest(d));
	a->told = true;
	a->fresh = fresh;
}

/* All ids that the store has blocks of; *ret is freed by the caller. */
static int list_stored(struct plan *p, struct store_dataset_stat **ret, size_t *ret_count)
{
	size_t room = 64, n;

	for (;;) {
		struct store_dataset_stat *list = calloc(room, sizeof(*list));

		if (!list)
			return -ENOMEM;
		n = store_dataset_stats(p->store, list, room);
		if (n <= room) {
			*ret = list;
			*ret_count = n;
			return 0;
		}
		free(list);
		room = n + n / 2;
	}
}

static bool has_blocks(struct plan *p, uint64_t id)
{
	cleanup_free struct store_dataset_stat *list = NULL;
	size_t count;

	if (list_stored(p, &list, &count) < 0)
		return true;
	for (size_t i = 0; i < count; i++)
		if (list[i].dataset_id == id)
			return list[i].pinned_bytes + list[i].filler_bytes + list[i].elastic_bytes >
			       0;
	return false;
}

/* Tells the store, and which blocks are live when the snapshot is another than last time. */
static int tell_store(struct plan *p, const Granary__V1__DatasetPlan *d, bool digest_changed)
{
	struct walk walk = {.manifest = NULL};
	struct error err = ERROR_INIT;
	int r = 0, live = 0;

	if (digest_changed && current_digest(d)[0] && has_blocks(p, d->dataset_id))
		live = manifest_cache_get(p->manifests, p->master, current_digest(d),
			clock_deadline_ms(PLAN_MANIFEST_TIMEOUT_MS), &walk.manifest, &err);
	if (live < 0)
		log_warn("dataset %s: blocks of older snapshots are not told apart yet: %s",
			d->name, err.text);
	r = store_set_elastic(p->store, d->dataset_id, d->elastic, &err);
	if (r == 0)
		r = store_set_dataset(p->store, d->dataset_id, d->granted_bytes, d->threshold,
			walk.manifest ? walk_next : NULL, &walk, &err);
	if (walk.manifest)
		manifest_unref(walk.manifest);
	if (r < 0)
		log_warn("dataset %s: its grant is not in force yet: %s", d->name, err.text);
	else
		remember(p, d, live == 0, false);
	return r < 0 ? r : live;
}

static int apply_dataset(struct plan *p, const Granary__V1__DatasetPlan *d)
{
	bool digest_changed = true, numbers_changed = true;
	struct applied *a;

	mutex_lock(&p->mu);
	a = get_locked(p, d->dataset_id);
	if (a) {
		a->wanted = true;
		a->fresh = false;
		digest_changed = strcmp(a->digest, current_digest(d)) != 0;
		numbers_changed = !a->told || a->grant_bytes != d->granted_bytes ||
				  a->threshold != d->threshold || a->elastic != d->elastic;
	}
	mutex_unlock(&p->mu);
	if (!a)
		return -ENOMEM;
	return digest_changed || numbers_changed ? tell_store(p, d, digest_changed) : 0;
}

/* ---- the whole plan -------------------------------------------------------------------------- */

static bool unwanted(struct plan *p, uint64_t id)
{
	const struct applied *a;

	mutex_guard(&p->mu);
	a = find_locked(p, id);
	return !a || (!a->wanted && !a->fresh);
}

static void forget(struct plan *p, uint64_t id)
{
	struct applied *a;

	mutex_guard(&p->mu);
	a = find_locked(p, id);
	if (!a)
		return;
	HASH_DEL(p->applied, a);
	free(a);
}

static int remove_vanished(struct plan *p)
{
	cleanup_free struct store_dataset_stat *list = NULL;
	struct error err = ERROR_INIT;
	size_t count;
	int r, result = 0;

	r = list_stored(p, &list, &count);
	if (r < 0)
		return r;
	for (size_t i = 0; i < count; i++) {
		if (!unwanted(p, list[i].dataset_id))
			continue;
		r = store_remove_dataset(p->store, list[i].dataset_id, &err);
		if (r < 0) {
			log_warn("blocks of a removed dataset are not dropped yet: %s", err.text);
			result = r;
			continue;
		}
		forget(p, list[i].dataset_id);
	}
	return result;
}

/* Manifests that no snapshot of the plan needs are let go of. */
static void prune_manifests(struct plan *p)
{
	const Granary__V1__WorkerHeartbeatReply *c = p->current;
	cleanup_free const char **keep = NULL;
	size_t count = 0, n = 0;

	for (size_t i = 0; i < c->n_datasets; i++)
		count += c->datasets[i]->n_snapshots;
	keep = calloc(count + 1, sizeof(*keep));
	if (!keep)
		return;
	for (size_t i = 0; i < c->n_datasets; i++)
		for (size_t k = 0; k < c->datasets[i]->n_snapshots; k++)
			keep[n++] = c->datasets[i]->snapshots[k]->manifest_digest;
	manifest_cache_prune(p->manifests, keep, n);
}

/* So that no read has to wait for a manifest, or for longer than is left of this. */
static void fetch_manifests(struct plan *p)
{
	const Granary__V1__WorkerHeartbeatReply *c = p->current;
	struct error err = ERROR_INIT;
	struct manifest *m;
	int r;

	for (size_t i = 0; i < c->n_datasets; i++) {
		for (size_t k = 0; k < c->datasets[i]->n_snapshots; k++) {
			r = manifest_cache_get(p->manifests, p->master,
				c->datasets[i]->snapshots[k]->manifest_digest,
				clock_deadline_ms(PLAN_MANIFEST_TIMEOUT_MS), &m, &err);
			if (r == -ECANCELED)
				return;
			if (r < 0)
				log_warn("dataset %s: a manifest is not here yet: %s",
					c->datasets[i]->name, err.text);
			else
				manifest_unref(m);
		}
	}
}

static int apply(struct plan *p)
{
	struct applied *a, *following;
	int r, result = 0;

	mutex_lock(&p->mu);
	HASH_ITER (hh, p->applied, a, following)
		a->wanted = false;
	mutex_unlock(&p->mu);
	for (size_t i = 0; i < p->current->n_datasets; i++) {
		r = apply_dataset(p, p->current->datasets[i]);
		if (r < 0)
			result = r;
	}
	r = remove_vanished(p);
	if (result == 0 && r == 0)
		prune_manifests(p);
	fetch_manifests(p);
	return result < 0 ? result : r;
}

void plan_announce(struct plan *p, const Granary__V1__WorkerHeartbeatReply *reply)
{
	struct error err = ERROR_INIT;
	bool known;

	for (size_t i = 0; i < reply->n_datasets; i++) {
		const Granary__V1__DatasetPlan *d = reply->datasets[i];

		mutex_lock(&p->mu);
		known = find_locked(p, d->dataset_id) != NULL;
		mutex_unlock(&p->mu);
		/* What needs a scan is the plan's thread's. This one beats the heart. */
		if (!known && d->elastic)
			store_set_elastic(p->store, d->dataset_id, true, NULL);
		if (!known && store_announce_dataset(p->store, d->dataset_id, d->granted_bytes,
				      d->threshold, &err) == 0)
			remember(p, d, true, true);
	}
}

/* ---- the thread ------------------------------------------------------------------------------ */

static void free_reply(Granary__V1__WorkerHeartbeatReply *reply)
{
	if (reply)
		protobuf_c_message_free_unpacked(&reply->base, NULL);
}

void plan_take(struct plan *p, Granary__V1__WorkerHeartbeatReply *reply)
{
	mutex_lock(&p->mu);
	free_reply(p->next);
	p->next = reply;
	p->dirty = true;
	cond_signal(&p->changed);
	mutex_unlock(&p->mu);
}

bool plan_settled(struct plan *p)
{
	mutex_guard(&p->mu);
	return !p->dirty && !p->next;
}

static void *thread_main(void *arg)
{
	struct plan *p = arg;
	int64_t retry_ms = CLOCK_NEVER;
	int r;

	mutex_lock(&p->mu);
	while (!p->stopping) {
		if (!p->next && !(p->dirty && clock_passed(retry_ms))) {
			cond_wait(&p->changed, &p->mu, p->dirty ? retry_ms : CLOCK_NEVER);
			continue;
		}
		if (p->next) {
			free_reply(p->current);
			p->current = steal(&p->next);
		}
		mutex_unlock(&p->mu);
		r = apply(p);
		mutex_lock(&p->mu);
		p->dirty = r < 0 || p->next;
		retry_ms = clock_deadline_ms(PLAN_RETRY_MS);
	}
	mutex_unlock(&p->mu);
	return NULL;
}

int plan_new(struct store *store, struct manifest_cache *manifests, struct rpc_channel *master,
	struct plan **ret, struct error *err)
{
	struct plan *p = calloc(1, sizeof(*p));

	if (!p)
		return error_set(err, -ENOMEM, "out of memory");
	p->store = store;
	p->manifests = manifests;
	p->master = master;
	mutex_init(&p->mu);
	cond_init(&p->changed);
	*ret = p;
	return 0;
}

int plan_start(struct plan *p, struct error *err)
{
	int r = pthread_create(&p->thread, NULL, thread_main, p);

	if (r != 0)
		return error_set_errno(err, -r, "cannot start a thread");
	p->started = true;
	return 0;
}

void plan_stop(struct plan *p)
{
	if (!p->started)
		return;
	mutex_lock(&p->mu);
	p->stopping = true;
	cond_broadcast(&p->changed);
	mutex_unlock(&p->mu);
	manifest_cache_cancel(p->manifests);
	pthread_join(p->thread, NULL);
	p->started = false;
}

void plan_free(struct plan *p)
{
	struct applied *a, *following;

	if (!p)
		return;
	assert(!p->started);
	HASH_ITER (hh, p->applied, a, following) {
		HASH_DEL(p->applied, a);
		free(a);
	}
	free_reply(p->next);
	free_reply(p->current);
	cond_deinit(&p->changed);
	mutex_deinit(&p->mu);
	free(p);
}
