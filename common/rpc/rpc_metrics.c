#include "common/rpc/rpc_metrics.h"

#include <pthread.h>

#include "common/metrics.h"
#include "common/rpc/rpc_status.h"

enum { CALLS, SECONDS };

static struct metric table[] = {
	[CALLS] = METRIC_COUNTER(
		"granary_rpc_server_calls_total", "Calls that were answered.", "method", "status"),
	[SECONDS] = METRIC_HISTOGRAM("granary_rpc_server_seconds",
		"Time from the arrival of a call to its end.", metric_seconds_buckets, "method"),
};

static void register_once(void)
{
	metrics_register(table, sizeof(table) / sizeof(table[0]));
}

void rpc_metrics_register(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, register_once);
}

void rpc_metrics_count(const char *method, grpc_status_code status, int64_t ns)
{
	metric_add(metric_with(&table[CALLS], method, rpc_status_name(status)), 1);
	metric_observe(metric_with(&table[SECONDS], method), (double)ns / 1e9);
}
