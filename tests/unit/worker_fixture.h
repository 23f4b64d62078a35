/*
 * A worker with a master and an origin that the test drives: a fake master answers heartbeats with
 * the plan that the test sets and hands out manifests, mem:// is the origin, and reads go through a
 * real socket.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cluster/manifest_cache.h"
#include "common/rpc/rpc.h"
#include "common/sync.h"
#include "granary/v1/block.pb-c.h"
#include "granary/v1/cluster.pb-c.h"
#include "manifest/manifest_builder.h"
#include "origin/origin.h"
#include "origin/origin_mem.h"
#include "placement/pin.h"
#include "worker/fetch_table.h"
#include "worker/worker.h"

#define FX_DATASET 42
#define FX_FILES_MAX 512
#define FX_PATH_BYTES 64

struct fx_file {
	char path[FX_PATH_BYTES];
	uint64_t size, seed;
	uint32_t entry; /* in the snapshot made last */
};

struct fx {
	char dir[64];
	char url[64];
	struct mem_store *mem;
	struct fx_file files[FX_FILES_MAX];
	size_t file_count;

	struct rpc_server *master;
	struct rpc_channel *to_master; /* of the test's own */
	struct mutex mu;
	/* guarded by mu: what the fake master says */
	uint64_t plan_version, grant_bytes, threshold, snapshot;
	char digests[4][MANIFEST_DIGEST_TEXT_BYTES]; /* current first */
	size_t digest_count;
	char seen_error[512];
	char secret[32];			     /* "" for none */
	const Granary__V1__OriginShare *share;	     /* NULL for none */
	uint64_t seen_job_bytes, seen_job_waited_us; /* of job-1 */

	atomic_bool no_dataset, manifests_stall, elastic;
	atomic_uint beats, manifest_fetches;
	atomic_uint_fast64_t seen_origin_bytes, seen_failures, seen_pinned;

	struct rpc_server *server;
	struct worker *worker;
	struct rpc_channel *channel;
};

/* ---- the fake master ------------------------------------------------------------------------- */

static inline void fx_note_heartbeat(struct fx *f, const Granary__V1__WorkerHeartbeatRequest *q)
{
	f->beats++;
	for (size_t i = 0; i < q->n_datasets; i++) {
		f->seen_origin_bytes = q->datasets[i]->origin_bytes;
		f->seen_failures = q->datasets[i]->failed_fetches;
		f->seen_pinned = q->datasets[i]->pinned_bytes;
		snprintf(f->seen_error, sizeof(f->seen_error), "%s", q->datasets[i]->last_error);
	}
	for (size_t i = 0; i < q->n_jobs; i++) {
		if (strcmp(q->jobs[i]->job, "job-1") != 0)
			continue;
		f->seen_job_bytes = q->jobs[i]->origin_bytes;
		f->seen_job_waited_us = q->jobs[i]->waited_us;
	}
}

static inline void fx_heartbeat(struct rpc_call *call, void *arg)
{
	const Granary__V1__WorkerHeartbeatRequest *q =
		(const Granary__V1__WorkerHeartbeatRequest *)rpc_call_request(
			call, &granary__v1__worker_heartbeat_request__descriptor);
	Granary__V1__WorkerHeartbeatReply reply = GRANARY__V1__WORKER_HEARTBEAT_REPLY__INIT;
	Granary__V1__DatasetPlan plan = GRANARY__V1__DATASET_PLAN__INIT, *plans[] = {&plan};
	Granary__V1__SnapshotRef refs[4], *ref_list[4];
	Granary__V1__Option key = GRANARY__V1__OPTION__INIT, secret = GRANARY__V1__OPTION__INIT;
	Granary__V1__Option *secrets[] = {&key, &secret};
	struct fx *f = arg;

	if (!q)
		return;
	mutex_guard(&f->mu);
	key.key = (char *)"access-key-id";
	key.value = (char *)"somebody";
	secret.key = (char *)"secret-access-key";
	secret.value = f->secret;
	plan.secrets = secrets;
	plan.n_secrets = f->secret[0] ? 2 : 0;
	fx_note_heartbeat(f, q);
	plan.dataset_id = FX_DATASET;
	plan.name = (char *)"pictures";
	plan.origin = f->url;
	plan.granted_bytes = f->grant_bytes;
	plan.threshold = f->threshold;
	plan.elastic = f->elastic;
	for (size_t i = 0; i < f->digest_count; i++) {
		granary__v1__snapshot_ref__init(&refs[i]);
		refs[i].manifest_digest = f->digests[i];
		ref_list[i] = &refs[i];
	}
	plan.snapshots = ref_list;
	plan.n_snapshots = f->digest_count;
	reply.plan_version = f->plan_version;
	reply.has_plan = q->plan_version != f->plan_version;
	reply.datasets = plans;
	reply.n_datasets = reply.has_plan && !f->no_dataset ? 1 : 0;
	reply.origin_share = reply.has_plan ? (Granary__V1__OriginShare *)f->share : NULL;
	reply.interval_ms = 100;
	rpc_call_reply(call, &reply.base);
}

