/*
 * A source chain over workers that behave as they are told, and an origin: one file whose bytes
 * follow from their place.
 */
#pragma once

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/rpc/rpc.h"
#include "fuse/source_chain.h"
#include "fuse/thread.h"
#include "granary/v1/block.pb-c.h"
#include "grpc/health/v1/health.pb-c.h"
#include "tests/unit/manifest_fixture.h"

#define READ_PATH "/granary.v1.BlockService/Read"
#define PREFETCH_PATH "/granary.v1.BlockService/Prefetch"
#define FILE_BYTES 300000u
#define CHUNK_BYTES 65536u
#define WORKERS_MAX 3
#define READERS 8
#define FAR_MS 20000

#define HEALTH_PATH "/grpc.health.v1.Health/Check"
#define SLOW_MS 2500 /* an origin's: longer than a silent worker is waited for */
#define SOON_MS 4000

enum behaviour {
	SERVES,
	SERVES_FETCHED,
	FAILS,
	STALE,
	SHORT,
	LONG,
	HANGS,
	SLOW,
	DENIES,
	THROTTLES,	 /* says for SLOW_MS that the read waits for its share */
	THROTTLES_HANGS, /* the same, then hangs */
	CROWDED		 /* gives a chunk at a time, and wants to be asked again */
};
enum health { ANSWERS, SILENT, REFUSES };

struct fake_worker {
	struct rpc_server *server;
	char address[128];
	_Atomic(enum behaviour) behaviour;
	_Atomic(enum health) health;
	atomic_int asked, prefetched;
};

struct world {
	struct fixture files; /* the manifest, and the origin's file */
	char origin_dir[64];
	struct manifest *manifest;
	struct manifest_entry entry;
	struct block_file file;
	struct fake_worker workers[WORKERS_MAX];
	size_t count;
	struct peers peers;
	struct origin_link origin;
	struct source_chain chain;
	unsigned char got[FILE_BYTES];
};

static inline unsigned char byte_at(uint64_t i)
{
	return (unsigned char)(i * 2654435761u >> 13);
}

/* ---- a worker that behaves as it is told --------------------------------------------------------
 */

static inline void send_range(
	struct rpc_call *call, const Granary__V1__ReadBlockRequest *q, enum behaviour behaviour)
{
	uint32_t end = q->offset + q->len - (behaviour == SHORT) + (behaviour == LONG);
	unsigned char data[CHUNK_BYTES];

	for (uint32_t at = q->offset; at < end;) {
		Granary__V1__ReadBlockChunk chunk = GRANARY__V1__READ_BLOCK_CHUNK__INIT;
		uint32_t len = end - at < CHUNK_BYTES ? end - at : CHUNK_BYTES;

		for (uint32_t i = 0; i < len; i++)
			data[i] = byte_at(at + i);
		chunk.data.data = data;
		chunk.data.len = len;
		if (behaviour == SERVES_FETCHED && at == q->offset)
			chunk.source = GRANARY__V1__READ_BLOCK_CHUNK__SOURCE__SOURCE_ORIGIN;
		if (rpc_call_send(call, &chunk.base) < 0)
			break;
		at += len;
	}
	rpc_call_end(call);
}

static inline void throttle(struct rpc_call *call)
{
	Granary__V1__ReadBlockChunk chunk = GRANARY__V1__READ_BLOCK_CHUNK__INIT;
	int64_t began_ms = clock_mono_ms(), now_ms = began_ms;

	for (; now_ms - began_ms < SLOW_MS && !rpc_call_cancelled(call); now_ms = clock_mono_ms()) {
		usleep(100000);
		chunk.waited_us = (uint64_t)(clock_mono_ms() - began_ms) * 1000;
		rpc_call_send(call, &chunk.base);
	}
}

static inline void send_chunk_and_more_later(
	struct rpc_call *call, const Granary__V1__ReadBlockRequest *q)
{
	Granary__V1__ReadBlockChunk chunk = GRANARY__V1__READ_BLOCK_CHUNK__INIT;
	unsigned char data[CHUNK_BYTES];

	chunk.data.data = data;
	chunk.data.len = q->len < CHUNK_BYTES ? q->len : CHUNK_BYTES;
	for (uint32_t i = 0; i < chunk.data.len; i++)
		data[i] = byte_at(q->offset + i);
	rpc_call_send(call, &chunk.base);
	chunk.data.len = 0;
	chunk.again = true;
	rpc_call_send(call, &chunk.base);
	rpc_call_end(call);
}

