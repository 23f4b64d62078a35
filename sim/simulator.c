#include "sim/simulator.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/allocation.h"
#include "scheduler/model.h"
#include "sim/bands.h"

#define DRIFT_STEP 0.005 /* of a hit ratio, between two looks at the rates */
#define DRIFT_SOLVE 0.05 /* and between two solutions */
#define MISMATCH 1e-6
#define SOLVE_TRIES 3
#define AT_ONCE_S 1e-7 /* events so close are one */
#define PROGRESS_EVERY 256

struct task {
	const struct problem_job *job;
	struct sim_job_result *result;
	struct bands *bands; /* that it reads through; NULL: LRU, or not running */
	struct bands own;    /* private storage: its copy */
	struct bands_reader reader;
	double left;	/* bytes to read */
	bool read_once; /* past its first epoch */
	bool running, admitted, done;
	double remote, hit, rate, equal; /* rates in bytes/s */
	double solved_hit;		 /* that the allocation counted on */
	double steady_hit;		 /* of LRU */
};

struct sim {
	const struct problem *p;
	enum gpu_policy gpus;
	enum storage_policy storage;
	struct task *tasks;	/* as in the problem */
	struct bands *datasets; /* joint, whole */
	double *lru_cached;	/* bytes by dataset, as granted last */
	size_t *by_arrival;	/* tasks */
	size_t next_arrival;	/* index there */
	size_t *active;		/* arrived and not done, by arrival */
	size_t active_count;
	size_t *candidates; /* of the active, those the scheduler is asked about */
	size_t candidate_count;
	size_t *running;
	size_t running_count;
	struct problem_job *jobs; /* of the candidates, for the scheduler */
	double *rates;		  /* scratch */
	double now_s, last_arrival_s;
	double granted_bytes;
	bool burst; /* all arrive at once */
	size_t done;
	bool solve, readmit;
	struct sim_result *ret;
};

static bool lru(const struct sim *s, const struct task *t)
{
	return s->storage == STORAGE_POLICY_LRU || t->job->irregular;
}

static double dataset_bytes(const struct sim *s, const struct task *t)
{
	return (double)s->p->datasets[t->job->dataset].bytes;
}

/* ---- hits ------------------------------------------------------------------------------------ */

/* The share of the dataset that others than the task have read, each in its own order. */
static double read_by_others(const struct sim *s, const struct task *t)
{
	double unread = 1;

	for (size_t i = 0; i < s->running_count; i++) {
		const struct task *o = &s->tasks[s->running[i]];

		if (o == t || o->job->dataset != t->job->dataset || !lru(s, o))
			continue;
		if (o->read_once)
			return 1;
		unread *= o->reader.unread / dataset_bytes(s, o);
	}
	return 1 - unread;
}

static double lru_effective(const struct sim *s, const struct task *t)
{
	return t->read_once || !(dataset_bytes(s, t) > 0) ? 1 : read_by_others(s, t);
}

static double hit_now(const struct sim *s, const struct task *t)
{
	if (t->bands)
		return bands_hit(t->bands, &t->reader);
	return t->steady_hit * lru_effective(s, t);
}

static void set_rate(const struct sim *s, struct task *t)
{
	t->hit = hit_now(s, t);
	t->rate = model_perf(t->job->ideal_bytes_per_s, t->remote, 1 - t->hit);
}

/* What can hit for the task now, for the scheduler. A task that is about to start has read nothing
 * since what is there was cached. */
static uint64_t effective_bytes(const struct sim *s, const struct task *t)
{
	const struct bands *b = &s->datasets[t->job->dataset];
	double d = dataset_bytes(s, t), hit;

	if (!(d > 0))
		return PROBLEM_ALL_EFFECTIVE;
	if (lru(s, t)) {
		double part = lru_effective(s, t);
		double steady = 1 - model_lru_miss(s->lru_cached[t->job->dataset], d);

		return part >= 1 ? PROBLEM_ALL_EFFECTIVE : (uint64_t)(part * steady * d);
	}
	if (t->bands)
		hit = bands_hit(t->bands, &t->reader);
	else
		hit = s->storage == STORAGE_POLICY_PRIVATE ? 0 : bands_cached(b) / d;
	return (uint64_t)(hit * d);
}

