/*
 * What-if: solves a scheduling problem from a file with the code that divides a live cluster.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "cli/commands.h"
#include "cli/job_client.h"
#include "cli/output.h"
#include "cli/policy_flags.h"
#include "cli/problem_file.h"
#include "cli/table.h"
#include "common/size.h"
#include "scheduler/allocation.h"

struct plan {
	struct problem_file file;
	enum gpu_policy policy;
	enum storage_policy storage;
	struct allocation allocation;
};

static const char *rate_text(double bytes_per_s, char text[SIZE_TEXT_BYTES])
{
	return size_format((uint64_t)bytes_per_s, text);
}

static void print_jobs(const struct plan *p)
{
	struct table *t = table_new("JOB\tSTATE\tDATASET\t>GPUS\t>ORIGIN/S\t>PREDICTED/S\t>OF "
				    "IDEAL\t>HIT");

	for (size_t i = 0; i < p->file.problem.job_count; i++) {
		const struct problem_job *j = &p->file.jobs[i];
		const struct allocation_job *a = &p->allocation.jobs[i];
		char text[SIZE_TEXT_BYTES];

		table_cell(t, "%s", p->file.job_names[i]);
		table_cell(t, "%s", a->running ? "running" : "queued");
		table_cell(t, "%s", p->file.dataset_names[j->dataset]);
		table_cell(t, "%" PRIu64, a->running ? j->gpus : 0);
		table_cell(t, "%s", rate_text(a->remote_bytes_per_s, text));
		table_cell(t, "%s", rate_text(a->predicted_bytes_per_s, text));
		if (j->ideal_bytes_per_s > 0)
			table_cell(t, "%.1f %%",
				100 * a->predicted_bytes_per_s / j->ideal_bytes_per_s);
		else
			table_cell(t, "-");
		table_cell(t, "%.1f %%", 100 * a->hit_ratio);
	}
	table_print(t, stdout);
	table_free(t);
}

static void print_datasets(const struct plan *p)
{
	struct table *t = table_new("DATASET\t>SIZE\t>CACHE\t>OF IT");

	for (size_t i = 0; i < p->file.problem.dataset_count; i++) {
		uint64_t bytes = p->file.datasets[i].bytes;
		uint64_t cache = p->allocation.dataset_cache_bytes[i];
		char text[SIZE_TEXT_BYTES];

		table_cell(t, "%s", p->file.dataset_names[i]);
		table_cell(t, "%s", size_format(bytes, text));
		table_cell(t, "%s", size_format(cache, text));
		if (bytes)
			table_cell(t, "%.1f %%", 100 * (double)cache / (double)bytes);
		else
			table_cell(t, "-");
	}
	table_print(t, stdout);
	table_free(t);
}

static void print_tables(const struct plan *p)
{
	const struct allocation *a = &p->allocation;
	char cache[SIZE_TEXT_BYTES], remote[SIZE_TEXT_BYTES];

	print_jobs(p);
	putchar('\n');
	print_datasets(p);
	printf("\nleft: %" PRIu64 " GPUs, %s of cache, %s/s of the origin\n", a->gpus_left,
		size_format(a->cache_bytes_left, cache),
		rate_text(a->remote_bytes_per_s_left, remote));
}

static json_t *jobs_json(const struct plan *p)
{
	json_t *array = json_array();

	for (size_t i = 0; i < p->file.problem.job_count; i++) {
		const struct allocation_job *a = &p->allocation.jobs[i];

		json_array_append_new(array,
			json_pack("{s:s, s:s, s:I, s:f, s:f, s:f}", "name", p->file.job_names[i],
				"state", a->running ? "running" : "queued", "gpus",
				(json_int_t)(a->running ? p->file.jobs[i].gpus : 0),
				"remote_bytes_per_s", a->remote_bytes_per_s,
				"predicted_bytes_per_s", a->predicted_bytes_per_s, "hit_ratio",
				a->hit_ratio));
	}
	return array;
}

static json_t *datasets_json(const struct plan *p)
{
	json_t *array = json_array();

	for (size_t i = 0; i < p->file.problem.dataset_count; i++)
		json_array_append_new(array,
			json_pack("{s:s, s:I}", "name", p->file.dataset_names[i], "cache_bytes",
				(json_int_t)p->allocation.dataset_cache_bytes[i]));
	return array;
}

static void print_json(const struct plan *p)
{
	const struct allocation *a = &p->allocation;

	output_json(json_pack("{s:s, s:s, s:o, s:o, s:{s:I, s:I, s:f}}", "policy",
		gpu_policy_name(p->policy), "storage", storage_policy_name(p->storage), "datasets",
		datasets_json(p), "jobs", jobs_json(p), "left", "gpus", (json_int_t)a->gpus_left,
		"cache_bytes", (json_int_t)a->cache_bytes_left, "remote_bytes_per_s",
		a->remote_bytes_per_s_left));
}

static int plan_file(const struct invocation *inv, struct error *err)
{
	struct plan p = {.policy = policy_flag(inv), .storage = storage_flag(inv)};
	int r = problem_file_read(inv_argument(inv, 0), &p.file, err);

	if (r == 0)
		r = allocation_solve(&p.file.problem, p.policy, p.storage, &p.allocation, NULL);
	if (r == 0 && inv_json(inv))
		print_json(&p);
	else if (r == 0)
		print_tables(&p);
	allocation_deinit(&p.allocation);
	problem_file_deinit(&p.file);
	return r;
}

int command_plan(struct invocation *inv)
{
	bool live = inv_switch(inv, "live"), file = inv_argument(inv, 0) != NULL;
	struct error err = ERROR_INIT;
	int r;

	if (live == file)
		r = error_set(&err, -EINVAL,
			"say either a FILE or --live, which asks the running cluster");
	else
		r = live ? job_plan_live(inv, &err) : plan_file(inv, &err);
	return r < 0 ? inv_fail(inv, r, &err) : EXIT_OK;
}
