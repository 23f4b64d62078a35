#include "worker/block_service.h"

#include <errno.h>

#include "common/cleanup.h"
#include "granary/v1/block.pb-c.h"

#define READ_PATH "/granary.v1.BlockService/Read"
#define CACHED_PATH "/granary.v1.BlockService/Cached"
#define PREFETCH_PATH "/granary.v1.BlockService/Prefetch"
#define CHUNK_DATA_FIELD 2
#define CANCEL_CHECK_BLOCKS 4096
#define OPEN_RETRY_MS 5000

DEFINE_CLEANUP(struct dataset *, dataset_unref)
DEFINE_CLEANUP(struct manifest *, manifest_unref)

/* ---- which file ------------------------------------------------------------------------------ */

static int find_manifest(struct block_service *s, struct dataset *d, const char *digest,
	int64_t deadline_ms, struct manifest **ret, bool *ret_current, struct error *err)
{
	int r;

	r = dataset_manifest(d, digest, ret, ret_current);
	if (r == -ENOENT)
		return error_set(err, -EAGAIN,
			"dataset %s: this worker has not been told of the snapshot", d->name);
	if (r == 0)
		return 0;
	r = manifest_cache_get(s->manifests, s->master, digest, deadline_ms, ret, err);
	if (r < 0)
		return error_prefix(err, r == -ETIMEDOUT ? r : -EAGAIN, "dataset %s", d->name);
	dataset_put_manifest(d, *ret);
	return 0;
}

/* The pin goes by the current snapshot: a reader of an older one needs both. Without it the block
 * counts as one of an older snapshot, until the next try. */
static void open_current(struct block_service *s, struct dataset *d, int64_t deadline_ms)
{
	char digest[MANIFEST_DIGEST_TEXT_BYTES];
	struct manifest *m = NULL;
	bool current;
	int r;

	dataset_current_digest(d, digest);
	r = dataset_manifest(d, digest, &m, &current);
	if (r == DATASET_UNOPENED && clock_mono_ms() >= atomic_load(&d->open_retry_ms)) {
		atomic_store(&d->open_retry_ms, clock_deadline_ms(OPEN_RETRY_MS));
		r = manifest_cache_get(s->manifests, s->master, digest, deadline_ms, &m, NULL);
		if (r == 0)
			dataset_put_manifest(d, m);
	}
	if (m)
		manifest_unref(m);
}

static int find_planned(struct block_service *s, uint64_t dataset_id, const char *digest,
	int64_t deadline_ms, struct dataset **ret_dataset, struct manifest **ret_manifest,
	bool *ret_current, struct error *err)
{
	CLEANUP(dataset_unref_ptr) struct dataset *d = dataset_table_get(s->datasets, dataset_id);
	int r;

	if (!d)
		return error_set(err, -EAGAIN, "this worker has not been told of the dataset");
	r = find_manifest(s, d, digest, deadline_ms, ret_manifest, ret_current, err);
	if (r == 0)
		*ret_dataset = steal(&d);
	return r;
}

/* A mount may be a moment ahead of our plan: then the next heartbeat, which is made at once, brings
 * what is missing. */
static int find_snapshot(struct block_service *s, uint64_t dataset_id, const char *digest,
	int64_t deadline_ms, struct dataset **ret_dataset, struct manifest **ret_manifest,
	bool *ret_current, struct error *err)
{
	int64_t wait_ms = clock_deadline_ms(BLOCK_SERVICE_PLAN_WAIT_MS);
	int r;

	if (!manifest_cache_digest_ok(digest))
		return error_set(err, -EINVAL, "manifest_digest is none");
	r = find_planned(
		s, dataset_id, digest, deadline_ms, ret_dataset, ret_manifest, ret_current, err);
	if (r != -EAGAIN || !s->heartbeat)
		return r;
	heartbeat_refresh(s->heartbeat, wait_ms < deadline_ms ? wait_ms : deadline_ms);
	return find_planned(
		s, dataset_id, digest, deadline_ms, ret_dataset, ret_manifest, ret_current, err);
}

static int find_file(struct block_service *s, struct dataset *d, struct manifest *m, uint32_t entry,
	struct object_id *ret_object, uint64_t *ret_size, struct error *err)
{
	const char *digest = manifest_info(m)->digest;
	int r;

	r = manifest_file(m, entry, ret_object, ret_size);
	if (r == -EIO) {
		dataset_drop_manifest(d, digest);
		manifest_cache_damaged(s->manifests, digest);
		return error_set(
			err, -EAGAIN, "dataset %s: manifest %s is damaged", d->name, digest);
	}
	if (r != 0)
		return error_set(err, -EINVAL, "entry %u is no file of dataset %s", entry, d->name);
	return 0;
}

/* ---- Read ------------------------------------------------------------------------------------ */

/* A call of Read. */
struct reading {
	struct block_service *service;
	struct rpc_call *call;
	uint32_t left; /* to be sent; with the last byte the call has ended */
	bool ended;
	uint64_t waited_us;
};