/* ---- who runs -------------------------------------------------------------------------------- */

static int start(struct sim *s, struct task *t)
{
	t->running = true;
	if (!t->admitted)
		t->result->start_s = s->now_s;
	t->admitted = true;
	if (lru(s, t))
		return 0;
	t->bands = s->storage == STORAGE_POLICY_PRIVATE ? &t->own : &s->datasets[t->job->dataset];
	return bands_join(t->bands, &t->reader);
}

static void stop(struct task *t)
{
	t->running = false;
	t->rate = 0;
	if (!t->bands)
		return;
	bands_leave(t->bands, &t->reader);
	if (t->bands == &t->own)
		bands_resize(t->bands, 0);
	t->bands = NULL;
}

/* Whom the scheduler has to know. Without arrivals and ends the same jobs keep their GPUs: scores of
 * those that run only fall. By arrival nobody passes the first that does not fit. */
static void choose_candidates(struct sim *s)
{
	uint64_t left = s->p->gpus;

	s->candidate_count = 0;
	for (size_t i = 0; i < s->active_count; i++) {
		const struct task *t = &s->tasks[s->active[i]];

		if (!s->readmit && !t->running)
			continue;
		if (s->gpus != GPU_POLICY_SJF && t->job->gpus > left)
			break;
		left -= s->gpus != GPU_POLICY_SJF ? t->job->gpus : 0;
		s->candidates[s->candidate_count++] = s->active[i];
	}
	for (size_t i = 0; i < s->candidate_count; i++) {
		const struct task *t = &s->tasks[s->candidates[i]];

		s->jobs[i] = *t->job;
		s->jobs[i].remaining_bytes = (uint64_t)ceil(t->left);
	}
}

static int change_running(struct sim *s, const struct allocation *a)
{
	int r = 0;

	s->running_count = 0;
	for (size_t i = 0; i < s->candidate_count; i++) {
		struct task *t = &s->tasks[s->candidates[i]];

		if (!a->jobs[i].running && t->running)
			stop(t);
	}
	for (size_t i = 0; r == 0 && i < s->candidate_count; i++) {
		struct task *t = &s->tasks[s->candidates[i]];

		if (!a->jobs[i].running)
			continue;
		if (!t->running)
			r = start(s, t);
		s->running[s->running_count++] = s->candidates[i];
	}
	return r;
}

/* ---- allocation ------------------------------------------------------------------------------ */

static void apply(struct sim *s, const struct allocation *a)
{
	bool by_dataset = s->storage == STORAGE_POLICY_JOINT || s->storage == STORAGE_POLICY_WHOLE;

	s->granted_bytes = (double)(s->p->cache_bytes - a->cache_bytes_left);
	for (size_t i = 0; i < s->p->dataset_count; i++) {
		s->lru_cached[i] = (double)a->dataset_cache_bytes[i];
		if (by_dataset)
			bands_resize(&s->datasets[i], s->lru_cached[i]);
	}
	for (size_t i = 0; i < s->candidate_count; i++) {
		struct task *t = &s->tasks[s->candidates[i]];

		if (!a->jobs[i].running)
			continue;
		if (t->bands == &t->own)
			bands_resize(&t->own, (double)a->jobs[i].cache_bytes);
		t->remote = a->jobs[i].remote_bytes_per_s;
		t->equal = a->jobs[i].equal_bytes_per_s;
		t->solved_hit = a->jobs[i].hit_ratio;
		/* Of irregular jobs the scheduler knows what else is pinned of their dataset. */
		t->steady_hit = t->job->irregular && t->read_once
					? a->jobs[i].hit_ratio
					: 1 - model_lru_miss((double)a->jobs[i].cache_bytes,
						      dataset_bytes(s, t));
	}
	for (size_t i = 0; i < s->running_count; i++)
		set_rate(s, &s->tasks[s->running[i]]);
}

