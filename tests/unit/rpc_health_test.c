#include "tests/unit/rpc_fixture.h"

#include <errno.h>
#include <stdatomic.h>

#include "grpc/health/v1/health.pb-c.h"

#define SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define NOT_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define SERVICE_UNKNOWN GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

static struct rpc_health *health;
static atomic_int waiting;
static atomic_bool let_go;

static void wait(struct rpc_call *call, void *arg)
{
	int64_t end_ms = clock_deadline_ms(10000);

	(void)arg;
	atomic_fetch_add(&waiting, 1);
	while (!atomic_load(&let_go) && !rpc_call_cancelled(call) && !clock_passed(end_ms))
		usleep(1000);
	fixture_reply(call, 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	atomic_store(&waiting, 0);
	atomic_store(&let_go, false);
	fixture_new_server(f, 2, FIXTURE_TOKEN);
	rpc_server_add(f->server, "/t.T/Wait", wait, NULL);
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

/* The status, or a negative errno. */
static int check(struct rpc_channel *ch, const char *service)
{
	Grpc__Health__V1__HealthCheckRequest req = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
	ProtobufCMessage *reply;
	int r;

	req.service = (char *)service;
	r = rpc_unary(ch, "/grpc.health.v1.Health/Check", &req.base,
		&grpc__health__v1__health_check_response__descriptor, &reply,
		clock_deadline_ms(10000), NULL);
	if (r == 0) {
		r = (int)((Grpc__Health__V1__HealthCheckResponse *)reply)->status;
		protobuf_c_message_free_unpacked(reply, NULL);
	}
	return r;
}

static struct rpc_stream *watch(struct fixture *f, const char *service)
{
	Grpc__Health__V1__HealthCheckRequest req = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
	struct rpc_stream *st;

	req.service = (char *)service;
	assert_int_equal(rpc_stream_open(f->channel, "/grpc.health.v1.Health/Watch", &req.base,
				 clock_deadline_ms(30000), &st, NULL),
		0);
	return st;
}

static int next_status(struct rpc_stream *st)
{
	Grpc__Health__V1__HealthCheckResponse *reply;
	struct rpc_message *m;
	int r = rpc_stream_next(st, &m, NULL);

	if (r != 0)
		return r == RPC_STREAM_END ? -EPIPE : r;
	reply = (Grpc__Health__V1__HealthCheckResponse *)rpc_message_unpack(
		m, &grpc__health__v1__health_check_response__descriptor);
	assert_non_null(reply);
	r = (int)reply->status;
	protobuf_c_message_free_unpacked(&reply->base, NULL);
	rpc_message_free(m);
	return r;
}

static void a_check_tells_what_was_set(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(check(f->channel, ""), NOT_SERVING);
	assert_int_equal(check(f->channel, "granary.v1.BlockService"), -ENOENT);
	rpc_health_set(health, "", true);
	rpc_health_set(health, "granary.v1.BlockService", true);
	assert_int_equal(check(f->channel, ""), SERVING);
	assert_int_equal(check(f->channel, "granary.v1.BlockService"), SERVING);
	rpc_health_set(health, "", false);
	assert_int_equal(check(f->channel, ""), NOT_SERVING);
	assert_int_equal(check(f->channel, "granary.v1.BlockService"), SERVING);
}

static void a_check_over_tcp_needs_the_token(void **state)
{
	struct fixture *f = *state;
	struct rpc_channel *ch;

	assert_int_equal(rpc_channel_new(f->tcp_address, NULL, &ch, NULL), 0);
	assert_int_equal(check(ch, ""), -EACCES);
	rpc_channel_free(ch);
	assert_int_equal(rpc_channel_new(f->tcp_address, FIXTURE_TOKEN, &ch, NULL), 0);
	assert_int_equal(check(ch, ""), NOT_SERVING);
	rpc_channel_free(ch);
}

static void a_check_answers_while_every_handler_is_busy(void **state)
{
	struct fixture *f = *state;
	Granary__V1__CachedRequest req = GRANARY__V1__CACHED_REQUEST__INIT;
	struct rpc_stream *busy[2];

	for (int i = 0; i < 2; i++)
		assert_int_equal(rpc_stream_open(f->channel, "/t.T/Wait", &req.base,
					 clock_deadline_ms(20000), &busy[i], NULL),
			0);
	while (atomic_load(&waiting) < 2)
		usleep(1000);
	assert_int_equal(check(f->channel, ""), NOT_SERVING);
	atomic_store(&let_go, true);
	for (int i = 0; i < 2; i++)
		rpc_stream_close(busy[i]);
}

static void a_watcher_sees_each_change_and_the_end(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *all = watch(f, ""), *one = watch(f, "x.Y");

	assert_int_equal(next_status(all), NOT_SERVING);
	assert_int_equal(next_status(one), SERVICE_UNKNOWN);
	rpc_health_set(health, "", true);
	rpc_health_set(health, "", true);
	rpc_health_set(health, "x.Y", true);
	assert_int_equal(next_status(all), SERVING);
	assert_int_equal(next_status(one), SERVING);
	rpc_health_set(health, "", false);
	assert_int_equal(next_status(all), NOT_SERVING);
	rpc_server_stop(f->server, 1000);
	assert_int_equal(next_status(one), NOT_SERVING);
	assert_int_equal(next_status(all), -EAGAIN);
	assert_int_equal(next_status(one), -EAGAIN);
	rpc_stream_close(all);
	rpc_stream_close(one);
}

/* Watchers hold no thread, and those that left make room. */
static void watchers_come_and_go(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *st[64], *more;

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 64; i++) {
			st[i] = watch(f, "");
			assert_int_equal(next_status(st[i]), NOT_SERVING);
		}
		more = watch(f, "");
		assert_int_equal(next_status(more), -ENOSPC);
		rpc_stream_close(more);
		assert_int_equal(check(f->channel, ""), NOT_SERVING);
		for (int i = 0; i < 64; i++)
			rpc_stream_close(st[i]);
		/* The server hears of it a moment later. */
		usleep(100000);
	}
}

#define with_server(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_server(a_check_tells_what_was_set),
		with_server(a_check_over_tcp_needs_the_token),
		with_server(a_check_answers_while_every_handler_is_busy),
		with_server(a_watcher_sees_each_change_and_the_end),
		with_server(watchers_come_and_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
