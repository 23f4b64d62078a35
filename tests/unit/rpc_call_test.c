#include "tests/unit/rpc_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/metrics.h"
#include "granary/v1/dataset.pb-c.h"

static atomic_int handled;
static atomic_int left_by_cancel;
static atomic_llong seen_deadline_ms;
static atomic_bool seen_local;

/* Fails with the errno that the request names. */
static void fail_as_asked(struct rpc_call *call, void *arg)
{
	const Granary__V1__CachedRequest *req =
		(const Granary__V1__CachedRequest *)rpc_call_request(
			call, &granary__v1__cached_request__descriptor);

	(void)arg;
	if (req)
		rpc_call_fail(call, -(int)req->dataset_id, "asked for \xc3\xa9 and\n100%");
}

static void note(struct rpc_call *call, void *arg)
{
	(void)arg;
	atomic_fetch_add(&handled, 1);
	atomic_store(&seen_deadline_ms, rpc_call_deadline_ms(call));
	atomic_store(&seen_local, rpc_call_is_local(call));
	fixture_increment(call, NULL);
}

/* Works on until the client is gone, for 20 s at most. */
static void wait_for_cancel(struct rpc_call *call, void *arg)
{
	int64_t end_ms = clock_deadline_ms(20000);

	(void)arg;
	atomic_fetch_add(&handled, 1);
	while (!rpc_call_cancelled(call) && !clock_passed(end_ms))
		usleep(2000);
	if (rpc_call_cancelled(call))
		atomic_fetch_add(&left_by_cancel, 1);
	/* The server's clock may pass the deadline a moment before the client's does. */
	if (clock_passed(rpc_call_deadline_ms(call)))
		rpc_call_fail(call, -ETIMEDOUT, "too late");
	else
		fixture_reply(call, 0);
}

static void sleep_a_little(struct rpc_call *call, void *arg)
{
	(void)arg;
	atomic_fetch_add(&handled, 1);
	usleep(300000);
	fixture_reply(call, 7);
}

static void want_name(struct rpc_call *call, void *arg)
{
	(void)arg;
	if (rpc_call_request(call, &granary__v1__get_dataset_request__descriptor)) {
		atomic_fetch_add(&handled, 1);
		fixture_reply(call, 0);
	}
}

static void reply_hugely(struct rpc_call *call, void *arg)
{
	Granary__V1__ReadBlockChunk chunk = GRANARY__V1__READ_BLOCK_CHUNK__INIT;

	(void)arg;
	chunk.data.len = RPC_MESSAGE_MAX_BYTES + 1;
	chunk.data.data = calloc(1, chunk.data.len);
	assert_non_null(chunk.data.data);
	rpc_call_reply(call, &chunk.base);
	free(chunk.data.data);
}

static void measure(struct rpc_call *call, void *arg)
{
	const Granary__V1__ReadBlockChunk *req =
		(const Granary__V1__ReadBlockChunk *)rpc_call_request(
			call, &granary__v1__read_block_chunk__descriptor);

	(void)arg;
	if (req)
		fixture_reply(call, req->data.len);
}

static void forget_to_reply(struct rpc_call *call, void *arg)
{
	(void)call;
	(void)arg;
}

static int setup_sized(void **state, unsigned threads)
{
	struct fixture *f = calloc(1, sizeof(*f));

	atomic_store(&handled, 0);
	atomic_store(&left_by_cancel, 0);
	fixture_new_server(f, threads, FIXTURE_TOKEN);
	rpc_server_add(f->server, "/t.T/Note", note, NULL);
	rpc_server_add(f->server, "/t.T/Fail", fail_as_asked, NULL);
	rpc_server_add(f->server, "/t.T/Counted", fail_as_asked, NULL);
	rpc_server_add(f->server, "/t.T/Chunk", measure, NULL);
	rpc_server_add(f->server, "/t.T/Wait", wait_for_cancel, NULL);
	rpc_server_add(f->server, "/t.T/Sleep", sleep_a_little, NULL);
	rpc_server_add(f->server, "/t.T/Name", want_name, NULL);
	rpc_server_add(f->server, "/t.T/Huge", reply_hugely, NULL);
	rpc_server_add(f->server, "/t.T/Forget", forget_to_reply, NULL);
	fixture_start(f, true);
	*state = f;
	return 0;
}

