/*
 * The metrics that every process has, under the names that Prometheus gives them (process_*).
 */
#pragma once

/* A second time does nothing. */
void metrics_process_register(void);
