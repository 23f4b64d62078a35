#include "fuse/peer_line.h"

#include <errno.h>
#include <stddef.h>

#include "common/clock.h"
#include "grpc/health/v1/health.pb-c.h"

#define HEALTH_PATH "/grpc.health.v1.Health/Check"

int peer_line_init(struct peer_line *l, const char *address, const char *token, struct error *err)
{
	atomic_init(&l->heard_ms, 0);
	atomic_init(&l->silent_ms, 0);
	atomic_flag_clear(&l->looking);
	l->check = NULL;
	l->sent_ms = 0;
	return rpc_channel_new(address, token, &l->channel, err);
}

void peer_line_deinit(struct peer_line *l)
{
	rpc_stream_close(l->check);
	rpc_channel_free(l->channel);
}

static void heard(struct peer_line *l)
{
	atomic_store_explicit(&l->heard_ms, clock_mono_ms(), memory_order_relaxed);
}

/* Only nobody there is silence: a refusal, too, is an answer. */
static bool is_silence(int code)
{
	return code == -EAGAIN || code == -ETIMEDOUT;
}

/* ---- checks ------------------------------------------------------------------------------------
 */

static void send_check(struct peer_line *l)
{
	Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;

	l->sent_ms = clock_mono_ms();
	if (rpc_stream_open(l->channel, HEALTH_PATH, &request.base,
		    clock_deadline_ms(PEER_LINE_ANSWER_MS), &l->check, NULL) < 0)
		l->check = NULL;
}

static enum peer_line_state take_outcome(struct peer_line *l, int64_t since_ms)
{
	struct rpc_message *message = NULL;
	int r = rpc_stream_next(l->check, &message, NULL);

	if (r == 0)
		rpc_message_free(message);
	rpc_stream_close(l->check);
	l->check = NULL;
	if (l->sent_ms < since_ms)
		return PEER_LINE_ASKED;
	if (is_silence(r)) {
		atomic_store(&l->silent_ms, clock_mono_ms());
		return PEER_LINE_SILENT;
	}
	heard(l);
	return PEER_LINE_ALIVE;
}

enum peer_line_state peer_line_look(struct peer_line *l, int64_t since_ms)
{
	enum peer_line_state state = PEER_LINE_ASKED;

	if (atomic_flag_test_and_set(&l->looking))
		return PEER_LINE_ASKED;
	if (l->check && rpc_stream_wait(l->check, clock_mono_ms()) == 0)
		state = take_outcome(l, since_ms);
	/* Of a silent one the next is on its way at once, for whoever looks then. */
	if (!l->check && state != PEER_LINE_ALIVE && clock_passed(l->sent_ms + PEER_LINE_CHECK_MS))
		send_check(l);
	atomic_flag_clear(&l->looking);
	return state;
}

int peer_line_ask(struct peer_line *l)
{
	Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
	ProtobufCMessage *reply;
	int r = rpc_unary(l->channel, HEALTH_PATH, &request.base,
		&grpc__health__v1__health_check_response__descriptor, &reply,
		clock_deadline_ms(PEER_LINE_ANSWER_MS), NULL);

	if (r == 0)
		protobuf_c_message_free_unpacked(reply, NULL);
	return r;
}

/* ---- waiting for a worker that lives -----------------------------------------------------------
 */

/* Until when to wait before the next look; -EAGAIN: no longer. `began_ms`: what was found out
 * before that is old. */
static int64_t wait_until(struct peer_line *l, int64_t began_ms)
{
	int64_t quiet_since_ms = atomic_load_explicit(&l->heard_ms, memory_order_relaxed);

	if (atomic_load(&l->silent_ms) >= began_ms)
		return -EAGAIN;
	if (quiet_since_ms < began_ms)
		quiet_since_ms = began_ms;
	if (!clock_passed(quiet_since_ms + PEER_LINE_QUIET_MS))
		return quiet_since_ms + PEER_LINE_QUIET_MS;
	switch (peer_line_look(l, began_ms)) {
	case PEER_LINE_ALIVE:
		return clock_deadline_ms(PEER_LINE_QUIET_MS);
	case PEER_LINE_ASKED:
		return clock_deadline_ms(PEER_LINE_LOOK_MS);
	case PEER_LINE_SILENT:
		break;
	}
	return -EAGAIN;
}

int peer_line_next(struct peer_line *l, struct rpc_stream *stream, int64_t deadline_ms,
	struct rpc_message **ret, struct error *err)
{
	int64_t began_ms = clock_mono_ms(), until_ms = began_ms + PEER_LINE_QUIET_MS;
	int r;

	while (rpc_stream_wait(stream, until_ms < deadline_ms ? until_ms : deadline_ms) < 0) {
		if (clock_passed(deadline_ms))
			return error_set(err, -ETIMEDOUT, "it did not answer before the deadline");
		if (clock_passed(until_ms))
			until_ms = wait_until(l, began_ms);
		if (until_ms < 0)
			return error_set(err, -EAGAIN,
				"it gives no sign of life, not to a health check either");
	}
	r = rpc_stream_next(stream, ret, err);
	if (r == 0)
		heard(l);
	return r;
}
