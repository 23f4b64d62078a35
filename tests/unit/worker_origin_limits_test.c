/* Limits of single origins in the worker's queue, as origins see them: by readers that get as fast as
 * they may, from an origin that takes a few milliseconds. */
#include <math.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/error.h"
#include "worker/origin_queue.h"

#define KIB ((uint32_t)1024)
#define MIB (1024 * KIB)
#define NS_PER_S ((int64_t)1000000000)
#define NS_PER_MS ((int64_t)1000000)
#define SENT_MAX 100000
#define THREADS 6
#define ORIGINS_MAX 8
#define JOBS_MAX 8

/* ---- shares ----------------------------------------------------------------------------------- */

struct share {
	Granary__V1__OriginShare message;
	Granary__V1__JobShare jobs[JOBS_MAX], *job_list[JOBS_MAX];
	Granary__V1__SingleOriginShare origins[ORIGINS_MAX], *origin_list[ORIGINS_MAX];
};

/* 0: no limit of all. */
static void share_init(struct share *s, double bytes_per_s)
{
	granary__v1__origin_share__init(&s->message);
	s->message.limited = bytes_per_s > 0;
	s->message.bytes_per_s = bytes_per_s;
	s->message.jobs = s->job_list;
	s->message.origins = s->origin_list;
}

static void share_job(struct share *s, const char *job, double bytes_per_s)
{
	size_t i = s->message.n_jobs++;

	granary__v1__job_share__init(&s->jobs[i]);
	s->jobs[i].job = (char *)job;
	s->jobs[i].bytes_per_s = bytes_per_s;
	s->job_list[i] = &s->jobs[i];
}

static void share_origin(struct share *s, const char *prefix, double bytes_per_s, double others)
{
	size_t i = s->message.n_origins++;

	granary__v1__single_origin_share__init(&s->origins[i]);
	s->origins[i].prefix = (char *)prefix;
	s->origins[i].bytes_per_s = bytes_per_s;
	s->origins[i].other_bytes_per_s = others;
	s->origin_list[i] = &s->origins[i];
}

static void apply(struct origin_queue *q, const Granary__V1__OriginShare *message)
{
	struct error err = ERROR_INIT;
	struct origin_share *share;

	assert_int_equal(origin_share_new(message, &share, &err), 0);
	assert_int_equal(origin_queue_apply(q, share, &err), 0);
}

static void shares_that_make_no_sense_are_refused(void **state)
{
	char long_prefix[ORIGIN_PREFIX_BYTES + 1];
	static const struct {
		const char *prefix;
		double rate, others;
	} bad[] = {{"", 1e6, 0}, {NULL, 1e6, 0}, {"mem://a", -1, 0}, {"mem://a", NAN, 0},
		{"mem://a", INFINITY, 0}, {"mem://a", 1e6, -1}, {"mem://twice", 1e6, 0}};

	(void)state;
	memset(long_prefix, 'x', ORIGIN_PREFIX_BYTES);
	long_prefix[ORIGIN_PREFIX_BYTES] = '\0';
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct origin_share *share;
		struct error err = ERROR_INIT;
		struct share s = {.message.limited = false};

		share_init(&s, 1e6);
		share_origin(&s, "mem://twice", 1e6, 0);
		share_origin(&s, bad[i].prefix ? bad[i].prefix : long_prefix, bad[i].rate,
			bad[i].others);
		assert_int_equal(origin_share_new(&s.message, &share, &err), -EINVAL);
	}
}

/* ---- readers ---------------------------------------------------------------------------------- */

struct reader {
	struct origin_queue *queue;
	const char *job, *url;
	uint32_t want;
	unsigned delay_ms;
	struct sent {
		int64_t ns;
		uint32_t bytes;
	} *sent;
	atomic_size_t count;
	atomic_bool stop;
	pthread_t threads[THREADS];
};

struct get {
	struct origin_turn turn;
	sem_t granted;
};

static void on_granted(struct origin_turn *t)
{
	sem_post(&((struct get *)((char *)t - offsetof(struct get, turn)))->granted);
}

static void note(struct reader *r, uint32_t bytes)
{
	size_t i = atomic_fetch_add(&r->count, 1);

	assert_true(i < SENT_MAX);
	r->sent[i] = (struct sent){clock_mono_ns(), bytes};
}

