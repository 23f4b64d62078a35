/*
 * What all of common/rpc shares of the gRPC library: its life in this process, time, and the wait
 * for one completion.
 *
 * One pump thread polls for the whole process. gRPC moves bytes only inside threads that wait in
 * its queues: without the pump, a server whose handlers are all busy would answer no keepalive and
 * notice no cancellation, and an idle client would not notice that its peer is gone.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <grpc/grpc.h>

gpr_timespec rpc_core_time(int64_t deadline_ms);
int64_t rpc_core_deadline_ms(gpr_timespec t);

/* Waits for `tag` of a pluck queue. False when the deadline passed first; otherwise *ret_ok (may be
 * NULL) says whether the operation succeeded. */
bool rpc_core_pluck(grpc_completion_queue *queue, void *tag, int64_t deadline_ms, bool *ret_ok);

/* Shuts down and destroys a pluck queue that has nothing pending. */
void rpc_core_queue_free(grpc_completion_queue *queue);