static int setup(void **state)
{
	return setup_sized(state, 0);
}

static int setup_one_thread(void **state)
{
	return setup_sized(state, 1);
}

static int teardown(void **state)
{
	fixture_stop(*state);
	free(*state);
	return 0;
}

static void a_call_brings_its_reply_and_its_deadline(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_INIT;
	uint64_t value = 0;
	int64_t before_ms = clock_mono_ms();

	assert_int_equal(fixture_call(f->channel, "/t.T/Note", 41, 5000, &value, &err), 0);
	assert_int_equal(value, 42);
	assert_in_range(atomic_load(&seen_deadline_ms), before_ms + 4000, before_ms + 6000);
	assert_true(atomic_load(&seen_local));
}

static void errors_cross_with_errno_and_text(void **state)
{
	static const int same[] = {ENOENT, EEXIST, EINVAL, EACCES, EPERM, ETIMEDOUT, ECANCELED,
		ENOSPC, ESTALE, EOPNOTSUPP, EAGAIN, EIO};
	static const struct {
		int sent, got;
	} mapped[] = {
		{ENOMEM, ENOSPC}, {EBUSY, ESTALE}, {ERANGE, EINVAL}, {ENXIO, EIO}, {EPROTO, EIO}};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
		struct error err = ERROR_INIT;

		assert_int_equal(
			fixture_call(f->channel, "/t.T/Fail", (uint64_t)same[i], 5000, NULL, &err),
			-same[i]);
		if (same[i] != ETIMEDOUT)
			assert_non_null(strstr(err.text, "asked for \xc3\xa9 and\n100%"));
	}
	for (size_t i = 0; i < sizeof(mapped) / sizeof(mapped[0]); i++)
		assert_int_equal(fixture_call(f->channel, "/t.T/Fail", (uint64_t)mapped[i].sent,
					 5000, NULL, NULL),
			-mapped[i].got);
}

static void an_unknown_method_is_refused_at_once(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_INIT;
	int64_t before_ms = clock_mono_ms();

	assert_int_equal(
		fixture_call(f->channel, "/t.T/Nothing", 1, 20000, NULL, &err), -EOPNOTSUPP);
	assert_true(clock_mono_ms() - before_ms < 5000);
	assert_string_not_equal(err.text, "");
}

static void a_malformed_request_never_reaches_the_handlers_work(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_INIT;

	/* A number where the method wants a string. */
	assert_int_equal(fixture_call(f->channel, "/t.T/Name", 77, 5000, NULL, &err), -EINVAL);
	assert_non_null(strstr(err.text, "malformed"));
	assert_int_equal(atomic_load(&handled), 0);
}

static void an_oversized_request_is_refused_by_both_sides(void **state)
{
	Granary__V1__ReadBlockChunk big = GRANARY__V1__READ_BLOCK_CHUNK__INIT;
	struct fixture *f = *state;
	struct error err = ERROR_INIT;
	ProtobufCMessage *reply;

	big.data.len = RPC_MESSAGE_MAX_BYTES + 1;
	big.data.data = calloc(1, big.data.len);
	assert_non_null(big.data.data);
	assert_int_equal(rpc_unary(f->channel, "/t.T/Name", &big.base,
				 &granary__v1__cached_reply__descriptor, &reply,
				 clock_deadline_ms(5000), &err),
		-EMSGSIZE);
	free(big.data.data);
	assert_int_equal(fixture_call(f->channel, "/t.T/Huge", 0, 5000, NULL, &err), -ENOSPC);
	/* The connection lives on. */
	assert_int_equal(fixture_call(f->channel, "/t.T/Note", 1, 5000, NULL, &err), 0);
}

static void a_forgotten_reply_becomes_an_error(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(fixture_call(f->channel, "/t.T/Forget", 0, 5000, NULL, NULL), -EIO);
}

