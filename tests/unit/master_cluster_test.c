/* Workers and mounts: who is alive, what was counted, what a restarted master learns again. */
#include "tests/unit/master_fixture.h"

#include "common/metrics.h"
#include "master/messages.h"

static void add_data(struct fixture *f)
{
	mem_store_put_pattern(f->store, "a", 1000, 1);
	mem_store_put_pattern(f->store, "b", 2000, 2);
	if (call_add(f, "data", "mem://data", NULL) < 0)
		fail_msg("%s", f->err.text);
}

static Granary__V1__Dataset *get_data(struct fixture *f)
{
	Granary__V1__Dataset *d;

	if (call_get(f, "data", &d) < 0)
		fail_msg("%s", f->err.text);
	return d;
}

static uint64_t open_data(struct fixture *f)
{
	Granary__V1__OpenMountReply *mount;
	uint64_t id;

	if (call_open(f, "data", &mount) < 0)
		fail_msg("%s", f->err.text);
	id = mount->mount_id;
	granary__v1__open_mount_reply__free_unpacked(mount, NULL);
	return id;
}

static void beat(struct fixture *f, uint64_t id, uint64_t hit_bytes, uint64_t miss_bytes)
{
	Granary__V1__MountHeartbeatRequest request = mount_beat(id, 1);
	Granary__V1__MountHeartbeatReply *reply;

	request.hit_bytes = hit_bytes;
	request.miss_bytes = miss_bytes;
	if (call_mount_beat(f, &request, &reply) < 0)
		fail_msg("%s", f->err.text);
	granary__v1__mount_heartbeat_reply__free_unpacked(reply, NULL);
}

static void check_counts(struct fixture *f, uint64_t hit_bytes, uint64_t miss_bytes)
{
	Granary__V1__Dataset *d = get_data(f);

	assert_int_equal(d->hit_bytes, hit_bytes);
	assert_int_equal(d->miss_bytes, miss_bytes);
	granary__v1__dataset__free_unpacked(d, NULL);
}

static Granary__V1__StatusReply *get_status(struct fixture *f)
{
	Granary__V1__StatusRequest request = GRANARY__V1__STATUS_REQUEST__INIT;
	Granary__V1__StatusReply *reply;

	assert_int_equal(call_unary(f, CLUSTER "Status", &request.base,
				 &granary__v1__status_reply__descriptor, &reply),
		0);
	return reply;
}

/* ---- mounts ---------------------------------------------------------------------------------- */

static void counters_add_up_over_mounts_and_their_ends(void **state)
{
	struct fixture *f = *state;
	Granary__V1__MountHeartbeatRequest last;
	uint64_t one, two;

	add_data(f);
	one = open_data(f);
	two = open_data(f);
	beat(f, one, 10, 1);
	beat(f, two, 100, 2);
	beat(f, one, 30, 3);
	beat(f, one, 30, 3);
	check_counts(f, 130, 5);
	last = mount_beat(one, 1);
	last.hit_bytes = 40;
	last.miss_bytes = 3;
	assert_int_equal(call_close(f, one, &last), 0);
	check_counts(f, 140, 5);
	assert_int_equal(call_close(f, one, &last), 0); /* the reply was lost, say */
	check_counts(f, 140, 5);
	assert_int_equal(call_close(f, two, NULL), 0);
	check_counts(f, 140, 5);
	fixture_restart(f);
	check_counts(f, 140, 5);
}

static void nothing_is_counted_twice_over_a_restart(void **state)
{
	struct fixture *f = *state;
	Granary__V1__Dataset *d;
	uint64_t id;

	add_data(f);
	id = open_data(f);
	beat(f, id, 1000, 10);
	fixture_restart(f);
	check_counts(f, 1000, 10);
	d = get_data(f);
	assert_int_equal(d->mounts, 0);
	granary__v1__dataset__free_unpacked(d, NULL);
	beat(f, id, 1500, 20);
	check_counts(f, 1500, 20);
	d = get_data(f);
	assert_int_equal(d->mounts, 1);
	granary__v1__dataset__free_unpacked(d, NULL);
}

