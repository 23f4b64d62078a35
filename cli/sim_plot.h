/*
 * Simulated pairs as bars in an SVG file: one panel for each measure, a group for each GPU policy.
 */
#pragma once

#include "common/error.h"
#include "scheduler/problem.h"
#include "sim/summary.h"

struct sim_outcome {
	enum gpu_policy gpus;
	enum storage_policy storage;
	struct sim_summary summary;
};

int sim_plot_write(const char *path, const char *title, const struct sim_outcome *outcomes,
	size_t count, struct error *err);
