#define LOG_SUBSYSTEM "rpc"

#include "common/rpc/rpc_server.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/rpc/rpc_call.h"
#include "common/rpc/rpc_core.h"
#include "common/rpc/rpc_metrics.h"

#define THREADS_DEFAULT 16
#define STREAMS_PER_CONNECTION_MAX 512
#define KEEPALIVE_MS 30000
#define PING_INTERVAL_MIN_MS 5000
#define HANDSHAKE_MS 10000
/* What the last replies get to reach their clients when nothing else holds up the stop. */
#define FAREWELL_MS 200
#define LOAN_WAIT_MS 5000

static grpc_arg int_arg(const char *key, int value)
{
	return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)key, .value.integer = value};
}

static grpc_server *create_core(void)
{
	grpc_arg args[] = {
		int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, RPC_MESSAGE_MAX_BYTES),
		int_arg(GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, RPC_MESSAGE_MAX_BYTES),
		/* Only the identity: a small message must not inflate to a large one. */
		int_arg(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1),
		int_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, STREAMS_PER_CONNECTION_MAX),
		/* Requests are small; a fixed window bounds what a connection may leave with us. */
		int_arg(GRPC_ARG_HTTP2_BDP_PROBE, 0),
		int_arg(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, HANDSHAKE_MS),
		/* Two servers on one port would take each other's calls. */
		int_arg(GRPC_ARG_ALLOW_REUSEPORT, 0),
		int_arg(GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_MS),
		int_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
		int_arg(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
		int_arg(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
			PING_INTERVAL_MIN_MS),
	};
	grpc_channel_args all = {.num_args = sizeof(args) / sizeof(args[0]), .args = args};

	return grpc_server_create(&all, NULL);
}

static void free_empty(struct rpc_server *s)
{
	free(s->token);
	free(s->socket_group);
	free(s->main.threads);
	free(s->control.threads);
	for (unsigned i = 0; i < s->n_bounded; i++)
		free(s->bounded[i].threads);
	free(s);
}

static struct rpc_server *new_empty(const struct rpc_server_options *opts)
{
	struct rpc_server *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->token = opts->token ? strdup(opts->token) : NULL;
	s->socket_group = opts->socket_group ? strdup(opts->socket_group) : NULL;
	if ((opts->token && !s->token) || (opts->socket_group && !s->socket_group)) {
		free_empty(s);
		return NULL;
	}
	return s;
}

static void lane_init(struct rpc_server *s, struct rpc_lane *lane, unsigned threads)
{
	lane->next = grpc_completion_queue_create_for_next(NULL);
	grpc_server_register_completion_queue(s->core, lane->next, NULL);
	lane->wanted = threads;
}

int rpc_server_new(
	const struct rpc_server_options *opts, struct rpc_server **ret, struct error *err)
{
	unsigned threads = opts->threads ? opts->threads : THREADS_DEFAULT;
	struct rpc_server *s;

	if (threads > RPC_THREADS_MAX)
		return error_set(err, -EINVAL, "%u server threads are too many (at most %u)",
			threads, RPC_THREADS_MAX);
	if (opts->token && !opts->token[0])
		return error_set(err, -EINVAL, "the token is empty");
	s = new_empty(opts);
	if (!s)
		return error_set(err, -ENOMEM, "out of memory");
	rpc_init();
	rpc_metrics_register();
	mutex_init(&s->mu);
	cond_init(&s->changed);
	s->core = create_core();
	lane_init(s, &s->main, threads);
	lane_init(s, &s->control, 0); /* one thread as soon as it has a method */
	s->control.quick = true;
	*ret = s;
	return 0;
}

void rpc_server_add(struct rpc_server *s, const char *path, rpc_handler *handler, void *arg)
{
	assert(s->state == RPC_SERVER_NEW && s->n_methods < RPC_METHODS_MAX);
	s->methods[s->n_methods++] =
		(struct rpc_method){.path = path, .handler = handler, .arg = arg};
}

static void register_method(struct rpc_server *s, struct rpc_method *m)
{
	m->registered =
		grpc_server_register_method(s->core, m->path, NULL, GRPC_SRM_PAYLOAD_NONE, 0);
	assert(m->registered); /* else the path was added before */
}

void rpc_server_add_bounded(struct rpc_server *s, const char *path, rpc_handler *handler, void *arg,
	unsigned max_running)
{
	struct rpc_method *m = &s->bounded_methods[s->n_bounded];

	assert(s->state == RPC_SERVER_NEW && s->n_bounded < RPC_BOUNDED_MAX);
	assert(max_running > 0 && max_running <= RPC_THREADS_MAX);
	*m = (struct rpc_method){.path = path, .handler = handler, .arg = arg};
	register_method(s, m);
	lane_init(s, &s->bounded[s->n_bounded], max_running);
	s->n_bounded++;
}