static inline void wait_while(struct rpc_call *call, bool waits, int64_t until_ms)
{
	while (waits && !rpc_call_cancelled(call) && !clock_passed(rpc_call_deadline_ms(call)) &&
		!clock_passed(until_ms))
		usleep(1000);
}

static inline void handle_health(struct rpc_call *call, void *arg)
{
	Grpc__Health__V1__HealthCheckResponse reply = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
	struct fake_worker *w = arg;
	enum health health = atomic_load(&w->health);

	wait_while(call, health == SILENT, CLOCK_NEVER);
	if (health == SILENT)
		rpc_call_fail(call, -ETIMEDOUT, "too late");
	else if (health == REFUSES)
		rpc_call_fail(call, -EACCES, "a token is wanted");
	else
		rpc_call_reply(call, &reply.base);
}

static inline void handle_read(struct rpc_call *call, void *arg)
{
	struct fake_worker *w = arg;
	const ProtobufCMessage *request =
		rpc_call_request(call, &granary__v1__read_block_request__descriptor);
	enum behaviour behaviour = atomic_load(&w->behaviour);

	if (!request)
		return;
	atomic_fetch_add(&w->asked, 1);
	if (behaviour == THROTTLES || behaviour == THROTTLES_HANGS)
		throttle(call);
	wait_while(call, behaviour == HANGS || behaviour == THROTTLES_HANGS, CLOCK_NEVER);
	wait_while(call, behaviour == SLOW, clock_deadline_ms(SLOW_MS));
	if (behaviour == FAILS)
		rpc_call_fail(call, -EIO, "the disk is on fire");
	else if (behaviour == DENIES)
		rpc_call_fail(call, -EACCES, "not with these credentials");
	else if (behaviour == STALE)
		rpc_call_fail(call, -ESTALE, "the object has changed");
	else if (behaviour == CROWDED)
		send_chunk_and_more_later(call, (const Granary__V1__ReadBlockRequest *)request);
	else if (behaviour == HANGS || behaviour == THROTTLES_HANGS)
		rpc_call_fail(call, -ETIMEDOUT, "too late");
	else
		send_range(call, (const Granary__V1__ReadBlockRequest *)request, behaviour);
}

static inline void handle_prefetch(struct rpc_call *call, void *arg)
{
	Granary__V1__PrefetchReply reply = GRANARY__V1__PREFETCH_REPLY__INIT;
	struct fake_worker *w = arg;

	if (!rpc_call_request(call, &granary__v1__prefetch_request__descriptor))
		return;
	atomic_fetch_add(&w->prefetched, 1);
	rpc_call_reply(call, &reply.base);
}

static inline void start_worker(struct world *w, struct fake_worker *f, int i)
{
	struct rpc_server_options opts = {.threads = 4};
	struct error err = ERROR_INIT;

	snprintf(f->address, sizeof(f->address), "unix:%s/worker%d", w->origin_dir, i);
	assert_int_equal(rpc_server_new(&opts, &f->server, &err), 0);
	rpc_server_add_bounded(f->server, READ_PATH, handle_read, f, READERS);
	rpc_server_add_bounded(f->server, PREFETCH_PATH, handle_prefetch, f, READERS);
	rpc_server_add_bounded(f->server, HEALTH_PATH, handle_health, f, READERS);
	assert_int_equal(rpc_server_listen(f->server, f->address, NULL, &err), 0);
	assert_int_equal(rpc_server_start(f->server, &err), 0);
}

static inline void stop_worker(struct fake_worker *f)
{
	if (!f->server)
		return;
	rpc_server_stop(f->server, 0);
	rpc_server_free(f->server);
	f->server = NULL;
}

/* ---- the world ----------------------------------------------------------------------------------
 */

