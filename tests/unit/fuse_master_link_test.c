/* A mount's link to a master that forgets, restarts, and gives a name to another dataset. */
#include "fuse/master_link.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"

#define SERVICE "/granary.v1.ClusterService/"

struct fixture {
	char dir[64], address[128];
	struct rpc_server *server;
	struct master_link *link;
	/* What the fake master says. */
	atomic_uint_fast64_t dataset_id; /* that has the name now */
	atomic_bool forgot;		 /* heartbeats are refused */
	atomic_bool old;		 /* it knows no dataset_id */
	/* What it heard. */
	atomic_uint opens, beats, closes;
	atomic_uint_fast64_t said_id;
	/* What the mount heard. */
	atomic_uint plans;
	atomic_uint_fast64_t heard_id;
	struct master_direct direct;
};

struct plan {
	Granary__V1__DatasetPlan msg;
	Granary__V1__SnapshotRef ref, *refs[1];
};

static void plan_make(struct fixture *f, struct plan *p)
{
	granary__v1__dataset_plan__init(&p->msg);
	granary__v1__snapshot_ref__init(&p->ref);
	p->ref.snapshot = 1;
	p->refs[0] = &p->ref;
	p->msg.dataset_id = f->dataset_id;
	p->msg.snapshots = p->refs;
	p->msg.n_snapshots = 1;
}

static void serve_open(struct rpc_call *call, void *arg)
{
	struct fixture *f = arg;
	const Granary__V1__OpenMountRequest *q =
		(const Granary__V1__OpenMountRequest *)rpc_call_request(
			call, &granary__v1__open_mount_request__descriptor);
	Granary__V1__OpenMountReply reply = GRANARY__V1__OPEN_MOUNT_REPLY__INIT;
	struct plan plan;

	if (!q)
		return;
	f->opens++;
	if (!f->old && q->dataset_id && q->dataset_id != f->dataset_id) {
		rpc_call_fail(call, -ENOENT, "another dataset");
		return;
	}
	plan_make(f, &plan);
	reply.mount_id = f->opens;
	reply.plan = &plan.msg;
	reply.interval_ms = 100;
	rpc_call_reply(call, &reply.base);
}

static void serve_beat(struct rpc_call *call, void *arg)
{
	struct fixture *f = arg;
	const Granary__V1__MountHeartbeatRequest *q =
		(const Granary__V1__MountHeartbeatRequest *)rpc_call_request(
			call, &granary__v1__mount_heartbeat_request__descriptor);
	Granary__V1__MountHeartbeatReply reply = GRANARY__V1__MOUNT_HEARTBEAT_REPLY__INIT;
	struct plan plan;

	if (!q)
		return;
	f->beats++;
	f->said_id = q->dataset_id;
	if (f->forgot) {
		rpc_call_fail(call, -ENOENT, "no such mount");
		return;
	}
	plan_make(f, &plan);
	reply.plan = &plan.msg;
	reply.interval_ms = 100;
	rpc_call_reply(call, &reply.base);
}

static void serve_close(struct rpc_call *call, void *arg)
{
	struct fixture *f = arg;
	Granary__V1__CloseMountReply reply = GRANARY__V1__CLOSE_MOUNT_REPLY__INIT;

	if (!rpc_call_request(call, &granary__v1__close_mount_request__descriptor))
		return;
	f->closes++;
	rpc_call_reply(call, &reply.base);
}

static void heard(void *arg, const Granary__V1__DatasetPlan *plan,
	Granary__V1__WorkerRef *const *workers, size_t workers_count,
	const struct master_direct *direct)
{
	struct fixture *f = arg;

	(void)workers;
	(void)workers_count;
	f->direct = direct ? *direct : (struct master_direct){.bytes_per_s = 0};
	f->plans++;
	f->heard_id = plan->dataset_id;
}

static void report(void *arg, Granary__V1__MountHeartbeatRequest *ret)
{
	(void)arg;
	ret->snapshot = 1;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const struct rpc_server_options server = {.threads = 4};
	struct master_link_options opts = {.dataset = "data",
		.mountpoint = "/mnt/x",
		.host_id = "boot",
		.job = "",
		.mode = "open",
		.heard = heard,
		.report = report,
		.arg = f};

	strcpy(f->dir, "/tmp/master-link-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->address, sizeof(f->address), "unix:%s/socket", f->dir);
	f->dataset_id = 7;
	assert_int_equal(rpc_server_new(&server, &f->server, NULL), 0);
	rpc_server_add(f->server, SERVICE "OpenMount", serve_open, f);
	rpc_server_add(f->server, SERVICE "MountHeartbeat", serve_beat, f);
	rpc_server_add(f->server, SERVICE "CloseMount", serve_close, f);
	assert_int_equal(rpc_server_listen(f->server, f->address, NULL, NULL), 0);
	assert_int_equal(rpc_server_start(f->server, NULL), 0);
	opts.address = f->address;
	assert_int_equal(master_link_open(&opts, &f->link, NULL), 0);
	assert_int_equal(master_link_start(f->link, NULL), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	master_link_close(f->link);
	rpc_server_stop(f->server, 500);
	rpc_server_free(f->server);
	rmdir(f->dir);
	free(f);
	return 0;
}

/* Three exchanges from now on. */
static void await_beats(struct fixture *f)
{
	int64_t end_ms = clock_deadline_ms(10000);
	unsigned until = f->beats + 3;

	while (f->beats < until && !clock_passed(end_ms))
		usleep(1000);
	assert_true(f->beats >= until);
}

static void heartbeats_name_the_dataset(void **state)
{
	struct fixture *f = *state;

	await_beats(f);
	assert_int_equal(f->said_id, 7);
	assert_int_equal(f->heard_id, 7);
	assert_true(f->plans >= 3);
}

static void a_forgotten_mount_registers_again(void **state)
{
	struct fixture *f = *state;

	f->forgot = true;
	await_beats(f);
	f->forgot = false;
	await_beats(f);
	assert_true(f->opens > 1);
	assert_int_equal(f->heard_id, 7);
}

static void another_dataset_under_the_name_is_not_heard_of(void **state)
{
	struct fixture *f = *state;

	f->forgot = true;
	f->dataset_id = 8;
	await_beats(f);
	assert_int_equal(f->heard_id, 7);
	assert_int_equal(f->said_id, 7);
	/* It comes back by itself should the dataset do so. */
	f->dataset_id = 7;
	f->forgot = false;
	await_beats(f);
	assert_int_equal(f->heard_id, 7);
}

/* It adopts the mount, and gives the plan of what has the name now. */
static void neither_from_a_master_that_knows_no_ids(void **state)
{
	struct fixture *f = *state;
	unsigned plans;

	f->old = true;
	f->dataset_id = 8;
	await_beats(f);
	plans = f->plans;
	await_beats(f);
	assert_int_equal(f->plans, plans);
	f->forgot = true;
	await_beats(f);
	assert_int_equal(f->heard_id, 7);
	/* What it entered as a mount of the other dataset is taken back. */
	assert_true(f->closes >= 1 && f->closes + 2 >= f->opens);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(heartbeats_name_the_dataset),
		TEST(a_forgotten_mount_registers_again),
		TEST(another_dataset_under_the_name_is_not_heard_of),
		TEST(neither_from_a_master_that_knows_no_ids),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