static void a_call_ends_at_its_deadline_and_the_handler_learns_of_it(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_INIT;
	int64_t before_ms = clock_mono_ms();
	int64_t end_ms;

	assert_int_equal(fixture_call(f->channel, "/t.T/Wait", 0, 200, NULL, &err), -ETIMEDOUT);
	assert_in_range(clock_mono_ms() - before_ms, 190, 5000);
	end_ms = clock_deadline_ms(5000);
	while (atomic_load(&left_by_cancel) == 0 && !clock_passed(end_ms))
		usleep(1000);
	assert_int_equal(atomic_load(&left_by_cancel), 1);
}

static void a_deadline_in_the_past_fails_at_once(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_INIT;

	assert_int_equal(fixture_call(f->channel, "/t.T/Note", 0, -1000, NULL, &err), -ETIMEDOUT);
	assert_int_equal(atomic_load(&handled), 0);
}

/* With every handler thread busy a call waits for its turn, or for its deadline. */
static void calls_beyond_the_threads_wait_their_turn(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_INIT;
	struct rpc_stream *busy;
	Granary__V1__CachedRequest req = GRANARY__V1__CACHED_REQUEST__INIT;
	uint64_t value = 0;

	assert_int_equal(rpc_stream_open(f->channel, "/t.T/Sleep", &req.base,
				 clock_deadline_ms(5000), &busy, &err),
		0);
	while (atomic_load(&handled) == 0)
		usleep(1000);
	assert_int_equal(fixture_call(f->channel, "/t.T/Note", 1, 50, NULL, &err), -ETIMEDOUT);
	assert_int_equal(fixture_call(f->channel, "/t.T/Note", 1, 5000, &value, &err), 0);
	assert_int_equal(value, 2);
	rpc_stream_close(busy);
}

struct caller {
	pthread_t thread;
	struct rpc_channel *channel;
	unsigned number;
	int wrong;
};

static void *call_often(void *arg)
{
	struct caller *c = arg;

	for (unsigned i = 0; i < 50; i++) {
		uint64_t value = 0, sent = c->number * 1000 + i;

		if (fixture_call(c->channel, "/t.T/Note", sent, 30000, &value, NULL) != 0 ||
			value != sent + 1)
			c->wrong++;
	}
	return NULL;
}

static void sixty_four_callers_get_their_own_replies(void **state)
{
	static struct caller callers[64];
	struct fixture *f = *state;
	struct rpc_channel *tcp;
	struct error err = ERROR_INIT;

	assert_int_equal(rpc_channel_new(f->tcp_address, FIXTURE_TOKEN, &tcp, &err), 0);
	for (unsigned i = 0; i < 64; i++) {
		callers[i] = (struct caller){.channel = i % 2 ? tcp : f->channel, .number = i};
		assert_int_equal(
			pthread_create(&callers[i].thread, NULL, call_often, &callers[i]), 0);
	}
	for (unsigned i = 0; i < 64; i++) {
		pthread_join(callers[i].thread, NULL);
		assert_int_equal(callers[i].wrong, 0);
	}
	rpc_channel_free(tcp);
	assert_int_equal(atomic_load(&handled), 64 * 50);
}

static void tcp_calls_need_the_right_token(void **state)
{
	static const char *const wrong[] = {NULL, "wrong", "correct horse battery stapl",
		"correct horse battery staplE", "correct horse battery staple "};
	struct fixture *f = *state;
	struct error err = ERROR_INIT;
	struct rpc_channel *ch;
	uint64_t value = 0;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_int_equal(rpc_channel_new(f->tcp_address, wrong[i], &ch, &err), 0);
		assert_int_equal(fixture_call(ch, "/t.T/Note", 1, 5000, NULL, &err), -EACCES);
		assert_null(strstr(err.text, FIXTURE_TOKEN));
		/* What exists there is nobody's business either. */
		assert_int_equal(fixture_call(ch, "/t.T/Nothing", 1, 5000, NULL, &err), -EACCES);
		rpc_channel_free(ch);
	}
	assert_int_equal(atomic_load(&handled), 0);
	assert_int_equal(rpc_channel_new(f->tcp_address, FIXTURE_TOKEN, &ch, &err), 0);
	assert_int_equal(fixture_call(ch, "/t.T/Note", 1, 5000, &value, &err), 0);
	assert_int_equal(value, 2);
	assert_false(atomic_load(&seen_local));
	rpc_channel_free(ch);
}

