#include "master/workers.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "master/text.h"
#include "placement/pin.h"

#define LOG_SUBSYSTEM "master"
#include "common/log.h"

struct worker *workers_find(const struct workers *w, uint64_t id)
{
	struct worker *found;

	HASH_FIND(hh, w->by_id, &id, sizeof(id), found);
	return found;
}

static struct worker_share *share_find(const struct worker *worker, uint64_t dataset_id)
{
	struct worker_share *found;

	HASH_FIND(hh, worker->shares, &dataset_id, sizeof(dataset_id), found);
	return found;
}

static struct worker_share *share_get(struct worker *worker, uint64_t dataset_id)
{
	struct worker_share *s = share_find(worker, dataset_id);

	if (s)
		return s;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->dataset_id = dataset_id;
	HASH_ADD(hh, worker->shares, dataset_id, sizeof(s->dataset_id), s);
	return s;
}

static void worker_free(struct worker *worker)
{
	struct worker_share *s, *next;

	HASH_ITER (hh, worker->shares, s, next) {
		HASH_DELETE(hh, worker->shares, s);
		free(s);
	}
	worker_jobs_free(&worker->jobs);
	free(worker);
}

static struct worker *worker_add(struct workers *w, uint64_t id, struct error *err)
{
	struct worker *worker;

	if (HASH_COUNT(w->by_id) >= WORKERS_MAX) {
		error_set(
			err, -ENOSPC, "the master knows %d workers and takes no more", WORKERS_MAX);
		return NULL;
	}
	worker = calloc(1, sizeof(*worker));
	if (!worker) {
		error_set(err, -ENOMEM, "no memory for another worker");
		return NULL;
	}
	worker->id = id;
	worker->pin_ceiling = PIN_ALL;
	HASH_ADD(hh, w->by_id, id, sizeof(worker->id), worker);
	return worker;
}

void workers_deinit(struct workers *w)
{
	struct worker *worker, *next;

	HASH_ITER (hh, w->by_id, worker, next) {
		HASH_DELETE(hh, w->by_id, worker);
		worker_free(worker);
	}
}

/* ---- the database ---------------------------------------------------------------------------- */

struct load {
	struct workers *w;
	int64_t now_ms;
};

static int load_one(
	void *arg, uint64_t id, uint64_t b, ProtobufCMessage **message, struct error *err)
{
	struct load *load = arg;
	const Granary__State__V1__WorkerState *state =
		(const Granary__State__V1__WorkerState *)*message;
	struct worker *worker = worker_add(load->w, id, err);

	(void)b;
	if (!worker)
		return -ENOSPC;
	worker->capacity_bytes = state->capacity_bytes;
	worker->seen_ms = load->now_ms;
	worker->origins = (struct origin_hold){.most = state->origin_part,
		.base = state->origin_base_part,
		.heard_ms = load->now_ms};
	for (size_t i = 0; i < state->n_counted; i++) {
		struct worker_share *s = share_get(worker, state->counted[i]->dataset_id);

		if (!s)
			return error_set(err, -ENOMEM, "no memory for the workers");
		s->origin_bytes = state->counted[i]->origin_bytes;
	}
	return 0;
}

int workers_load(struct workers *w, struct namespace_db *db, int64_t now_ms, struct error *err)
{
	struct load load = {.w = w, .now_ms = now_ms};

	return namespace_db_scan(db, NAMESPACE_WORKER,
		&granary__state__v1__worker_state__descriptor, load_one, &load, err);
}

static int save_one(const struct worker *worker, struct namespace_batch *batch)
{
	Granary__State__V1__WorkerState state = GRANARY__STATE__V1__WORKER_STATE__INIT;
	size_t count = HASH_COUNT(worker->shares);
	Granary__State__V1__WorkerState__Counted *counted = calloc(count + 1, sizeof(*counted));
	Granary__State__V1__WorkerState__Counted **list = calloc(count + 1, sizeof(*list));
	int r = -ENOMEM;

	if (counted && list) {
		struct worker_share *s, *next;

		state.capacity_bytes = worker->capacity_bytes;
		state.origin_part = worker->origins.most;
		state.origin_base_part = worker->origins.base;
		HASH_ITER (hh, worker->shares, s, next) {
			size_t i = state.n_counted++;

			granary__state__v1__worker_state__counted__init(&counted[i]);
			counted[i].dataset_id = s->dataset_id;
			counted[i].origin_bytes = s->origin_bytes;
			list[i] = &counted[i];
		}
		state.counted = list;
		r = namespace_batch_put(batch, NAMESPACE_WORKER, worker->id, 0, &state.base);
	}
	free(counted);
	free(list);
	return r;
}

