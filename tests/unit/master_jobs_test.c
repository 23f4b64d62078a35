/* Jobs: how they begin and end, what they are counted, and what workers hear of their shares. */
#include "tests/unit/master_fixture.h"

#include <math.h>

#include "master/plan_round.h"

#define LIMIT 1e8

static void add_data(struct fixture *f)
{
	mem_store_put_pattern(f->store, "a", 1000, 1);
	mem_store_put_pattern(f->store, "b", 2000, 2);
	if (call_add(f, "data", "mem://data", NULL) < 0)
		fail_msg("%s", f->err.text);
}

static int start(struct fixture *f, const char *name, const char *dataset, double ideal)
{
	Granary__V1__StartJobRequest request = GRANARY__V1__START_JOB_REQUEST__INIT;
	Granary__V1__Job *j = NULL;
	int r;

	request.name = (char *)name;
	request.dataset = (char *)dataset;
	request.ideal_bytes_per_s = ideal;
	r = call_unary(f, JOBS "Start", &request.base, &granary__v1__job__descriptor, &j);
	granary__v1__job__free_unpacked(j, NULL);
	return r;
}

static int end(struct fixture *f, const char *name)
{
	Granary__V1__EndJobRequest request = GRANARY__V1__END_JOB_REQUEST__INIT;
	Granary__V1__EndJobReply *reply = NULL;
	int r;

	request.name = (char *)name;
	r = call_unary(
		f, JOBS "End", &request.base, &granary__v1__end_job_reply__descriptor, &reply);
	granary__v1__end_job_reply__free_unpacked(reply, NULL);
	return r;
}

/* NULL: there is none. */
static Granary__V1__Job *get(struct fixture *f, const char *name)
{
	Granary__V1__GetJobRequest request = GRANARY__V1__GET_JOB_REQUEST__INIT;
	Granary__V1__Job *j = NULL;

	request.name = (char *)name;
	call_unary(f, JOBS "Get", &request.base, &granary__v1__job__descriptor, &j);
	return j;
}

static bool there(struct fixture *f, const char *name)
{
	Granary__V1__Job *j = get(f, name);

	granary__v1__job__free_unpacked(j, NULL);
	return j != NULL;
}

static uint64_t open_for(struct fixture *f, const char *job)
{
	Granary__V1__OpenMountRequest request = GRANARY__V1__OPEN_MOUNT_REQUEST__INIT;
	Granary__V1__OpenMountReply *reply = NULL;
	uint64_t id;

	request.dataset = (char *)"data";
	request.mountpoint = (char *)"/mnt/x";
	request.host = (char *)"here";
	request.host_id = (char *)"boot";
	request.job = (char *)job;
	if (call_unary(f, CLUSTER "OpenMount", &request.base,
		    &granary__v1__open_mount_reply__descriptor, &reply) < 0)
		fail_msg("%s", f->err.text);
	id = reply->mount_id;
	granary__v1__open_mount_reply__free_unpacked(reply, NULL);
	return id;
}

