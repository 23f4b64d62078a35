/*
 * The process's metrics over HTTP: GET /metrics, and GET /healthz, which answers "ok" as long as
 * the process answers. One thread, at most METRICS_HTTP_CONNECTIONS_MAX connections, each closed
 * after METRICS_HTTP_TIMEOUT_S without progress.
 */
#pragma once

#include "common/error.h"

#define METRICS_HTTP_CONNECTIONS_MAX 32
#define METRICS_HTTP_TIMEOUT_S 10

struct metrics_http;

/* HOST:PORT, where port 0 takes a free one, or unix:/path (mode 0600). ret_port (may be NULL)
 * receives the port, 0 for a unix socket. */
int metrics_http_start(
	const char *address, struct metrics_http **ret, int *ret_port, struct error *err);
void metrics_http_stop(struct metrics_http *h); /* NULL is fine */
