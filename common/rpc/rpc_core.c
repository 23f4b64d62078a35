#define LOG_SUBSYSTEM "grpc"

#include "common/rpc/rpc_core.h"

#include <assert.h>
#include <pthread.h>
#include <string.h>

#include <grpc/support/log.h>
#include <grpc/support/time.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/rpc/rpc.h"
#include "common/sync.h"

static struct {
	struct mutex mu;
	/* guarded by mu */
	unsigned users;
	bool library_up;
	grpc_completion_queue *pump_queue;
	pthread_t pump;
} core = {.mu = MUTEX_INIT};

/* The library's own complaints (a port it could not bind, a broken connection) are details of
 * errors that its callers report with context, so they are for people who debug. */
static void log_from_grpc(gpr_log_func_args *args)
{
	const char *file = strrchr(args->file, '/');

	log_debug("%s:%d: %s", file ? file + 1 : args->file, args->line, args->message);
}

static void *pump_main(void *arg)
{
	grpc_completion_queue *queue = arg;
	grpc_event ev;

	do
		ev = grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
	while (ev.type != GRPC_QUEUE_SHUTDOWN);
	return NULL;
}

void rpc_init(void)
{
	int r;

	mutex_guard(&core.mu);
	if (core.users++ > 0)
		return;
	if (!core.library_up) {
		gpr_set_log_function(log_from_grpc);
		grpc_init();
		core.library_up = true;
	}
	core.pump_queue = grpc_completion_queue_create_for_next(NULL);
	r = pthread_create(&core.pump, NULL, pump_main, core.pump_queue);
	assert(r == 0);
}

void rpc_deinit(void)
{
	mutex_guard(&core.mu);
	assert(core.users > 0);
	if (--core.users > 0)
		return;
	grpc_completion_queue_shutdown(core.pump_queue);
	pthread_join(core.pump, NULL);
	grpc_completion_queue_destroy(core.pump_queue);
	core.pump_queue = NULL;
	/* The library itself stays up until the process ends: grpc_shutdown joins a thread of its
	 * own that, after a write that had to wait, sleeps for ten seconds. */
}

gpr_timespec rpc_core_time(int64_t deadline_ms)
{
	gpr_timespec now;

	if (deadline_ms == CLOCK_NEVER)
		return gpr_inf_future(GPR_CLOCK_MONOTONIC);
	/* "Now" would be rounded up to a wait of a millisecond. */
	if (clock_passed(deadline_ms))
		return gpr_inf_past(GPR_CLOCK_MONOTONIC);
	now = gpr_now(GPR_CLOCK_MONOTONIC);
	return gpr_time_add(now, gpr_time_from_millis(clock_left_ms(deadline_ms), GPR_TIMESPAN));
}

int64_t rpc_core_deadline_ms(gpr_timespec t)
{
	gpr_timespec left;

	if (gpr_time_cmp(t, gpr_inf_future(t.clock_type)) == 0)
		return CLOCK_NEVER;
	left = gpr_time_sub(t, gpr_now(t.clock_type));
	/* A client may ask for a century; what is beyond a year is no limit. */
	if (left.tv_sec > 365 * 86400)
		return CLOCK_NEVER;
	if (left.tv_sec < 0)
		return clock_mono_ms();
	return clock_mono_ms() + left.tv_sec * 1000 + left.tv_nsec / 1000000;
}

bool rpc_core_pluck(grpc_completion_queue *queue, void *tag, int64_t deadline_ms, bool *ret_ok)
{
	grpc_event ev = grpc_completion_queue_pluck(queue, tag, rpc_core_time(deadline_ms), NULL);

	assert(ev.type != GRPC_QUEUE_SHUTDOWN);
	if (ev.type == GRPC_QUEUE_TIMEOUT)
		return false;
	if (ret_ok)
		*ret_ok = ev.success != 0;
	return true;
}

void rpc_core_queue_free(grpc_completion_queue *queue)
{
	grpc_event ev;

	grpc_completion_queue_shutdown(queue);
	do
		ev = grpc_completion_queue_pluck(
			queue, NULL, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
	while (ev.type != GRPC_QUEUE_SHUTDOWN);
	grpc_completion_queue_destroy(queue);
}
