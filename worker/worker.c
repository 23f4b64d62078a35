#include "worker/worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "store/store.h"
#include "worker/block_service.h"
#include "worker/heartbeat.h"
#include "worker/plan.h"
#include "worker/worker_metrics.h"

#define SEND_MEMORY_BYTES ((uint64_t)64 << 20) /* bytes of the store on their way to readers */
#define SETTLE_CHECK_MS 5

/* Members from the first made to the last; freed in the opposite order. */
struct worker {
	struct store *store;
	struct rpc_channel *master;
	struct manifest_cache *manifests;
	struct dataset_table *datasets;
	struct origin_queue *origins;
	struct fetch_table *fetches;
	struct reuse *reuse;
	struct buffer_pool *buffers;
	struct plan *plan;
	struct heartbeat *heartbeat;
	struct worker_metrics *metrics;
	struct block_service service;
	struct embedded_worker embedded;
	struct store_lease_server *leases;
	char *lease_socket, *socket_group;
};

/* Memory that nobody needs any more goes back once a beat. */
static void tick(void *arg)
{
	struct worker *w = arg;

	fetch_table_sweep(w->fetches);
	buffer_pool_trim(w->buffers);
}

static int open_store(struct worker *w, const struct worker_options *opts, struct error *err)
{
	const struct store_options store = {
		.dir = opts->cache_dir,
		.capacity_bytes = opts->capacity_bytes,
		.free_floor_bytes = opts->free_floor_bytes,
		.scrub_bytes_per_s = opts->scrub_bytes_per_s,
	};

	return store_open(&store, &w->store, err);
}

static int make_fetches(struct worker *w, const struct worker_options *opts, struct error *err)
{
	struct fetch_table_options fetch = {
		.store = w->store,
		.threads = opts->fetch_threads,
		.memory_bytes = opts->fetch_memory_bytes ? opts->fetch_memory_bytes
							 : FETCH_MEMORY_DEFAULT_BYTES,
		.timeout_ms = opts->fetch_timeout_ms,
	};
	int r;

	w->origins = origin_queue_new(fetch.memory_bytes);
	if (!w->origins)
		return error_set(err, -ENOMEM, "out of memory");
	r = origin_queue_start(w->origins, err);
	if (r < 0)
		return r;
	fetch.origins = w->origins;
	w->datasets = dataset_table_new();
	w->reuse = reuse_new(REUSE_RECORDS_DEFAULT);
	w->buffers = buffer_pool_new(SEND_MEMORY_BYTES, NULL, NULL);
	if (!w->datasets || !w->reuse || !w->buffers)
		return error_set(err, -ENOMEM, "out of memory");
	return fetch_table_new(&fetch, &w->fetches, err);
}

static int make_control(struct worker *w, const struct worker_options *opts, struct error *err)
{
	struct heartbeat_options beat = {
		.store = w->store,
		.datasets = w->datasets,
		.origins = w->origins,
		.master_address = opts->master_address,
		.address = opts->address,
		.local_address = opts->local_address,
		.lease_socket = opts->lease_socket,
		.tick = tick,
		.arg = w,
	};
	int r;

	r = rpc_channel_new(opts->master_address, opts->master_token, &w->master, err);
	if (r == 0)
		r = manifest_cache_new(opts->manifest_dir, &w->manifests, err);
	if (r == 0)
		r = plan_new(w->store, w->manifests, w->master, &w->plan, err);
	if (r < 0)
		return r;
	beat.master = w->master;
	beat.plan = w->plan;
	return heartbeat_new(&beat, &w->heartbeat, err);
}

/* ---- mounts of this process ------------------------------------------------------------------- */

static int embedded_send(void *arg, bool from_origin, const void *data, size_t len,
	void (*release)(void *holder), void *holder)
{
	const struct embedded_read *read = arg;

	read->take(read->arg, from_origin, data, len);
	release(holder);
	return 0;
}

static bool embedded_gone(void *arg)
{
	const struct embedded_read *read = arg;

	return atomic_load(read->gone);
}

static bool embedded_waits(void *arg, uint64_t waited_us)
{
	const struct embedded_read *read = arg;

	read->waits(read->arg, waited_us);
	return true;
}

static int embedded_read(void *arg, const struct embedded_read *read, struct error *err)
{
	const struct block_sink sink = {.send = embedded_send,
		.gone = embedded_gone,
		.cancel = read->gone,
		.waits = embedded_waits,
		.arg = (void *)read};
	struct worker *w = arg;
	const struct block_request request = {
		.dataset_id = read->dataset_id,
		.manifest_digest = read->manifest_digest,
		.entry = read->entry,
		.block = read->block,
		.offset = read->offset,
		.len = read->len,
		.read_ahead = read->read_ahead,
		.job = read->job,
	};

	return block_service_read(&w->service, &request, read->deadline_ms, &sink, err);
}

