/*
 * A cluster over time, simulated: the jobs of a trace, of a problem in JSON, or made up, under one
 * pair of policies or all twelve.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/policy_flags.h"
#include "cli/problem_file.h"
#include "cli/progress.h"
#include "cli/sim_plot.h"
#include "cli/table.h"
#include "common/size.h"
#include "scheduler/allocation.h"
#include "sim/simulator.h"
#include "sim/summary.h"
#include "sim/trace.h"
#include "sim/workload.h"

#define PAIRS (GPU_POLICIES * STORAGE_POLICIES)
#define TITLE_BYTES 256

struct run {
	struct problem problem; /* borrows from one of the two */
	struct problem_file file;
	struct workload workload;
	struct sim_outcome outcomes[PAIRS];
	struct sim_result results[PAIRS]; /* of a FILE's jobs */
	size_t count;
	size_t pairs; /* that were asked for */
	struct progress progress;
};

/* ---- what to simulate ------------------------------------------------------------------------ */

static int parse_mix(const char *text, double mix[WORKLOAD_ROWS], struct error *err)
{
	double sum = 0;

	for (size_t i = 0; i < WORKLOAD_ROWS; i++) {
		char *end;

		mix[i] = strtod(text, &end);
		sum += mix[i];
		if (end == text || !(mix[i] >= 0 && mix[i] <= 1e6) ||
			*end != (i + 1 < WORKLOAD_ROWS ? ',' : '\0'))
			return error_set(err, -EINVAL,
				"--mix: three shares of unet3d, resnet50 and cosmoflow, like "
				"1,1,1");
		text = end + 1;
	}
	return sum > 0 ? 0 : error_set(err, -EINVAL, "--mix: all shares are 0");
}

static int read_options(
	const struct invocation *inv, struct workload_options *ret, struct error *err)
{
	*ret = (struct workload_options){
		.jobs = inv_number(inv, "jobs", 0),
		.gpus = inv_number(inv, "gpus", 0),
		.datasets = inv_number(inv, "datasets", 0),
		.load = (double)inv_number(inv, "load", 0) / 100,
		.seed = inv_number(inv, "seed", 0),
	};
	if (ret->jobs < 1 || ret->jobs > TRACE_JOBS_MAX)
		return error_set(err, -EINVAL, "--jobs is 1 to 1000000");
	if (ret->gpus < 1 || ret->gpus > PROBLEM_GPUS_MAX)
		return error_set(err, -EINVAL, "--gpus is 1 to 4294967295");
	if (ret->datasets > PROBLEM_ITEMS_MAX / 2)
		return error_set(err, -EINVAL, "--datasets is at most 500000");
	return parse_mix(inv_text(inv, "mix"), ret->mix, err);
}

static int read_workload(const struct invocation *inv, struct run *run, struct error *err)
{
	const char *path = inv_text(inv, "trace");
	struct workload_options options;
	struct trace trace = {0};
	int r = read_options(inv, &options, err);

	if (r == 0)
		r = path ? trace_read(path, &trace, err)
			 : trace_generate(options.jobs, options.seed, &trace, err);
	if (r == 0)
		r = workload_make(&trace, &options, &run->workload, err);
	trace_deinit(&trace);
	if (r < 0)
		return r;
	run->problem = run->workload.problem;
	run->problem.gpus = options.gpus;
	run->problem.cache_bytes = inv_size(inv, "cache", 0);
	run->problem.remote_bytes_per_s = (double)inv_rate(inv, "origin-limit", 0);
	return 0;
}

static int read_problem(const struct invocation *inv, struct run *run, struct error *err)
{
	static const char *const of_workloads[] = {"trace", "jobs", "gpus", "cache", "origin-limit",
		"load", "datasets", "mix", "seed"};
	int r;

	for (size_t i = 0; i < sizeof(of_workloads) / sizeof(of_workloads[0]); i++) {
		if (inv_given(inv, of_workloads[i]))
			return error_set(err, -EINVAL,
				"--%s and a FILE: the file says all about its jobs and cluster",
				of_workloads[i]);
	}
	r = problem_file_read(inv_argument(inv, 0), &run->file, err);
	run->problem = run->file.problem;
	return r;
}

/* ---- simulating ------------------------------------------------------------------------------ */

static void show(void *arg, size_t finished)
{
	struct run *run = arg;

	progress_update(&run->progress, run->count * run->problem.job_count + finished, 0);
}

