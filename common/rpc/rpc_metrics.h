/*
 * What the server counts of its calls: granary_rpc_server_calls_total{method,status} and
 * granary_rpc_server_seconds{method}. Paths that nobody registered are one method, "unknown".
 */
#pragma once

#include <stdint.h>

#include <grpc/status.h>

void rpc_metrics_register(void);
void rpc_metrics_count(const char *method, grpc_status_code status, int64_t ns);