int workers_save(struct workers *w, struct namespace_batch *batch)
{
	struct worker *worker, *next;

	HASH_ITER (hh, w->by_id, worker, next) {
		int r = worker->dirty ? save_one(worker, batch) : 0;

		if (r < 0)
			return r;
		worker->dirty = false;
	}
	return 0;
}

/* ---- heartbeats ------------------------------------------------------------------------------ */

static void take_share(struct worker *worker, struct dataset *d, struct worker_share *s,
	const Granary__V1__WorkerDataset *said)
{
	/* Lower than before: the worker has started anew and counts from zero. */
	uint64_t fresh = said->origin_bytes >= s->origin_bytes
				 ? said->origin_bytes - s->origin_bytes
				 : said->origin_bytes;

	if (said->origin_bytes != s->origin_bytes) {
		d->origin_bytes += fresh;
		d->totals_dirty = true;
		worker->dirty = true;
	}
	s->pinned_bytes = said->pinned_bytes;
	s->filler_bytes = said->filler_bytes;
	s->elastic_bytes = said->elastic_bytes;
	s->origin_bytes = said->origin_bytes;
	s->corrupt_blocks = said->corrupt_blocks;
	if (said->last_error[0] && said->failed_fetches != s->failed_fetches)
		dataset_set_error(d, said->last_error);
	s->failed_fetches = said->failed_fetches;
	text_copy_printable(s->last_error, sizeof(s->last_error), said->last_error);
}

static bool is_named(const Granary__V1__WorkerHeartbeatRequest *request, uint64_t dataset_id)
{
	for (size_t i = 0; i < request->n_datasets; i++) {
		if (request->datasets[i]->dataset_id == dataset_id)
			return true;
	}
	return false;
}

static int take_shares(struct worker *worker, struct dataset_registry *datasets,
	const Granary__V1__WorkerHeartbeatRequest *request, struct error *err)
{
	struct worker_share *s, *next;

	HASH_ITER (hh, worker->shares, s, next) {
		s->pinned_bytes = s->filler_bytes = s->elastic_bytes = 0;
		/* A worker that was started anew counts from nothing, and may by its next heartbeat
		 * be where it was before. */
		if (s->origin_bytes && !is_named(request, s->dataset_id)) {
			s->origin_bytes = 0;
			worker->dirty = true;
		}
	}
	for (size_t i = 0; i < request->n_datasets; i++) {
		const Granary__V1__WorkerDataset *said = request->datasets[i];
		struct dataset *d = dataset_registry_get(datasets, said->dataset_id);

		if (!d)
			continue; /* removed; the worker learns it from its next plan */
		s = share_get(worker, d->id);
		if (!s)
			return error_set(err, -ENOMEM, "no memory for the worker's shares");
		take_share(worker, d, s, said);
	}
	return 0;
}

static bool replace_text(char *dst, size_t room, const char *src)
{
	if (strcmp(dst, src) == 0)
		return false;
	text_copy_printable(dst, room, src);
	return true;
}

static int request_check(const Granary__V1__WorkerHeartbeatRequest *r, struct error *err)
{
	if (r->worker_id == 0)
		return error_set(err, -EINVAL, "a worker's heartbeat must have a worker_id");
	if (!r->address[0] || strlen(r->address) >= WORKER_ADDRESS_BYTES ||
		strlen(r->lease_socket) >= WORKER_ADDRESS_BYTES ||
		strlen(r->host_id) >= WORKER_TEXT_BYTES)
		return error_set(err, -EINVAL,
			"a worker's address must have 1 to %d bytes, its host id at most %d",
			WORKER_ADDRESS_BYTES - 1, WORKER_TEXT_BYTES - 1);
	if (strlen(r->local_address) >= WORKER_SOCKET_BYTES ||
		strlen(r->local_identity) >= WORKER_IDENTITY_BYTES)
		return error_set(err, -EINVAL,
			"a worker's local address must have at most %d bytes, its identity %d",
			WORKER_SOCKET_BYTES - 1, WORKER_IDENTITY_BYTES - 1);
	return 0;
}

static void take_scrub(struct worker *worker, const Granary__V1__Scrub *said)
{
	if (!said)
		return; /* a worker of a time before it */
	worker->scrub.bytes_per_s = said->bytes_per_s;
	worker->scrub.read_bytes = said->read_bytes;
	worker->scrub.damaged_blocks = said->damaged_blocks;
	worker->scrub.passes = said->passes;
}

