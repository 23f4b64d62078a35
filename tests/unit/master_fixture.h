/*
 * A master behind the real rpc over a unix socket, in a private directory, and the calls that the
 * tests make of it. Linking a test to it gives the in-memory origin too.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
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

#include "common/buf.h"
#include "common/clock.h"
#include "common/rpc/rpc.h"
#include "granary/v1/cluster.pb-c.h"
#include "granary/v1/dataset.pb-c.h"
#include "granary/v1/job.pb-c.h"
#include "manifest/manifest.h"
#include "master/master_state.h"
#include "origin/origin_mem.h"

#define CALL_MS 30000
#define DATASETS "/granary.v1.DatasetService/"
#define CLUSTER "/granary.v1.ClusterService/"
#define JOBS "/granary.v1.JobService/"

struct fixture {
	char dir[64];
	char state_dir[128];
	char address[128];
	char tcp_address[64];
	struct rpc_server *server;
	struct rpc_channel *channel, *tcp_channel;
	struct master *master;
	struct mem_store *store;      /* of mem://data */
	struct error err;	      /* of the last call */
	struct origin_limits origins; /* of the master, from its next start on */
};

static inline void fixture_start(struct fixture *f)
{
	struct rpc_server_options opts = {.threads = 8, .token = "a token of the test"};
	struct master_options master_opts = {
		.state_dir = f->state_dir,
		.origins = &f->origins,
		.policy = GPU_POLICY_MAX_MIN,
	};
	int port = 0;

	assert_int_equal(rpc_server_new(&opts, &f->server, &f->err), 0);
	if (master_new(&master_opts, f->server, &f->master, &f->err) < 0)
		fail_msg("%s", f->err.text);
	assert_int_equal(rpc_server_listen(f->server, f->address, NULL, &f->err), 0);
	assert_int_equal(rpc_server_listen(f->server, "127.0.0.1:0", &port, &f->err), 0);
	snprintf(f->tcp_address, sizeof(f->tcp_address), "127.0.0.1:%d", port);
	assert_int_equal(rpc_server_start(f->server, &f->err), 0);
	assert_int_equal(master_start(f->master, &f->err), 0);
	assert_int_equal(rpc_channel_new(f->address, NULL, &f->channel, &f->err), 0);
	assert_int_equal(rpc_channel_new(f->tcp_address, opts.token, &f->tcp_channel, &f->err), 0);
}

static inline void fixture_stop(struct fixture *f)
{
	rpc_channel_free(f->channel);
	rpc_channel_free(f->tcp_channel);
	rpc_server_stop(f->server, 1000);
	master_free(f->master);
	rpc_server_free(f->server);
}

static inline int fixture_setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	strcpy(f->dir, "/tmp/master-test-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->state_dir, sizeof(f->state_dir), "%s/state", f->dir);
	snprintf(f->address, sizeof(f->address), "unix:%s/socket", f->dir);
	rpc_init();
	f->store = mem_store_new("data");
	fixture_start(f);
	*state = f;
	return 0;
}

