#include "tests/unit/rpc_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#define CHUNK_BYTES (1u << 20)

static char *chunk; /* CHUNK_BYTES of a pattern */
static atomic_int lent, released, handlers_done;
static atomic_int send_result;

static void release(void *arg)
{
	assert_ptr_equal(arg, &lent);
	atomic_fetch_add(&released, 1);
}

static int send_chunk(struct rpc_call *call, unsigned len, bool and_end)
{
	Granary__V1__ReadBlockChunk head = GRANARY__V1__READ_BLOCK_CHUNK__INIT;

	head.source = GRANARY__V1__READ_BLOCK_CHUNK__SOURCE__SOURCE_ORIGIN;
	atomic_fetch_add(&lent, 1);
	return (and_end ? rpc_call_end_bytes : rpc_call_send_bytes)(
		call, &head.base, 2, chunk, len, release, &lent);
}

/* Sends req.block chunks of req.len bytes; `arg`: the call ends with the last of them. */
static void read_block(struct rpc_call *call, void *arg)
{
	const Granary__V1__ReadBlockRequest *req =
		(const Granary__V1__ReadBlockRequest *)rpc_call_request(
			call, &granary__v1__read_block_request__descriptor);
	bool to_end = arg != NULL;
	int r = 0;

	if (!req)
		return;
	for (uint64_t i = to_end; r == 0 && i < req->block; i++)
		r = send_chunk(call, req->len, false);
	if (to_end)
		r = send_chunk(call, req->len, true);
	atomic_store(&send_result, r);
	if (!to_end)
		rpc_call_end(call);
	atomic_fetch_add(&handlers_done, 1);
}

/* Sends the numbers 0..block-1, then fails if req.offset names an errno. */
static void count(struct rpc_call *call, void *arg)
{
	const Granary__V1__ReadBlockRequest *req =
		(const Granary__V1__ReadBlockRequest *)rpc_call_request(
			call, &granary__v1__read_block_request__descriptor);
	Granary__V1__CachedReply reply = GRANARY__V1__CACHED_REPLY__INIT;

	(void)arg;
	if (!req)
		return;
	for (uint64_t i = 0; i < req->block; i++) {
		reply.cached_bytes = i;
		if (rpc_call_send(call, &reply.base) < 0)
			break;
	}
	if (req->offset)
		rpc_call_fail(call, -(int)req->offset, "after the last one");
	else
		rpc_call_end(call);
}

/* One message, then nothing until the client is gone. */
static void stall(struct rpc_call *call, void *arg)
{
	Granary__V1__CachedReply reply = GRANARY__V1__CACHED_REPLY__INIT;
	int64_t end_ms = clock_deadline_ms(20000);

	(void)arg;
	rpc_call_send(call, &reply.base);
	while (!rpc_call_cancelled(call) && !clock_passed(end_ms))
		usleep(2000);
	rpc_call_end(call);
	atomic_fetch_add(&handlers_done, 1);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	atomic_store(&lent, 0);
	atomic_store(&released, 0);
	atomic_store(&handlers_done, 0);
	fixture_new_server(f, 4, FIXTURE_TOKEN);
	rpc_server_add(f->server, "/t.T/Read", read_block, NULL);
	rpc_server_add(f->server, "/t.T/ReadToEnd", read_block, f);
	rpc_server_add(f->server, "/t.T/Count", count, NULL);
	rpc_server_add(f->server, "/t.T/Stall", stall, NULL);
	fixture_start(f, true);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	fixture_stop(*state);
	free(*state);
	/* Everything that was lent has come back, once, when the server is gone. */
	assert_int_equal(atomic_load(&released), atomic_load(&lent));
	return 0;
}

static struct rpc_stream *open_stream(struct rpc_channel *ch, const char *path, uint64_t block,
	uint32_t len, uint32_t offset, int64_t timeout_ms)
{
	Granary__V1__ReadBlockRequest req = GRANARY__V1__READ_BLOCK_REQUEST__INIT;
	struct error err = ERROR_INIT;
	struct rpc_stream *st;

	req.block = block;
	req.len = len;
	req.offset = offset;
	assert_int_equal(
		rpc_stream_open(ch, path, &req.base, clock_deadline_ms(timeout_ms), &st, &err), 0);
	return st;
}