static void a_token_that_cannot_be_sent_is_refused(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_INIT;
	struct rpc_channel *ch;

	assert_int_equal(rpc_channel_new(f->tcp_address, "a\nb", &ch, &err), -EINVAL);
	assert_non_null(strstr(err.text, "token"));
}

static void bytes_that_are_no_grpc_do_not_hurt_the_server(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	unsigned seed = 1;
	char noise[4096];

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", f->address + 5);
	for (int round = 0; round < 20; round++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		for (size_t i = 0; i < sizeof(noise); i++)
			noise[i] = (char)rand_r(&seed);
		/* Half of them get past the preface of HTTP/2. */
		if (round % 2)
			memcpy(noise, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
		assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
		(void)!send(fd, noise, sizeof(noise), MSG_NOSIGNAL);
		close(fd);
	}
	assert_int_equal(fixture_call(f->channel, "/t.T/Note", 1, 5000, NULL, NULL), 0);
}

static void an_absent_server_is_reported_at_once(void **state)
{
	struct rpc_channel *ch;
	struct error err = ERROR_INIT;
	int64_t before_ms = clock_mono_ms();

	(void)state;
	assert_int_equal(rpc_channel_new("unix:/tmp/rpc-test-nobody/socket", NULL, &ch, &err), 0);
	assert_int_equal(fixture_call(ch, "/t.T/Note", 1, 20000, NULL, &err), -EAGAIN);
	assert_non_null(strstr(err.text, "unix:/tmp/rpc-test-nobody/socket"));
	rpc_channel_free(ch);
	assert_int_equal(rpc_channel_new("127.0.0.1:1", NULL, &ch, &err), 0);
	assert_int_equal(fixture_call(ch, "/t.T/Note", 1, 20000, NULL, &err), -EAGAIN);
	rpc_channel_free(ch);
	assert_true(clock_mono_ms() - before_ms < 5000);
}

static void restart(struct fixture *f)
{
	struct rpc_server_options opts = {.threads = 2};
	struct error err = ERROR_INIT;

	rpc_server_stop(f->server, 0);
	rpc_server_free(f->server);
	assert_int_equal(rpc_server_new(&opts, &f->server, &err), 0);
	rpc_server_add(f->server, "/t.T/Note", note, NULL);
	assert_int_equal(rpc_server_listen(f->server, f->address, NULL, &err), 0);
	assert_int_equal(rpc_server_start(f->server, &err), 0);
}

static void a_channel_finds_the_restarted_server(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_INIT;
	int64_t end_ms;
	int r;

	assert_int_equal(fixture_call(f->channel, "/t.T/Note", 1, 5000, NULL, &err), 0);
	restart(f);
	end_ms = clock_deadline_ms(5000);
	do
		r = fixture_call(f->channel, "/t.T/Note", 1, 1000, NULL, &err);
	while (r == -EAGAIN && !clock_passed(end_ms));
	assert_int_equal(r, 0);
}

static void *call_wait(void *arg)
{
	struct caller *c = arg;

	c->wrong = fixture_call(c->channel, "/t.T/Wait", 0, 60000, NULL, NULL);
	return NULL;
}

static void stopping_cancels_the_calls_that_outlast_the_grace(void **state)
{
	struct fixture *f = *state;
	struct caller callers[3];
	int64_t before_ms;

	for (int i = 0; i < 3; i++) {
		callers[i] = (struct caller){.channel = f->channel};
		assert_int_equal(
			pthread_create(&callers[i].thread, NULL, call_wait, &callers[i]), 0);
	}
	while (atomic_load(&handled) < 3)
		usleep(1000);
	before_ms = clock_mono_ms();
	rpc_server_stop(f->server, 100);
	assert_in_range(clock_mono_ms() - before_ms, 90, 8000);
	for (int i = 0; i < 3; i++) {
		pthread_join(callers[i].thread, NULL);
		assert_true(callers[i].wrong == -EAGAIN || callers[i].wrong == -ECANCELED);
	}
	assert_int_equal(atomic_load(&left_by_cancel), 3);
	assert_int_equal(fixture_call(f->channel, "/t.T/Note", 1, 2000, NULL, NULL), -EAGAIN);
}

static void *call_sleep(void *arg)
{
	struct caller *c = arg;

	c->wrong = fixture_call(c->channel, "/t.T/Sleep", 0, 60000, NULL, NULL);
	return NULL;
}

static void stopping_lets_calls_finish_within_the_grace(void **state)
{
	struct fixture *f = *state;
	struct caller c = {.channel = f->channel};

	assert_int_equal(pthread_create(&c.thread, NULL, call_sleep, &c), 0);
	while (atomic_load(&handled) == 0)
		usleep(1000);
	rpc_server_stop(f->server, 10000);
	pthread_join(c.thread, NULL);
	assert_int_equal(c.wrong, 0);
}

static unsigned entries(const char *dir)
{
	DIR *d = opendir(dir);
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void come_and_go(unsigned rounds)
{
	for (unsigned i = 0; i < rounds; i++) {
		struct fixture f = {.dir = ""};

		fixture_new_server(&f, 2, FIXTURE_TOKEN);
		rpc_server_add(f.server, "/t.T/Note", note, NULL);
		fixture_start(&f, true);
		assert_int_equal(fixture_call(f.channel, "/t.T/Note", 1, 5000, NULL, NULL), 0);
		fixture_stop(&f);
	}
}

static void servers_and_channels_leave_nothing_behind(void **state)
{
	unsigned fds, threads;
	int64_t end_ms;

	(void)state;
	come_and_go(3);
	fds = entries("/proc/self/fd");
	threads = entries("/proc/self/task");
	come_and_go(40);
	/* The library closes and joins some of it a moment later, and its own pool breathes. */
	end_ms = clock_deadline_ms(5000);
	while ((entries("/proc/self/fd") > fds + 2 || entries("/proc/self/task") > threads + 4) &&
		!clock_passed(end_ms))
		usleep(10000);
	assert_true(entries("/proc/self/fd") <= fds + 2);
	assert_true(entries("/proc/self/task") <= threads + 4);
}

/* As in `granary up`, where master, worker and mount are one process. */
static void call_on(struct rpc_call *call, void *arg)
{
	struct fixture *inner = arg;
	uint64_t value = 0;
	int r = fixture_call(inner->channel, "/t.T/Note", 1, 20000, &value, NULL);

	if (r < 0)
		rpc_call_fail(call, r, "the inner call failed");
	else
		fixture_reply(call, value);
}

static void *call_outer(void *arg)
{
	struct caller *c = arg;

	for (int i = 0; i < 50; i++)
		if (fixture_call(c->channel, "/t.T/On", 1, 30000, NULL, NULL) != 0)
			c->wrong++;
	return NULL;
}

static void handlers_may_call_another_server_of_the_process(void **state)
{
	struct fixture *inner = *state;
	struct fixture outer = {.dir = ""};
	struct caller callers[8];

	fixture_new_server(&outer, 2, NULL);
	rpc_server_add(outer.server, "/t.T/On", call_on, inner);
	fixture_start(&outer, false);
	for (int i = 0; i < 8; i++) {
		callers[i] = (struct caller){.channel = outer.channel};
		assert_int_equal(
			pthread_create(&callers[i].thread, NULL, call_outer, &callers[i]), 0);
	}
	for (int i = 0; i < 8; i++) {
		pthread_join(callers[i].thread, NULL);
		assert_int_equal(callers[i].wrong, 0);
	}
	fixture_stop(&outer);
	assert_int_equal(atomic_load(&handled), 400);
}

static void a_large_request_arrives_whole(void **state)
{
	Granary__V1__ReadBlockChunk big = GRANARY__V1__READ_BLOCK_CHUNK__INIT;
	struct fixture *f = *state;
	ProtobufCMessage *reply;

	big.data.len = RPC_MESSAGE_MAX_BYTES - 100;
	big.data.data = calloc(1, big.data.len);
	assert_non_null(big.data.data);
	assert_int_equal(rpc_unary(f->channel, "/t.T/Chunk", &big.base,
				 &granary__v1__cached_reply__descriptor, &reply,
				 clock_deadline_ms(20000), NULL),
		0);
	assert_int_equal(((Granary__V1__CachedReply *)reply)->cached_bytes, big.data.len);
	protobuf_c_message_free_unpacked(reply, NULL);
	free(big.data.data);
}

static void a_peer_that_never_answers_costs_no_more_than_the_deadline(void **state)
{
	struct rpc_channel *ch;
	int64_t before_ms = clock_mono_ms();
	int r;

	(void)state;
	/* An address of documentation: dropped by the network, or refused for want of a route. */
	assert_int_equal(rpc_channel_new("192.0.2.1:7070", NULL, &ch, NULL), 0);
	r = fixture_call(ch, "/t.T/Note", 1, 500, NULL, NULL);
	assert_true(r == -ETIMEDOUT || r == -EAGAIN);
	assert_true(clock_mono_ms() - before_ms < 3000);
	rpc_channel_free(ch);
}

static void calls_are_counted_by_method_and_status(void **state)
{
	struct fixture *f = *state;
	struct buf page = BUF_INIT;

	fixture_call(f->channel, "/t.T/Counted", ENOENT, 5000, NULL, NULL);
	fixture_call(f->channel, "/t.T/Counted", EPERM, 5000, NULL, NULL);
	fixture_call(f->channel, "/t.T/Nothing", 1, 5000, NULL, NULL);
	rpc_server_stop(f->server, 1000);
	assert_int_equal(metrics_render(&page), 0);
	assert_non_null(strstr(page.data, "granary_rpc_server_calls_total{method=\"/t.T/Counted\","
					  "status=\"NOT_FOUND\"} 1\n"));
	assert_non_null(strstr(page.data, "granary_rpc_server_calls_total{method=\"/t.T/Counted\","
					  "status=\"PERMISSION_DENIED\"} 1\n"));
	assert_non_null(strstr(page.data, "{method=\"unknown\",status=\"UNIMPLEMENTED\"}"));
	assert_non_null(
		strstr(page.data, "granary_rpc_server_seconds_count{method=\"/t.T/Counted\"} 2\n"));
	assert_null(strstr(page.data, "Nothing"));
	buf_deinit(&page);
}

#define with_server(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_server(a_call_brings_its_reply_and_its_deadline),
		with_server(errors_cross_with_errno_and_text),
		with_server(an_unknown_method_is_refused_at_once),
		with_server(a_malformed_request_never_reaches_the_handlers_work),
		with_server(an_oversized_request_is_refused_by_both_sides),
		with_server(a_forgotten_reply_becomes_an_error),
		with_server(a_call_ends_at_its_deadline_and_the_handler_learns_of_it),
		with_server(a_deadline_in_the_past_fails_at_once),
		cmocka_unit_test_setup_teardown(
			calls_beyond_the_threads_wait_their_turn, setup_one_thread, teardown),
		with_server(sixty_four_callers_get_their_own_replies),
		with_server(tcp_calls_need_the_right_token),
		with_server(a_token_that_cannot_be_sent_is_refused),
		with_server(bytes_that_are_no_grpc_do_not_hurt_the_server),
		cmocka_unit_test(an_absent_server_is_reported_at_once),
		with_server(a_channel_finds_the_restarted_server),
		with_server(stopping_cancels_the_calls_that_outlast_the_grace),
		with_server(stopping_lets_calls_finish_within_the_grace),
		cmocka_unit_test(servers_and_channels_leave_nothing_behind),
		with_server(handlers_may_call_another_server_of_the_process),
		with_server(a_large_request_arrives_whole),
		cmocka_unit_test(a_peer_that_never_answers_costs_no_more_than_the_deadline),
		with_server(calls_are_counted_by_method_and_status),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