static int send_piece(void *arg, bool from_origin, const void *data, size_t len,
	void (*release)(void *holder), void *holder)
{
	Granary__V1__ReadBlockChunk head = GRANARY__V1__READ_BLOCK_CHUNK__INIT;
	struct reading *r = arg;

	if (from_origin)
		head.source = GRANARY__V1__READ_BLOCK_CHUNK__SOURCE__SOURCE_ORIGIN;
	r->left -= (uint32_t)len;
	r->ended = r->left == 0;
	return (r->ended ? rpc_call_end_bytes : rpc_call_send_bytes)(
		r->call, &head.base, CHUNK_DATA_FIELD, data, len, release, holder);
}

static bool call_gone(void *arg)
{
	return rpc_call_cancelled(((struct reading *)arg)->call);
}

static bool call_waits(void *arg, uint64_t waited_us)
{
	Granary__V1__ReadBlockChunk chunk = GRANARY__V1__READ_BLOCK_CHUNK__INIT;
	struct reading *r = arg;

	r->waited_us = chunk.waited_us = waited_us;
	if (atomic_load(&r->service->reads) > BLOCK_SERVICE_READS_CROWDED)
		return false;
	/* Whether that works shows call_gone. */
	rpc_call_send(r->call, &chunk.base);
	return true;
}

static void come_again(const struct reading *r)
{
	Granary__V1__ReadBlockChunk chunk = GRANARY__V1__READ_BLOCK_CHUNK__INIT;

	chunk.waited_us = r->waited_us;
	chunk.again = true;
	rpc_call_send(r->call, &chunk.base);
	rpc_call_end(r->call);
}

/* The call's own is a far one where the reader says how long he waits. */
static int64_t read_deadline_ms(struct rpc_call *call, const Granary__V1__ReadBlockRequest *q)
{
	int64_t deadline_ms = rpc_call_deadline_ms(call), own_ms;

	if (q->timeout_ms == 0)
		return deadline_ms;
	own_ms = clock_deadline_ms(q->timeout_ms);
	return own_ms < deadline_ms ? own_ms : deadline_ms;
}

static int check_range(const struct block_request *q, uint32_t block_bytes, struct error *err)
{
	if (q->len == 0 || q->offset >= block_bytes || q->len > block_bytes - q->offset)
		return error_set(err, -EINVAL, "%u bytes from %u are not within the block", q->len,
			q->offset);
	return 0;
}

/* Finds the block of q, whose range is checked later. What ret has of dataset and manifest are
 * references, also after an error. */
static int find_block(struct block_service *s, const struct block_request *q, int64_t deadline_ms,
	struct block_read *ret, struct error *err)
{
	int64_t cap_ms = clock_deadline_ms(s->timeout_ms);
	struct store_block *b = &ret->block;
	int r;

	ret->entry = q->entry;
	ret->job = q->job;
	ret->deadline_ms = deadline_ms < cap_ms ? deadline_ms : cap_ms;
	r = find_snapshot(s, q->dataset_id, q->manifest_digest, ret->deadline_ms, &ret->dataset,
		&ret->manifest, &ret->current, err);
	if (r == 0)
		r = find_file(s, ret->dataset, ret->manifest, q->entry, &b->object,
			&b->object_bytes, err);
	if (r < 0)
		return r;
	if (q->block >= block_count(b->object_bytes))
		return error_set(
			err, -EINVAL, "the file has no block %llu", (unsigned long long)q->block);
	if (!ret->current)
		open_current(s, ret->dataset, ret->deadline_ms);
	b->id = block_id_make(&b->object, q->block);
	b->dataset_id = ret->dataset->id;
	b->index = q->block;
	b->len = (uint32_t)block_len(b->object_bytes, q->block);
	return 0;
}

static void put_block(struct block_read *read)
{
	if (read->dataset)
		dataset_unref(read->dataset);
	if (read->manifest)
		manifest_unref(read->manifest);
}

int block_service_read(struct block_service *s, const struct block_request *q, int64_t deadline_ms,
	const struct block_sink *sink, struct error *err)
{
	struct block_read read = {
		.offset = q->offset,
		.len = q->len,
		.read_ahead = q->read_ahead,
		.send = sink->send,
		.gone = sink->gone,
		.cancel = sink->cancel,
		.waits = sink->waits,
		.arg = sink->arg,
	};
	int r = find_block(s, q, deadline_ms, &read, err);

	if (r == 0)
		r = check_range(q, read.block.len, err);
	if (r == 0)
		r = block_reader_read(&s->reader, &read, err);
	put_block(&read);
	return r;
}

/* Without a length it is all of the block. */
static int prefetch_range(const struct block_request *q, struct block_read *read, struct error *err)
{
	if (q->len > 0)
		return check_range(q, read->block.len, err);
	read->offset = 0;
	read->len = read->block.len;
	return 0;
}

int block_service_prefetch(struct block_service *s, const struct block_request *q,
	int64_t deadline_ms, struct error *err)
{
	struct block_read read = {.offset = q->offset, .len = q->len};
	int r = find_block(s, q, deadline_ms, &read, err);

	if (r == 0)
		r = prefetch_range(q, &read, err);
	if (r == 0)
		r = block_reader_prefetch(&s->reader, &read);
	put_block(&read);
	return r;
}