int workers_heard(struct workers *w, struct dataset_registry *datasets, struct jobs *jobs,
	const Granary__V1__WorkerHeartbeatRequest *request, int64_t now_ms, bool *ret_changed,
	struct error *err)
{
	int r = request_check(request, err);
	struct worker *worker;
	bool changed;

	if (r < 0)
		return r;
	worker = workers_find(w, request->worker_id);
	if (!worker)
		worker = worker_add(w, request->worker_id, err);
	if (!worker)
		return -ENOSPC;
	changed = !worker->alive || worker->capacity_bytes != request->capacity_bytes;
	changed |= replace_text(worker->address, sizeof(worker->address), request->address);
	changed |= replace_text(
		worker->local_address, sizeof(worker->local_address), request->local_address);
	changed |= replace_text(
		worker->local_identity, sizeof(worker->local_identity), request->local_identity);
	changed |= replace_text(
		worker->lease_socket, sizeof(worker->lease_socket), request->lease_socket);
	changed |= replace_text(worker->host_id, sizeof(worker->host_id), request->host_id);
	text_copy_printable(worker->degraded, sizeof(worker->degraded), request->degraded);
	if (!worker->alive)
		log_info("worker %016" PRIx64 " at %s is alive", worker->id, worker->address);
	if (worker->capacity_bytes != request->capacity_bytes)
		worker->dirty = true;
	worker->capacity_bytes = request->capacity_bytes;
	worker->used_bytes = request->used_bytes;
	worker->free_floor_bytes = request->free_floor_bytes;
	worker->held_bytes = request->held_bytes;
	worker->pin_ceiling = request->pin_ceiling ? request->pin_ceiling : PIN_ALL;
	take_scrub(worker, request->scrub);
	worker->seen_ms = now_ms;
	worker_jobs_heard(&worker->jobs, jobs, request, !worker->heard);
	worker->heard = worker->alive = true;
	*ret_changed = changed;
	return take_shares(worker, datasets, request, err);
}

bool workers_expire(struct workers *w, int64_t now_ms, struct namespace_batch *batch)
{
	struct worker *worker, *next;
	bool changed = false;

	HASH_ITER (hh, w->by_id, worker, next) {
		int64_t silent_ms = now_ms - worker->seen_ms;

		if (worker->alive && silent_ms > WORKER_DEAD_MS) {
			worker->alive = false;
			changed = true;
			log_warn("worker %016" PRIx64 " at %s is not heard of any more", worker->id,
				worker->address);
		}
		if (silent_ms > WORKER_FORGET_MS) {
			namespace_batch_delete(batch, NAMESPACE_WORKER, worker->id, 0);
			HASH_DELETE(hh, w->by_id, worker);
			worker_free(worker);
			changed = true;
		}
	}
	return changed;
}

uint64_t workers_capacity(const struct workers *w, int64_t now_ms)
{
	struct worker *worker, *next;
	uint64_t sum = 0;

	HASH_ITER (hh, w->by_id, worker, next) {
		if (now_ms - worker->seen_ms > WORKER_DEAD_MS + WORKER_CAPACITY_HOLD_MS)
			continue;
		if (__builtin_add_overflow(sum, worker->capacity_bytes, &sum))
			return UINT64_MAX;
	}
	return sum;
}

struct workers_sum workers_sum(const struct workers *w, uint64_t dataset_id)
{
	struct workers_sum sum = {0};
	struct worker *worker, *next;

	HASH_ITER (hh, w->by_id, worker, next) {
		const struct worker_share *s =
			worker->alive ? share_find(worker, dataset_id) : NULL;

		if (!s)
			continue;
		sum.pinned_bytes += s->pinned_bytes;
		sum.cached_bytes += s->pinned_bytes + s->filler_bytes + s->elastic_bytes;
	}
	return sum;
}

double workers_pin_share(const struct workers *w, uint64_t threshold)
{
	struct worker *worker, *next;
	double capacity = 0, pinned = 0;

	HASH_ITER (hh, w->by_id, worker, next) {
		double part = (double)worker->capacity_bytes;

		if (!worker->alive)
			continue;
		capacity += part;
		pinned += worker->pin_ceiling < threshold
				  ? part * ((double)worker->pin_ceiling / (double)threshold)
				  : part;
	}
	return capacity > 0 ? pinned / capacity : 1;
}

void workers_forget_dataset(struct workers *w, uint64_t dataset_id)
{
	struct worker *worker, *next;

	HASH_ITER (hh, w->by_id, worker, next) {
		struct worker_share *s = share_find(worker, dataset_id);

		if (!s)
			continue;
		HASH_DELETE(hh, worker->shares, s);
		free(s);
		worker->dirty = true;
	}
}

