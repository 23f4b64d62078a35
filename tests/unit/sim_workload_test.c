/* Traces, and what they become. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "sim/trace.h"
#include "sim/workload.h"

static char path[] = "/tmp/granary-trace-XXXXXX";

static int read_text(const char *text, struct trace *ret, struct error *err)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
	return trace_read(path, ret, err);
}

#define HEADING "timestamp,duration,num_gpus,gpu_time,cluster\n"

static void the_columns_of_the_philly_trace_are_read(void **state)
{
	struct trace t;

	(void)state;
	assert_int_equal(read_text(HEADING "2017-10-09 07:01:55,66.0,1,66.0,11cb48\n"
					   "2017-10-08 06:13:03,2951.5,8,2951.0,6214e9\r\n\n",
				 &t, NULL),
		0);
	assert_int_equal(t.count, 2);
	assert_true(t.jobs[0].arrival_s - t.jobs[1].arrival_s == 86400 + 48 * 60 + 52);
	assert_true(t.jobs[1].duration_s == 2951.5);
	assert_int_equal(t.jobs[1].gpus, 8);
	trace_deinit(&t);
	/* Wherever the columns are. */
	assert_int_equal(
		read_text("num_gpus,timestamp,duration\n2,2017-10-09 07:01:55,1\n", &t, NULL), 0);
	assert_int_equal(t.jobs[0].gpus, 2);
	trace_deinit(&t);
}

static void bad_lines_are_named(void **state)
{
	static const struct {
		const char *text, *named;
	} cases[] = {
		{"", "is empty"},
		{"timestamp,duration\n", "line 1: no columns"},
		{HEADING "2017-10-09 07:01:55,66.0\n", "line 2: "},
		{HEADING "2017-10-09 07:01:55,1,1,1,a\n09/10/2017,1,1,1,a\n", "line 3: "},
		{HEADING "2017-10-09 07:01:55,-1,1,1,a\n", "line 2: "},
		{HEADING "2017-10-09 07:01:55,nan,1,1,a\n", "line 2: "},
		{HEADING "2017-10-09 07:01:55,1e300,1,1,a\n", "line 2: "},
		{HEADING "2017-10-09 07:01:55,1,1.5,1,a\n", "line 2: "},
		{HEADING "2017-10-09 07:01:55,1,one,1,a\n", "line 2: "},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct error err = ERROR_INIT;
		struct trace t;

		assert_int_equal(read_text(cases[i].text, &t, &err), -EINVAL);
		assert_non_null(strstr(err.text, cases[i].named));
		assert_non_null(strstr(err.text, path));
		trace_deinit(&t);
	}
	assert_int_equal(trace_read("/nowhere/trace.csv", &(struct trace){0}, NULL), -ENOENT);
}

static struct workload_options options(void)
{
	return (struct workload_options){
		.jobs = 1000, .gpus = 64, .datasets = 30, .load = 0.5, .mix = {1, 1, 1}, .seed = 5};
}

static struct trace made_up(size_t jobs)
{
	struct trace t;