static void handle_read(struct rpc_call *call, void *arg)
{
	struct block_service *s = arg;
	const Granary__V1__ReadBlockRequest *q =
		(const Granary__V1__ReadBlockRequest *)rpc_call_request(
			call, &granary__v1__read_block_request__descriptor);
	struct reading reading = {.service = s, .call = call, .left = q ? q->len : 0};
	const struct block_sink sink = {
		.send = send_piece, .gone = call_gone, .waits = call_waits, .arg = &reading};
	struct block_request request;
	struct error err = ERROR_INIT;
	int r;

	if (!q)
		return;
	request = (struct block_request){
		.dataset_id = q->dataset_id,
		.manifest_digest = q->manifest_digest,
		.entry = q->entry,
		.block = q->block,
		.offset = q->offset,
		.len = q->len,
		.read_ahead = q->read_ahead,
		.job = q->job,
	};
	if (rpc_call_cancelled(call)) {
		rpc_call_fail(call, -ECANCELED, "the reader is gone");
		return;
	}
	atomic_fetch_add(&s->reads, 1);
	r = block_service_read(s, &request, read_deadline_ms(call, q), &sink, &err);
	atomic_fetch_sub(&s->reads, 1);
	if (reading.ended)
		return;
	if (r < 0)
		rpc_call_fail(call, r, err.text);
	else
		come_again(&reading); /* BLOCK_READ_LATER: with 0 it has ended */
}

/* ---- Prefetch -------------------------------------------------------------------------------- */

static void handle_prefetch(struct rpc_call *call, void *arg)
{
	const Granary__V1__PrefetchRequest *q =
		(const Granary__V1__PrefetchRequest *)rpc_call_request(
			call, &granary__v1__prefetch_request__descriptor);
	Granary__V1__PrefetchReply reply = GRANARY__V1__PREFETCH_REPLY__INIT;
	struct block_request request;
	struct error err = ERROR_INIT;
	int r;

	if (!q)
		return;
	request = (struct block_request){
		.dataset_id = q->dataset_id,
		.manifest_digest = q->manifest_digest,
		.entry = q->entry,
		.block = q->block,
		.offset = q->offset,
		.len = q->len,
		.job = q->job,
	};
	r = block_service_prefetch(arg, &request, rpc_call_deadline_ms(call), &err);
	if (r < 0) {
		rpc_call_fail(call, r, err.text);
		return;
	}
	reply.begun = r > 0;
	rpc_call_reply(call, &reply.base);
}

/* ---- Cached ---------------------------------------------------------------------------------- */

static int count_cached(struct block_service *s, struct rpc_call *call,
	const Granary__V1__CachedRequest *q, uint64_t *ret_bytes, struct error *err)
{
	CLEANUP(dataset_unref_ptr) struct dataset *d = NULL;
	CLEANUP(manifest_unref_ptr) struct manifest *m = NULL;
	int64_t deadline_ms = rpc_call_deadline_ms(call);
	struct object_id object;
	struct block_id id;
	uint64_t size, bytes = 0;
	bool current;
	int r;

	r = find_snapshot(s, q->dataset_id, q->manifest_digest, deadline_ms, &d, &m, &current, err);
	if (r == 0)
		r = find_file(s, d, m, q->entry, &object, &size, err);
	if (r < 0)
		return r;
	for (uint64_t i = 0; i < block_count(size); i++) {
		id = block_id_make(&object, i);
		if (store_has(s->reader.store, &id))
			bytes += block_len(size, i);
		if (i % CANCEL_CHECK_BLOCKS == 0 &&
			(clock_passed(deadline_ms) || rpc_call_cancelled(call)))
			return error_set(err, -ETIMEDOUT, "counting took too long");
	}
	*ret_bytes = bytes;
	return 0;
}

static void handle_cached(struct rpc_call *call, void *arg)
{
	struct block_service *s = arg;
	const ProtobufCMessage *request =
		rpc_call_request(call, &granary__v1__cached_request__descriptor);
	Granary__V1__CachedReply reply = GRANARY__V1__CACHED_REPLY__INIT;
	struct error err = ERROR_INIT;
	int r;

	if (!request)
		return;
	r = count_cached(
		s, call, (const Granary__V1__CachedRequest *)request, &reply.cached_bytes, &err);
	if (r < 0)
		rpc_call_fail(call, r, err.text);
	else
		rpc_call_reply(call, &reply.base);
}

void block_service_add(struct block_service *s, struct rpc_server *server)
{
	rpc_server_add_bounded(server, READ_PATH, handle_read, s, BLOCK_SERVICE_READS_MAX);
	rpc_server_add_bounded(
		server, PREFETCH_PATH, handle_prefetch, s, BLOCK_SERVICE_PREFETCHES_MAX);
	rpc_server_add_bounded(server, CACHED_PATH, handle_cached, s, BLOCK_SERVICE_CACHED_MAX);
}
