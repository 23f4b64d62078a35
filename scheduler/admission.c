#include "scheduler/admission.h"

#include <errno.h>
#include <stdlib.h>

#include "scheduler/model.h"

struct applicant {
	double score; /* 0 for all but SJF */
	double arrival_s;
	size_t job;
};

static int before(const void *a, const void *b)
{
	const struct applicant *x = a, *y = b;

	if (x->score != y->score)
		return x->score < y->score ? -1 : 1;
	if (x->arrival_s != y->arrival_s)
		return x->arrival_s < y->arrival_s ? -1 : 1;
	return x->job < y->job ? -1 : x->job > y->job;
}

static struct applicant *line_up(const struct problem *p, enum gpu_policy policy)
{
	struct applicant *line = calloc(p->job_count + 1, sizeof(*line));

	for (size_t i = 0; line && i < p->job_count; i++) {
		const struct problem_job *j = &p->jobs[i];

		line[i] = (struct applicant){.arrival_s = j->arrival_s, .job = i};
		if (policy == GPU_POLICY_SJF)
			line[i].score = model_sjf_score(p, j);
	}
	if (line)
		qsort(line, p->job_count, sizeof(*line), before);
	return line;
}

int admission_solve(const struct problem *p, enum gpu_policy policy, size_t **ret_running,
	size_t *ret_count, uint64_t *ret_gpus_left)
{
	struct applicant *line = line_up(p, policy);
	size_t *running = malloc((p->job_count + 1) * sizeof(*running)), count = 0;
	uint64_t left = p->gpus;

	if (!line || !running) {
		free(line);
		free(running);
		return -ENOMEM;
	}
	for (size_t i = 0; i < p->job_count; i++) {
		uint64_t wanted = p->jobs[line[i].job].gpus;

		if (wanted <= left) {
			left -= wanted;
			running[count++] = line[i].job;
		} else if (policy != GPU_POLICY_SJF) {
			break;
		}
	}
	free(line);
	*ret_running = running;
	*ret_count = count;
	*ret_gpus_left = left;
	return 0;
}