static void a_mount_nobody_knows_is_entered_from_its_heartbeat(void **state)
{
	struct fixture *f = *state;
	Granary__V1__MountHeartbeatRequest request = mount_beat(4711, 1);
	Granary__V1__MountHeartbeatReply *reply;
	Granary__V1__StatusReply *status;

	add_data(f);
	request.hit_bytes = 500;
	request.pid = 99;
	assert_int_equal(call_mount_beat(f, &request, &reply), 0);
	assert_int_equal(reply->plan->snapshots[0]->snapshot, 1);
	granary__v1__mount_heartbeat_reply__free_unpacked(reply, NULL);
	check_counts(f, 0, 0); /* counted from here on */
	request.hit_bytes = 600;
	assert_int_equal(call_mount_beat(f, &request, &reply), 0);
	granary__v1__mount_heartbeat_reply__free_unpacked(reply, NULL);
	check_counts(f, 100, 0);
	status = get_status(f);
	assert_int_equal(status->n_mounts, 1);
	assert_int_equal(status->mounts[0]->mount_id, 4711);
	assert_int_equal(status->mounts[0]->pid, 99);
	assert_string_equal(status->mounts[0]->mountpoint, "/mnt/x");
	assert_string_equal(status->mounts[0]->dataset, "data");
	granary__v1__status_reply__free_unpacked(status, NULL);

	request.mount_id = 0;
	assert_int_equal(call_mount_beat(f, &request, &reply), -EINVAL);
	request.mount_id = 12;
	request.dataset = (char *)"none";
	assert_int_equal(call_mount_beat(f, &request, &reply), -ENOENT);
}

static void a_mount_of_a_removed_dataset_is_no_mount_of_its_namesake(void **state)
{
	struct fixture *f = *state;
	Granary__V1__OpenMountRequest open = GRANARY__V1__OPEN_MOUNT_REQUEST__INIT;
	Granary__V1__OpenMountReply *mount, *again;
	Granary__V1__MountHeartbeatRequest request;
	Granary__V1__MountHeartbeatReply *reply;
	Granary__V1__Dataset *d;

	add_data(f);
	assert_int_equal(call_open(f, "data", &mount), 0);
	request = mount_beat(mount->mount_id, 1);
	request.dataset_id = open.dataset_id = mount->plan->dataset_id;
	granary__v1__open_mount_reply__free_unpacked(mount, NULL);
	assert_int_equal(call_mount_beat(f, &request, &reply), 0);
	granary__v1__mount_heartbeat_reply__free_unpacked(reply, NULL);

	assert_int_equal(call_remove(f, "data", true), 0);
	add_data(f);
	assert_int_equal(call_mount_beat(f, &request, &reply), -ENOENT);
	/* The master forgot it, or was started anew. */
	fixture_restart(f);
	assert_int_equal(call_mount_beat(f, &request, &reply), -ENOENT);
	request.mount_id = 4711;
	assert_int_equal(call_mount_beat(f, &request, &reply), -ENOENT);
	assert_non_null(strstr(f->err.text, "mount again"));
	open.dataset = open.mountpoint = open.host = (char *)"data";
	assert_int_equal(call_unary(f, CLUSTER "OpenMount", &open.base,
				 &granary__v1__open_mount_reply__descriptor, &again),
		-ENOENT);
	d = get_data(f);
	assert_int_equal(d->mounts, 0);
	/* Its own mounts name it. */
	request.dataset_id = d->id;
	granary__v1__dataset__free_unpacked(d, NULL);
	assert_int_equal(call_mount_beat(f, &request, &reply), 0);
	granary__v1__mount_heartbeat_reply__free_unpacked(reply, NULL);
}

static void a_silent_mount_is_lost_and_comes_back(void **state)
{
	struct fixture *f = *state;
	Granary__V1__Dataset *d;
	uint64_t id;

	add_data(f);
	id = open_data(f);
	beat(f, id, 10, 0);
	housekeeping_run(f->master, clock_mono_ms() + 29000);
	d = get_data(f);
	assert_int_equal(d->mounts, 1);
	granary__v1__dataset__free_unpacked(d, NULL);
	housekeeping_run(f->master, clock_mono_ms() + 31000);
	d = get_data(f);
	assert_int_equal(d->mounts, 0);
	granary__v1__dataset__free_unpacked(d, NULL);
	beat(f, id, 15, 0);
	check_counts(f, 15, 0);
	housekeeping_run(f->master, clock_mono_ms() + 31000);
	assert_int_equal(call_remove(f, "data", false), 0); /* a lost mount does not hold it */
	housekeeping_run(f->master, clock_mono_ms());
	assert_null(mounts_find(&f->master->mounts, id));
}

