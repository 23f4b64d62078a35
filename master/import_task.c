#include "master/import_task.h"

#include <pthread.h>

#include "common/sync.h"
#include "granary/v1/dataset.pb-c.h"

struct import_task {
	const struct import_job *job;
	struct import_report *report;
	struct manifest_info info;
	struct error err;
	int result;

	struct mutex mu;
	struct cond ended_cond;
	bool ended; /* guarded by mu */
};

static void *task_main(void *arg)
{
	struct import_task *t = arg;

	t->result = import_run(t->job, t->report, &t->info, &t->err);
	mutex_lock(&t->mu);
	t->ended = true;
	cond_signal(&t->ended_cond);
	mutex_unlock(&t->mu);
	return NULL;
}

static int send_progress(struct rpc_call *call, const struct import_progress *p)
{
	static const char *const phases[] = {
		[IMPORT_LISTING] = "listing", [IMPORT_BUILDING] = "building"};
	Granary__V1__ImportProgress msg = GRANARY__V1__IMPORT_PROGRESS__INIT;

	msg.entries = atomic_load(&p->entries);
	msg.bytes = atomic_load(&p->bytes);
	msg.phase = (char *)phases[atomic_load(&p->phase)];
	return rpc_call_send(call, &msg.base);
}

static bool wait_ended(struct import_task *t)
{
	int64_t until_ms = clock_deadline_ms(IMPORT_PROGRESS_MS);

	mutex_guard(&t->mu);
	while (!t->ended && !clock_passed(until_ms))
		cond_wait(&t->ended_cond, &t->mu, until_ms);
	return t->ended;
}

int import_task_run(struct rpc_call *call, struct import_job *job, struct import_report *report,
	struct manifest_info *ret_info, struct error *err)
{
	struct import_progress progress = {0};
	atomic_bool cancel = false;
	struct import_task t = {.job = job, .report = report, .err = ERROR_INIT};
	pthread_t thread;
	int r;

	job->cancel = &cancel;
	job->progress = &progress;
	mutex_init(&t.mu);
	cond_init(&t.ended_cond);
	r = pthread_create(&thread, NULL, task_main, &t);
	if (r == 0) {
		while (!wait_ended(&t))
			if (rpc_call_cancelled(call) || send_progress(call, &progress) < 0)
				atomic_store(&cancel, true);
		pthread_join(thread, NULL);
		*ret_info = t.info;
		if (t.result < 0 && err)
			*err = t.err;
		r = t.result;
	} else {
		r = error_set_errno(err, -r, "cannot start a thread for the import");
	}
	cond_deinit(&t.ended_cond);
	mutex_deinit(&t.mu);
	return r;
}