static inline void make_manifest(struct world *w)
{
	char path[600], validator[64];
	struct manifest_builder_entry e = fixture_file("file", FILE_BYTES);
	struct stat st;
	uint32_t index;
	FILE *f;

	snprintf(path, sizeof(path), "%s/file", w->origin_dir);
	f = fopen(path, "w");
	assert_non_null(f);
	for (uint32_t i = 0; i < FILE_BYTES; i++)
		fputc(byte_at(i), f);
	fclose(f);
	assert_int_equal(stat(path, &st), 0);
	snprintf(validator, sizeof(validator), "%llu:%lld", (unsigned long long)st.st_ino,
		(long long)st.st_ctim.tv_sec * 1000000000 + st.st_ctim.tv_nsec);
	e.validator = validator;
	fixture_build(&w->files, &e, 1);
	w->manifest = fixture_open(&w->files);
	assert_int_equal(manifest_lookup_path(w->manifest, "file", 4, &index), 0);
	assert_int_equal(manifest_entry(w->manifest, index, &w->entry), 0);
	w->file = (struct block_file){w->manifest, index, &w->entry};
}

static inline void make_world(struct world *w, size_t workers, bool with_origin)
{
	struct peer_ref refs[WORKERS_MAX];
	struct error err = ERROR_INIT;
	char url[600];

	memset(w, 0, sizeof(*w));
	rpc_init();
	fixture_init(&w->files);
	strcpy(w->origin_dir, "/tmp/granary-chain-XXXXXX");
	assert_non_null(mkdtemp(w->origin_dir));
	make_manifest(w);
	assert_int_equal(peers_init(&w->peers, "this-host", NULL, &err), 0);
	origin_link_init(&w->origin);
	source_chain_init(&w->chain, &w->peers, &w->origin, NULL, "");
	snprintf(url, sizeof(url), "file://%s", w->origin_dir);
	if (with_origin)
		assert_int_equal(origin_link_configure(&w->origin, url, NULL, 0, NULL, 0, &err), 0);
	w->count = workers;
	for (size_t i = 0; i < workers; i++) {
		start_worker(w, &w->workers[i], (int)i);
		refs[i] = (struct peer_ref){.id = 100 + i,
			.address = w->workers[i].address,
			.lease_socket = "",
			.local_address = "",
			.local_identity = "",
			.host_id = "another-host",
			.capacity_bytes = 1000};
	}
	assert_int_equal(peers_update(&w->peers, refs, workers), 0);
}

static inline void drop_world(struct world *w)
{
	char path[600];

	for (size_t i = 0; i < w->count; i++)
		stop_worker(&w->workers[i]);
	peers_deinit(&w->peers);
	origin_link_deinit(&w->origin);
	manifest_unref(w->manifest);
	fixture_deinit(&w->files);
	snprintf(path, sizeof(path), "rm -rf %s", w->origin_dir);
	assert_int_equal(system(path), 0);
	rpc_deinit();
}

/* The order in which the block's workers are asked. */
static inline void rank(struct world *w, int order[WORKERS_MAX])
{
	struct peer_set *set = peers_get(&w->peers);
	struct block_id id = block_id_make(&w->entry.object, 0);

	assert_int_equal(
		rendezvous_rank(set->nodes, set->count, &id, order, WORKERS_MAX), w->count);
	peer_set_unref(set);
}

static inline int read_some(struct world *w, uint32_t offset, uint32_t len, int64_t timeout_ms,
	struct read_cancel *cancel, enum block_from *ret_from, struct error *err)
{
	struct block_range range = {.file = &w->file, .offset = offset, .len = len, .dst = w->got};

	memset(w->got, 0xee, sizeof(w->got));
	return w->chain.source.read(
		&w->chain.source, &range, clock_deadline_ms(timeout_ms), cancel, ret_from, err);
}

static inline void read_within(struct world *w, enum block_from want, int64_t timeout_ms)
{
	struct read_cancel cancel;
	struct error err = ERROR_INIT;
	enum block_from from = BLOCK_FROM_COUNT;
	int r;

	read_cancel_init(&cancel);
	r = read_some(w, 1000, 200000, timeout_ms, &cancel, &from, &err);
	read_cancel_deinit(&cancel);
	if (r < 0)
		print_error("%s\n", err.text);
	assert_int_equal(r, 0);
	assert_int_equal(from, want);
	for (uint32_t i = 0; i < 200000; i++)
		assert_int_equal(w->got[i], byte_at(1000 + i));
	assert_int_equal(w->got[200000], 0xee);
}

static inline void read_well(struct world *w, enum block_from want)
{
	read_within(w, want, FAR_MS);
}