/* Bandwidth was divided for other hits than there are now that caches have changed. */
static bool mismatched(const struct sim *s)
{
	for (size_t i = 0; i < s->running_count; i++) {
		const struct task *t = &s->tasks[s->running[i]];

		if (fabs(t->hit - t->solved_hit) > MISMATCH)
			return true;
	}
	return false;
}

static int solve(struct sim *s)
{
	struct problem p = *s->p;
	int r = 0;

	choose_candidates(s);
	p.jobs = s->jobs;
	p.job_count = s->candidate_count;
	for (int i = 0; r == 0 && (i == 0 || (i < SOLVE_TRIES && mismatched(s))); i++) {
		struct allocation a;

		for (size_t k = 0; k < s->candidate_count; k++)
			s->jobs[k].effective_cache_bytes =
				effective_bytes(s, &s->tasks[s->candidates[k]]);
		r = allocation_solve(&p, s->gpus, s->storage, &a, NULL);
		if (r < 0)
			return r;
		r = change_running(s, &a);
		if (r == 0)
			apply(s, &a);
		allocation_deinit(&a);
		s->ret->solved++;
	}
	s->solve = s->readmit = false;
	return r;
}

/* ---- the next event -------------------------------------------------------------------------- */

static bool ends_epoch(const struct sim *s, const struct task *t)
{
	if (!(dataset_bytes(s, t) > 0))
		return false;
	return t->bands ? !bands_calm(t->bands, &t->reader) : !t->read_once;
}

/* How fast the hits of a running task change while nothing else happens, per second. */
static double drift_of(const struct sim *s, const struct task *t)
{
	double gain = 0, d = dataset_bytes(s, t);

	if (!(d > 0) || t->hit >= 1)
		return 0;
	if (t->bands) {
		if (t->bands->reader_count < 2)
			return 0;
		for (size_t k = 0; k < t->bands->reader_count; k++) {
			const struct bands_reader *r = t->bands->readers[k];
			const struct task *o = (const struct task *)((const char *)r -
								     offsetof(struct task, reader));

			s->rates[k] = o->rate;
		}
		return bands_drift(t->bands, &t->reader, s->rates);
	}
	if (t->read_once)
		return 0;
	for (size_t i = 0; i < s->running_count; i++) {
		const struct task *o = &s->tasks[s->running[i]];

		if (o != t && o->job->dataset == t->job->dataset && lru(s, o))
			gain += o->read_once ? 0 : o->rate;
	}
	return t->steady_hit * gain / d;
}

static double step_s(const struct sim *s)
{
	double step = INFINITY;

	if (s->next_arrival < s->p->job_count)
		step = s->tasks[s->by_arrival[s->next_arrival]].job->arrival_s - s->now_s;
	for (size_t i = 0; i < s->running_count; i++) {
		const struct task *t = &s->tasks[s->running[i]];
		double bytes = t->left, drift;

		if (ends_epoch(s, t))
			bytes = fmin(bytes, t->reader.unread);
		if (bytes <= 0)
			return 0;
		if (!(t->rate > 0))
			continue;
		step = fmin(step, bytes / t->rate);
		drift = drift_of(s, t);
		if (drift > 0)
			step = fmin(step, DRIFT_STEP / drift);
	}
	return step;
}

static void account_cache(struct sim *s, double step)
{
	if (s->storage == STORAGE_POLICY_LRU)
		return;
	s->ret->granted_byte_s += s->granted_bytes * step;
	for (size_t i = 0; i < s->p->dataset_count; i++)
		s->ret->filled_byte_s += bands_cached(&s->datasets[i]) * step;
	for (size_t i = 0; i < s->running_count; i++)
		s->ret->filled_byte_s += bands_cached(&s->tasks[s->running[i]].own) * step;
}