static void beat_for(struct fixture *f, uint64_t id, const char *job, uint64_t hit, uint64_t miss)
{
	Granary__V1__MountHeartbeatRequest request = mount_beat(id, 1);
	Granary__V1__MountHeartbeatReply *reply;

	request.job = (char *)job;
	request.hit_bytes = hit;
	request.miss_bytes = miss;
	if (call_mount_beat(f, &request, &reply) < 0)
		fail_msg("%s", f->err.text);
	granary__v1__mount_heartbeat_reply__free_unpacked(reply, NULL);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void a_job_is_started_changed_and_ended(void **state)
{
	struct fixture *f = *state;
	Granary__V1__Job *j;

	add_data(f);
	assert_int_equal(start(f, "train", "", 0), -EINVAL);
	assert_int_equal(start(f, "train", "other", 0), -ENOENT);
	assert_int_equal(start(f, "train", "data", 0), 0);
	j = get(f, "train");
	assert_string_equal(j->ideal_source, "");
	assert_int_equal(j->gpus, 1);
	assert_false(j->implicit);
	granary__v1__job__free_unpacked(j, NULL);
	assert_int_equal(start(f, "train", "", 5e8), 0);
	fixture_restart(f);
	j = get(f, "train");
	assert_string_equal(j->ideal_source, "declared");
	assert_true(j->ideal_bytes_per_s == 5e8);
	granary__v1__job__free_unpacked(j, NULL);
	assert_int_equal(end(f, "train"), 0);
	assert_int_equal(end(f, "train"), -ENOENT);
	fixture_restart(f);
	assert_false(there(f, "train"));
}

static void nonsense_is_refused(void **state)
{
	struct fixture *f = *state;
	char long_name[JOB_NAME_BYTES + 1];

	add_data(f);
	memset(long_name, 'x', JOB_NAME_BYTES);
	long_name[JOB_NAME_BYTES] = '\0';
	assert_int_equal(start(f, "", "data", 1), -EINVAL);
	assert_int_equal(start(f, "a/b", "data", 1), -EINVAL);
	assert_int_equal(start(f, long_name, "data", 1), -EINVAL);
	assert_int_equal(start(f, "x", "data", -1), -EINVAL);
	assert_int_equal(start(f, "x", "data", (double)INFINITY), -EINVAL);
	assert_int_equal(start(f, "x", "data", (double)NAN), -EINVAL);
	assert_false(there(f, "x"));
}

static void a_mount_starts_the_job_that_it_names_and_ends_it(void **state)
{
	struct fixture *f = *state;
	uint64_t one, two;
	Granary__V1__Job *j;

	add_data(f);
	one = open_for(f, "train");
	two = open_for(f, "train");
	j = get(f, "train");
	assert_true(j->implicit);
	assert_int_equal(j->mounts, 2);
	granary__v1__job__free_unpacked(j, NULL);
	call_close(f, one, NULL);
	housekeeping_run(f->master, clock_mono_ms());
	assert_true(there(f, "train"));
	call_close(f, two, NULL);
	housekeeping_run(f->master, clock_mono_ms());
	assert_false(there(f, "train"));
}

static void a_started_job_outlives_its_mounts_for_a_while(void **state)
{
	struct fixture *f = *state;
	int64_t now_ms = clock_mono_ms();

	add_data(f);
	assert_int_equal(start(f, "train", "data", 0), 0);
	housekeeping_run(f->master, now_ms + 10 * JOB_GRACE_MS); /* still waits for its first */
	assert_true(there(f, "train"));
	call_close(f, open_for(f, "train"), NULL);
	housekeeping_run(f->master, now_ms + JOB_GRACE_MS / 2);
	assert_true(there(f, "train"));
	housekeeping_run(f->master, now_ms + 2 * JOB_GRACE_MS);
	assert_false(there(f, "train"));
}

static void a_mount_that_is_lost_ends_its_job_after_the_grace(void **state)
{
	struct fixture *f = *state;
	int64_t now_ms = clock_mono_ms();

	add_data(f);
	open_for(f, "train");
	housekeeping_run(f->master, now_ms + MOUNT_LOST_MS + 1000);
	assert_true(there(f, "train"));
	housekeeping_run(f->master, now_ms + MOUNT_LOST_MS + JOB_GRACE_MS + 2000);
	assert_false(there(f, "train"));
}

static void an_ended_job_stays_ended_while_its_mount_lives(void **state)
{
	struct fixture *f = *state;
	uint64_t id;
	Granary__V1__Job *j;

	add_data(f);
	id = open_for(f, "train");
	assert_int_equal(end(f, "train"), 0);
	beat_for(f, id, "train", 10, 10);
	assert_false(there(f, "train"));
	/* Started again, the mount that names it is its own. */
	assert_int_equal(start(f, "train", "data", 0), 0);
	beat_for(f, id, "train", 20, 10);
	j = get(f, "train");
	assert_int_equal(j->mounts, 1);
	assert_int_equal(j->hit_bytes, 10);
	assert_int_equal(j->miss_bytes, 0);
	granary__v1__job__free_unpacked(j, NULL);
}

static void a_restarted_master_finds_jobs_and_their_mounts_again(void **state)
{
	struct fixture *f = *state;
	uint64_t id;
	Granary__V1__Job *j;

	add_data(f);
	id = open_for(f, "train");
	beat_for(f, id, "train", 100, 20);
	fixture_restart(f);
	beat_for(f, id, "train", 130, 20);
	j = get(f, "train");
	assert_int_equal(j->mounts, 1);
	assert_int_equal(j->hit_bytes, 130);
	granary__v1__job__free_unpacked(j, NULL);
}

static void a_name_is_of_one_dataset(void **state)
{
	struct fixture *f = *state;

	add_data(f);
	assert_int_equal(call_add(f, "more", "mem://data", NULL), 0);
	assert_int_equal(start(f, "train", "data", 0), 0);
	assert_int_equal(start(f, "train", "more", 0), -ESTALE);
	assert_int_equal(call_remove(f, "data", true), 0);
	housekeeping_run(f->master, clock_mono_ms());
	assert_false(there(f, "train"));
}

/* ---- what samples show ----------------------------------------------------------------------- */

struct sampled {
	uint32_t windows, loaders;
	double ideal, error, steps;
	uint64_t consumed;
};

static void beat_sampled(struct fixture *f, uint64_t id, struct sampled s)
{
	Granary__V1__MountHeartbeatRequest request = mount_beat(id, 1);
	Granary__V1__MountHeartbeatReply *reply;

	request.job = (char *)"train";
	request.sampled_windows = s.windows;
	request.sampled_ideal_bytes_per_s = s.ideal;
	request.sampled_ideal_error = s.error;
	request.consumed_bytes = s.consumed;
	request.loaders = s.loaders;
	request.ideal_bytes_per_s = s.steps;
	if (call_mount_beat(f, &request, &reply) < 0)
		fail_msg("%s", f->err.text);
	granary__v1__mount_heartbeat_reply__free_unpacked(reply, NULL);
}

static void assert_ideal(struct fixture *f, const char *source, double ideal, double error)
{
	Granary__V1__Job *j = get(f, "train");

	assert_string_equal(j->ideal_source, source);
	assert_true(j->ideal_bytes_per_s == ideal);
	assert_true(fabs(j->ideal_error - error) < 1e-9);
	granary__v1__job__free_unpacked(j, NULL);
}

static void what_is_declared_goes_before_steps_and_these_before_samples(void **state)
{
	struct fixture *f = *state;
	uint64_t id;

	add_data(f);
	id = open_for(f, "train");
	assert_ideal(f, "", 0, 0);
	beat_sampled(f, id, (struct sampled){.windows = 1, .ideal = 100, .error = 0.1});
	assert_ideal(f, "sampled", 100, 0.1);
	beat_sampled(f, id,
		(struct sampled){
			.windows = 1, .ideal = 100, .error = 0.1, .loaders = 1, .steps = 120});
	assert_ideal(f, "steps", 120, 0);
	assert_int_equal(start(f, "train", "", 150), 0);
	assert_ideal(f, "declared", 150, 0);
}

static void a_new_master_goes_by_what_the_one_before_did_until_a_mount_is_heard(void **state)
{
	struct fixture *f = *state;
	uint64_t id;

	add_data(f);
	id = open_for(f, "train");
	beat_sampled(f, id, (struct sampled){.windows = 4, .ideal = 100, .error = 0.1});
	assert_ideal(f, "sampled", 100, 0.1);
	{
		mutex_guard(&f->master->mu);
		plan_round_went_by_locked(f->master);
	}
	housekeeping_run(f->master, clock_mono_ms());
	fixture_restart(f);
	assert_ideal(f, "sampled", 100, 0.1);
	beat_sampled(f, id, (struct sampled){.windows = 4});
	assert_ideal(f, "", 0, 0);
}

static void samples_of_all_mounts_add_up_unless_one_is_held_back(void **state)
{
	struct fixture *f = *state;
	uint64_t one, two;

	add_data(f);
	one = open_for(f, "train");
	two = open_for(f, "train");
	beat_sampled(f, one, (struct sampled){.windows = 8, .ideal = 100, .error = 0.1});
	assert_ideal(f, "sampled", 100, 0.1);
	beat_sampled(f, two, (struct sampled){.windows = 8, .ideal = 100, .error = 0.1});
	assert_ideal(f, "sampled", 200, 0.1 / sqrt(2));
	/* Another client of it has just taken over. */
	beat_sampled(f, two, (struct sampled){.windows = 0});
	assert_ideal(f, "sampled", 200, 0.1 / sqrt(2));
	beat_sampled(f, two, (struct sampled){.windows = 8});
	assert_ideal(f, "", 0, 0);
	beat_sampled(f, two, (struct sampled){.windows = 8, .ideal = NAN});
	beat_sampled(f, two, (struct sampled){.windows = 8, .ideal = -1});
	beat_sampled(f, two, (struct sampled){.windows = 8, .ideal = 100, .error = INFINITY});
	assert_ideal(f, "", 0, 0);
}

static bool stale(struct fixture *f)
{
	mutex_guard(&f->master->mu);
	return plan_round_is_stale_locked(f->master);
}

static void one_that_moves_by_more_than_it_may_be_wrong_makes_a_new_plan(void **state)
{
	struct fixture *f = *state;
	uint64_t id;

	add_data(f);
	id = open_for(f, "train");
	assert_false(stale(f));
	beat_sampled(f, id, (struct sampled){.windows = 1, .ideal = 100, .error = 0.02});
	assert_true(stale(f));
	{
		mutex_guard(&f->master->mu);
		plan_round_went_by_locked(f->master);
	}
	beat_sampled(f, id, (struct sampled){.windows = 2, .ideal = 109, .error = 0.02});
	assert_false(stale(f));
	beat_sampled(f, id, (struct sampled){.windows = 2, .ideal = 111, .error = 0.02});
	assert_true(stale(f));
	beat_sampled(f, id, (struct sampled){.windows = 2, .ideal = 111, .error = 0.25});
	assert_false(stale(f));
	beat_sampled(f, id, (struct sampled){.windows = 2, .ideal = 74, .error = 0.25});
	assert_true(stale(f));
}

/* What the page cache answered is read, too. */
static void what_was_consumed_is_counted_once_and_ends_the_first_epoch(void **state)
{
	struct fixture *f = *state;
	uint64_t id;
	Granary__V1__Job *j;
	struct job known = {.counters = {.hit_bytes = 10, .miss_bytes = 20}};

	add_data(f);
	id = open_for(f, "train");
	beat_sampled(f, id, (struct sampled){.consumed = 1000});
	fixture_restart(f);
	beat_sampled(f, id, (struct sampled){.consumed = 3500});
	beat_sampled(f, id, (struct sampled){.consumed = 500}); /* of another client */
	j = get(f, "train");
	assert_int_equal(j->consumed_bytes, 4000);
	granary__v1__job__free_unpacked(j, NULL);
	assert_int_equal(job_effective_bytes(&known, 100, 80), 0);
	known.counters.consumed_bytes = 100;
	assert_int_equal(job_effective_bytes(&known, 100, 80), 80);
}

/* ---- counting and shares --------------------------------------------------------------------- */

static void beat_worker(struct fixture *f, uint64_t origin_bytes, uint64_t waited_us)
{
	Granary__V1__WorkerHeartbeatRequest request = worker_beat(7, 1 << 30);
	Granary__V1__WorkerJob said = GRANARY__V1__WORKER_JOB__INIT, *list[] = {&said};
	Granary__V1__WorkerHeartbeatReply *reply;

	said.job = (char *)"train";
	said.origin_bytes = origin_bytes;
	said.waited_us = waited_us;
	request.jobs = list;
	request.n_jobs = 1;
	assert_int_equal(call_unary(f, CLUSTER "WorkerHeartbeat", &request.base,
				 &granary__v1__worker_heartbeat_reply__descriptor, &reply),
		0);
	granary__v1__worker_heartbeat_reply__free_unpacked(reply, NULL);
}

static void check_origin(struct fixture *f, uint64_t bytes, uint64_t waited_us)
{
	Granary__V1__Job *j = get(f, "train");

	assert_int_equal(j->origin_bytes, bytes);
	assert_int_equal(j->waited_us, waited_us);
	granary__v1__job__free_unpacked(j, NULL);
}

static void what_workers_fetched_for_a_job_is_counted_once(void **state)
{
	struct fixture *f = *state;

	add_data(f);
	assert_int_equal(start(f, "train", "data", 0), 0);
	beat_worker(f, 5000, 7); /* from a life before this master's: not known whose */
	check_origin(f, 0, 0);
	beat_worker(f, 6000, 9);
	beat_worker(f, 6000, 9);
	check_origin(f, 1000, 2);
	beat_worker(f, 300, 1); /* the worker was started anew */
	check_origin(f, 1300, 3);
	/* Another job of the name starts at nothing. */
	assert_int_equal(end(f, "train"), 0);
	assert_int_equal(start(f, "train", "data", 0), 0);
	beat_worker(f, 400, 1);
	check_origin(f, 100, 0);
}

static Granary__V1__WorkerHeartbeatReply *plan_of(struct fixture *f, uint64_t id, uint64_t capacity)
{
	Granary__V1__WorkerHeartbeatRequest request = worker_beat(id, capacity);

	return worker_plan(f, &request);
}

static double share_of(const Granary__V1__WorkerHeartbeatReply *reply, const char *job)
{
	for (size_t i = 0; i < reply->origin_share->n_jobs; i++)
		if (strcmp(reply->origin_share->jobs[i]->job, job) == 0)
			return reply->origin_share->jobs[i]->bytes_per_s;
	return -1;
}

/* A worker that beats: what it said last that it has, and heard. */
struct part {
	uint64_t id, capacity;
	double part, base;
};

static void beat_part(struct fixture *f, struct part *p)
{
	Granary__V1__WorkerHeartbeatRequest request = worker_beat(p->id, p->capacity);
	Granary__V1__WorkerHeartbeatReply *reply;

	request.origin_part = p->part;
	request.origin_base_part = p->base;
	assert_int_equal(call_unary(f, CLUSTER "WorkerHeartbeat", &request.base,
				 &granary__v1__worker_heartbeat_reply__descriptor, &reply),
		0);
	assert_non_null(reply->origin_lease);
	assert_int_equal(reply->origin_lease->lease_ms, ORIGIN_LEASE_MS);
	p->part = reply->origin_lease->part;
	p->base = reply->origin_lease->base_part;
	assert_true(p->base <= p->part);
	granary__v1__worker_heartbeat_reply__free_unpacked(reply, NULL);
}

/* Both beat for a while, and at no time have more than there is. */
static void settle(struct fixture *f, struct part *a, struct part *b)
{
	for (int i = 0; i < 40; i++) {
		beat_part(f, a);
		assert_true(a->part + b->part <= 0.99 + 1e-9);
		beat_part(f, b);
		assert_true(a->part + b->part <= 0.99 + 1e-9);
		usleep(60000);
	}
}

static void part_is(double is, double wanted)
{
	if (!(fabs(is - wanted) < 1e-6))
		fail_msg("%g instead of %g", is, wanted);
}

/* As if it had been silent for so long. */
static void silence(struct fixture *f, uint64_t id, int64_t ms)
{
	mutex_lock(&f->master->mu);
	workers_find(&f->master->workers, id)->origins.heard_ms -= ms;
	f->master->ledger.summed_ms = 0;
	mutex_unlock(&f->master->mu);
}

static void workers_divide_the_limit_by_their_capacity(void **state)
{
	struct fixture *f = *state;
	struct part a = {.id = 7, .capacity = 3 << 20}, b = {.id = 8, .capacity = 1 << 20};
	Granary__V1__WorkerHeartbeatReply *reply;

	add_data(f);
	reply = plan_of(f, 7, 1 << 30);
	assert_false(reply->origin_share->limited);
	assert_null(reply->origin_lease);
	granary__v1__worker_heartbeat_reply__free_unpacked(reply, NULL);

	f->origins.bytes_per_s = (uint64_t)LIMIT;
	fixture_restart(f);
	assert_int_equal(start(f, "one", "data", 1e12), 0);
	assert_int_equal(start(f, "two", "data", 1e12), 0);
	reply = plan_of(f, 7, 3 << 20);
	assert_true(reply->origin_share->limited);
	assert_true(reply->origin_share->bytes_per_s == LIMIT);
	/* Nothing is cached yet, and they are alike. */
	assert_true(share_of(reply, "one") > 0.48 * LIMIT && share_of(reply, "one") < 0.50 * LIMIT);
	assert_true(share_of(reply, "two") > 0.48 * LIMIT && share_of(reply, "two") < 0.50 * LIMIT);
	assert_true(reply->origin_share->other_bytes_per_s > 0);
	granary__v1__worker_heartbeat_reply__free_unpacked(reply, NULL);
	/* Alone it has all, but what is kept for mounts, and nobody to lose it to. */
	beat_part(f, &a);
	part_is(a.part, 0.99);
	part_is(a.base, 0.99);
	/* Another one has its part when the first has less, and not before. */
	beat_part(f, &b);
	part_is(b.part, 0);
	settle(f, &a, &b);
	part_is(a.part, 0.75 * 0.99);
	part_is(a.base, 0.75 * 0.99 / 2);
	part_is(b.part, 0.25 * 0.99);
}

static void what_a_silent_worker_had_goes_to_the_others(void **state)
{
	struct fixture *f = *state;
	struct part a = {.id = 7, .capacity = 3 << 20}, b = {.id = 8, .capacity = 1 << 20};

	add_data(f);
	f->origins.bytes_per_s = (uint64_t)LIMIT;
	fixture_restart(f);
	settle(f, &a, &b);
	beat_part(f, &b);
	part_is(b.part, 0.25 * 0.99);
	silence(f, a.id, ORIGIN_LEASE_MS);
	beat_part(f, &b);
	part_is(b.part, 0.25 * 0.99);
	silence(f, a.id, ORIGIN_SETTLE_MS);
	beat_part(f, &b);
	part_is(b.part, (0.25 + 0.75 / 2) * 0.99);
	/* It is back, with its base, and has its part when the other has less again. */
	a.part = a.base;
	beat_part(f, &a);
	settle(f, &a, &b);
	part_is(a.part, 0.75 * 0.99);
	silence(f, a.id, ORIGIN_BASE_MS + ORIGIN_SETTLE_MS + 1);
	beat_part(f, &b);
	part_is(b.part, 0.99);
}

static void a_new_master_gives_nothing_away_that_may_be_in_use(void **state)
{
	struct fixture *f = *state;
	struct part a = {.id = 7, .capacity = 3 << 20}, b = {.id = 8, .capacity = 1 << 20}, c;

	add_data(f);
	f->origins.bytes_per_s = (uint64_t)LIMIT;
	fixture_restart(f);
	settle(f, &a, &b);
	fixture_restart(f);
	/* One of them was not heard yet; a third is new; one says what it has. */
	beat_part(f, &b);
	part_is(b.part, 0.25 * 0.99);
	c = (struct part){.id = 9, .capacity = 4 << 20};
	beat_part(f, &c);
	assert_true(c.part + a.part + b.part <= 0.99 + 1e-9);
	silence(f, a.id, ORIGIN_LEASE_MS + ORIGIN_SETTLE_MS);
	beat_part(f, &c);
	part_is(c.part + a.base + b.part, 0.99);
}

static void a_single_origin_has_its_limit_with_every_worker_and_in_what_is_told(void **state)
{
	struct fixture *f = *state;
	struct mem_store *elsewhere = mem_store_new("elsewhere");
	Granary__V1__WorkerHeartbeatReply *reply;
	struct part part = {.id = 8, .capacity = 1 << 20};
	Granary__V1__Job *j;

	add_data(f);
	assert_int_equal(origin_limits_add(&f->origins, "mem://data/=10MB/s", &f->err), 0);
	assert_int_equal(origin_limits_add(&f->origins, "mem://other=20MB/s", &f->err), 0);
	fixture_restart(f);
	mem_store_put_pattern(elsewhere, "c", 3000, 3);
	if (call_add(f, "elsewhere", "mem://elsewhere", NULL) < 0)
		fail_msg("%s", f->err.text);
	assert_int_equal(start(f, "one", "data", 1e12), 0);
	assert_int_equal(start(f, "two", "elsewhere", 1e12), 0);
	worker_join(f, 7, 3 << 20);
	worker_join(f, 8, 1 << 20);
	reply = plan_of(f, 7, 3 << 20);
	assert_false(reply->origin_share->limited);
	assert_int_equal(reply->origin_share->n_origins, 2);
	assert_string_equal(reply->origin_share->origins[0]->prefix, "mem://data");
	assert_true(reply->origin_share->origins[0]->bytes_per_s == 10e6);
	/* 1 % is kept for mounts that read past the workers. */
	assert_true(fabs(reply->origin_share->origins[0]->other_bytes_per_s - 0.099e6) < 1);
	assert_true(fabs(share_of(reply, "one") - 9.801e6) < 1);
	beat_part(f, &part);
	assert_true(part.part > 0);
	granary__v1__worker_heartbeat_reply__free_unpacked(reply, NULL);
	j = get(f, "one");
	assert_true(j->origin_limited);
	assert_string_equal(j->limited_origin, "mem://data");
	assert_true(j->limited_origin_bytes_per_s == 10e6);
	assert_true(fabs(j->predicted_bytes_per_s - 9.801e6) < 1);
	assert_non_null(strstr(j->reason, "own limit"));
	granary__v1__job__free_unpacked(j, NULL);
	j = get(f, "two");
	assert_false(j->origin_limited);
	assert_string_equal(j->limited_origin, "");
	assert_true(j->predicted_bytes_per_s == 1e12);
	granary__v1__job__free_unpacked(j, NULL);
	fixture_restart(f); /* whatever listed it has ended with its master */
	mem_store_free(elsewhere);
}

/* ---- what mounts read past the workers ------------------------------------------------------- */

struct direct {
	double rate, base;
};

/* A heartbeat that says what was told last, and hears anew. */
static void beat_direct(struct fixture *f, uint64_t id, const char *job, struct direct *d)
{
	Granary__V1__MountHeartbeatRequest request = mount_beat(id, 1);
	Granary__V1__MountHeartbeatReply *reply;

	request.job = (char *)job;
	request.direct_bytes_per_s = d->rate;
	request.direct_base_bytes_per_s = d->base;
	if (call_mount_beat(f, &request, &reply) < 0)
		fail_msg("%s", f->err.text);
	assert_non_null(reply->direct);
	d->rate = reply->direct->bytes_per_s;
	d->base = reply->direct->base_bytes_per_s;
	assert_true(d->base <= d->rate);
	assert_int_equal(reply->direct->lease_ms, ORIGIN_LEASE_MS);
	granary__v1__mount_heartbeat_reply__free_unpacked(reply, NULL);
}

/* As if the master had been there for long. */
static void grow_old(struct fixture *f)
{
	mutex_lock(&f->master->mu);
	f->master->started_ms -= ORIGIN_LEASE_MS + ORIGIN_SETTLE_MS + 1000;
	mutex_unlock(&f->master->mu);
}

static void close_to(double is, double wanted)
{
	if (!(fabs(is - wanted) <= 1e-6 * LIMIT))
		fail_msg("%g instead of %g", is, wanted);
}

static void without_workers_mounts_share_the_limit_by_their_jobs(void **state)
{
	struct fixture *f = *state;
	struct direct one = {0}, two = {0}, other = {0};
	uint64_t a, b, c;

	add_data(f);
	f->origins.bytes_per_s = (uint64_t)LIMIT;
	fixture_restart(f);
	assert_int_equal(start(f, "train", "data", 1e12), 0);
	a = open_for(f, "train");
	b = open_for(f, "train");
	c = open_for(f, "");
	/* What a master before this one gave away may still be in use. */
	beat_direct(f, a, "train", &one);
	assert_true(one.rate == 0);
	grow_old(f);
	beat_direct(f, a, "train", &one);
	beat_direct(f, b, "train", &two);
	beat_direct(f, c, "", &other);
	/* One job, and one mount without: half each. */
	close_to(one.rate, LIMIT / 4);
	close_to(two.rate, LIMIT / 4);
	close_to(other.rate, LIMIT / 2);
	close_to(other.base, LIMIT / 100 / 3);
	/* A fourth waits until the others have less. */
	end(f, "train");
	beat_direct(f, c, "", &other);
	assert_true(one.rate + two.rate + other.rate <= LIMIT * 1.000001);
}

static void with_a_worker_they_have_a_hundredth_of_it_in_all(void **state)
{
	struct fixture *f = *state;
	struct direct one = {0}, other = {0};
	struct part worker = {.id = 7, .capacity = 1 << 30};
	uint64_t a, b;

	add_data(f);
	f->origins.bytes_per_s = (uint64_t)LIMIT;
	assert_int_equal(origin_limits_add(&f->origins, "mem://data=10MB/s", &f->err), 0);
	fixture_restart(f);
	a = open_for(f, "train");
	b = open_for(f, "");
	grow_old(f);
	beat_direct(f, a, "train", &one);
	beat_direct(f, b, "", &other);
	close_to(one.rate + other.rate, 10e6);
	/* What they had is free when it has settled, and then the worker's. */
	for (int i = 0; i < 40; i++) {
		beat_part(f, &worker);
		assert_true(10e6 * worker.part + one.rate + other.rate <= 10e6 * 1.000001);
		beat_direct(f, a, "train", &one);
		beat_direct(f, b, "", &other);
		assert_true(10e6 * worker.part + one.rate + other.rate <= 10e6 * 1.000001);
		usleep(100000);
	}
	close_to(one.rate, 10e6 / 200);
	close_to(other.rate, 10e6 / 200);
	close_to(one.base, one.rate);
	/* A silent one may still be reading. */
	housekeeping_run(f->master, clock_mono_ms() + WORKER_DEAD_MS + 1000);
	beat_direct(f, a, "train", &one);
	close_to(one.rate, 10e6 / 200);
	part_is(worker.part, 0.99);
}

static void what_one_more_job_would_do_is_told_and_not_done(void **state)
{
	struct fixture *f = *state;
	Granary__V1__StartJobRequest job = GRANARY__V1__START_JOB_REQUEST__INIT;
	Granary__V1__PlanJobRequest request = GRANARY__V1__PLAN_JOB_REQUEST__INIT;
	Granary__V1__PlanJobReply *reply;

	add_data(f);
	f->origins.bytes_per_s = (uint64_t)LIMIT;
	fixture_restart(f);
	worker_join(f, 7, 1 << 30);
	assert_int_equal(start(f, "one", "data", 0.9 * LIMIT), 0);
	assert_int_equal(call_unary(f, JOBS "Plan", &request.base,
				 &granary__v1__plan_job_reply__descriptor, &reply),
		-EINVAL);
	job.name = (char *)"new";
	job.dataset = (char *)"data";
	job.ideal_bytes_per_s = 0.9 * LIMIT;
	request.job = &job;
	assert_int_equal(call_unary(f, JOBS "Plan", &request.base,
				 &granary__v1__plan_job_reply__descriptor, &reply),
		0);
	assert_int_equal(reply->n_others, 1);
	assert_string_equal(reply->others[0]->name, "one");
	/* All is cached, the first epoch of the new one takes what it can get, and later nothing. */
	assert_true(reply->others[0]->now_bytes_per_s == 0.9 * LIMIT);
	assert_true(reply->others[0]->first_bytes_per_s == 0.9 * LIMIT);
	assert_true(reply->job->first_bytes_per_s > 0.89 * LIMIT);
	assert_true(reply->job->later_bytes_per_s == 0.9 * LIMIT);
	granary__v1__plan_job_reply__free_unpacked(reply, NULL);
	assert_false(there(f, "new"));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_job_is_started_changed_and_ended),
		TEST(nonsense_is_refused),
		TEST(a_mount_starts_the_job_that_it_names_and_ends_it),
		TEST(a_started_job_outlives_its_mounts_for_a_while),
		TEST(a_mount_that_is_lost_ends_its_job_after_the_grace),
		TEST(an_ended_job_stays_ended_while_its_mount_lives),
		TEST(a_restarted_master_finds_jobs_and_their_mounts_again),
		TEST(a_name_is_of_one_dataset),
		TEST(what_is_declared_goes_before_steps_and_these_before_samples),
		TEST(a_new_master_goes_by_what_the_one_before_did_until_a_mount_is_heard),
		TEST(samples_of_all_mounts_add_up_unless_one_is_held_back),
		TEST(one_that_moves_by_more_than_it_may_be_wrong_makes_a_new_plan),
		TEST(what_was_consumed_is_counted_once_and_ends_the_first_epoch),
		TEST(what_workers_fetched_for_a_job_is_counted_once),
		TEST(workers_divide_the_limit_by_their_capacity),
		TEST(what_a_silent_worker_had_goes_to_the_others),
		TEST(a_new_master_gives_nothing_away_that_may_be_in_use),
		TEST(a_single_origin_has_its_limit_with_every_worker_and_in_what_is_told),
		TEST(without_workers_mounts_share_the_limit_by_their_jobs),
		TEST(with_a_worker_they_have_a_hundredth_of_it_in_all),
		TEST(what_one_more_job_would_do_is_told_and_not_done),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