static int embedded_prefetch(void *arg, const struct embedded_prefetch *prefetch, struct error *err)
{
	struct worker *w = arg;
	const struct block_request request = {
		.dataset_id = prefetch->dataset_id,
		.manifest_digest = prefetch->manifest_digest,
		.entry = prefetch->entry,
		.block = prefetch->block,
		.offset = prefetch->offset,
		.len = prefetch->len,
		.job = prefetch->job,
	};

	return block_service_prefetch(&w->service, &request, prefetch->deadline_ms, err);
}

const struct embedded_worker *worker_embedded(const struct worker *w)
{
	return &w->embedded;
}

/* ---- begin and end ---------------------------------------------------------------------------- */

static int copy_texts(struct worker *w, const struct worker_options *opts, struct error *err)
{
	if (opts->lease_socket && !(w->lease_socket = strdup(opts->lease_socket)))
		return error_set(err, -ENOMEM, "out of memory");
	if (opts->socket_group && !(w->socket_group = strdup(opts->socket_group)))
		return error_set(err, -ENOMEM, "out of memory");
	return 0;
}

static void add_service(
	struct worker *w, const struct worker_options *opts, struct rpc_server *server)
{
	w->service = (struct block_service){
		.datasets = w->datasets,
		.manifests = w->manifests,
		.master = w->master,
		.heartbeat = w->heartbeat,
		.reader = {.store = w->store,
			.fetches = w->fetches,
			.reuse = w->reuse,
			.buffers = w->buffers},
		.timeout_ms =
			opts->read_timeout_ms ? opts->read_timeout_ms : BLOCK_SERVICE_TIMEOUT_MS,
	};
	block_service_add(&w->service, server);
	w->embedded = (struct embedded_worker){.id = store_id(w->store),
		.read = embedded_read,
		.prefetch = embedded_prefetch,
		.arg = w};
}

int worker_new(const struct worker_options *opts, struct rpc_server *server, struct worker **ret,
	struct error *err)
{
	struct worker *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return error_set(err, -ENOMEM, "out of memory");
	rpc_init();
	r = open_store(w, opts, err);
	if (r == 0)
		r = make_fetches(w, opts, err);
	if (r == 0)
		r = make_control(w, opts, err);
	if (r == 0)
		r = copy_texts(w, opts, err);
	if (r == 0 &&
		!(w->metrics = worker_metrics_start(w->store, w->datasets, w->fetches, w->origins)))
		r = error_set(err, -ENOMEM, "out of memory");
	if (r < 0) {
		worker_free(w);
		return r;
	}
	add_service(w, opts, server);
	*ret = w;
	return 0;
}

int worker_start(struct worker *w, struct error *err)
{
	int r = 0;

	if (w->lease_socket)
		r = store_lease_server_start(
			w->store, w->lease_socket, w->socket_group, &w->leases, err);
	if (r == 0)
		r = plan_start(w->plan, err);
	if (r == 0)
		r = heartbeat_start(w->heartbeat, err);
	return r;
}

int worker_refresh(struct worker *w, int64_t deadline_ms)
{
	const struct timespec pause = {.tv_nsec = SETTLE_CHECK_MS * 1000000};
	int r;

	r = heartbeat_refresh(w->heartbeat, deadline_ms);
	while (r == 0 && !plan_settled(w->plan)) {
		if (clock_passed(deadline_ms))
			return -ETIMEDOUT;
		nanosleep(&pause, NULL);
	}
	return r;
}

void worker_stat(struct worker *w, struct worker_stat *ret)
{
	struct fetch_table_stat st;

	fetch_table_stat(w->fetches, &st);
	*ret = (struct worker_stat){
		.fetches_running = st.running,
		.fetches = st.fetches,
		.joined = st.joined,
		.memory_bytes = st.memory_bytes + buffer_pool_used_bytes(w->buffers),
	};
}

void worker_free(struct worker *w)
{
	if (!w)
		return;
	worker_metrics_stop(w->metrics);
	if (w->heartbeat)
		heartbeat_stop(w->heartbeat);
	if (w->plan)
		plan_stop(w->plan);
	store_lease_server_stop(w->leases);
	heartbeat_free(w->heartbeat);
	plan_free(w->plan);
	fetch_table_free(w->fetches);
	origin_queue_stop(w->origins);
	origin_queue_free(w->origins);
	buffer_pool_free(w->buffers);
	reuse_free(w->reuse);
	dataset_table_free(w->datasets);
	manifest_cache_free(w->manifests);
	rpc_channel_free(w->master);
	store_close(w->store);
	free(w->lease_socket);
	free(w->socket_group);
	free(w);
	rpc_deinit();
}