static void get_one(struct reader *r, struct get *g)
{
	origin_queue_open(r->queue, &g->turn, r->job, r->want);
	for (uint32_t left = r->want; left > 0 && !r->stop; left -= g->turn.bytes) {
		if (!origin_queue_ask(r->queue, &g->turn, left, true))
			sem_wait(&g->granted);
		usleep(r->delay_ms * 500);
		note(r, g->turn.bytes);
		usleep(r->delay_ms * 500);
		origin_queue_done(r->queue, &g->turn, g->turn.bytes);
	}
	origin_queue_close(r->queue, &g->turn);
}

static void *reader_main(void *arg)
{
	struct reader *r = arg;
	struct get g = {.turn = {.granted = on_granted, .url = r->url}};

	sem_init(&g.granted, 0, 0);
	while (!r->stop)
		get_one(r, &g);
	sem_destroy(&g.granted);
	return NULL;
}

static void reader_start(
	struct reader *r, struct origin_queue *q, const char *job, const char *url, uint32_t want)
{
	*r = (struct reader){.queue = q, .job = job, .url = url, .want = want, .delay_ms = 4};
	r->sent = calloc(SENT_MAX, sizeof(*r->sent));
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&r->threads[i], NULL, reader_main, r), 0);
}

static void reader_stop(struct reader *r)
{
	r->stop = true;
	for (int i = 0; i < THREADS; i++)
		pthread_join(r->threads[i], NULL);
}

static double rate(const struct reader *r, int64_t from_ns, int64_t until_ns)
{
	double bytes = 0;

	for (size_t i = 0; i < r->count; i++)
		if (r->sent[i].ns >= from_ns && r->sent[i].ns < until_ns)
			bytes += r->sent[i].bytes;
	return bytes / ((double)(until_ns - from_ns) / 1e9);
}

static int by_time(const void *a, const void *b)
{
	const struct sent *x = a, *y = b;

	return (x->ns > y->ns) - (x->ns < y->ns);
}

/* Of two readers of one origin in any second; b may be NULL. */
static double most_in_a_second(const struct reader *a, const struct reader *b)
{
	size_t n = a->count + (b ? b->count : 0), from = 0;
	struct sent *all = calloc(n + 1, sizeof(*all));
	double most = 0, sum = 0;

	memcpy(all, a->sent, a->count * sizeof(*all));
	if (b)
		memcpy(all + a->count, b->sent, b->count * sizeof(*all));
	qsort(all, n, sizeof(*all), by_time);
	for (size_t i = 0; i < n; i++) {
		sum += all[i].bytes;
		while (all[i].ns - all[from].ns >= NS_PER_S)
			sum -= all[from++].bytes;
		most = sum > most ? sum : most;
	}
	free(all);
	return most;
}

/* On a busy machine readers may not be there to take what they could have. */
static void near(const char *what, double value, double wanted, double part)
{
	if (fabs(value - wanted) > part * wanted)
		fail_msg("%s: %.0f bytes a second instead of %.0f", what, value, wanted);
}

struct fx {
	struct origin_queue *q;
	struct reader r[4];
};

static int setup(void **state)
{
	struct fx *f = calloc(1, sizeof(*f));
	struct error err = ERROR_INIT;

	f->q = origin_queue_new((uint64_t)64 << 20);
	*state = f;
	return origin_queue_start(f->q, &err);
}

static int teardown(void **state)
{
	struct fx *f = *state;

	for (int i = 0; i < 4; i++)
		free(f->r[i].sent);
	origin_queue_stop(f->q);
	origin_queue_free(f->q);
	free(f);
	return 0;
}

/* ---- what holds ------------------------------------------------------------------------------- */

static void an_origin_at_its_limit_holds_up_nobody_else(void **state)
{
	struct fx *f = *state;
	struct share s = {.message.limited = false};
	int64_t from_ns, until_ns;

	share_init(&s, 8e6);
	share_job(&s, "a", 0.75e6);
	share_job(&s, "b", 0.25e6);
	share_job(&s, "c", 5e6);
	share_origin(&s, "mem://slow", 1e6, 0.01e6);
	apply(f->q, &s.message);
	reader_start(&f->r[0], f->q, "a", "mem://slow/a", MIB);
	reader_start(&f->r[1], f->q, "b", "mem://slow/b", MIB);
	sleep(1);
	reader_start(&f->r[2], f->q, "c", "mem://fast", MIB);
	from_ns = clock_mono_ns() + NS_PER_S / 2;
	sleep(5);
	until_ns = clock_mono_ns();
	for (int i = 0; i < 3; i++)
		reader_stop(&f->r[i]);
	assert_true(most_in_a_second(&f->r[0], &f->r[1]) <= 1.02e6);
	/* They keep to their weights however far behind the other origin's they are. */
	near("a", rate(&f->r[0], from_ns, until_ns), 0.75e6, 0.15);
	near("b", rate(&f->r[1], from_ns, until_ns), 0.25e6, 0.15);
	near("c", rate(&f->r[2], from_ns, until_ns), 7e6, 0.15);
}