static inline int fixture_remove_one(
	const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline int fixture_teardown(void **state)
{
	struct fixture *f = *state;

	fixture_stop(f);
	mem_store_free(f->store);
	rpc_deinit();
	nftw(f->dir, fixture_remove_one, 32, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static inline void fixture_restart(struct fixture *f)
{
	fixture_stop(f);
	fixture_start(f);
}

/* ---- calls ----------------------------------------------------------------------------------- */

static inline int call_unary(struct fixture *f, const char *path, const ProtobufCMessage *request,
	const ProtobufCMessageDescriptor *type, void *ret_reply)
{
	return rpc_unary(f->channel, path, request, type, (ProtobufCMessage **)ret_reply,
		clock_deadline_ms(CALL_MS), &f->err);
}

/* Runs an import to its end; *ret_last (may be NULL) is its last message. */
static inline int call_import(struct fixture *f, struct rpc_channel *ch, const char *path,
	const ProtobufCMessage *request, Granary__V1__ImportProgress **ret_last)
{
	Granary__V1__ImportProgress *last = NULL;
	struct rpc_stream *stream;
	struct rpc_message *message;
	int r = rpc_stream_open(
		ch, path, request, clock_deadline_ms(CALL_MS * 10), &stream, &f->err);

	assert_int_equal(r, 0);
	while ((r = rpc_stream_next(stream, &message, &f->err)) == 0) {
		granary__v1__import_progress__free_unpacked(last, NULL);
		last = (Granary__V1__ImportProgress *)rpc_message_unpack(
			message, &granary__v1__import_progress__descriptor);
		assert_non_null(last);
		rpc_message_free(message);
	}
	rpc_stream_close(stream);
	if (r == RPC_STREAM_END && ret_last) {
		*ret_last = last;
		last = NULL;
	}
	granary__v1__import_progress__free_unpacked(last, NULL);
	return r == RPC_STREAM_END ? 0 : r;
}

static inline int call_add(
	struct fixture *f, const char *name, const char *origin, Granary__V1__ImportProgress **ret)
{
	Granary__V1__AddDatasetRequest request = GRANARY__V1__ADD_DATASET_REQUEST__INIT;

	request.name = (char *)name;
	request.origin = (char *)origin;
	return call_import(f, f->channel, DATASETS "Add", &request.base, ret);
}

static inline int call_refresh(
	struct fixture *f, const char *name, bool switch_mounts, Granary__V1__ImportProgress **ret)
{
	Granary__V1__RefreshDatasetRequest request = GRANARY__V1__REFRESH_DATASET_REQUEST__INIT;

	request.name = (char *)name;
	request.switch_mounts = switch_mounts;
	return call_import(f, f->channel, DATASETS "Refresh", &request.base, ret);
}

static inline int call_get(struct fixture *f, const char *name, Granary__V1__Dataset **ret)
{
	Granary__V1__GetDatasetRequest request = GRANARY__V1__GET_DATASET_REQUEST__INIT;

	request.name = (char *)name;
	return call_unary(f, DATASETS "Get", &request.base, &granary__v1__dataset__descriptor, ret);
}

static inline int call_quota(struct fixture *f, const char *name, bool limited, uint64_t bytes,
	Granary__V1__Dataset **ret)
{
	Granary__V1__SetQuotaRequest request = GRANARY__V1__SET_QUOTA_REQUEST__INIT;

	request.name = (char *)name;
	request.quota_limited = limited;
	request.quota_bytes = bytes;
	return call_unary(
		f, DATASETS "SetQuota", &request.base, &granary__v1__dataset__descriptor, ret);
}

static inline int call_remove(struct fixture *f, const char *name, bool force)
{
	Granary__V1__RemoveDatasetRequest request = GRANARY__V1__REMOVE_DATASET_REQUEST__INIT;
	Granary__V1__RemoveDatasetReply *reply;
	int r;

	request.name = (char *)name;
	request.force = force;
	r = call_unary(f, DATASETS "Remove", &request.base,
		&granary__v1__remove_dataset_reply__descriptor, &reply);
	if (r == 0)
		granary__v1__remove_dataset_reply__free_unpacked(reply, NULL);
	return r;
}

static inline int call_open(
	struct fixture *f, const char *dataset, Granary__V1__OpenMountReply **ret)
{
	Granary__V1__OpenMountRequest request = GRANARY__V1__OPEN_MOUNT_REQUEST__INIT;

	request.dataset = (char *)dataset;
	request.mountpoint = (char *)"/mnt/x";
	request.host = (char *)"here";
	request.host_id = (char *)"boot";
	request.pid = 42;
	request.mode = (char *)"open";
	return call_unary(f, CLUSTER "OpenMount", &request.base,
		&granary__v1__open_mount_reply__descriptor, ret);
}

static inline Granary__V1__MountHeartbeatRequest mount_beat(uint64_t mount_id, uint64_t snapshot)
{
	Granary__V1__MountHeartbeatRequest request = GRANARY__V1__MOUNT_HEARTBEAT_REQUEST__INIT;

	request.mount_id = mount_id;
	request.snapshot = snapshot;
	request.dataset = (char *)"data";
	request.mountpoint = (char *)"/mnt/x";
	request.host = (char *)"here";
	request.host_id = (char *)"boot";
	request.mode = (char *)"open";
	return request;
}

static inline int call_mount_beat(struct fixture *f,
	const Granary__V1__MountHeartbeatRequest *request, Granary__V1__MountHeartbeatReply **ret)
{
	return call_unary(f, CLUSTER "MountHeartbeat", &request->base,
		&granary__v1__mount_heartbeat_reply__descriptor, ret);
}

static inline int call_close(
	struct fixture *f, uint64_t mount_id, Granary__V1__MountHeartbeatRequest *last)
{
	Granary__V1__CloseMountRequest request = GRANARY__V1__CLOSE_MOUNT_REQUEST__INIT;
	Granary__V1__CloseMountReply *reply;
	int r;

	request.mount_id = mount_id;
	request.last = last;
	r = call_unary(f, CLUSTER "CloseMount", &request.base,
		&granary__v1__close_mount_reply__descriptor, &reply);
	if (r == 0)
		granary__v1__close_mount_reply__free_unpacked(reply, NULL);
	return r;
}

static inline Granary__V1__WorkerHeartbeatRequest worker_beat(uint64_t id, uint64_t capacity)
{
	Granary__V1__WorkerHeartbeatRequest request = GRANARY__V1__WORKER_HEARTBEAT_REQUEST__INIT;

	request.worker_id = id;
	request.address = (char *)"unix:/run/worker";
	request.lease_socket = (char *)"/run/lease";
	request.local_address = (char *)"unix:/run/socket";
	request.local_identity = (char *)"fd01:1234";
	request.host_id = (char *)"boot";
	request.capacity_bytes = capacity;
	return request;
}

/* Beats until the reply brings a plan other than request->plan_version. */
static inline Granary__V1__WorkerHeartbeatReply *worker_plan(
	struct fixture *f, const Granary__V1__WorkerHeartbeatRequest *request)
{
	Granary__V1__WorkerHeartbeatReply *reply;
	int64_t end_ms = clock_deadline_ms(10000);

	while (!clock_passed(end_ms)) {
		int r = call_unary(f, CLUSTER "WorkerHeartbeat", &request->base,
			&granary__v1__worker_heartbeat_reply__descriptor, &reply);

		if (r < 0)
			fail_msg("%s", f->err.text);
		if (reply->has_plan)
			return reply;
		granary__v1__worker_heartbeat_reply__free_unpacked(reply, NULL);
		usleep(20000);
	}
	fail_msg("no plan came");
	return NULL;
}

/* A live worker of that capacity, and everything planned with it. */
static inline void worker_join(struct fixture *f, uint64_t id, uint64_t capacity)
{
	Granary__V1__WorkerHeartbeatRequest request = worker_beat(id, capacity);

	granary__v1__worker_heartbeat_reply__free_unpacked(worker_plan(f, &request), NULL);
}

static inline void write_file(const char *dir, const char *name, size_t len)
{
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "w");
	assert_non_null(file);
	for (size_t i = 0; i < len; i++)
		fputc('x', file);
	assert_int_equal(fclose(file), 0);
}

static inline struct manifest *open_manifest(struct fixture *f, const char *digest)
{
	char path[256];
	struct manifest *m;

	snprintf(path, sizeof(path), "%s/manifests/%s.manifest", f->state_dir, digest);
	if (manifest_open(path, &m, &f->err) < 0)
		fail_msg("%s", f->err.text);
	return m;
}