/* ---- replies --------------------------------------------------------------------------------- */

static Granary__V1__WorkerRef *ref_new(const struct worker *worker)
{
	Granary__V1__WorkerRef *ref = malloc(sizeof(*ref));

	if (!ref)
		return NULL;
	granary__v1__worker_ref__init(ref);
	ref->worker_id = worker->id;
	ref->address = strdup(worker->address);
	ref->lease_socket = strdup(worker->lease_socket);
	ref->local_address = strdup(worker->local_address);
	ref->local_identity = strdup(worker->local_identity);
	ref->host_id = strdup(worker->host_id);
	ref->capacity_bytes = worker->capacity_bytes;
	return ref;
}

/* Soon after a start some workers of the database may live without having said so yet. */
static bool all_heard(const struct workers *w, int64_t now_ms)
{
	struct worker *worker, *next;

	HASH_ITER (hh, w->by_id, worker, next) {
		if (!worker->heard && now_ms - worker->seen_ms <= WORKER_DEAD_MS)
			return false;
	}
	return true;
}

int workers_refs(
	const struct workers *w, int64_t now_ms, Granary__V1__WorkerRef ***ret, size_t *ret_count)
{
	struct worker *worker, *next;

	*ret_count = 0;
	*ret = calloc(HASH_COUNT(w->by_id) + 1, sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	if (!all_heard(w, now_ms))
		return 0;
	HASH_ITER (hh, w->by_id, worker, next) {
		if (!worker->alive)
			continue;
		(*ret)[*ret_count] = ref_new(worker);
		*ret_count += (*ret)[*ret_count] != NULL;
	}
	return 0;
}

static Granary__V1__WorkerDataset *share_message(const struct worker_share *s)
{
	Granary__V1__WorkerDataset *m = malloc(sizeof(*m));

	if (!m)
		return NULL;
	granary__v1__worker_dataset__init(m);
	m->dataset_id = s->dataset_id;
	m->pinned_bytes = s->pinned_bytes;
	m->filler_bytes = s->filler_bytes;
	m->elastic_bytes = s->elastic_bytes;
	m->origin_bytes = s->origin_bytes;
	m->failed_fetches = s->failed_fetches;
	m->last_error = strdup(s->last_error);
	m->corrupt_blocks = s->corrupt_blocks;
	return m;
}

static Granary__V1__Scrub *scrub_message(const struct worker *worker)
{
	Granary__V1__Scrub *m = malloc(sizeof(*m));

	if (!m)
		return NULL;
	granary__v1__scrub__init(m);
	m->bytes_per_s = worker->scrub.bytes_per_s;
	m->read_bytes = worker->scrub.read_bytes;
	m->damaged_blocks = worker->scrub.damaged_blocks;
	m->passes = worker->scrub.passes;
	return m;
}

static Granary__V1__WorkerStatus *status_new(const struct worker *worker, int64_t now_ms)
{
	Granary__V1__WorkerStatus *m = malloc(sizeof(*m));
	struct worker_share *s, *next;

	if (!m)
		return NULL;
	granary__v1__worker_status__init(m);
	m->ref = ref_new(worker);
	m->used_bytes = worker->used_bytes;
	m->held_bytes = worker->held_bytes;
	m->free_floor_bytes = worker->free_floor_bytes;
	m->seen_ms_ago = (uint64_t)(now_ms > worker->seen_ms ? now_ms - worker->seen_ms : 0);
	m->alive = worker->alive;
	m->degraded = strdup(worker->degraded);
	m->scrub = scrub_message(worker);
	m->pin_ceiling = worker->pin_ceiling;
	m->datasets = calloc(HASH_COUNT(worker->shares) + 1, sizeof(*m->datasets));
	HASH_ITER (hh, worker->shares, s, next) {
		if (!m->datasets)
			break;
		m->datasets[m->n_datasets] = share_message(s);
		m->n_datasets += m->datasets[m->n_datasets] != NULL;
	}
	return m;
}

int workers_status(const struct workers *w, int64_t now_ms, Granary__V1__WorkerStatus ***ret,
	size_t *ret_count)
{
	struct worker *worker, *next;

	*ret_count = 0;
	*ret = calloc(HASH_COUNT(w->by_id) + 1, sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	HASH_ITER (hh, w->by_id, worker, next) {
		if (!worker->heard)
			continue;
		(*ret)[*ret_count] = status_new(worker, now_ms);
		*ret_count += (*ret)[*ret_count] != NULL;
	}
	return 0;
}