static inline void fx_fetch_manifest(struct rpc_call *call, void *arg)
{
	const Granary__V1__FetchManifestRequest *q =
		(const Granary__V1__FetchManifestRequest *)rpc_call_request(
			call, &granary__v1__fetch_manifest_request__descriptor);
	Granary__V1__ManifestChunk chunk = GRANARY__V1__MANIFEST_CHUNK__INIT;
	struct fx *f = arg;
	unsigned char bytes[1000]; /* small, so that there are several chunks */
	char path[256];
	FILE *file;

	if (!q)
		return;
	f->manifest_fetches++;
	while (f->manifests_stall && !rpc_call_cancelled(call))
		usleep(10000);
	snprintf(path, sizeof(path), "%s/master/%s.manifest", f->dir, q->digest);
	file = fopen(path, "rb");
	if (!file) {
		rpc_call_fail(call, -ENOENT, "no such manifest");
		return;
	}
	chunk.data.data = bytes;
	while ((chunk.data.len = fread(bytes, 1, sizeof(bytes), file)) > 0)
		if (rpc_call_send(call, &chunk.base) < 0)
			break;
	fclose(file);
	rpc_call_end(call);
}

static inline void fx_address(const struct fx *f, const char *name, char ret[128])
{
	snprintf(ret, 128, "unix:%s/%s.sock", f->dir, name);
}

static inline void fx_master_start(struct fx *f)
{
	const struct rpc_server_options opts = {.threads = 4};
	struct error err = ERROR_INIT;
	char address[128];

	fx_address(f, "master", address);
	assert_int_equal(rpc_server_new(&opts, &f->master, &err), 0);
	rpc_server_add(f->master, "/granary.v1.ClusterService/WorkerHeartbeat", fx_heartbeat, f);
	rpc_server_add(f->master, "/granary.v1.ClusterService/FetchManifest", fx_fetch_manifest, f);
	assert_int_equal(rpc_server_listen(f->master, address, NULL, &err), 0);
	assert_int_equal(rpc_server_start(f->master, &err), 0);
	assert_int_equal(rpc_channel_new(address, NULL, &f->to_master, &err), 0);
}

static inline void fx_master_stop(struct fx *f)
{
	if (!f->master)
		return;
	rpc_channel_free(f->to_master);
	rpc_server_stop(f->master, 1000);
	rpc_server_free(f->master);
	f->master = NULL;
}

static inline bool fx_error_says(struct fx *f, const char *words)
{
	mutex_guard(&f->mu);
	return strstr(f->seen_error, words) != NULL;
}

/* ---- the origin and its snapshot --------------------------------------------------------------
 */

static inline struct fx_file *fx_add(struct fx *f, const char *path, uint64_t size)
{
	struct fx_file *file = &f->files[f->file_count++];

	assert_true(f->file_count <= FX_FILES_MAX);
	snprintf(file->path, sizeof(file->path), "%s", path);
	file->size = size;
	file->seed = f->file_count;
	mem_store_put_pattern(f->mem, path, size, file->seed);
	return file;
}

struct fx_listing {
	struct manifest_builder_entry entries[FX_FILES_MAX];
	char paths[FX_FILES_MAX][FX_PATH_BYTES];
	char validators[FX_FILES_MAX][64];
	size_t count;
};

static inline int fx_listed(void *arg, const struct origin_entry *e, struct error *err)
{
	struct fx_listing *l = arg;
	struct manifest_builder_entry *b = &l->entries[l->count];

	(void)err;
	if (e->type != ORIGIN_FILE)
		return 0;
	memcpy(l->paths[l->count], e->path, e->path_len);
	snprintf(l->validators[l->count], 64, "%s", e->validator);
	*b = (struct manifest_builder_entry){
		.path = l->paths[l->count],
		.path_len = e->path_len,
		.type = MANIFEST_FILE,
		.size = e->size,
		.mode = 0444,
		.validator = l->validators[l->count],
	};
	l->count++;
	return 0;
}

static inline int fx_compare(const void *a, const void *b)
{
	const struct manifest_builder_entry *x = a, *y = b;

	return manifest_path_compare(x->path, x->path_len, y->path, y->path_len);
}