void rpc_server_add_control(struct rpc_server *s, const char *path, rpc_handler *handler, void *arg)
{
	struct rpc_method *m = &s->control_methods[s->n_control_methods];

	assert(s->state == RPC_SERVER_NEW);
	assert(s->n_control_methods < sizeof(s->control_methods) / sizeof(s->control_methods[0]));
	*m = (struct rpc_method){.path = path, .handler = handler, .arg = arg};
	register_method(s, m);
	s->n_control_methods++;
	s->control.wanted = 1;
}

bool rpc_server_is_stopping(struct rpc_server *s)
{
	mutex_guard(&s->mu);
	return s->stopping;
}

/* ---- one call -------------------------------------------------------------------------------- */

static const struct rpc_method *find_method(struct rpc_server *s, struct rpc_call *call)
{
	if (call->only)
		return call->only;
	for (unsigned i = 0; i < s->n_methods; i++)
		if (rpc_call_has_path(call, s->methods[i].path))
			return &s->methods[i];
	return NULL;
}

static void handle(struct rpc_server *s, struct rpc_call *call)
{
	const struct rpc_method *m;

	if (!rpc_call_is_local(call) && !rpc_call_has_token(call, s->token)) {
		rpc_call_fail(call, -EACCES,
			"the server wants a token, and the call has none or a wrong one");
		return;
	}
	m = find_method(s, call);
	if (!m) {
		rpc_call_fail(call, -EOPNOTSUPP, "no such method here");
		return;
	}
	call->method = m;
	/* The library does not drop what waited for too long. */
	if (clock_passed(call->deadline_ms)) {
		rpc_call_fail(call, -ETIMEDOUT, "the server was busy until the deadline");
		return;
	}
	m->handler(call, m->arg);
}

/* Posts the slot unless the server stops; what is not posted is freed. */
static void offer(struct rpc_server *s, struct rpc_call *call)
{
	if (rpc_server_is_stopping(s) || !rpc_call_post(call))
		rpc_call_free(call);
}

static void count_running(struct rpc_server *s, int by)
{
	mutex_guard(&s->mu);
	s->running += (unsigned)by;
	cond_broadcast(&s->changed);
}

static void serve(struct rpc_server *s, struct rpc_call *call)
{
	bool detached = false;

	count_running(s, 1);
	rpc_call_begin(call, &detached);
	handle(s, call);
	if (detached) {
		/* The call is another thread's now, and may be gone already. */
		return;
	}
	if (!rpc_call_ended(call)) {
		char path[RPC_PATH_TEXT_BYTES];

		rpc_call_path(call, path);
		log_error("a handler returned without an answer to %s", path);
		rpc_call_fail(call, -EIO, "the server has no answer");
	}
	rpc_call_reset(call);
	offer(s, call);
	count_running(s, -1);
}

void rpc_server_finish_detached(struct rpc_call *call)
{
	struct rpc_server *s = call->server;

	rpc_call_reset(call);
	rpc_call_free(call);
	count_running(s, -1);
}

void rpc_server_replace_detached(struct rpc_call *call)
{
	struct rpc_call *fresh = rpc_call_new(call->server, call->lane, call->only);

	if (fresh)
		offer(call->server, fresh);
	else
		log_error("out of memory: the server can take one call less from now on");
}

/* ---- lanes ----------------------------------------------------------------------------------- */

struct lane_thread {
	struct rpc_server *server;
	struct rpc_lane *lane;
};

static void lane_run(struct rpc_server *s, struct rpc_lane *lane)
{
	for (;;) {
		grpc_event ev = grpc_completion_queue_next(
			lane->next, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);

		if (ev.type == GRPC_QUEUE_SHUTDOWN)
			return;
		if (ev.tag == s) {
			mutex_guard(&s->mu);
			s->core_down = true;
			cond_broadcast(&s->changed);
		} else if (ev.success) {
			serve(s, ev.tag);
		} else {
			/* A slot that no call will come for. */
			assert(rpc_server_is_stopping(s));
			rpc_call_free(ev.tag);
		}
	}
}

static void *lane_thread_main(void *arg)
{
	struct lane_thread t = *(struct lane_thread *)arg;

	free(arg);
	lane_run(t.server, t.lane);
	return NULL;
}

static int lane_start_thread(struct rpc_server *s, struct rpc_lane *lane)
{
	struct lane_thread *t = malloc(sizeof(*t));
	int r;

	if (!t)
		return -ENOMEM;
	*t = (struct lane_thread){.server = s, .lane = lane};
	r = pthread_create(&lane->threads[lane->started], NULL, lane_thread_main, t);
	if (r != 0) {
		free(t);
		return -r;
	}
	lane->started++;
	return 0;
}

