#include "master/worker_jobs.h"

#include <stdlib.h>
#include <string.h>

struct worker_job {
	char name[JOB_NAME_BYTES];
	uint64_t origin_bytes, waited_us;
	bool named; /* in the heartbeat that is taken in */
	UT_hash_handle hh;
};

void worker_jobs_free(struct worker_job **table)
{
	struct worker_job *w, *next;

	HASH_ITER (hh, *table, w, next) {
		HASH_DELETE(hh, *table, w);
		free(w);
	}
}

static struct worker_job *get(struct worker_job **table, const char *name, bool *ret_new)
{
	struct worker_job *w;

	HASH_FIND_STR(*table, name, w);
	*ret_new = !w;
	if (w || HASH_COUNT(*table) >= WORKER_JOBS_MAX || strlen(name) >= sizeof(w->name))
		return w;
	w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	strncat(w->name, name, sizeof(w->name) - 1);
	HASH_ADD_STR(*table, name, w);
	return w;
}

/* A counter that went back belongs to a worker that was started anew. */
static uint64_t fresh(uint64_t said, uint64_t counted)
{
	return said >= counted ? said - counted : said;
}

static void take(struct worker_job **table, struct jobs *jobs, const Granary__V1__WorkerJob *said,
	bool baseline)
{
	struct job *j = jobs_find(jobs, said->job);
	bool is_new;
	struct worker_job *w = get(table, said->job, &is_new);

	if (!w)
		return;
	w->named = true;
	if (j && !(is_new && baseline)) {
		j->dirty |= said->origin_bytes != w->origin_bytes;
		j->counters.origin_bytes += fresh(said->origin_bytes, w->origin_bytes);
		j->counters.waited_us += fresh(said->waited_us, w->waited_us);
	}
	w->origin_bytes = said->origin_bytes;
	w->waited_us = said->waited_us;
}

void worker_jobs_heard(struct worker_job **table, struct jobs *jobs,
	const Granary__V1__WorkerHeartbeatRequest *request, bool baseline)
{
	struct worker_job *w, *next;

	for (size_t i = 0; i < request->n_jobs; i++)
		take(table, jobs, request->jobs[i], baseline);
	/* What a worker forgets it begins again at nothing. */
	HASH_ITER (hh, *table, w, next) {
		if (w->named) {
			w->named = false;
			continue;
		}
		HASH_DELETE(hh, *table, w);
		free(w);
	}
}