static void account(struct sim *s, double step)
{
	double least = INFINITY, sum = 0, useful = 0;
	size_t counted = 0;

	for (size_t i = 0; i < s->running_count; i++) {
		struct task *t = &s->tasks[s->running[i]];
		double gpus = (double)t->job->gpus, missed = t->rate * (1 - t->hit) * step;

		s->ret->held_gpu_s += gpus * step;
		if (t->job->ideal_bytes_per_s > 0)
			useful += gpus * step * t->rate / t->job->ideal_bytes_per_s;
		s->ret->origin_bytes += missed;
		t->result->origin_bytes += missed;
		if (t->equal > 0) {
			least = fmin(least, t->rate / t->equal);
			sum += t->rate / t->equal;
			counted++;
		}
	}
	s->ret->useful_gpu_s += useful;
	if (!s->burst && s->now_s >= s->last_arrival_s)
		return;
	s->ret->window_s += step;
	s->ret->window_useful_gpu_s += useful;
	account_cache(s, step);
	if (counted == 0)
		return;
	s->ret->busy_s += step;
	s->ret->fairness += least * step;
	s->ret->mean_share += sum / (double)counted * step;
}

static void read_on(struct sim *s, struct task *t, double step)
{
	double bytes = fmin(t->rate * step, t->left), d = dataset_bytes(s, t);

	t->left -= bytes;
	if (t->bands)
		bands_read(t->bands, &t->reader, bytes);
	else if (d > 0 && !t->read_once)
		t->reader.unread = fmax(t->reader.unread - bytes, 0);
}

static void end_epoch(struct sim *s, struct task *t)
{
	t->read_once = true;
	if (t->bands)
		bands_wrap(t->bands, &t->reader);
	else
		t->reader.unread = dataset_bytes(s, t);
	s->solve = true;
}

static void finish(struct sim *s, size_t index)
{
	struct task *t = &s->tasks[index];
	size_t i = 0;

	stop(t);
	t->done = true;
	t->result->finish_s = s->now_s;
	s->ret->makespan_s = s->now_s;
	s->done++;
	while (s->active[i] != index)
		i++;
	memmove(&s->active[i], &s->active[i + 1], (s->active_count - i - 1) * sizeof(size_t));
	s->active_count--;
	s->solve = s->readmit = true;
}

static bool reached(const struct task *t, double bytes)
{
	return bytes <= t->rate * AT_ONCE_S || bytes <= 0;
}

static void advance(struct sim *s, double step)
{
	size_t kept = 0;

	account(s, step);
	s->now_s += step;
	for (size_t i = 0; i < s->running_count; i++)
		read_on(s, &s->tasks[s->running[i]], step);
	for (size_t i = 0; i < s->running_count; i++) {
		struct task *t = &s->tasks[s->running[i]];

		if (reached(t, t->left)) {
			finish(s, s->running[i]);
			continue;
		}
		if (ends_epoch(s, t) && reached(t, t->reader.unread))
			end_epoch(s, t);
		s->running[kept++] = s->running[i];
	}
	s->running_count = kept;
	for (size_t i = 0; i < s->running_count; i++) {
		struct task *t = &s->tasks[s->running[i]];

		set_rate(s, t);
		s->solve = s->solve || fabs(t->hit - t->solved_hit) > DRIFT_SOLVE;
	}
}

static void arrive(struct sim *s)
{
	while (s->next_arrival < s->p->job_count) {
		size_t index = s->by_arrival[s->next_arrival];

		if (s->tasks[index].job->arrival_s > s->now_s + AT_ONCE_S)
			return;
		s->active[s->active_count++] = index;
		s->next_arrival++;
		s->solve = s->readmit = true;
	}
}

/* ---- life ------------------------------------------------------------------------------------ */

struct arrival {
	double arrival_s;
	size_t task;
};

static int earlier(const void *a, const void *b)
{
	const struct arrival *x = a, *y = b;

	if (x->arrival_s != y->arrival_s)
		return x->arrival_s < y->arrival_s ? -1 : 1;
	return x->task < y->task ? -1 : x->task > y->task;
}

static int sort_arrivals(struct sim *s)
{
	struct arrival *order = calloc(s->p->job_count + 1, sizeof(*order));

	if (!order)
		return -ENOMEM;
	for (size_t i = 0; i < s->p->job_count; i++)
		order[i] = (struct arrival){s->p->jobs[i].arrival_s, i};
	qsort(order, s->p->job_count, sizeof(*order), earlier);
	for (size_t i = 0; i < s->p->job_count; i++)
		s->by_arrival[i] = order[i].task;
	free(order);
	return 0;
}