static void without_a_limit_of_all_only_that_origin_is_held_to_its_own(void **state)
{
	struct fx *f = *state;
	struct share s = {.message.limited = false};
	int64_t from_ns, until_ns;

	share_init(&s, 0);
	share_job(&s, "a", 1e6);
	share_origin(&s, "mem://slow", 1e6, 0.5e6);
	share_origin(&s, "mem://slow/b", 2e6, 0);
	apply(f->q, &s.message);
	reader_start(&f->r[0], f->q, "a", "mem://slow/a", MIB);
	reader_start(&f->r[1], f->q, "", "mem://slow/a", MIB);
	reader_start(&f->r[2], f->q, "", "mem://slow/b", MIB);
	reader_start(&f->r[3], f->q, "", "mem://slower", MIB);
	from_ns = clock_mono_ns() + NS_PER_S / 2;
	sleep(4);
	until_ns = clock_mono_ns();
	for (int i = 0; i < 4; i++)
		reader_stop(&f->r[i]);
	assert_true(most_in_a_second(&f->r[0], &f->r[1]) <= 1.02e6);
	assert_true(most_in_a_second(&f->r[2], NULL) <= 2.04e6);
	near("a job", rate(&f->r[0], from_ns, until_ns), 0.667e6, 0.15);
	near("no job", rate(&f->r[1], from_ns, until_ns), 0.333e6, 0.15);
	near("the longer prefix", rate(&f->r[2], from_ns, until_ns), 2e6, 0.1);
	/* Whole gets, as fast as they end. */
	assert_true(rate(&f->r[3], from_ns, until_ns) > 100e6);
}

static void limits_come_change_and_go_while_readers_wait(void **state)
{
	struct fx *f = *state;
	struct share one = {.message.limited = false}, two = {.message.limited = false};
	int64_t begun_ns, changed_ns, gone_ns;

	share_init(&one, 0);
	share_origin(&one, "mem://o/slow", 0.5e6, 0);
	share_init(&two, 0);
	share_origin(&two, "mem://o", 2e6, 0);
	reader_start(&f->r[0], f->q, "", "mem://o/slow", 256 * KIB);
	reader_start(&f->r[1], f->q, "", "mem://o/fast", 256 * KIB);
	usleep(200000);
	apply(f->q, &one.message);
	begun_ns = clock_mono_ns();
	sleep(2);
	changed_ns = clock_mono_ns();
	apply(f->q, &two.message);
	sleep(3);
	gone_ns = clock_mono_ns();
	apply(f->q, NULL);
	usleep(300000);
	reader_stop(&f->r[0]);
	reader_stop(&f->r[1]);
	/* Gets under way at a change end as they began. */
	assert_true(
		rate(&f->r[0], begun_ns + 20 * NS_PER_MS, begun_ns + 1020 * NS_PER_MS) <= 0.51e6);
	assert_true(rate(&f->r[1], begun_ns, changed_ns) > 50e6);
	near("both",
		rate(&f->r[0], changed_ns + NS_PER_S, gone_ns) +
			rate(&f->r[1], changed_ns + NS_PER_S, gone_ns),
		2e6, 0.1);
	assert_true(rate(&f->r[0], gone_ns, clock_mono_ns()) > 20e6);
}