static void await_count(atomic_int *counter, int wanted)
{
	int64_t end_ms = clock_deadline_ms(10000);

	while (atomic_load(counter) < wanted && !clock_passed(end_ms))
		usleep(1000);
	assert_int_equal(atomic_load(counter), wanted);
}

static void a_wait_says_whether_next_would_wait(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *st = open_stream(f->channel, "/t.T/Stall", 0, 0, 0, 20000);
	struct error err = ERROR_INIT;
	struct rpc_message *m;
	int64_t began_ms;

	assert_int_equal(rpc_stream_wait(st, clock_deadline_ms(10000)), 0);
	assert_int_equal(rpc_stream_wait(st, clock_mono_ms()), 0); /* still there */
	assert_int_equal(rpc_stream_next(st, &m, &err), 0);
	rpc_message_free(m);
	began_ms = clock_mono_ms();
	assert_int_equal(rpc_stream_wait(st, clock_deadline_ms(200)), -ETIMEDOUT);
	assert_in_range(clock_mono_ms() - began_ms, 150, 5000);
	began_ms = clock_mono_ms();
	assert_int_equal(rpc_stream_wait(st, began_ms), -ETIMEDOUT);
	assert_in_range(clock_mono_ms() - began_ms, 0, 5000);
	rpc_stream_cancel(st);
	assert_int_equal(rpc_stream_wait(st, clock_deadline_ms(10000)), 0);
	assert_int_equal(rpc_stream_next(st, &m, &err), -ECANCELED);
	rpc_stream_close(st);
}

static void messages_arrive_in_order_and_the_end_is_repeated(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *st = open_stream(f->channel, "/t.T/Count", 1000, 0, 0, 20000);
	struct error err = ERROR_INIT;
	struct rpc_message *m;

	for (uint64_t i = 0; i < 1000; i++) {
		Granary__V1__CachedReply *reply;

		assert_int_equal(rpc_stream_next(st, &m, &err), 0);
		reply = (Granary__V1__CachedReply *)rpc_message_unpack(
			m, &granary__v1__cached_reply__descriptor);
		assert_non_null(reply);
		assert_int_equal(reply->cached_bytes, i);
		protobuf_c_message_free_unpacked(&reply->base, NULL);
		rpc_message_free(m);
	}
	assert_int_equal(rpc_stream_next(st, &m, &err), RPC_STREAM_END);
	assert_int_equal(rpc_stream_next(st, &m, &err), RPC_STREAM_END);
	rpc_stream_close(st);
}

static void a_failure_comes_after_the_messages_before_it(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *st = open_stream(f->channel, "/t.T/Count", 3, 0, ESTALE, 20000);
	struct error err = ERROR_INIT;
	struct rpc_message *m;

	for (int i = 0; i < 3; i++) {
		assert_int_equal(rpc_stream_next(st, &m, &err), 0);
		rpc_message_free(m);
	}
	assert_int_equal(rpc_stream_next(st, &m, &err), -ESTALE);
	assert_string_equal(err.text, "after the last one");
	assert_int_equal(rpc_stream_next(st, &m, &err), -ESTALE);
	rpc_stream_close(st);
}

static void read_chunks(struct rpc_channel *ch, const char *path, unsigned chunks, unsigned len)
{
	struct rpc_stream *st = open_stream(ch, path, chunks, len, 0, 60000);
	char *dst = malloc(len + 1);
	struct error err = ERROR_INIT;
	struct rpc_message *m;
	unsigned got = 0;
	int r;

	while ((r = rpc_stream_next(st, &m, &err)) == 0) {
		ProtobufCMessage *head;
		size_t n = 0;

		memset(dst, 0, len + 1);
		assert_int_equal(rpc_message_bytes(m, 2, dst, len, &n,
					 &granary__v1__read_block_chunk__descriptor, &head),
			0);
		assert_int_equal(n, len);
		assert_memory_equal(dst, chunk, len);
		assert_int_equal(((Granary__V1__ReadBlockChunk *)head)->source,
			GRANARY__V1__READ_BLOCK_CHUNK__SOURCE__SOURCE_ORIGIN);
		protobuf_c_message_free_unpacked(head, NULL);
		rpc_message_free(m);
		got++;
	}
	assert_int_equal(r, RPC_STREAM_END);
	assert_int_equal(got, chunks);
	rpc_stream_close(st);
	free(dst);
}