static void failures_are_shown_and_made_printable(void **state)
{
	struct fixture *f = *state;
	Granary__V1__MountHeartbeatRequest request;
	Granary__V1__MountHeartbeatReply *reply;
	Granary__V1__Dataset *d;

	add_data(f);
	request = mount_beat(open_data(f), 1);
	request.failed_reads = 3;
	request.last_error = (char *)"a\xff changed\n at the origin \xc3\xa4";
	assert_int_equal(call_mount_beat(f, &request, &reply), 0);
	granary__v1__mount_heartbeat_reply__free_unpacked(reply, NULL);
	d = get_data(f);
	assert_int_equal(d->failed_reads, 3);
	assert_string_equal(d->last_error, "a? changed? at the origin \xc3\xa4");
	granary__v1__dataset__free_unpacked(d, NULL);
}

static void the_end_of_a_long_failure_is_shown(void **state)
{
	struct fixture *f = *state;
	Granary__V1__MountHeartbeatRequest request;
	Granary__V1__MountHeartbeatReply *reply;
	Granary__V1__Dataset *d;
	struct error failure;

	add_data(f);
	request = mount_beat(open_data(f), 1);
	request.failed_reads = 1;
	error_set(&failure, -EIO, "read of %0600d: the cause", 0);
	request.last_error = failure.text;
	assert_int_equal(call_mount_beat(f, &request, &reply), 0);
	granary__v1__mount_heartbeat_reply__free_unpacked(reply, NULL);
	mutex_lock(&f->master->mu);
	assert_string_equal(
		mounts_find(&f->master->mounts, request.mount_id)->last_error, failure.text);
	mutex_unlock(&f->master->mu);
	d = get_data(f);
	assert_string_equal(d->last_error, failure.text);
	message_dataset_shorten(d);
	assert_true(strlen(d->last_error) < sizeof(failure.text) / 2);
	assert_non_null(strstr(d->last_error, ": the cause"));
	granary__v1__dataset__free_unpacked(d, NULL);
}

static void mounting_what_is_not_there_is_refused(void **state)
{
	struct fixture *f = *state;
	Granary__V1__OpenMountReply *reply;

	assert_int_equal(call_open(f, "none", &reply), -ENOENT);
	assert_non_null(strstr(f->err.text, "granary dataset"));
}

/* ---- workers --------------------------------------------------------------------------------- */

static void worker_says(struct fixture *f, uint64_t worker, uint64_t dataset, uint64_t pinned_bytes,
	uint64_t origin_bytes)
{
	Granary__V1__WorkerHeartbeatRequest request = worker_beat(worker, 1 << 20);
	Granary__V1__WorkerDataset said = GRANARY__V1__WORKER_DATASET__INIT, *list[] = {&said};
	Granary__V1__WorkerHeartbeatReply *reply;

	said.dataset_id = dataset;
	said.pinned_bytes = pinned_bytes;
	said.filler_bytes = 5;
	said.elastic_bytes = 7;
	said.origin_bytes = origin_bytes;
	request.datasets = list;
	request.n_datasets = 1;
	assert_int_equal(call_unary(f, CLUSTER "WorkerHeartbeat", &request.base,
				 &granary__v1__worker_heartbeat_reply__descriptor, &reply),
		0);
	granary__v1__worker_heartbeat_reply__free_unpacked(reply, NULL);
}

