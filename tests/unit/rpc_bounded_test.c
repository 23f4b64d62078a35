/* Methods whose calls wait long, and the others beside them. */
#include "tests/unit/rpc_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "grpc/health/v1/health.pb-c.h"

#define STUCK_MAX 96
#define STUCK_CALLS 110 /* more than may run */

static struct rpc_health *health;
static atomic_int running, most, served;
static atomic_bool let_go;

static void stuck(struct rpc_call *call, void *arg)
{
	int64_t end_ms = clock_deadline_ms(20000);
	int now = atomic_fetch_add(&running, 1) + 1, seen = atomic_load(&most);

	(void)arg;
	while (now > seen && !atomic_compare_exchange_weak(&most, &seen, now))
		;
	while (!atomic_load(&let_go) && !rpc_call_cancelled(call) && !clock_passed(end_ms))
		usleep(2000);
	atomic_fetch_sub(&running, 1);
	atomic_fetch_add(&served, 1);
	fixture_increment(call, NULL);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	atomic_store(&running, 0);
	atomic_store(&most, 0);
	atomic_store(&served, 0);
	atomic_store(&let_go, false);
	fixture_new_server(f, 2, FIXTURE_TOKEN);
	rpc_server_add_bounded(f->server, "/t.T/Stuck", stuck, NULL, STUCK_MAX);
	rpc_server_add(f->server, "/t.T/Increment", fixture_increment, NULL);
	assert_int_equal(rpc_health_new(f->server, &health, NULL), 0);
	fixture_start(f, true);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	rpc_server_stop(f->server, 100);
	rpc_health_free(health);
	fixture_stop(f);
	free(f);
	return 0;
}

static void open_stuck(struct fixture *f, struct rpc_stream **streams, int n, int64_t timeout_ms)
{
	Granary__V1__CachedRequest req = GRANARY__V1__CACHED_REQUEST__INIT;

	for (int i = 0; i < n; i++) {
		req.dataset_id = (uint64_t)i;
		assert_int_equal(rpc_stream_open(f->channel, "/t.T/Stuck", &req.base,
					 clock_deadline_ms(timeout_ms), &streams[i], NULL),
			0);
	}
}

static void await_running(int n)
{
	int64_t end_ms = clock_deadline_ms(10000);

	while (atomic_load(&running) < n && !clock_passed(end_ms))
		usleep(1000);
	assert_int_equal(atomic_load(&running), n);
}

/* The reply's value, or a negative errno. */
static int finish(struct rpc_stream *st)
{
	struct rpc_message *m;
	int r = rpc_stream_next(st, &m, NULL);

	if (r == 0) {
		Granary__V1__CachedReply *reply = (Granary__V1__CachedReply *)rpc_message_unpack(
			m, &granary__v1__cached_reply__descriptor);

		assert_non_null(reply);
		r = (int)reply->cached_bytes;
		protobuf_c_message_free_unpacked(&reply->base, NULL);
		rpc_message_free(m);
	}
	rpc_stream_close(st);
	return r;
}

static void others_answer_while_all_bounded_calls_hang(void **state)
{
	struct fixture *f = *state;
	Grpc__Health__V1__HealthCheckRequest req = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
	struct rpc_stream *streams[STUCK_CALLS];
	ProtobufCMessage *reply;
	uint64_t value;
	int64_t begun_ms;

	open_stuck(f, streams, STUCK_CALLS, 30000);
	await_running(STUCK_MAX);
	begun_ms = clock_mono_ms();
	for (uint64_t i = 0; i < 50; i++) {
		assert_int_equal(
			fixture_call(f->channel, "/t.T/Increment", i, 5000, &value, NULL), 0);
		assert_int_equal(value, i + 1);
	}
	assert_int_equal(rpc_unary(f->channel, "/grpc.health.v1.Health/Check", &req.base,
				 &grpc__health__v1__health_check_response__descriptor, &reply,
				 clock_deadline_ms(5000), NULL),
		0);
	protobuf_c_message_free_unpacked(reply, NULL);
	assert_true(clock_mono_ms() - begun_ms < 3000);
	/* Those that wait have their turn, and no more ever ran than may. */
	atomic_store(&let_go, true);
	for (int i = 0; i < STUCK_CALLS; i++)
		assert_int_equal(finish(streams[i]), i + 1);
	assert_int_equal(atomic_load(&served), STUCK_CALLS);
	assert_int_equal(atomic_load(&most), STUCK_MAX);
}

static void a_waiting_call_ends_at_its_own_deadline(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *streams[STUCK_MAX];
	int64_t begun_ms;

	open_stuck(f, streams, STUCK_MAX, 30000);
	await_running(STUCK_MAX);
	begun_ms = clock_mono_ms();
	assert_int_equal(fixture_call(f->channel, "/t.T/Stuck", 7, 200, NULL, NULL), -ETIMEDOUT);
	assert_true(clock_mono_ms() - begun_ms < 3000);
	usleep(500000); /* the server's clock for it runs out a moment later */
	atomic_store(&let_go, true);
	for (int i = 0; i < STUCK_MAX; i++)
		assert_int_equal(finish(streams[i]), i + 1);
	/* Nobody ran it, neither then nor when its turn came. */
	assert_int_equal(fixture_call(f->channel, "/t.T/Stuck", 1, 5000, NULL, NULL), 0);
	assert_int_equal(atomic_load(&served), STUCK_MAX + 1);
}

static void a_bounded_call_wants_the_token_as_well(void **state)
{
	struct fixture *f = *state;
	struct rpc_channel *ch;
	uint64_t value;

	atomic_store(&let_go, true);
	assert_int_equal(rpc_channel_new(f->tcp_address, NULL, &ch, NULL), 0);
	assert_int_equal(fixture_call(ch, "/t.T/Stuck", 1, 5000, NULL, NULL), -EACCES);
	rpc_channel_free(ch);
	assert_int_equal(rpc_channel_new(f->tcp_address, FIXTURE_TOKEN, &ch, NULL), 0);
	assert_int_equal(fixture_call(ch, "/t.T/Stuck", 1, 5000, &value, NULL), 0);
	assert_int_equal(value, 2);
	rpc_channel_free(ch);
}

static void a_stop_ends_the_running_and_the_waiting(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *streams[STUCK_CALLS];
	int64_t begun_ms;

	open_stuck(f, streams, STUCK_CALLS, 30000);
	await_running(STUCK_MAX);
	begun_ms = clock_mono_ms();
	rpc_server_stop(f->server, 100);
	assert_true(clock_mono_ms() - begun_ms < 5000);
	for (int i = 0; i < STUCK_CALLS; i++)
		assert_true(finish(streams[i]) < 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(others_answer_while_all_bounded_calls_hang),
		TEST(a_waiting_call_ends_at_its_own_deadline),
		TEST(a_bounded_call_wants_the_token_as_well),
		TEST(a_stop_ends_the_running_and_the_waiting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
