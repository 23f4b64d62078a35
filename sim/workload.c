#include "sim/workload.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "sim/random.h"

const struct workload_row workload_rows[WORKLOAD_ROWS] = {
	{"unet3d", 1613.5e6, 24630000000},
	{"resnet50", 105.4e6, 146900000000},
	{"cosmoflow", 513.3e6, 1483000000000},
};

static bool fits(const struct trace_job *j, const struct workload_options *o)
{
	return j->gpus > 0 && j->gpus <= o->gpus && j->duration_s > 0;
}

static int earlier(const void *a, const void *b)
{
	const struct trace_job *x = a, *y = b;

	if (x->arrival_s != y->arrival_s)
		return x->arrival_s < y->arrival_s ? -1 : 1;
	if (x->duration_s != y->duration_s)
		return x->duration_s < y->duration_s ? -1 : 1;
	return x->gpus < y->gpus ? -1 : x->gpus > y->gpus;
}

/* Sorted, so that the order of the file does not matter; then the first of a shuffle. */
static size_t choose(const struct trace *t, const struct workload_options *o, uint64_t *random,
	struct trace_job *chosen)
{
	size_t count = 0, taken;

	for (size_t i = 0; i < t->count; i++) {
		if (fits(&t->jobs[i], o))
			chosen[count++] = t->jobs[i];
	}
	qsort(chosen, count, sizeof(*chosen), earlier);
	taken = count < o->jobs ? count : o->jobs;
	for (size_t i = 0; i < taken; i++) {
		size_t k = i + random_below(random, count - i);
		struct trace_job swapped = chosen[i];

		chosen[i] = chosen[k];
		chosen[k] = swapped;
	}
	qsort(chosen, taken, sizeof(*chosen), earlier);
	return taken;
}

static double stretch_of(
	const struct trace_job *jobs, size_t count, const struct workload_options *o)
{
	double span = jobs[count - 1].arrival_s - jobs[0].arrival_s, work = 0;

	for (size_t i = 0; i < count; i++)
		work += jobs[i].duration_s * (double)jobs[i].gpus;
	return o->load > 0 && span > 0 ? work / ((double)o->gpus * o->load) / span : 1;
}

static size_t choose_row(const struct workload_options *o, uint64_t *random)
{
	double total = 0, drawn;
	size_t row = 0;

	for (size_t i = 0; i < WORKLOAD_ROWS; i++)
		total += o->mix[i];
	drawn = random_unit(random) * total;
	while (row + 1 < WORKLOAD_ROWS && drawn >= o->mix[row])
		drawn -= o->mix[row++];
	return row;
}

/* The rows' datasets, one after the other: those of row i are first[i] to first[i + 1] - 1. */
static void count_datasets(const struct workload_options *o, size_t first[WORKLOAD_ROWS + 1])
{
	double total = 0;

	for (size_t i = 0; i < WORKLOAD_ROWS; i++)
		total += o->mix[i];
	first[0] = 0;
	for (size_t i = 0; i < WORKLOAD_ROWS; i++) {
		double share = (double)o->datasets * o->mix[i] / total;

		first[i + 1] = first[i] + (size_t)fmax(1, round(share));
	}
}

static int allocate(struct workload *w, size_t jobs, size_t datasets)
{
	w->problem.dataset_count = datasets;
	w->problem.job_count = jobs;
	w->datasets = calloc(datasets + 1, sizeof(*w->datasets));
	w->jobs = calloc(jobs + 1, sizeof(*w->jobs));
	w->problem.datasets = w->datasets;
	w->problem.jobs = w->jobs;
	if (!w->datasets || !w->jobs)
		return -ENOMEM;
	for (size_t i = 0; i < datasets; i++)
		w->datasets[i] = (struct problem_dataset)PROBLEM_DATASET_INIT;
	return 0;
}

static void make_job(
	struct problem_job *j, const struct trace_job *t, const struct workload_row *row)
{
	*j = (struct problem_job)PROBLEM_JOB_INIT;
	j->gpus = t->gpus;
	j->ideal_bytes_per_s = (double)t->gpus * row->bytes_per_s;
	j->remaining_bytes = (uint64_t)fmin(j->ideal_bytes_per_s * t->duration_s, 0x1p62);
}

int workload_make(const struct trace *t, const struct workload_options *o, struct workload *ret,
	struct error *err)
{
	struct trace_job *chosen = calloc(t->count + 1, sizeof(*chosen));
	size_t first[WORKLOAD_ROWS + 1], count;
	uint64_t random = o->seed;
	double stretch;
	int r;

	*ret = (struct workload){0};
	if (!chosen)
		return error_set(err, -ENOMEM, "out of memory");
	count = choose(t, o, &random, chosen);
	if (count == 0) {
		free(chosen);
		return error_set(err, -EINVAL, "no job of the trace fits into the cluster");
	}
	stretch = stretch_of(chosen, count, o);
	count_datasets(o, first);
	r = allocate(ret, count, o->datasets ? first[WORKLOAD_ROWS] : count);
	for (size_t i = 0; r == 0 && i < count; i++) {
		size_t row = choose_row(o, &random), dataset = i;

		if (o->datasets)
			dataset = first[row] + random_below(&random, first[row + 1] - first[row]);
		make_job(&ret->jobs[i], &chosen[i], &workload_rows[row]);
		ret->jobs[i].arrival_s = (chosen[i].arrival_s - chosen[0].arrival_s) * stretch;
		ret->jobs[i].dataset = dataset;
		ret->datasets[dataset].bytes = workload_rows[row].dataset_bytes;
	}
	free(chosen);
	return r < 0 ? error_set(err, r, "out of memory") : 0;
}

void workload_deinit(struct workload *w)
{
	free(w->datasets);
	free(w->jobs);
	*w = (struct workload){0};
}