/* Lists the origin into a manifest that the master has; the older digests move back by one. */
static inline struct manifest *fx_snapshot(struct fx *f)
{
	const struct manifest_builder_entry root = {.type = MANIFEST_DIR, .mode = 0755};
	struct fx_listing *l = calloc(1, sizeof(*l));
	struct manifest_builder *b;
	struct manifest *m;
	struct origin *origin;
	struct error err = ERROR_INIT;
	char dir[128], path[256], digest[MANIFEST_DIGEST_TEXT_BYTES];
	struct origin_options *opts = origin_options_new();

	assert_int_equal(origin_open(f->url, opts, &origin, &err), 0);
	origin_options_free(opts);
	assert_int_equal(
		origin_list(origin, fx_listed, l, NULL, clock_deadline_ms(10000), &err), 0);
	origin_free(origin);
	qsort(l->entries, l->count, sizeof(l->entries[0]), fx_compare);
	snprintf(dir, sizeof(dir), "%s/master", f->dir);
	assert_int_equal(
		manifest_builder_new(dir, FX_DATASET, ++f->snapshot, 1, &root, &b, &err), 0);
	for (size_t i = 0; i < l->count; i++)
		assert_int_equal(manifest_builder_add(b, &l->entries[i], &err), 0);
	assert_int_equal(manifest_builder_finish(b, digest, &err), 0);
	manifest_builder_free(b);
	free(l);
	snprintf(path, sizeof(path), "%s/%s.manifest", dir, digest);
	assert_int_equal(manifest_open(path, &m, &err), 0);
	for (size_t i = 0; i < f->file_count; i++)
		manifest_lookup_path(
			m, f->files[i].path, strlen(f->files[i].path), &f->files[i].entry);
	mutex_guard(&f->mu);
	memmove(f->digests[1], f->digests[0], sizeof(f->digests[0]) * 3);
	strcpy(f->digests[0], digest);
	f->digest_count = f->digest_count < 4 ? f->digest_count + 1 : 4;
	f->plan_version++;
	return m;
}

/* ---- the worker ------------------------------------------------------------------------------ */

struct fx_tuning {
	unsigned fetch_threads;
	uint64_t fetch_memory_bytes;
	int64_t fetch_timeout_ms, read_timeout_ms;
	bool share_manifests; /* with the master, as on its host */
};

static inline void fx_worker_start(struct fx *f, const struct fx_tuning *tune)
{
	const struct rpc_server_options server = {.threads = 32};
	char cache[128], manifests[128], master[128], address[128];
	struct worker_options opts = {
		.cache_dir = cache,
		.capacity_bytes = (uint64_t)256 << 20,
		.manifest_dir = manifests,
		.master_address = master,
		.address = address,
	};
	struct error err = ERROR_INIT;
	int r;

	if (tune) {
		opts.fetch_threads = tune->fetch_threads;
		opts.fetch_memory_bytes = tune->fetch_memory_bytes;
		opts.fetch_timeout_ms = tune->fetch_timeout_ms;
		opts.read_timeout_ms = tune->read_timeout_ms;
	}
	snprintf(cache, sizeof(cache), "%s/cache", f->dir);
	snprintf(manifests, sizeof(manifests), "%s/%s", f->dir,
		tune && tune->share_manifests ? "master" : "manifests");
	fx_address(f, "master", master);
	fx_address(f, "worker", address);
	assert_int_equal(rpc_server_new(&server, &f->server, &err), 0);
	r = worker_new(&opts, f->server, &f->worker, &err);
	if (r < 0)
		fail_msg("%s", err.text);
	assert_int_equal(rpc_server_listen(f->server, address, NULL, &err), 0);
	assert_int_equal(worker_start(f->worker, &err), 0);
	assert_int_equal(rpc_server_start(f->server, &err), 0);
	assert_int_equal(rpc_channel_new(address, NULL, &f->channel, &err), 0);
}

static inline void fx_worker_stop(struct fx *f)
{
	rpc_channel_free(f->channel);
	rpc_server_stop(f->server, 500);
	rpc_server_free(f->server);
	worker_free(f->worker);
	f->worker = NULL;
}

/* A share of the dataset that is pinned, of 1000. */
static inline void fx_grant(struct fx *f, uint64_t grant_bytes, uint64_t threshold)
{
	mutex_lock(&f->mu);
	f->grant_bytes = grant_bytes;
	f->threshold = threshold;
	f->plan_version++;
	mutex_unlock(&f->mu);
	if (f->worker)
		assert_int_equal(worker_refresh(f->worker, clock_deadline_ms(20000)), 0);
}