	assert_int_equal(trace_generate(jobs, 3, &t, NULL), 0);
	return t;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void made_up_traces_look_like_philly(void **state)
{
	struct trace t = made_up(100000);
	double *durations = calloc(t.count, sizeof(double)), sum = 0, single = 0;

	(void)state;
	assert_non_null(durations);
	for (size_t i = 0; i < t.count; i++) {
		durations[i] = t.jobs[i].duration_s;
		sum += t.jobs[i].duration_s;
		single += t.jobs[i].gpus == 1;
		assert_true(i == 0 || t.jobs[i].arrival_s >= t.jobs[i - 1].arrival_s);
	}
	qsort(durations, t.count, sizeof(double), ascending);
	assert_true(fabs(durations[t.count / 2] - 1144) < 0.03 * 1144);
	assert_true(fabs(sum / (double)t.count - 13136) < 0.1 * 13136);
	assert_true(fabs(single / (double)t.count - 76627.0 / 82224) < 0.01);
	free(durations);
	trace_deinit(&t);
}

static void jobs_read_at_the_rate_of_their_row_for_as_long_as_they_ran(void **state)
{
	struct trace t = made_up(3000);
	struct workload_options o = options();
	struct workload w;
	double work = 0, span;
	size_t rows[WORKLOAD_ROWS] = {0};

	(void)state;
	assert_int_equal(workload_make(&t, &o, &w, NULL), 0);
	assert_int_equal(w.problem.job_count, 1000);
	assert_int_equal(w.problem.dataset_count, 30);
	for (size_t i = 0; i < 1000; i++) {
		const struct problem_job *j = &w.jobs[i];
		size_t row = 0;

		while (w.datasets[j->dataset].bytes != workload_rows[row].dataset_bytes)
			row++;
		rows[row]++;
		assert_true(j->gpus <= 64);
		assert_true(fabs(j->ideal_bytes_per_s -
				    (double)j->gpus * workload_rows[row].bytes_per_s) < 1);
		assert_true(i == 0 || j->arrival_s >= w.jobs[i - 1].arrival_s);
		work += (double)j->gpus * (double)j->remaining_bytes / j->ideal_bytes_per_s;
	}
	for (size_t i = 0; i < WORKLOAD_ROWS; i++)
		assert_true(rows[i] > 250 && rows[i] < 420);
	span = w.jobs[999].arrival_s - w.jobs[0].arrival_s;
	assert_true(fabs(work / (64 * span) - 0.5) < 1e-6);
	assert_true(w.jobs[0].arrival_s == 0);
	workload_deinit(&w);
	trace_deinit(&t);
}

static void the_seed_fixes_everything_and_the_order_of_the_file_nothing(void **state)
{
	struct trace t = made_up(3000);
	struct workload_options o = options();
	struct workload a, b;
	bool differs = false;

	(void)state;
	assert_int_equal(workload_make(&t, &o, &a, NULL), 0);
	for (size_t i = 0; i < t.count / 2; i++) {
		struct trace_job swapped = t.jobs[i];

		t.jobs[i] = t.jobs[t.count - 1 - i];
		t.jobs[t.count - 1 - i] = swapped;
	}
	assert_int_equal(workload_make(&t, &o, &b, NULL), 0);
	for (size_t i = 0; i < 1000; i++) {
		assert_true(a.jobs[i].arrival_s == b.jobs[i].arrival_s);
		assert_int_equal(a.jobs[i].dataset, b.jobs[i].dataset);
		assert_int_equal(a.jobs[i].remaining_bytes, b.jobs[i].remaining_bytes);
	}
	workload_deinit(&b);
	o.seed++;
	assert_int_equal(workload_make(&t, &o, &b, NULL), 0);
	for (size_t i = 0; i < 1000; i++)
		differs = differs || a.jobs[i].remaining_bytes != b.jobs[i].remaining_bytes;
	assert_true(differs);
	workload_deinit(&a);
	workload_deinit(&b);
	trace_deinit(&t);
}

static void mix_sharing_and_size_are_obeyed(void **state)
{
	struct trace t = made_up(500);
	struct workload_options o = options();
	struct workload w;

	(void)state;
	o.mix[1] = o.mix[2] = 0;
	o.datasets = 0;
	o.gpus = 1;
	o.load = 0;
	assert_int_equal(workload_make(&t, &o, &w, NULL), 0);
	assert_int_equal(w.problem.dataset_count, w.problem.job_count);
	assert_true(w.problem.job_count < 500);
	for (size_t i = 0; i < w.problem.job_count; i++) {
		assert_int_equal(w.jobs[i].gpus, 1);
		assert_int_equal(w.jobs[i].dataset, i);
		assert_int_equal(w.datasets[i].bytes, workload_rows[0].dataset_bytes);
	}
	workload_deinit(&w);
	for (size_t i = 0; i < t.count; i++)
		t.jobs[i].gpus = 2;
	assert_int_equal(workload_make(&t, &o, &w, NULL), -EINVAL);
	workload_deinit(&w);
	trace_deinit(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_columns_of_the_philly_trace_are_read),
		cmocka_unit_test(bad_lines_are_named),
		cmocka_unit_test(made_up_traces_look_like_philly),
		cmocka_unit_test(jobs_read_at_the_rate_of_their_row_for_as_long_as_they_ran),
		cmocka_unit_test(the_seed_fixes_everything_and_the_order_of_the_file_nothing),
		cmocka_unit_test(mix_sharing_and_size_are_obeyed),
	};
	int fd = mkstemp(path), failed;

	if (fd < 0)
		return 1;
	close(fd);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(path);
	return failed;
}
