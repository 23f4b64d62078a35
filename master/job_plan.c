/* JobService/Plan: the next plan, had one more job been started. Solved by the code that plans. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "master/plan_round.h"

#define SERVICE "/granary.v1.JobService/"

/* The jobs there are, and the one that is asked about. */
struct question {
	struct plan_round round;
	char (*names)[JOB_NAME_BYTES]; /* of the round's jobs */
	size_t item;		       /* of the new job's dataset */
};

static void question_deinit(struct question *q)
{
	plan_round_deinit(&q->round);
	free(q->names);
}

static int check_locked(struct master *m, const Granary__V1__StartJobRequest *job, size_t *ret_item,
	struct error *err)
{
	struct dataset *d = dataset_registry_find(&m->datasets, job->dataset);

	if (!d || !d->in_database || !dataset_current(d))
		return error_set(err, -ENOENT,
			"there is no dataset '%.128s': `granary dataset ls` shows those there are",
			job->dataset);
	*ret_item = d->plan_item;
	return 0;
}

static int question_init(struct master *m, const Granary__V1__StartJobRequest *job,
	struct question *q, struct error *err)
{
	struct job *j, *next;
	int r;

	mutex_guard(&m->mu);
	r = plan_round_init_locked(m, &q->round);
	q->names = calloc(q->round.job_count + 1, sizeof(*q->names));
	if (r < 0 || !q->names)
		return error_set(err, -ENOMEM, "the master is out of memory");
	HASH_ITER (hh, m->jobs.by_name, j, next) {
		const struct allocate_job *a = plan_round_job(&q->round, j->id);

		if (a)
			memcpy(q->names[a - q->round.jobs], j->name, sizeof(j->name));
	}
	return check_locked(m, job, &q->item, err);
}

static void add_job(struct question *q, const Granary__V1__StartJobRequest *job)
{
	struct plan_round *round = &q->round;
	uint64_t bytes = round->items[q->item].bytes;

	round->jobs[round->job_count++] = (struct allocate_job){
		.id = UINT64_MAX,
		.item = q->item,
		.gpus = job->gpus ? job->gpus : 1,
		.remaining_bytes = bytes,
		.ideal_bytes_per_s = job->ideal_bytes_per_s,
		.weight = job->weight > 0 ? job->weight : 1,
		.min_remote_bytes_per_s = job->min_remote_bytes_per_s,
		.irregular = job->irregular,
	};
}

/* Solves with every cache filled, but for the last job's when `first`. */
static int solve(struct question *q, bool first, struct error *err)
{
	struct plan_round *round = &q->round;

	for (size_t i = 0; i < round->job_count; i++)
		round->jobs[i].effective_bytes = round->items[round->jobs[i].item].bytes;
	if (first)
		round->jobs[round->job_count - 1].effective_bytes = 0;
	if (plan_round_divide(round) < 0)
		return error_set(err, -ENOMEM, "the master is out of memory");
	return 0;
}

/* ---- the reply ------------------------------------------------------------------------------- */

static Granary__V1__PlannedJob *planned_new(const char *name, double ideal)
{
	Granary__V1__PlannedJob *p = malloc(sizeof(*p));

	if (!p)
		return NULL;
	granary__v1__planned_job__init(p);
	p->name = strdup(name);
	p->ideal_bytes_per_s = ideal;
	return p;
}

static int reply_init(Granary__V1__PlanJobReply *reply, const struct question *q,
	const Granary__V1__StartJobRequest *job)
{
	const struct plan_round *round = &q->round;

	granary__v1__plan_job_reply__init(reply);
	reply->job = planned_new(job->name, job->ideal_bytes_per_s);
	reply->others = calloc(round->job_count + 1, sizeof(*reply->others));
	if (!reply->job || !reply->others)
		return -ENOMEM;
	for (size_t i = 0; i < round->job_count; i++) {
		reply->others[i] = planned_new(q->names[i], round->jobs[i].ideal_bytes_per_s);
		if (!reply->others[i])
			return -ENOMEM;
		reply->n_others++;
	}
	return 0;
}

static int answer(struct question *q, const Granary__V1__StartJobRequest *job,
	Granary__V1__PlanJobReply *reply, struct error *err)
{
	const struct plan_round *round = &q->round;
	size_t others = round->job_count;
	int r = solve(q, false, err);

	for (size_t i = 0; r == 0 && i < others; i++)
		reply->others[i]->now_bytes_per_s = round->jobs[i].predicted_bytes_per_s;
	add_job(q, job);
	if (r == 0)
		r = solve(q, true, err);
	for (size_t i = 0; r == 0 && i < others; i++)
		reply->others[i]->first_bytes_per_s = round->jobs[i].predicted_bytes_per_s;
	reply->job->first_bytes_per_s = round->jobs[others].predicted_bytes_per_s;
	if (r == 0)
		r = solve(q, false, err);
	for (size_t i = 0; r == 0 && i < others; i++)
		reply->others[i]->later_bytes_per_s = round->jobs[i].predicted_bytes_per_s;
	reply->job->later_bytes_per_s = round->jobs[others].predicted_bytes_per_s;
	reply->cache_bytes = round->jobs[others].cache_bytes;
	return r;
}

static int plan(struct master *m, const Granary__V1__StartJobRequest *job,
	Granary__V1__PlanJobReply *reply, struct error *err)
{
	CLEANUP(question_deinit) struct question q = {0};
	int r;

	if (!job)
		return error_set(err, -EINVAL, "which job?");
	r = job_request_check(job, err);
	if (r == 0)
		r = question_init(m, job, &q, err);
	if (r < 0)
		return r;
	if (reply_init(reply, &q, job) < 0)
		return error_set(err, -ENOMEM, "the master is out of memory");
	return answer(&q, job, reply, err);
}

static void on_plan(struct rpc_call *call, void *arg)
{
	Granary__V1__PlanJobReply *reply;
	struct error err = ERROR_INIT;
	const Granary__V1__PlanJobRequest *request =
		(const Granary__V1__PlanJobRequest *)rpc_call_request(
			call, &granary__v1__plan_job_request__descriptor);
	int r;

	if (!request)
		return;
	reply = malloc(sizeof(*reply));
	if (!reply) {
		rpc_call_fail(call, -ENOMEM, "the master is out of memory");
		return;
	}
	granary__v1__plan_job_reply__init(reply);
	r = plan(arg, request->job, reply, &err);
	if (r < 0)
		rpc_call_fail(call, r, err.text);
	else
		rpc_call_reply(call, &reply->base);
	granary__v1__plan_job_reply__free_unpacked(reply, NULL);
}

void job_plan_add(struct master *m, struct rpc_server *server)
{
	rpc_server_add(server, SERVICE "Plan", on_plan, m);
}