static void workers_add_up_and_restart_from_zero(void **state)
{
	struct fixture *f = *state;
	Granary__V1__Dataset *d;
	uint64_t id;

	add_data(f);
	d = get_data(f);
	id = d->id;
	granary__v1__dataset__free_unpacked(d, NULL);
	worker_says(f, 1, id, 100, 1000);
	worker_says(f, 2, id, 200, 50);
	worker_says(f, 1, id, 110, 1500);
	worker_says(f, 1, 12345, 999, 999); /* of a dataset that is gone */
	d = get_data(f);
	assert_int_equal(d->pinned_bytes, 200); /* worker 1 did not name it any more */
	assert_int_equal(d->cached_bytes, 212);
	assert_int_equal(d->origin_bytes, 1550);
	granary__v1__dataset__free_unpacked(d, NULL);
	worker_says(f, 1, id, 110, 20); /* started anew */
	fixture_restart(f);
	worker_says(f, 1, id, 110, 30);
	d = get_data(f);
	assert_int_equal(d->origin_bytes, 1580);
	assert_int_equal(d->pinned_bytes, 110);
	granary__v1__dataset__free_unpacked(d, NULL);
}

static void a_silent_worker_is_dead_and_its_capacity_held_a_while(void **state)
{
	struct fixture *f = *state;
	Granary__V1__StatusReply *status;
	Granary__V1__OpenMountReply *mount;
	int64_t now_ms;

	add_data(f);
	worker_join(f, 1, 1 << 20);
	now_ms = clock_mono_ms();
	housekeeping_run(f->master, now_ms + 6000);
	status = get_status(f);
	assert_int_equal(status->n_workers, 1);
	assert_false(status->workers[0]->alive);
	granary__v1__status_reply__free_unpacked(status, NULL);
	assert_int_equal(call_open(f, "data", &mount), 0);
	assert_int_equal(mount->n_workers, 0);
	assert_int_equal(mount->plan->granted_bytes, 3000); /* its restart must not drop a block */
	granary__v1__open_mount_reply__free_unpacked(mount, NULL);
	mutex_lock(&f->master->mu);
	assert_int_equal(workers_capacity(&f->master->workers, now_ms + 34000), 1 << 20);
	assert_int_equal(workers_capacity(&f->master->workers, now_ms + 36000), 0);
	mutex_unlock(&f->master->mu);
	housekeeping_run(f->master, now_ms + 601000);
	status = get_status(f);
	assert_int_equal(status->n_workers, 0);
	granary__v1__status_reply__free_unpacked(status, NULL);
	worker_join(f, 1, 1 << 20);
	status = get_status(f);
	assert_true(status->workers[0]->alive);
	assert_string_equal(status->version, "0.1.0");
	granary__v1__status_reply__free_unpacked(status, NULL);
}

static void a_worker_that_makes_no_sense_is_refused(void **state)
{
	struct fixture *f = *state;
	Granary__V1__WorkerHeartbeatRequest request = worker_beat(0, 1);
	Granary__V1__WorkerHeartbeatReply *reply;

	assert_int_equal(call_unary(f, CLUSTER "WorkerHeartbeat", &request.base,
				 &granary__v1__worker_heartbeat_reply__descriptor, &reply),
		-EINVAL);
	request.worker_id = 1;
	request.address = (char *)"";
	assert_int_equal(call_unary(f, CLUSTER "WorkerHeartbeat", &request.base,
				 &granary__v1__worker_heartbeat_reply__descriptor, &reply),
		-EINVAL);
}

/* ---- manifests ------------------------------------------------------------------------------- */

static void check_metric(const char *line)
{
	cleanup_buf struct buf page = BUF_INIT;
	char wanted[256];

	assert_int_equal(metrics_render(&page), 0);
	assert_int_equal(buf_append(&page, "", 1), 0);
	snprintf(wanted, sizeof(wanted), "\n%s\n", line);
	if (!strstr(page.data, wanted))
		fail_msg("no line \"%s\" in:\n%s", line, page.data);
}

static void metrics_tell_of_datasets_workers_and_mounts(void **state)
{
	struct fixture *f = *state;
	uint64_t id;
	Granary__V1__Dataset *d;

	check_metric("granary_master_datasets 0");
	check_metric("granary_master_workers_alive 0");
	add_data(f);
	d = get_data(f);
	id = open_data(f);
	beat(f, id, 700, 300);
	worker_join(f, 1, 1 << 30);
	worker_says(f, 1, d->id, 1024, 200);
	check_metric("granary_master_datasets 1");
	check_metric("granary_master_workers_alive 1");
	check_metric("granary_master_mounts 1");
	check_metric("granary_master_imports_running 0");
	check_metric("granary_master_dataset_bytes{dataset=\"data\"} 3000");
	check_metric("granary_master_dataset_pinned_bytes{dataset=\"data\"} 1024");
	check_metric("granary_master_dataset_hit_bytes_total{dataset=\"data\"} 700");
	check_metric("granary_master_dataset_miss_bytes_total{dataset=\"data\"} 300");
	check_metric("granary_master_dataset_origin_bytes_total{dataset=\"data\"} 200");
	check_metric("granary_master_dataset_mounts{dataset=\"data\"} 1");
	check_metric("granary_master_dataset_snapshot{dataset=\"data\"} 1");
	check_metric("granary_master_dataset_importing{dataset=\"data\"} 0");
	granary__v1__dataset__free_unpacked(d, NULL);
	assert_int_equal(call_remove(f, "data", true), 0);
	check_metric("granary_master_datasets 0");
}

