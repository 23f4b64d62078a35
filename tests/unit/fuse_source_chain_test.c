/* The way of a read through workers that fail in every way, to the origin. */
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
#define FILE_BYTES 300000u
#define CHUNK_BYTES 65536u
#define WORKERS_MAX 3
#define READERS 8
#define FAR_MS 20000

#define HEALTH_PATH "/grpc.health.v1.Health/Check"
#define SLOW_MS 2500 /* an origin's: longer than a silent worker is waited for */
#define SOON_MS 4000

enum behaviour { SERVES, SERVES_FETCHED, FAILS, STALE, SHORT, LONG, HANGS, SLOW, DENIES };
enum health { ANSWERS, SILENT, REFUSES };

struct fake_worker {
	struct rpc_server *server;
	char address[128];
	_Atomic(enum behaviour) behaviour;
	_Atomic(enum health) health;
	atomic_int asked;
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

static unsigned char byte_at(uint64_t i)
{
	return (unsigned char)(i * 2654435761u >> 13);
}

/* ---- a worker that behaves as it is told --------------------------------------------------------
 */

static void send_range(
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

static void wait_while(struct rpc_call *call, bool waits, int64_t until_ms)
{
	while (waits && !rpc_call_cancelled(call) && !clock_passed(rpc_call_deadline_ms(call)) &&
		!clock_passed(until_ms))
		usleep(1000);
}

static void handle_health(struct rpc_call *call, void *arg)
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

static void handle_read(struct rpc_call *call, void *arg)
{
	struct fake_worker *w = arg;
	const ProtobufCMessage *request =
		rpc_call_request(call, &granary__v1__read_block_request__descriptor);
	enum behaviour behaviour = atomic_load(&w->behaviour);

	if (!request)
		return;
	atomic_fetch_add(&w->asked, 1);
	wait_while(call, behaviour == HANGS, CLOCK_NEVER);
	wait_while(call, behaviour == SLOW, clock_deadline_ms(SLOW_MS));
	if (behaviour == FAILS)
		rpc_call_fail(call, -EIO, "the disk is on fire");
	else if (behaviour == DENIES)
		rpc_call_fail(call, -EACCES, "not with these credentials");
	else if (behaviour == STALE)
		rpc_call_fail(call, -ESTALE, "the object has changed");
	else if (behaviour == HANGS)
		rpc_call_fail(call, -ETIMEDOUT, "too late");
	else
		send_range(call, (const Granary__V1__ReadBlockRequest *)request, behaviour);
}

static void start_worker(struct world *w, struct fake_worker *f, int i)
{
	struct rpc_server_options opts = {.threads = 4};
	struct error err = ERROR_INIT;

	snprintf(f->address, sizeof(f->address), "unix:%s/worker%d", w->origin_dir, i);
	assert_int_equal(rpc_server_new(&opts, &f->server, &err), 0);
	rpc_server_add_bounded(f->server, READ_PATH, handle_read, f, READERS);
	rpc_server_add_bounded(f->server, HEALTH_PATH, handle_health, f, READERS);
	assert_int_equal(rpc_server_listen(f->server, f->address, NULL, &err), 0);
	assert_int_equal(rpc_server_start(f->server, &err), 0);
}

static void stop_worker(struct fake_worker *f)
{
	if (!f->server)
		return;
	rpc_server_stop(f->server, 0);
	rpc_server_free(f->server);
	f->server = NULL;
}

/* ---- the world ----------------------------------------------------------------------------------
 */

static void make_manifest(struct world *w)
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

static void make_world(struct world *w, size_t workers, bool with_origin)
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
	source_chain_init(&w->chain, &w->peers, &w->origin, NULL);
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

static void drop_world(struct world *w)
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
static void rank(struct world *w, int order[WORKERS_MAX])
{
	struct peer_set *set = peers_get(&w->peers);
	struct block_id id = block_id_make(&w->entry.object, 0);

	assert_int_equal(
		rendezvous_rank(set->nodes, set->count, &id, order, WORKERS_MAX), w->count);
	peer_set_unref(set);
}

static int read_some(struct world *w, uint32_t offset, uint32_t len, int64_t timeout_ms,
	struct read_cancel *cancel, enum block_from *ret_from, struct error *err)
{
	struct block_range range = {.file = &w->file, .offset = offset, .len = len, .dst = w->got};

	memset(w->got, 0xee, sizeof(w->got));
	return w->chain.source.read(
		&w->chain.source, &range, clock_deadline_ms(timeout_ms), cancel, ret_from, err);
}

static void read_well(struct world *w, enum block_from want)
{
	struct read_cancel cancel;
	struct error err = ERROR_INIT;
	enum block_from from = BLOCK_FROM_COUNT;
	int r;

	read_cancel_init(&cancel);
	r = read_some(w, 1000, 200000, FAR_MS, &cancel, &from, &err);
	read_cancel_deinit(&cancel);
	if (r < 0)
		print_error("%s\n", err.text);
	assert_int_equal(r, 0);
	assert_int_equal(from, want);
	for (uint32_t i = 0; i < 200000; i++)
		assert_int_equal(w->got[i], byte_at(1000 + i));
	assert_int_equal(w->got[200000], 0xee);
}

/* ---- the tests ----------------------------------------------------------------------------------
 */

static void the_home_is_asked_and_nobody_else(void **state)
{
	int order[WORKERS_MAX];
	struct world w;

	(void)state;
	make_world(&w, 3, true);
	rank(&w, order);
	read_well(&w, BLOCK_FROM_PEER_STORE);
	atomic_store(&w.workers[order[0]].behaviour, SERVES_FETCHED);
	read_well(&w, BLOCK_FROM_FETCH);
	assert_int_equal(w.workers[order[0]].asked, 2);
	assert_int_equal(w.workers[order[1]].asked, 0);
	assert_int_equal(w.workers[order[2]].asked, 0);
	drop_world(&w);
}

static void a_worker_that_fails_is_followed_by_the_next(void **state)
{
	static const enum behaviour failures[] = {FAILS, SHORT, LONG};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		int order[WORKERS_MAX];
		struct world w;

		make_world(&w, 3, true);
		rank(&w, order);
		atomic_store(&w.workers[order[0]].behaviour, failures[i]);
		read_well(&w, BLOCK_FROM_PEER_STORE);
		assert_int_equal(w.workers[order[0]].asked, 1);
		assert_int_equal(w.workers[order[1]].asked, 1);
		drop_world(&w);
	}
}

static void wait_good(struct peer *p)
{
	int64_t end_ms = clock_deadline_ms(SOON_MS);

	while (peer_ask(p) != PEER_GOOD) {
		assert_false(clock_passed(end_ms));
		usleep(10000);
	}
}

static void one_that_is_gone_is_left_aside_until_it_is_back(void **state)
{
	int order[WORKERS_MAX];
	struct peer_set *set;
	struct world w;

	(void)state;
	make_world(&w, 2, true);
	rank(&w, order);
	stop_worker(&w.workers[order[0]]);
	read_well(&w, BLOCK_FROM_PEER_STORE);
	set = peers_get(&w.peers);
	assert_int_equal(peer_ask(set->peers[order[0]]), PEER_ASIDE);
	assert_int_equal(peer_ask(set->peers[order[1]]), PEER_GOOD);
	usleep(1200000); /* checked more than once, and still gone */
	assert_int_equal(peer_ask(set->peers[order[0]]), PEER_ASIDE);
	assert_int_equal(peer_ask(set->peers[order[0]]), PEER_ASIDE);
	start_worker(&w, &w.workers[order[0]], order[0]);
	wait_good(set->peers[order[0]]);
	peer_set_unref(set);
	drop_world(&w);
}

static void one_that_fails_is_tried_by_a_single_read(void **state)
{
	struct peer_set *set;
	struct world w;

	(void)state;
	make_world(&w, 1, true);
	set = peers_get(&w.peers);
	peer_failed(set->peers[0]);
	assert_int_equal(peer_ask(set->peers[0]), PEER_ASIDE);
	atomic_store(&set->peers[0]->aside_until_ms, clock_mono_ms());
	assert_int_equal(peer_ask(set->peers[0]), PEER_PROBE);
	assert_int_equal(peer_ask(set->peers[0]), PEER_ASIDE); /* one is enough */
	peer_answered(set->peers[0]);
	assert_int_equal(peer_ask(set->peers[0]), PEER_GOOD);
	peer_set_unref(set);
	drop_world(&w);
}

static void without_workers_the_origin_is_read(void **state)
{
	struct world w;

	(void)state;
	make_world(&w, 0, true);
	read_well(&w, BLOCK_FROM_ORIGIN);
	drop_world(&w);
	make_world(&w, 2, true);
	stop_worker(&w.workers[0]);
	atomic_store(&w.workers[1].behaviour, FAILS);
	read_well(&w, BLOCK_FROM_ORIGIN);
	drop_world(&w);
}

static void expect_failure(struct world *w, int code, const char *said)
{
	struct read_cancel cancel;
	struct error err = ERROR_INIT;
	enum block_from from;

	read_cancel_init(&cancel);
	assert_int_equal(read_some(w, 0, 1000, FAR_MS, &cancel, &from, &err), code);
	read_cancel_deinit(&cancel);
	if (!strstr(err.text, said))
		print_error("%s\n", err.text);
	assert_non_null(strstr(err.text, said));
}

static void a_changed_object_is_final(void **state)
{
	int order[WORKERS_MAX];
	struct world w;

	(void)state;
	make_world(&w, 2, true);
	rank(&w, order);
	atomic_store(&w.workers[order[0]].behaviour, STALE);
	expect_failure(&w, -ESTALE, "the object has changed");
	assert_int_equal(w.workers[order[1]].asked, 0);
	drop_world(&w);
}

static void a_changed_object_at_the_origin_is_not_served(void **state)
{
	char path[600];
	struct world w;
	FILE *f;

	(void)state;
	make_world(&w, 0, true);
	snprintf(path, sizeof(path), "%s/file", w.origin_dir);
	f = fopen(path, "r+");
	fputc('x', f);
	fclose(f);
	expect_failure(&w, -ESTALE, "changed since the snapshot");
	unlink(path);
	expect_failure(&w, -ESTALE, "gone since the snapshot");
	drop_world(&w);
}

static void the_failure_names_all_that_was_tried(void **state)
{
	struct world w;

	(void)state;
	make_world(&w, 1, false);
	atomic_store(&w.workers[0].behaviour, FAILS);
	expect_failure(&w, -EIO, "the disk is on fire; past it: the master has not told");
	drop_world(&w);
}

static int64_t read_well_ms(struct world *w, enum block_from want)
{
	int64_t began_ms = clock_mono_ms();

	read_well(w, want);
	return clock_mono_ms() - began_ms;
}

static void a_silent_worker_is_given_up_soon_and_used_again(void **state)
{
	struct peer_set *set;
	struct world w;

	(void)state;
	make_world(&w, 1, true);
	read_well(&w, BLOCK_FROM_PEER_STORE);
	atomic_store(&w.workers[0].behaviour, HANGS);
	atomic_store(&w.workers[0].health, SILENT);
	assert_in_range(read_well_ms(&w, BLOCK_FROM_ORIGIN), PEER_LINE_ANSWER_MS, SOON_MS);
	/* Nobody else waits, however often it is checked meanwhile. */
	for (int64_t end_ms = clock_deadline_ms(3000); !clock_passed(end_ms); usleep(100000))
		assert_in_range(read_well_ms(&w, BLOCK_FROM_ORIGIN), 0, PEER_LINE_QUIET_MS - 1);
	assert_int_equal(w.workers[0].asked, 2);
	atomic_store(&w.workers[0].behaviour, SERVES);
	atomic_store(&w.workers[0].health, ANSWERS);
	set = peers_get(&w.peers);
	wait_good(set->peers[0]);
	peer_set_unref(set);
	read_well(&w, BLOCK_FROM_PEER_STORE);
	drop_world(&w);
}

static void a_worker_that_waits_for_its_origin_is_waited_for(void **state)
{
	struct world w;

	(void)state;
	make_world(&w, 1, true);
	atomic_store(&w.workers[0].behaviour, SLOW);
	assert_in_range(read_well_ms(&w, BLOCK_FROM_PEER_STORE), SLOW_MS, FAR_MS / 2);
	/* One that refuses the check lives, too: it says so. */
	atomic_store(&w.workers[0].health, REFUSES);
	assert_in_range(read_well_ms(&w, BLOCK_FROM_PEER_STORE), SLOW_MS, FAR_MS / 2);
	drop_world(&w);
}

struct reader {
	struct world *w;
	pthread_t thread;
	int result;
	enum block_from from;
	int64_t took_ms;
	unsigned char got[1000];
};

static void *read_main(void *arg)
{
	struct reader *r = arg;
	struct block_range range = {
		.file = &r->w->file, .offset = 5, .len = sizeof(r->got), .dst = r->got};
	struct error err = ERROR_INIT;
	struct read_cancel cancel;
	int64_t began_ms = clock_mono_ms();

	read_cancel_init(&cancel);
	r->result = r->w->chain.source.read(
		&r->w->chain.source, &range, clock_deadline_ms(FAR_MS), &cancel, &r->from, &err);
	read_cancel_deinit(&cancel);
	r->took_ms = clock_mono_ms() - began_ms;
	return NULL;
}

static void many_readers_find_out_together(void **state)
{
	struct reader readers[READERS] = {0};
	struct world w;

	(void)state;
	make_world(&w, 1, true);
	atomic_store(&w.workers[0].behaviour, HANGS);
	atomic_store(&w.workers[0].health, SILENT);
	for (int i = 0; i < READERS; i++) {
		readers[i].w = &w;
		assert_int_equal(thread_start(&readers[i].thread, read_main, &readers[i]), 0);
	}
	for (int i = 0; i < READERS; i++) {
		pthread_join(readers[i].thread, NULL);
		assert_int_equal(readers[i].result, 0);
		assert_int_equal(readers[i].from, BLOCK_FROM_ORIGIN);
		assert_in_range(readers[i].took_ms, 0, SOON_MS);
		for (size_t k = 0; k < sizeof(readers[i].got); k++)
			assert_int_equal(readers[i].got[k], byte_at(5 + k));
	}
	drop_world(&w);
}

static void only_the_workers_own_refusal_puts_it_aside(void **state)
{
	struct peer_set *set;
	struct world w;

	(void)state;
	make_world(&w, 1, true);
	set = peers_get(&w.peers);
	/* Its origin refuses the worker: that is not the worker's refusal. */
	atomic_store(&w.workers[0].behaviour, DENIES);
	read_well(&w, BLOCK_FROM_ORIGIN);
	assert_int_equal(peer_ask(set->peers[0]), PEER_GOOD);
	assert_false(peer_refuses(set->peers[0]));
	peer_set_unref(set);
	drop_world(&w);

	make_world(&w, 1, true);
	set = peers_get(&w.peers);
	atomic_store(&w.workers[0].behaviour, DENIES);
	atomic_store(&w.workers[0].health, REFUSES);
	read_well(&w, BLOCK_FROM_ORIGIN);
	assert_int_equal(peer_ask(set->peers[0]), PEER_ASIDE);
	assert_true(peer_refuses(set->peers[0]));
	peer_set_unref(set);
	drop_world(&w);
}

static void a_worker_whose_reads_hang_leaves_time_for_the_origin(void **state)
{
	struct read_cancel cancel;
	struct error err = ERROR_INIT;
	enum block_from from;
	struct world w;
	int64_t began_ms = clock_mono_ms();

	(void)state;
	make_world(&w, 1, true);
	atomic_store(&w.workers[0].behaviour, HANGS);
	read_cancel_init(&cancel);
	assert_int_equal(read_some(&w, 0, 1000, 4000, &cancel, &from, &err), 0);
	assert_int_equal(from, BLOCK_FROM_ORIGIN);
	assert_in_range(clock_mono_ms() - began_ms, 1600, 4000);
	read_cancel_deinit(&cancel);
	drop_world(&w);
}

static void *fire_soon(void *arg)
{
	usleep(200000);
	read_cancel_fire(arg);
	return NULL;
}

static void a_cancel_ends_the_wait_for_a_worker(void **state)
{
	struct read_cancel cancel;
	struct error err = ERROR_INIT;
	enum block_from from;
	struct world w;
	int64_t began_ms;
	pthread_t thread;

	(void)state;
	make_world(&w, 2, true);
	atomic_store(&w.workers[0].behaviour, HANGS);
	atomic_store(&w.workers[1].behaviour, HANGS);
	read_cancel_init(&cancel);
	assert_int_equal(thread_start(&thread, fire_soon, &cancel), 0);
	began_ms = clock_mono_ms();
	assert_int_equal(read_some(&w, 0, 1000, FAR_MS, &cancel, &from, &err), -ECANCELED);
	assert_in_range(clock_mono_ms() - began_ms, 100, 5000);
	pthread_join(thread, NULL);
	assert_int_equal(read_some(&w, 0, 1000, FAR_MS, &cancel, &from, &err), -ECANCELED);
	read_cancel_deinit(&cancel);
	drop_world(&w);
}

static void a_new_list_of_workers_keeps_the_known_ones(void **state)
{
	struct peer_ref refs[2];
	struct peer_set *before, *after;
	struct world w;

	(void)state;
	make_world(&w, 2, true);
	before = peers_get(&w.peers);
	refs[0] = (struct peer_ref){.id = 7,
		.address = "unix:/nowhere",
		.lease_socket = "",
		.local_address = "",
		.local_identity = "",
		.host_id = "",
		.capacity_bytes = 0};
	refs[1] = (struct peer_ref){.id = 101,
		.address = w.workers[1].address,
		.lease_socket = "",
		.local_address = "",
		.local_identity = "",
		.host_id = "another-host",
		.capacity_bytes = 1000};
	peer_failed(before->peers[0]);
	assert_int_equal(peers_update(&w.peers, refs, 2), 0);
	after = peers_get(&w.peers);
	assert_ptr_not_equal(before, after);
	assert_int_equal(after->count, 2);
	assert_ptr_equal(before->peers[1], after->peers[1]);
	assert_true(after->nodes[0].weight > 0);
	peer_set_unref(before);
	assert_int_equal(peers_update(&w.peers, refs, 2), 0);
	before = peers_get(&w.peers);
	assert_ptr_equal(before, after); /* nothing changed */
	peer_set_unref(before);
	peer_set_unref(after);
	drop_world(&w);
}

static void a_master_that_knows_nobody_yet_takes_no_good_worker_away(void **state)
{
	struct peer_set *set;
	struct world w;

	(void)state;
	make_world(&w, 2, true);
	set = peers_get(&w.peers);
	peer_failed(set->peers[0]);
	peer_set_unref(set);
	assert_int_equal(peers_update(&w.peers, NULL, 0), 0);
	set = peers_get(&w.peers);
	assert_int_equal(set->count, 1);
	assert_int_equal(set->peers[0]->id, 101);
	set->peers[0]->listed_ms -= PEERS_LINGER_MS;
	peer_set_unref(set);
	assert_int_equal(peers_update(&w.peers, NULL, 0), 0);
	set = peers_get(&w.peers);
	assert_int_equal(set->count, 0);
	peer_set_unref(set);
	drop_world(&w);
}

/* ---- a worker of this process -------------------------------------------------------------------
 */

static int embedded_read(void *arg, const struct embedded_read *read, struct error *err)
{
	struct fake_worker *w = arg;
	enum behaviour behaviour = atomic_load(&w->behaviour);
	unsigned char data[CHUNK_BYTES];
	uint32_t len, end = read->offset + read->len;

	atomic_fetch_add(&w->asked, 1);
	while (behaviour == HANGS && !read->gone(read->arg)) {
		if (clock_passed(read->deadline_ms))
			return error_set(err, -ETIMEDOUT, "too late");
		usleep(1000);
	}
	if (behaviour == HANGS)
		return error_set(err, -ECANCELED, "the reader is gone");
	if (behaviour == FAILS)
		return error_set(err, -EIO, "the disk is on fire");
	if (behaviour == STALE)
		return error_set(err, -ESTALE, "the object has changed");
	for (uint32_t at = read->offset; at < end; at += len) {
		len = end - at < CHUNK_BYTES ? end - at : CHUNK_BYTES;
		for (uint32_t i = 0; i < len; i++)
			data[i] = byte_at(at + i);
		read->take(read->arg, behaviour == SERVES_FETCHED, data, len);
	}
	return 0;
}

/* Stands for the second worker, whose socket stays unused. */
static void embed(struct world *w, struct fake_worker *f, struct embedded_worker *e)
{
	*e = (struct embedded_worker){.id = 101, .read = embedded_read, .arg = f};
	w->chain.embedded = e;
}

static void the_worker_of_this_process_is_called_when_it_is_the_home(void **state)
{
	struct fake_worker here = {.behaviour = SERVES_FETCHED};
	struct embedded_worker e;
	int order[WORKERS_MAX];
	struct world w;

	(void)state;
	make_world(&w, 2, true);
	embed(&w, &here, &e);
	rank(&w, order);
	if (order[0] == 1) {
		read_well(&w, BLOCK_FROM_FETCH);
		atomic_store(&here.behaviour, SERVES);
		read_well(&w, BLOCK_FROM_PEER_STORE);
		assert_int_equal(atomic_load(&here.asked), 2);
		assert_int_equal(atomic_load(&w.workers[0].asked), 0);
	} else {
		read_well(&w, BLOCK_FROM_PEER_STORE);
		assert_int_equal(atomic_load(&here.asked), 0);
		atomic_store(&w.workers[0].behaviour, FAILS);
		read_well(&w, BLOCK_FROM_FETCH);
		assert_int_equal(atomic_load(&here.asked), 1);
	}
	assert_int_equal(atomic_load(&w.workers[1].asked), 0);
	drop_world(&w);
}

static void what_the_worker_of_this_process_says_counts_as_any_workers(void **state)
{
	struct fake_worker here = {.behaviour = FAILS};
	struct read_cancel cancel;
	struct error err = ERROR_INIT;
	struct embedded_worker e;
	enum block_from from;
	struct world w;

	(void)state;
	make_world(&w, 2, true);
	embed(&w, &here, &e);
	atomic_store(&w.workers[0].behaviour, FAILS);
	read_well(&w, BLOCK_FROM_ORIGIN);
	drop_world(&w);

	make_world(&w, 2, true);
	embed(&w, &here, &e);
	atomic_store(&here.behaviour, STALE);
	atomic_store(&w.workers[0].behaviour, FAILS);
	read_cancel_init(&cancel);
	assert_int_equal(read_some(&w, 0, 1000, FAR_MS, &cancel, &from, &err), -ESTALE);
	read_cancel_deinit(&cancel);
	drop_world(&w);
}

static void a_cancel_ends_the_call_of_the_worker_of_this_process(void **state)
{
	struct fake_worker here = {.behaviour = HANGS};
	struct read_cancel cancel;
	struct error err = ERROR_INIT;
	struct embedded_worker e;
	enum block_from from;
	struct world w;

	(void)state;
	make_world(&w, 2, true);
	embed(&w, &here, &e);
	atomic_store(&w.workers[0].behaviour, FAILS);
	read_cancel_init(&cancel);
	read_cancel_fire(&cancel);
	assert_int_equal(read_some(&w, 0, 1000, FAR_MS, &cancel, &from, &err), -ECANCELED);
	read_cancel_deinit(&cancel);
	drop_world(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_home_is_asked_and_nobody_else),
		cmocka_unit_test(a_worker_that_fails_is_followed_by_the_next),
		cmocka_unit_test(one_that_is_gone_is_left_aside_until_it_is_back),
		cmocka_unit_test(one_that_fails_is_tried_by_a_single_read),
		cmocka_unit_test(without_workers_the_origin_is_read),
		cmocka_unit_test(a_changed_object_is_final),
		cmocka_unit_test(a_changed_object_at_the_origin_is_not_served),
		cmocka_unit_test(the_failure_names_all_that_was_tried),
		cmocka_unit_test(a_silent_worker_is_given_up_soon_and_used_again),
		cmocka_unit_test(a_worker_that_waits_for_its_origin_is_waited_for),
		cmocka_unit_test(many_readers_find_out_together),
		cmocka_unit_test(only_the_workers_own_refusal_puts_it_aside),
		cmocka_unit_test(a_worker_whose_reads_hang_leaves_time_for_the_origin),
		cmocka_unit_test(a_cancel_ends_the_wait_for_a_worker),
		cmocka_unit_test(the_worker_of_this_process_is_called_when_it_is_the_home),
		cmocka_unit_test(what_the_worker_of_this_process_says_counts_as_any_workers),
		cmocka_unit_test(a_cancel_ends_the_call_of_the_worker_of_this_process),
		cmocka_unit_test(a_new_list_of_workers_keeps_the_known_ones),
		cmocka_unit_test(a_master_that_knows_nobody_yet_takes_no_good_worker_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
