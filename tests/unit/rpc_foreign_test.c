/* A client that is not ours: it keeps none of our limits. Written against the gRPC library itself.
 */
#include "tests/unit/rpc_fixture.h"

#include <stdatomic.h>

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/time.h>

static atomic_int handled;

static void increment(struct rpc_call *call, void *arg)
{
	atomic_fetch_add(&handled, 1);
	fixture_increment(call, arg);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	atomic_store(&handled, 0);
	fixture_new_server(f, 2, NULL);
	rpc_server_add(f->server, "/t.T/Inc", increment, NULL);
	fixture_start(f, false);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	fixture_stop(*state);
	free(*state);
	return 0;
}

static grpc_arg number(const char *key, int value)
{
	return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)key, .value.integer = value};
}

/* One call with these bytes as its message (NULL: none), compressed on request. Returns the status.
 */
static grpc_status_code call_with(
	struct fixture *f, const char *path, const void *data, size_t len, int compression)
{
	grpc_arg args[] = {number(GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, -1),
		number(GRPC_COMPRESSION_CHANNEL_DEFAULT_ALGORITHM, compression)};
	grpc_channel_args all = {.num_args = 2, .args = args};
	grpc_channel_credentials *creds = grpc_insecure_credentials_create();
	grpc_channel *ch = grpc_channel_create(f->address, creds, &all);
	grpc_completion_queue *q = grpc_completion_queue_create_for_pluck(NULL);
	grpc_slice method = grpc_slice_from_copied_string(path), details = grpc_empty_slice();
	grpc_slice slice = grpc_slice_from_copied_buffer(data ? data : "", len);
	grpc_byte_buffer *out = grpc_raw_byte_buffer_create(&slice, 1), *in = NULL;
	gpr_timespec end =
		gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_seconds(20, GPR_TIMESPAN));
	grpc_call *call = grpc_channel_create_call(
		ch, NULL, GRPC_PROPAGATE_DEFAULTS, q, method, NULL, end, NULL);
	grpc_metadata_array initial, trailing;
	grpc_status_code status = GRPC_STATUS_UNKNOWN;
	grpc_op ops[6];
	size_t n = 0;

	grpc_metadata_array_init(&initial);
	grpc_metadata_array_init(&trailing);
	memset(ops, 0, sizeof(ops));
	ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
	if (data) {
		ops[n].op = GRPC_OP_SEND_MESSAGE;
		ops[n++].data.send_message.send_message = out;
	}
	ops[n++].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
	ops[n].op = GRPC_OP_RECV_INITIAL_METADATA;
	ops[n++].data.recv_initial_metadata.recv_initial_metadata = &initial;
	ops[n].op = GRPC_OP_RECV_MESSAGE;
	ops[n++].data.recv_message.recv_message = &in;
	ops[n].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
	ops[n].data.recv_status_on_client.trailing_metadata = &trailing;
	ops[n].data.recv_status_on_client.status = &status;
	ops[n++].data.recv_status_on_client.status_details = &details;
	assert_int_equal(grpc_call_start_batch(call, ops, n, &ops, NULL), GRPC_CALL_OK);
	grpc_completion_queue_pluck(q, &ops, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
	grpc_call_unref(call);
	grpc_metadata_array_destroy(&initial);
	grpc_metadata_array_destroy(&trailing);
	grpc_byte_buffer_destroy(out);
	if (in)
		grpc_byte_buffer_destroy(in);
	grpc_slice_unref(details);
	grpc_slice_unref(slice);
	grpc_slice_unref(method);
	grpc_channel_destroy(ch);
	grpc_channel_credentials_release(creds);
	grpc_completion_queue_shutdown(q);
	while (grpc_completion_queue_pluck(q, NULL, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL)
			.type != GRPC_QUEUE_SHUTDOWN)
		;
	grpc_completion_queue_destroy(q);
	return status;
}

static void a_well_formed_call_is_served(void **state)
{
	assert_int_equal(call_with(*state, "/t.T/Inc", "\x08\x05", 2, 0), GRPC_STATUS_OK);
}

static void a_message_over_the_limit_is_refused(void **state)
{
	size_t len = RPC_MESSAGE_MAX_BYTES + 4096;
	char *big = calloc(1, len);

	assert_non_null(big);
	assert_int_equal(
		call_with(*state, "/t.T/Inc", big, len, 0), GRPC_STATUS_RESOURCE_EXHAUSTED);
	free(big);
	assert_int_equal(
		fixture_call(((struct fixture *)*state)->channel, "/t.T/Inc", 1, 5000, NULL, NULL),
		0);
}

static void a_small_message_that_inflates_over_the_limit_is_refused(void **state)
{
	size_t len = RPC_MESSAGE_MAX_BYTES * 8;
	char *big = calloc(1, len);
	grpc_status_code status;

	assert_non_null(big);
	status = call_with(*state, "/t.T/Inc", big, len, GRPC_COMPRESS_GZIP);
	free(big);
	/* Not inflated at all: 8 MiB of it could become 8 GiB. */
	assert_int_equal(status, GRPC_STATUS_UNIMPLEMENTED);
}

static void bytes_that_are_no_message_are_an_invalid_argument(void **state)
{
	assert_int_equal(call_with(*state, "/t.T/Inc", "\xff\xff\xff\xff\xff", 5, 0),
		GRPC_STATUS_INVALID_ARGUMENT);
}

static void a_call_without_a_message_is_an_invalid_argument(void **state)
{
	assert_int_equal(call_with(*state, "/t.T/Inc", NULL, 0, 0), GRPC_STATUS_INVALID_ARGUMENT);
}

static void an_unknown_method_is_unimplemented(void **state)
{
	assert_int_equal(
		call_with(*state, "/no/Such", "\x08\x05", 2, 0), GRPC_STATUS_UNIMPLEMENTED);
	assert_int_equal(
		call_with(*state, "/t.T/Inc/", "\x08\x05", 2, 0), GRPC_STATUS_UNIMPLEMENTED);
	assert_int_equal(atomic_load(&handled), 0);
}

#define with_server(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_server(a_well_formed_call_is_served),
		with_server(a_message_over_the_limit_is_refused),
		with_server(a_small_message_that_inflates_over_the_limit_is_refused),
		with_server(bytes_that_are_no_message_are_an_invalid_argument),
		with_server(a_call_without_a_message_is_an_invalid_argument),
		with_server(an_unknown_method_is_unimplemented),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