static int fetch(struct fixture *f, const char *digest, struct buf *to)
{
	Granary__V1__FetchManifestRequest request = GRANARY__V1__FETCH_MANIFEST_REQUEST__INIT;
	struct rpc_stream *stream;
	struct rpc_message *message;
	int r;

	request.digest = (char *)digest;
	assert_int_equal(rpc_stream_open(f->channel, CLUSTER "FetchManifest", &request.base,
				 clock_deadline_ms(CALL_MS), &stream, &f->err),
		0);
	while ((r = rpc_stream_next(stream, &message, &f->err)) == 0) {
		Granary__V1__ManifestChunk *chunk =
			(Granary__V1__ManifestChunk *)rpc_message_unpack(
				message, &granary__v1__manifest_chunk__descriptor);

		assert_non_null(chunk);
		assert_int_equal(buf_append(to, chunk->data.data, chunk->data.len), 0);
		granary__v1__manifest_chunk__free_unpacked(chunk, NULL);
		rpc_message_free(message);
	}
	rpc_stream_close(stream);
	return r;
}

static void a_manifest_is_fetched_as_it_is(void **state)
{
	struct fixture *f = *state;
	Granary__V1__Dataset *d;
	struct manifest *m;
	struct buf got = BUF_INIT;
	char name[64], path[128];
	FILE *file;

	for (int i = 0; i < 30000; i++) {
		snprintf(name, sizeof(name), "file-with-a-long-name-%d", i);
		mem_store_put_pattern(f->store, name, 1, 1);
	}
	assert_int_equal(call_add(f, "data", "mem://data", NULL), 0);
	d = get_data(f);
	assert_true(d->manifest_bytes > 2 << 20); /* more than one chunk */
	assert_int_equal(fetch(f, d->manifest_digest, &got), RPC_STREAM_END);
	assert_int_equal(got.len, d->manifest_bytes);
	snprintf(path, sizeof(path), "%s/fetched", f->dir);
	file = fopen(path, "w");
	assert_int_equal(fwrite(got.data, 1, got.len, file), got.len);
	fclose(file);
	assert_int_equal(manifest_open(path, &m, &f->err), 0);
	assert_int_equal(manifest_verify(m, &f->err), 0);
	assert_string_equal(manifest_info(m)->digest, d->manifest_digest);
	manifest_unref(m);
	buf_deinit(&got);
	assert_int_equal(fetch(f, "0123456789abcdef0123456789abcdef", &got), -ENOENT);
	assert_int_equal(fetch(f, "../../../etc/passwd", &got), -EINVAL);
	granary__v1__dataset__free_unpacked(d, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(counters_add_up_over_mounts_and_their_ends),
		TEST(nothing_is_counted_twice_over_a_restart),
		TEST(a_mount_nobody_knows_is_entered_from_its_heartbeat),
		TEST(a_mount_of_a_removed_dataset_is_no_mount_of_its_namesake),
		TEST(a_silent_mount_is_lost_and_comes_back),
		TEST(failures_are_shown_and_made_printable),
		TEST(the_end_of_a_long_failure_is_shown),
		TEST(mounting_what_is_not_there_is_refused),
		TEST(workers_add_up_and_restart_from_zero),
		TEST(a_silent_worker_is_dead_and_its_capacity_held_a_while),
		TEST(a_worker_that_makes_no_sense_is_refused),
		TEST(metrics_tell_of_datasets_workers_and_mounts),
		TEST(a_manifest_is_fetched_as_it_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