static int never_ends(const struct run *run, const struct sim_result *result, struct error *err)
{
	char number[24];
	size_t i = 0;

	while (i < run->problem.job_count && !isinf(result->jobs[i].finish_s))
		i++;
	snprintf(number, sizeof(number), "%zu", i);
	return error_set(err, -EINVAL,
		"job %s can never end: it wants more GPUs than there are, or its rate is 0",
		run->file.job_names ? run->file.job_names[i] : number);
}

static int simulate(struct run *run, enum gpu_policy g, enum storage_policy s, struct error *err)
{
	struct sim_outcome *o = &run->outcomes[run->count];
	struct sim_result *result = &run->results[run->count];
	int r = sim_run(&run->problem, g, s, show, run, result);

	*o = (struct sim_outcome){.gpus = g, .storage = s};
	if (r == -EDEADLK)
		return never_ends(run, result, err);
	if (r == 0)
		r = sim_summarize(&run->problem, result, &o->summary);
	if (r < 0)
		return error_set_errno(err, r, "the simulation failed");
	run->count++;
	return 0;
}

static int simulate_all(const struct invocation *inv, struct run *run, struct error *err)
{
	enum gpu_policy policy = policy_flag(inv);
	enum storage_policy storage = storage_flag(inv);
	int r = 0;

	run->pairs = (policy == GPU_POLICIES ? GPU_POLICIES : 1) *
		     (storage == STORAGE_POLICIES ? STORAGE_POLICIES : 1);
	progress_start(&run->progress, "simulate", "jobs", run->pairs * run->problem.job_count, 0);
	for (int g = 0; r == 0 && g < GPU_POLICIES; g++) {
		for (int s = 0; r == 0 && s < STORAGE_POLICIES; s++) {
			if ((policy == GPU_POLICIES || (int)policy == g) &&
				(storage == STORAGE_POLICIES || (int)storage == s))
				r = simulate(run, g, s, err);
		}
	}
	if (run->progress.shown)
		progress_finish(&run->progress, run->count * run->problem.job_count, 0);
	return r;
}

/* ---- reporting ------------------------------------------------------------------------------- */

/* The same policy with joint storage, NULL when it was not simulated. */
static const struct sim_summary *joint_of(const struct run *run, const struct sim_outcome *o)
{
	for (size_t i = 0; i < run->count; i++) {
		if (run->outcomes[i].gpus == o->gpus &&
			run->outcomes[i].storage == STORAGE_POLICY_JOINT)
			return &run->outcomes[i].summary;
	}
	return NULL;
}

static void print_outcomes(const struct run *run)
{
	struct table *t =
		table_new("POLICY\tSTORAGE\t>AVG JCT s\t>TO JOINT\t>P50\t>P90\t>P99\t"
			  ">MAKESPAN s\t>GPUS USED\t>OF HELD\t>FAIRNESS\t>FILLED\t>ORIGIN");

	for (size_t i = 0; i < run->count; i++) {
		const struct sim_outcome *o = &run->outcomes[i];
		const struct sim_summary *s = &o->summary, *joint = joint_of(run, o);
		char text[SIZE_TEXT_BYTES];

		table_cell(t, "%s", gpu_policy_name(o->gpus));
		table_cell(t, "%s", storage_policy_name(o->storage));
		table_cell(t, "%.0f", s->average_jct_s);
		if (joint && joint->average_jct_s > 0)
			table_cell(t, "%.2f", s->average_jct_s / joint->average_jct_s);
		else
			table_cell(t, "-");
		table_cell(t, "%.0f", s->p50_jct_s);
		table_cell(t, "%.0f", s->p90_jct_s);
		table_cell(t, "%.0f", s->p99_jct_s);
		table_cell(t, "%.0f", s->makespan_s);
		table_cell(t, "%.1f %%", 100 * s->gpu_utilization);
		table_cell(t, "%.1f %%", 100 * s->gpu_efficiency);
		table_cell(t, "%.3f", s->fairness);
		if (s->cache_filled >= 0)
			table_cell(t, "%.0f %%", 100 * s->cache_filled);
		else
			table_cell(t, "-");
		table_cell(t, "%s", size_format((uint64_t)s->origin_bytes, text));
	}
	table_print(t, stdout);
	table_free(t);
}