static void lent_bytes_arrive_whole_and_are_released_once(void **state)
{
	static const unsigned sizes[] = {
		0, 1, 7, 30, 31, 127, 128, 4095, 65536, 262147, CHUNK_BYTES};
	struct fixture *f = *state;
	struct error err = ERROR_INIT;
	struct rpc_channel *tcp;

	assert_int_equal(rpc_channel_new(f->tcp_address, FIXTURE_TOKEN, &tcp, &err), 0);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		read_chunks(f->channel, "/t.T/Read", 5, sizes[i]);
		read_chunks(tcp, "/t.T/Read", 5, sizes[i]);
		read_chunks(f->channel, "/t.T/ReadToEnd", 5, sizes[i]);
		read_chunks(tcp, "/t.T/ReadToEnd", 1, sizes[i]);
	}
	rpc_channel_free(tcp);
	await_count(&released, (int)(16 * sizeof(sizes) / sizeof(sizes[0])));
}

static void a_client_that_leaves_ends_the_sends_and_frees_what_was_lent(void **state)
{
	static const char *const paths[] = {"/t.T/Read", "/t.T/ReadToEnd"};
	struct fixture *f = *state;
	struct error err = ERROR_INIT;
	struct rpc_message *m;

	for (int i = 0; i < 2; i++) {
		struct rpc_stream *st =
			open_stream(f->channel, paths[i], 100000, CHUNK_BYTES, 0, 60000);

		assert_int_equal(rpc_stream_next(st, &m, &err), 0);
		rpc_message_free(m);
		rpc_stream_close(st);
		await_count(&handlers_done, i + 1);
		assert_int_equal(atomic_load(&send_result), -ECANCELED);
		await_count(&released, atomic_load(&lent));
	}
}

static void a_reader_that_does_not_read_holds_the_sender_back(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *st = open_stream(f->channel, "/t.T/Read", 1000, CHUNK_BYTES, 0, 60000);
	int seen;

	usleep(300000);
	seen = atomic_load(&lent);
	assert_in_range(seen, 1, 64);
	usleep(200000);
	assert_true(atomic_load(&lent) <= seen + 1);
	rpc_stream_close(st);
	await_count(&handlers_done, 1);
}

static void *cancel_soon(void *arg)
{
	usleep(100000);
	rpc_stream_cancel(arg);
	return NULL;
}

static void cancel_from_another_thread_wakes_a_waiting_reader(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *st = open_stream(f->channel, "/t.T/Stall", 0, 0, 0, 60000);
	struct error err = ERROR_INIT;
	int64_t before_ms = clock_mono_ms();
	struct rpc_message *m;
	pthread_t thread;

	assert_int_equal(rpc_stream_next(st, &m, &err), 0);
	rpc_message_free(m);
	assert_int_equal(pthread_create(&thread, NULL, cancel_soon, st), 0);
	assert_int_equal(rpc_stream_next(st, &m, &err), -ECANCELED);
	assert_true(clock_mono_ms() - before_ms < 10000);
	pthread_join(thread, NULL);
	assert_int_equal(rpc_stream_next(st, &m, &err), -ECANCELED);
	rpc_stream_close(st);
	await_count(&handlers_done, 1);
}

static void a_stream_ends_at_its_deadline(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *st = open_stream(f->channel, "/t.T/Stall", 0, 0, 0, 200);
	struct error err = ERROR_INIT;
	int64_t before_ms = clock_mono_ms();
	struct rpc_message *m;

	assert_int_equal(rpc_stream_next(st, &m, &err), 0);
	rpc_message_free(m);
	assert_int_equal(rpc_stream_next(st, &m, &err), -ETIMEDOUT);
	assert_true(clock_mono_ms() - before_ms < 5000);
	rpc_stream_close(st);
	await_count(&handlers_done, 1);
}