static void what_is_told_of_an_origin_is_what_came_from_it(void **state)
{
	struct fx *f = *state;
	struct share s = {.message.limited = false};
	struct origin_job_stat *jobs;
	struct origin_stat *list;
	size_t n;

	share_init(&s, 0);
	share_origin(&s, "mem://o", 1e6, 0);
	apply(f->q, &s.message);
	reader_start(&f->r[0], f->q, "a", "mem://o", 256 * KIB);
	reader_start(&f->r[1], f->q, "a", "mem://other", 256 * KIB);
	sleep(1);
	assert_int_equal(origin_queue_origins(f->q, &list, &n), 0);
	assert_int_equal(n, 1);
	assert_true(list[0].queued_bytes > 0);
	free(list);
	reader_stop(&f->r[0]);
	reader_stop(&f->r[1]);
	assert_int_equal(origin_queue_origins(f->q, &list, &n), 0);
	assert_string_equal(list[0].prefix, "mem://o");
	assert_true(list[0].limit_bytes_per_s == 1e6);
	near("the origin", (double)list[0].origin_bytes,
		rate(&f->r[0], 0, NS_PER_S * 1000000) * 1e6, 0.001);
	assert_int_equal(list[0].queued_bytes, 0);
	free(list);
	/* A job that gets from two is one job. */
	assert_int_equal(origin_queue_jobs(f->q, &jobs, &n), 0);
	assert_int_equal(n, 1);
	near("the job", (double)jobs[0].origin_bytes,
		(rate(&f->r[0], 0, NS_PER_S * 1000000) + rate(&f->r[1], 0, NS_PER_S * 1000000)) *
			1e6,
		0.001);
	assert_int_equal(jobs[0].queued_bytes, 0);
	free(jobs);
	/* One without a limit that nobody uses is forgotten. */
	apply(f->q, NULL);
	assert_int_equal(origin_queue_origins(f->q, &list, &n), 0);
	assert_int_equal(n, 0);
	free(list);
}

static void a_part_that_is_not_renewed_leaves_the_base_and_then_next_to_nothing(void **state)
{
	struct fx *f = *state;
	struct share s = {.message.limited = false};
	int64_t now_ns = clock_mono_ns();
	const struct origin_lease lease = {.part = 0.5,
		.base_part = 0.125,
		.until_ns = now_ns + 2 * NS_PER_S,
		.base_until_ns = now_ns + 4 * NS_PER_S};
	double part, base;

	share_init(&s, 8e6);
	share_job(&s, "a", 3e6);
	share_job(&s, "b", 1e6);
	share_origin(&s, "mem://o", 4e6, 0);
	origin_queue_part(f->q, &part, &base);
	assert_true(part == 0 && base == 0);
	origin_queue_lease(f->q, &lease);
	apply(f->q, &s.message);
	reader_start(&f->r[0], f->q, "a", "mem://o", MIB);
	reader_start(&f->r[1], f->q, "b", "mem://o", MIB);
	reader_start(&f->r[2], f->q, "", "mem://other", MIB);
	sleep(1);
	origin_queue_part(f->q, &part, &base);
	assert_true(part == 0.5 && base == 0.125);
	sleep(2);
	origin_queue_part(f->q, &part, &base);
	assert_true(part == 0.125 && base == 0.125);
	sleep(2);
	origin_queue_part(f->q, &part, &base);
	assert_true(part == 0 && base == 0);
	for (int i = 0; i < 3; i++)
		reader_stop(&f->r[i]);
	near("the part of the origin",
		rate(&f->r[0], now_ns, now_ns + 2 * NS_PER_S) +
			rate(&f->r[1], now_ns, now_ns + 2 * NS_PER_S),
		2e6, 0.15);
	near("a's", rate(&f->r[0], now_ns, now_ns + 2 * NS_PER_S), 1.5e6, 0.15);
	near("the base of the origin",
		rate(&f->r[0], now_ns + 22 * NS_PER_S / 10, now_ns + 4 * NS_PER_S) +
			rate(&f->r[1], now_ns + 22 * NS_PER_S / 10, now_ns + 4 * NS_PER_S),
		0.5e6, 0.2);
	near("the base of all", rate(&f->r[2], now_ns + 22 * NS_PER_S / 10, now_ns + 4 * NS_PER_S),
		0.5e6, 0.2);
	assert_true(rate(&f->r[2], now_ns + 42 * NS_PER_S / 10, now_ns + 5 * NS_PER_S) <=
		    2 * ORIGIN_RATE_MIN_BYTES_PER_S);
	/* Renewed it is as it was. */
	origin_queue_lease(f->q, &(const struct origin_lease){.part = 0.5,
					 .base_part = 0.125,
					 .until_ns = INT64_MAX,
					 .base_until_ns = INT64_MAX});
	assert_true(origin_queue_limit(f->q) == 4e6);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shares_that_make_no_sense_are_refused),
		TEST(an_origin_at_its_limit_holds_up_nobody_else),
		TEST(without_a_limit_of_all_only_that_origin_is_held_to_its_own),
		TEST(limits_come_change_and_go_while_readers_wait),
		TEST(what_is_told_of_an_origin_is_what_came_from_it),
		TEST(a_part_that_is_not_renewed_leaves_the_base_and_then_next_to_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