/* Of a FILE, when each of its jobs ends. */
static void print_ends(const struct run *run)
{
	struct table *t = table_new("\nJOB\tPOLICY\tSTORAGE\t>START s\t>END s\t>ORIGIN");

	for (size_t i = 0; i < run->problem.job_count; i++) {
		for (size_t k = 0; k < run->count; k++) {
			const struct sim_job_result *j = &run->results[k].jobs[i];
			char text[SIZE_TEXT_BYTES];

			table_cell(t, "%s", run->file.job_names[i]);
			table_cell(t, "%s", gpu_policy_name(run->outcomes[k].gpus));
			table_cell(t, "%s", storage_policy_name(run->outcomes[k].storage));
			table_cell(t, "%.1f", j->start_s);
			table_cell(t, "%.1f", j->finish_s);
			table_cell(t, "%s", size_format((uint64_t)j->origin_bytes, text));
		}
	}
	table_print(t, stdout);
	table_free(t);
}

static json_t *ends_json(const struct run *run, size_t outcome)
{
	json_t *array = json_array();

	for (size_t i = 0; i < run->problem.job_count; i++) {
		const struct sim_job_result *j = &run->results[outcome].jobs[i];

		json_array_append_new(
			array, json_pack("{s:s, s:f, s:f, s:f}", "name", run->file.job_names[i],
				       "start_s", j->start_s, "finish_s", j->finish_s,
				       "origin_bytes", j->origin_bytes));
	}
	return array;
}

static json_t *outcome_json(const struct run *run, size_t i)
{
	const struct sim_outcome *o = &run->outcomes[i];
	const struct sim_summary *s = &o->summary;
	json_t *object = json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}",
		"policy", gpu_policy_name(o->gpus), "storage", storage_policy_name(o->storage),
		"average_jct_s", s->average_jct_s, "p50_jct_s", s->p50_jct_s, "p90_jct_s",
		s->p90_jct_s, "p99_jct_s", s->p99_jct_s, "makespan_s", s->makespan_s,
		"gpu_utilization", s->gpu_utilization, "gpu_efficiency", s->gpu_efficiency,
		"fairness", s->fairness, "mean_share", s->mean_share, "origin_bytes",
		s->origin_bytes);

	json_object_set_new(object, "cache_filled",
		s->cache_filled >= 0 ? json_real(s->cache_filled) : json_null());
	if (run->file.job_names)
		json_object_set_new(object, "jobs", ends_json(run, i));
	return object;
}

static void print_json(const struct run *run)
{
	const struct problem *p = &run->problem;
	json_t *outcomes = json_array();

	for (size_t i = 0; i < run->count; i++)
		json_array_append_new(outcomes, outcome_json(run, i));
	output_json(json_pack("{s:{s:I, s:I, s:f}, s:I, s:I, s:o}", "capacity", "gpus",
		(json_int_t)p->gpus, "cache_bytes", (json_int_t)p->cache_bytes,
		"remote_bytes_per_s", p->remote_bytes_per_s, "jobs", (json_int_t)p->job_count,
		"datasets", (json_int_t)p->dataset_count, "results", outcomes));
}

static void title_of(const struct run *run, char title[TITLE_BYTES])
{
	char cache[SIZE_TEXT_BYTES], rate[SIZE_TEXT_BYTES];

	snprintf(title, TITLE_BYTES,
		"%zu jobs over %zu datasets on %" PRIu64 " GPUs, %s of cache, "
		"%s/s of the origin",
		run->problem.job_count, run->problem.dataset_count, run->problem.gpus,
		size_format(run->problem.cache_bytes, cache),
		size_format((uint64_t)run->problem.remote_bytes_per_s, rate));
}

static int report(const struct invocation *inv, const struct run *run, struct error *err)
{
	const char *plot = inv_text(inv, "plot");
	char title[TITLE_BYTES];

	title_of(run, title);
	if (inv_json(inv)) {
		print_json(run);
	} else {
		printf("%s\n\n", title);
		print_outcomes(run);
		if (run->file.job_names)
			print_ends(run);
	}
	return plot ? sim_plot_write(plot, title, run->outcomes, run->count, err) : 0;
}

static void run_free(struct run *run)
{
	for (size_t i = 0; i < PAIRS; i++)
		sim_result_deinit(&run->results[i]);
	problem_file_deinit(&run->file);
	workload_deinit(&run->workload);
	free(run);
}

int command_sim(struct invocation *inv)
{
	struct run *run = calloc(1, sizeof(*run));
	struct error err = ERROR_INIT;
	int r;

	if (!run)
		return inv_fail(inv, -ENOMEM, &err);
	r = inv_argc(inv) > 0 ? read_problem(inv, run, &err) : read_workload(inv, run, &err);
	if (r == 0)
		r = simulate_all(inv, run, &err);
	if (r == 0)
		r = report(inv, run, &err);
	run_free(run);
	return r < 0 ? inv_fail(inv, r, &err) : EXIT_OK;
}