static void a_stream_that_is_never_read_can_be_closed(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 50; i++)
		rpc_stream_close(open_stream(f->channel, "/t.T/Count", 10, 0, 0, 60000));
	rpc_stream_close(NULL);
}

static void a_stream_to_nobody_fails_at_its_first_message(void **state)
{
	struct error err = ERROR_INIT;
	struct rpc_channel *ch;
	struct rpc_stream *st;
	struct rpc_message *m;

	(void)state;
	assert_int_equal(rpc_channel_new("unix:/tmp/rpc-test-nobody/socket", NULL, &ch, &err), 0);
	st = open_stream(ch, "/t.T/Count", 1, 0, 0, 20000);
	assert_int_equal(rpc_stream_next(st, &m, &err), -EAGAIN);
	rpc_stream_close(st);
	rpc_channel_free(ch);
}

static void bytes_beyond_a_message_are_refused_and_released(void **state)
{
	struct fixture *f = *state;
	struct error err = ERROR_INIT;
	struct rpc_message *m;
	struct rpc_stream *st;

	/* The handler lends no more than `chunk` has; the length alone decides. */
	st = open_stream(f->channel, "/t.T/Read", 1, RPC_MESSAGE_MAX_BYTES + 1, 0, 20000);
	/* And the handler's end does not make a complete stream of it. */
	assert_int_equal(rpc_stream_next(st, &m, &err), -ECANCELED);
	rpc_stream_close(st);
	await_count(&handlers_done, 1);
	assert_int_equal(atomic_load(&send_result), -EMSGSIZE);
	assert_int_equal(atomic_load(&released), 1);
	st = open_stream(f->channel, "/t.T/ReadToEnd", 1, RPC_MESSAGE_MAX_BYTES + 1, 0, 20000);
	assert_true(rpc_stream_next(st, &m, &err) < 0);
	rpc_stream_close(st);
	await_count(&handlers_done, 2);
	assert_int_equal(atomic_load(&send_result), -EMSGSIZE);
	assert_int_equal(atomic_load(&released), 2);
}

static void stopping_the_server_ends_its_streams(void **state)
{
	struct fixture *f = *state;
	struct rpc_stream *st = open_stream(f->channel, "/t.T/Stall", 0, 0, 0, 60000);
	struct rpc_stream *flood =
		open_stream(f->channel, "/t.T/Read", 100000, CHUNK_BYTES, 0, 60000);
	struct error err = ERROR_INIT;
	struct rpc_message *m;
	int r;

	assert_int_equal(rpc_stream_next(st, &m, &err), 0);
	rpc_message_free(m);
	rpc_server_stop(f->server, 50);
	r = rpc_stream_next(st, &m, &err);
	assert_true(r == -EAGAIN || r == -ECANCELED);
	rpc_stream_close(st);
	while ((r = rpc_stream_next(flood, &m, &err)) == 0)
		rpc_message_free(m);
	assert_true(r == -EAGAIN || r == -ECANCELED);
	rpc_stream_close(flood);
	assert_int_equal(atomic_load(&released), atomic_load(&lent));
}

#define with_server(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_server(messages_arrive_in_order_and_the_end_is_repeated),
		with_server(a_wait_says_whether_next_would_wait),
		with_server(a_failure_comes_after_the_messages_before_it),
		with_server(lent_bytes_arrive_whole_and_are_released_once),
		with_server(a_client_that_leaves_ends_the_sends_and_frees_what_was_lent),
		with_server(a_reader_that_does_not_read_holds_the_sender_back),
		with_server(cancel_from_another_thread_wakes_a_waiting_reader),
		with_server(a_stream_ends_at_its_deadline),
		with_server(a_stream_that_is_never_read_can_be_closed),
		cmocka_unit_test(a_stream_to_nobody_fails_at_its_first_message),
		with_server(bytes_beyond_a_message_are_refused_and_released),
		with_server(stopping_the_server_ends_its_streams),
	};
	int r;

	chunk = malloc(CHUNK_BYTES);
	if (!chunk)
		return 1;
	for (unsigned i = 0; i < CHUNK_BYTES; i++)
		chunk[i] = (char)(i * 7 + i / 251);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	free(chunk);
	return r;
}