static int sim_init(struct sim *s)
{
	size_t jobs = s->p->job_count + 1, datasets = s->p->dataset_count + 1;

	s->ret->jobs = calloc(jobs, sizeof(*s->ret->jobs));
	s->tasks = calloc(jobs, sizeof(*s->tasks));
	s->datasets = calloc(datasets, sizeof(*s->datasets));
	s->lru_cached = calloc(datasets, sizeof(double));
	s->by_arrival = calloc(jobs, sizeof(size_t));
	s->active = calloc(jobs, sizeof(size_t));
	s->candidates = calloc(jobs, sizeof(size_t));
	s->running = calloc(jobs, sizeof(size_t));
	s->jobs = calloc(jobs, sizeof(*s->jobs));
	s->rates = calloc(jobs, sizeof(double));
	if (!s->ret->jobs || !s->tasks || !s->datasets || !s->lru_cached || !s->by_arrival ||
		!s->active || !s->candidates || !s->running || !s->jobs || !s->rates)
		return -ENOMEM;
	for (size_t i = 0; i < s->p->dataset_count; i++)
		bands_init(&s->datasets[i], (double)s->p->datasets[i].bytes);
	for (size_t i = 0; i < s->p->job_count; i++) {
		struct task *t = &s->tasks[i];

		t->job = &s->p->jobs[i];
		t->result = &s->ret->jobs[i];
		t->result->finish_s = t->result->start_s = INFINITY;
		t->left = (double)t->job->remaining_bytes;
		t->reader.unread = dataset_bytes(s, t);
		bands_init(&t->own, t->reader.unread);
	}
	return sort_arrivals(s);
}

static void sim_deinit(struct sim *s)
{
	for (size_t i = 0; s->tasks && i < s->p->job_count; i++)
		bands_deinit(&s->tasks[i].own);
	for (size_t i = 0; s->datasets && i < s->p->dataset_count; i++)
		bands_deinit(&s->datasets[i]);
	free(s->tasks);
	free(s->datasets);
	free(s->lru_cached);
	free(s->by_arrival);
	free(s->active);
	free(s->candidates);
	free(s->running);
	free(s->jobs);
	free(s->rates);
}

static int run(struct sim *s, sim_progress_fn *progress, void *arg)
{
	double first;
	int r = 0;

	if (s->p->job_count == 0)
		return 0;
	first = s->now_s = s->p->jobs[s->by_arrival[0]].arrival_s;
	s->last_arrival_s = s->p->jobs[s->by_arrival[s->p->job_count - 1]].arrival_s;
	s->burst = s->last_arrival_s <= first + AT_ONCE_S;
	for (uint64_t events = 0; r == 0 && s->done < s->p->job_count; events++) {
		double step;

		arrive(s);
		if (s->solve)
			r = solve(s);
		if (r < 0)
			return r;
		step = step_s(s);
		if (isinf(step))
			return -EDEADLK;
		advance(s, fmax(step, 0));
		if (progress && events % PROGRESS_EVERY == 0)
			progress(arg, s->done);
	}
	s->ret->makespan_s -= first;
	return r;
}

int sim_run(const struct problem *p, enum gpu_policy gpus, enum storage_policy storage,
	sim_progress_fn *progress, void *arg, struct sim_result *ret)
{
	struct sim s = {.p = p, .gpus = gpus, .storage = storage, .ret = ret};
	int r = problem_check(p, NULL);

	*ret = (struct sim_result){0};
	if (r == 0)
		r = sim_init(&s);
	if (r == 0)
		r = run(&s, progress, arg);
	sim_deinit(&s);
	if (ret->busy_s > 0) {
		ret->fairness /= ret->busy_s;
		ret->mean_share /= ret->busy_s;
	}
	return r;
}

void sim_result_deinit(struct sim_result *r)
{
	free(r->jobs);
	*r = (struct sim_result){0};
}