/* Borrowed until the next one; NULL: no limit. */
static inline void fx_share(struct fx *f, const Granary__V1__OriginShare *share)
{
	mutex_lock(&f->mu);
	f->share = share;
	f->plan_version++;
	mutex_unlock(&f->mu);
	assert_int_equal(worker_refresh(f->worker, clock_deadline_ms(20000)), 0);
}

/* A fresh origin and master; the worker is started by the test. */
static inline struct fx *fx_new(void)
{
	static int number;
	struct fx *f = calloc(1, sizeof(*f));
	char path[128], name[32];

	/* One more for the process: the end of gRPC takes up to ten seconds, and not once a test.
	 */
	if (number == 0)
		rpc_init();
	rpc_init();
	strcpy(f->dir, "/tmp/granary-worker-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(path, sizeof(path), "%s/master", f->dir);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(name, sizeof(name), "w%d", ++number);
	snprintf(f->url, sizeof(f->url), "mem://%s", name);
	f->mem = mem_store_new(name);
	mutex_init(&f->mu);
	fx_master_start(f);
	return f;
}

static inline void fx_free(struct fx *f)
{
	char command[128];

	if (f->worker)
		fx_worker_stop(f);
	fx_master_stop(f);
	mem_store_free(f->mem);
	mutex_deinit(&f->mu);
	snprintf(command, sizeof(command), "rm -rf %s", f->dir);
	assert_int_equal(system(command), 0);
	free(f);
	rpc_deinit();
}

/* ---- reads ----------------------------------------------------------------------------------- */

struct fx_read {
	const struct fx_file *file;
	const char *digest; /* NULL: the current one */
	const char *job;    /* NULL: job-1 */
	uint64_t block;
	uint32_t offset, len, read_ahead;
	int64_t timeout_ms;		    /* 0: 20 s */
	struct rpc_stream *_Atomic *stream; /* where another thread may cancel it; may be NULL */
	const atomic_bool *cancel;	    /* not NULL: read as a mount of the same process does */
	unsigned char *dst;		    /* NULL: only compared with the pattern */
	/* filled */
	bool from_origin;
	uint32_t got;
	uint64_t waited_us; /* for its job's share */
	bool again;	    /* sent away to come again */
	int64_t first_ms;   /* when the first bytes came */
	struct error err;
};

static inline void fx_check_bytes(const struct fx_read *q, const unsigned char *data)
{
	uint64_t at = q->block * BLOCK_BYTES + q->offset;
	unsigned char *want = malloc(q->got + 1);

	assert_non_null(want);
	mem_store_pattern(q->file->seed, at, want, q->got);
	if (memcmp(data, want, q->got) != 0)
		fail_msg("%s: wrong bytes in %u at %llu", q->file->path, q->got,
			(unsigned long long)at);
	free(want);
}

static inline int fx_receive(struct rpc_stream *st, struct fx_read *q, unsigned char *data)
{
	struct rpc_message *m;
	ProtobufCMessage *head;
	size_t len;
	int r;

	while ((r = rpc_stream_next(st, &m, &q->err)) == 0) {
		r = rpc_message_bytes(m, 2, data + q->got, q->len - q->got, &len,
			&granary__v1__read_block_chunk__descriptor, &head);
		rpc_message_free(m);
		assert_int_equal(r, 0);
		q->again = ((Granary__V1__ReadBlockChunk *)head)->again;
		if (((Granary__V1__ReadBlockChunk *)head)->waited_us > 0)
			q->waited_us = ((Granary__V1__ReadBlockChunk *)head)->waited_us;
		if (q->got == 0 && len > 0) {
			q->from_origin = ((Granary__V1__ReadBlockChunk *)head)->source ==
					 GRANARY__V1__READ_BLOCK_CHUNK__SOURCE__SOURCE_ORIGIN;
			q->first_ms = clock_mono_ms();
		}
		protobuf_c_message_free_unpacked(head, NULL);
		q->got += (uint32_t)len;
	}
	return r == RPC_STREAM_END ? 0 : r;
}

static inline int fx_read_by_rpc(struct fx *f, struct fx_read *q, unsigned char *data)
{
	Granary__V1__ReadBlockRequest request = GRANARY__V1__READ_BLOCK_REQUEST__INIT;
	struct rpc_stream *st;
	int r;

	request.dataset_id = FX_DATASET;
	request.manifest_digest = (char *)(q->digest ? q->digest : f->digests[0]);
	request.entry = q->file->entry;
	request.block = q->block;
	request.offset = q->offset;
	request.len = q->len;
	request.read_ahead = q->read_ahead;
	request.job = (char *)(q->job ? q->job : "job-1");
	r = rpc_stream_open(f->channel, "/granary.v1.BlockService/Read", &request.base,
		clock_deadline_ms(q->timeout_ms ? q->timeout_ms : 20000), &st, &q->err);
	if (r == 0) {
		if (q->stream)
			atomic_store(q->stream, st);
		r = fx_receive(st, q, data);
		if (!q->stream)
			rpc_stream_close(st);
	}
	return r;
}

struct fx_taken {
	struct fx_read *q;
	unsigned char *data;
};

static inline void fx_take(void *arg, bool from_origin, const void *data, size_t len)
{
	struct fx_taken *taken = arg;

	assert_true(len <= taken->q->len - taken->q->got);
	memcpy(taken->data + taken->q->got, data, len);
	taken->q->got += (uint32_t)len;
	taken->q->from_origin = from_origin;
}

static inline void fx_note_wait(void *arg, uint64_t waited_us)
{
	struct fx_taken *taken = arg;

	taken->q->waited_us = waited_us;
}

static inline int fx_read_embedded(struct fx *f, struct fx_read *q, unsigned char *data)
{
	const struct embedded_worker *w = worker_embedded(f->worker);
	struct fx_taken taken = {q, data};
	const struct embedded_read read = {
		.dataset_id = FX_DATASET,
		.manifest_digest = q->digest ? q->digest : f->digests[0],
		.entry = q->file->entry,
		.block = q->block,
		.offset = q->offset,
		.len = q->len,
		.read_ahead = q->read_ahead,
		.job = q->job ? q->job : "job-1",
		.deadline_ms = clock_deadline_ms(q->timeout_ms ? q->timeout_ms : 20000),
		.take = fx_take,
		.gone = q->cancel,
		.waits = fx_note_wait,
		.arg = &taken,
	};

	return w->read(w->arg, &read, &q->err);
}

/* The whole range and right, or a negative status. */
static inline int fx_read(struct fx *f, struct fx_read *q)
{
	unsigned char *data = malloc(q->len + 1);
	int r;

	q->got = 0;
	r = q->cancel ? fx_read_embedded(f, q, data) : fx_read_by_rpc(f, q, data);
	fx_check_bytes(q, data);
	if (r == 0 && !q->again)
		assert_int_equal(q->got, q->len);
	if (q->dst)
		memcpy(q->dst, data, q->got);
	free(data);
	return r;
}

/* All of a file, block by block, in requests of `step`; adds up what came from the origin. */
static inline int fx_read_file(
	struct fx *f, const struct fx_file *file, uint32_t step, uint64_t *from_origin)
{
	for (uint64_t b = 0; b < block_count(file->size); b++) {
		uint32_t blen = (uint32_t)block_len(file->size, b);

		for (uint32_t at = 0; at < blen; at += step) {
			struct fx_read q = {.file = file,
				.block = b,
				.offset = at,
				.len = blen - at < step ? blen - at : step};
			int r = fx_read(f, &q);

			if (r < 0)
				return r;
			if (q.from_origin && from_origin)
				*from_origin += q.len;
		}
	}
	return 0;
}

/* Of a block without a len all. */
static inline int fx_prefetch_part(
	struct fx *f, const struct fx_file *file, uint64_t block, uint32_t offset, uint32_t len)
{
	Granary__V1__PrefetchRequest request = GRANARY__V1__PREFETCH_REQUEST__INIT;
	ProtobufCMessage *reply;
	struct error err = ERROR_INIT;
	int r;

	request.dataset_id = FX_DATASET;
	request.manifest_digest = f->digests[0];
	request.entry = file->entry;
	request.block = block;
	request.offset = offset;
	request.len = len;
	request.job = (char *)"job-1";
	r = rpc_unary(f->channel, "/granary.v1.BlockService/Prefetch", &request.base,
		&granary__v1__prefetch_reply__descriptor, &reply, clock_deadline_ms(20000), &err);
	if (r == 0)
		protobuf_c_message_free_unpacked(reply, NULL);
	return r;
}

static inline int fx_prefetch(struct fx *f, const struct fx_file *file, uint64_t block)
{
	return fx_prefetch_part(f, file, block, 0, 0);
}

static inline uint64_t fx_gets(struct fx *f)
{
	return mem_store_counts(f->mem).gets;
}

static inline uint64_t fx_origin_bytes(struct fx *f)
{
	return mem_store_counts(f->mem).bytes;
}