static int lane_start(struct rpc_server *s, struct rpc_lane *lane)
{
	int r = 0;

	if (lane->wanted == 0)
		return 0;
	lane->threads = calloc(lane->wanted, sizeof(lane->threads[0]));
	if (!lane->threads)
		return -ENOMEM;
	while (r == 0 && lane->started < lane->wanted)
		r = lane_start_thread(s, lane);
	return r;
}

static void lane_stop(struct rpc_server *s, struct rpc_lane *lane)
{
	grpc_completion_queue_shutdown(lane->next);
	/* Takes what is left itself where no thread ever ran. */
	if (lane->started == 0)
		lane_run(s, lane);
	while (lane->started > 0)
		pthread_join(lane->threads[--lane->started], NULL);
}

static int post_slot(struct rpc_server *s, struct rpc_lane *lane, const struct rpc_method *only)
{
	struct rpc_call *call = rpc_call_new(s, lane, only);

	if (!call)
		return -ENOMEM;
	offer(s, call);
	return 0;
}

/* ---- life ------------------------------------------------------------------------------------ */

/* A slot for each thread. */
static int post_slots(struct rpc_server *s, struct rpc_lane *lane, const struct rpc_method *only)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < lane->wanted; i++)
		r = post_slot(s, lane, only);
	return r;
}

int rpc_server_start(struct rpc_server *s, struct error *err)
{
	int r;

	assert(s->state == RPC_SERVER_NEW);
	grpc_server_start(s->core);
	s->state = RPC_SERVER_STARTED;
	r = post_slots(s, &s->main, NULL);
	for (unsigned i = 0; r == 0 && i < s->n_bounded; i++)
		r = post_slots(s, &s->bounded[i], &s->bounded_methods[i]);
	for (unsigned i = 0; r == 0 && i < s->n_control_methods; i++)
		r = post_slot(s, &s->control, &s->control_methods[i]);
	if (r == 0)
		r = lane_start(s, &s->main);
	if (r == 0)
		r = lane_start(s, &s->control);
	for (unsigned i = 0; r == 0 && i < s->n_bounded; i++)
		r = lane_start(s, &s->bounded[i]);
	if (r < 0)
		return error_set_errno(err, r, "cannot start the server's threads");
	return 0;
}

/* Waits until no call runs, and with `core` until the library is down as well. */
static void await_quiet(struct rpc_server *s, bool core, int64_t deadline_ms)
{
	mutex_guard(&s->mu);
	while (s->running > 0 || (core && !s->core_down))
		if (cond_wait(&s->changed, &s->mu, deadline_ms) < 0)
			return;
}

/* The transport may still hold lent bytes while it closes its connections; their owner may go away
 * once the server has stopped. */
static void await_loans(struct rpc_server *s)
{
	int64_t deadline_ms = clock_deadline_ms(LOAN_WAIT_MS);
	unsigned left;

	while ((left = atomic_load(&s->loans)) > 0 && !clock_passed(deadline_ms))
		usleep(1000);
	if (left > 0)
		log_error("%u buffers are still held by the transport", left);
}

void rpc_server_stop(struct rpc_server *s, int64_t grace_ms)
{
	int64_t grace_end_ms = clock_deadline_ms(grace_ms);
	int64_t farewell_ms;

	if (s->state == RPC_SERVER_STOPPED)
		return;
	{
		mutex_guard(&s->mu);
		s->stopping = true;
	}
	if (s->on_stop)
		s->on_stop(s->on_stop_arg);
	grpc_server_shutdown_and_notify(s->core, s->main.next, s);
	if (s->main.started > 0) {
		await_quiet(s, false, grace_end_ms);
		farewell_ms = clock_deadline_ms(FAREWELL_MS);
		await_quiet(s, true, farewell_ms < grace_end_ms ? farewell_ms : grace_end_ms);
		grpc_server_cancel_all_calls(s->core);
		/* Handlers notice the cancellation, or end by their own deadlines. */
		await_quiet(s, true, CLOCK_NEVER);
	} else {
		grpc_server_cancel_all_calls(s->core);
	}
	for (unsigned i = 0; i < s->n_bounded; i++)
		lane_stop(s, &s->bounded[i]);
	lane_stop(s, &s->control);
	lane_stop(s, &s->main);
	s->state = RPC_SERVER_STOPPED;
	grpc_server_destroy(s->core);
	s->core = NULL;
	await_loans(s);
	for (unsigned i = 0; i < s->n_bounded; i++)
		grpc_completion_queue_destroy(s->bounded[i].next);
	grpc_completion_queue_destroy(s->control.next);
	grpc_completion_queue_destroy(s->main.next);
	rpc_server_unlisten(s);
}

void rpc_server_free(struct rpc_server *s)
{
	if (!s)
		return;
	rpc_server_stop(s, 0);
	cond_deinit(&s->changed);
	mutex_deinit(&s->mu);
	free_empty(s);
	rpc_deinit();
}
