/* The worker's share of the origins' bandwidth and what each job gets of it, as the origin sees it.
 * The store is a fake one. */
#include "tests/unit/worker_fixture.h"

#include <math.h>
#include <pthread.h>

#include "tests/unit/worker_fake_store.h"

#define MIB ((uint32_t)1 << 20)
#define HUGE_BYTES ((uint64_t)1 << 40)
#define SENT_MAX 100000
#define JOBS_MAX 64
#define NS_PER_S ((int64_t)1000000000)

/* What the origin sent, and for which job: each reads a file of its own, named as itself. */
struct sent {
	int64_t ns;
	uint64_t bytes;
	char path[16];
};

static struct {
	struct sent list[SENT_MAX];
	atomic_size_t count;
} origin;

static void on_sent(void *arg, const char *path, size_t path_len, uint64_t bytes)
{
	struct sent *s = &origin.list[atomic_load(&origin.count)];

	(void)arg;
	assert_true(atomic_load(&origin.count) < SENT_MAX);
	*s = (struct sent){.ns = clock_mono_ns(), .bytes = bytes};
	memcpy(s->path, path, path_len < 15 ? path_len : 15);
	atomic_fetch_add(&origin.count, 1);
}

/* Of a job (NULL: all) between two times. */
static uint64_t sent_bytes(const char *job, int64_t from_ns, int64_t until_ns)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < atomic_load(&origin.count); i++) {
		const struct sent *s = &origin.list[i];

		if (s->ns >= from_ns && s->ns < until_ns && (!job || !strcmp(s->path, job)))
			bytes += s->bytes;
	}
	return bytes;
}

/* The most in any second that begins at or after `from_ns`. */
static uint64_t most_in_a_second(int64_t from_ns)
{
	uint64_t most = 0, sum = 0;
	size_t from = 0, count = atomic_load(&origin.count);

	while (from < count && origin.list[from].ns < from_ns)
		from++;
	for (size_t i = from; i < count; i++) {
		sum += origin.list[i].bytes;
		while (origin.list[i].ns - origin.list[from].ns >= NS_PER_S)
			sum -= origin.list[from++].bytes;
		if (sum > most)
			most = sum;
	}
	return most;
}

static int setup(void **state)
{
	memset(&fake, 0, sizeof(fake));
	atomic_store(&origin.count, 0);
	*state = fx_new();
	mem_store_on_sent(((struct fx *)*state)->mem, on_sent, NULL);
	return 0;
}

static int teardown(void **state)
{
	fx_free(*state);
	return 0;
}

static void start(struct fx *f, uint64_t threshold, const struct fx_tuning *tune)
{
	manifest_unref(fx_snapshot(f));
	fx_worker_start(f, tune);
	fx_grant(f, UINT64_MAX, threshold);
}

/* ---- shares ----------------------------------------------------------------------------------- */

struct share {
	Granary__V1__OriginShare message;
	Granary__V1__JobShare jobs[JOBS_MAX], *list[JOBS_MAX];
};

static void share_init(struct share *s, double bytes_per_s)
{
	granary__v1__origin_share__init(&s->message);
	s->message.limited = true;
	s->message.bytes_per_s = bytes_per_s;
	s->message.jobs = s->list;
}

static void share_job(struct share *s, const char *job, double bytes_per_s)
{
	size_t i = s->message.n_jobs++;

	granary__v1__job_share__init(&s->jobs[i]);
	s->jobs[i].job = (char *)job;
	s->jobs[i].bytes_per_s = bytes_per_s;
	s->list[i] = &s->jobs[i];
}

/* ---- jobs ------------------------------------------------------------------------------------- */

#define LOAD_THREADS 6

/* A job that reads, block after block, as fast as it gets them. */
struct load {
	struct fx *f;
	const struct fx_file *file;
	const char *job;
	uint32_t len;
	atomic_uint_fast64_t next;
	atomic_bool stop;
	atomic_uint failed;
	unsigned threads;
	pthread_t thread[LOAD_THREADS];
};

static void *load_main(void *arg)
{
	struct load *l = arg;

	while (!l->stop) {
		struct fx_read q = {.file = l->file,
			.job = l->job,
			.block = l->next++,
			.len = l->len,
			.timeout_ms = 60000};

		if (fx_read(l->f, &q) < 0)
			l->failed++;
	}
	return NULL;
}

static void load_start(struct load *l, struct fx *f, const struct fx_file *file, unsigned threads)
{
	l->f = f;
	l->file = file;
	l->job = l->job ? l->job : file->path;
	l->len = l->len ? l->len : MIB / 8;
	l->threads = threads;
	for (unsigned i = 0; i < threads; i++)
		assert_int_equal(pthread_create(&l->thread[i], NULL, load_main, l), 0);
}

static void load_stop(struct load *l)
{
	l->stop = true;
	for (unsigned i = 0; i < l->threads; i++)
		pthread_join(l->thread[i], NULL);
	assert_int_equal(l->failed, 0);
}

/* Between two times, of what all had; where the machine was too busy for them to have most of the
 * limit, they were not backlogged, and nothing can be said. */
static void assert_share(
	const char *job, double share, double limit, int64_t from_ns, int64_t until_ns)
{
	double all = (double)sent_bytes(NULL, from_ns, until_ns);
	double bytes = (double)sent_bytes(job, from_ns, until_ns);

	if (all < 0.9 * limit * (double)(until_ns - from_ns) / 1e9)
		print_message("too busy: %.0f bytes of a limit of %.0f\n", all, limit);
	else if (fabs(bytes / all - share) > 0.1 * share)
		fail_msg("%s: %.0f of %.0f bytes, not %g of them", job, bytes, all, share);
}

static void two_jobs_share_by_what_they_were_granted(void **state)
{
	struct fx *f = *state;
	const struct fx_file *a = fx_add(f, "a", HUGE_BYTES), *b = fx_add(f, "b", HUGE_BYTES);
	struct load la = {.job = NULL}, lb = {.job = NULL};
	struct share s = {.message.limited = false};
	int64_t began_ns, ended_ns;

	share_init(&s, 2e6);
	share_job(&s, "a", 1.5e6);
	share_job(&s, "b", 0.5e6);
	start(f, PIN_NONE, NULL);
	fx_share(f, &s.message);
	load_start(&la, f, a, LOAD_THREADS);
	load_start(&lb, f, b, LOAD_THREADS);
	sleep(1);
	began_ns = clock_mono_ns();
	sleep(4);
	ended_ns = clock_mono_ns();
	load_stop(&la);
	load_stop(&lb);
	assert_true((double)most_in_a_second(0) <= 1.02 * 2e6);
	assert_share("a", 0.75, 2e6, began_ns, ended_ns);
	assert_share("b", 0.25, 2e6, began_ns, ended_ns);
}

static void what_a_job_does_not_use_goes_to_the_other_until_it_asks(void **state)
{
	struct fx *f = *state;
	const struct fx_file *a = fx_add(f, "a", HUGE_BYTES), *b = fx_add(f, "b", HUGE_BYTES);
	struct load la = {.job = NULL}, lb = {.job = NULL};
	struct share s = {.message.limited = false};
	int64_t alone_ns, both_ns, end_ns;

	share_init(&s, 4e6);
	share_job(&s, "a", 3e6);
	share_job(&s, "b", 1e6);
	start(f, PIN_NONE, NULL);
	fx_share(f, &s.message);
	load_start(&lb, f, b, LOAD_THREADS);
	sleep(1);
	alone_ns = clock_mono_ns();
	sleep(2);
	both_ns = clock_mono_ns();
	load_start(&la, f, a, LOAD_THREADS);
	sleep(2);
	end_ns = clock_mono_ns();
	load_stop(&la);
	load_stop(&lb);
	assert_true(sent_bytes("b", alone_ns, both_ns) > 2 * 1500000);
	assert_true((double)most_in_a_second(0) <= 1.02 * 4e6);
	/* After a quarter of a second it has its share. */
	assert_share("a", 0.75, 4e6, both_ns + NS_PER_S / 4, end_ns);
}

static void a_change_of_shares_holds_at_once(void **state)
{
	struct fx *f = *state;
	const struct fx_file *a = fx_add(f, "a", HUGE_BYTES), *b = fx_add(f, "b", HUGE_BYTES);
	struct load la = {.job = NULL}, lb = {.job = NULL};
	struct share s = {.message.limited = false}, t = {.message.limited = false};
	int64_t changed_ns, end_ns;

	share_init(&s, 4e6);
	share_job(&s, "a", 3.9e6);
	share_job(&s, "b", 0.1e6);
	share_init(&t, 2e6);
	share_job(&t, "a", 0.5e6);
	share_job(&t, "b", 1.5e6);
	start(f, PIN_NONE, NULL);
	fx_share(f, &s.message);
	load_start(&la, f, a, LOAD_THREADS);
	load_start(&lb, f, b, LOAD_THREADS);
	sleep(2);
	fx_share(f, &t.message);
	changed_ns = clock_mono_ns();
	sleep(3);
	end_ns = clock_mono_ns();
	load_stop(&la);
	load_stop(&lb);
	assert_true((double)most_in_a_second(changed_ns) <= 1.02 * 2e6);
	assert_share("b", 0.75, 2e6, changed_ns + NS_PER_S / 2, end_ns);
}

static void a_limit_comes_and_goes(void **state)
{
	struct fx *f = *state;
	const struct fx_file *a = fx_add(f, "a", HUGE_BYTES);
	struct load la = {.job = NULL};
	struct share s = {.message.limited = false};
	int64_t set_ns, removed_ns, end_ns, again_ns;
	uint64_t free_bytes;

	share_init(&s, 1e6);
	start(f, PIN_NONE, NULL);
	load_start(&la, f, a, LOAD_THREADS);
	usleep(300000);
	fx_share(f, &s.message);
	set_ns = clock_mono_ns();
	sleep(2);
	removed_ns = clock_mono_ns();
	fx_share(f, NULL);
	usleep(500000);
	end_ns = clock_mono_ns();
	fx_share(f, &s.message);
	again_ns = clock_mono_ns();
	sleep(2);
	load_stop(&la);
	/* Gets under way at a change end as they began. */
	assert_true((double)sent_bytes(NULL, set_ns + NS_PER_S / 2, set_ns + NS_PER_S * 3 / 2) <=
		    1.02e6);
	free_bytes = sent_bytes(NULL, removed_ns, end_ns);
	assert_true(free_bytes > 600000);
	assert_true((double)most_in_a_second(again_ns + NS_PER_S / 2) <= 1.02e6);
}

static void jobs_that_nobody_named_share_what_is_for_others(void **state)
{
	struct fx *f = *state;
	const struct fx_file *a = fx_add(f, "a", HUGE_BYTES), *b = fx_add(f, "b", HUGE_BYTES),
			     *c = fx_add(f, "c", HUGE_BYTES);
	struct load la = {.job = NULL}, lb = {.job = NULL}, lc = {.job = ""};
	struct share s = {.message.limited = false};
	int64_t began_ns, ended_ns;

	share_init(&s, 2e6);
	share_job(&s, "a", 1e6);
	s.message.other_bytes_per_s = 1e6;
	start(f, PIN_NONE, NULL);
	fx_share(f, &s.message);
	load_start(&la, f, a, LOAD_THREADS);
	load_start(&lb, f, b, LOAD_THREADS);
	load_start(&lc, f, c, LOAD_THREADS);
	sleep(1);
	began_ns = clock_mono_ns();
	sleep(4);
	ended_ns = clock_mono_ns();
	load_stop(&la);
	load_stop(&lb);
	load_stop(&lc);
	assert_share("a", 0.5, 2e6, began_ns, ended_ns);
	assert_share("c", 0.25, 2e6, began_ns, ended_ns);
}

static void a_job_without_a_grant_is_slow_and_never_fails(void **state)
{
	struct fx *f = *state;
	const struct fx_file *a = fx_add(f, "a", HUGE_BYTES), *b = fx_add(f, "b", HUGE_BYTES);
	struct load la = {.job = NULL};
	struct fx_read q = {.file = b, .job = "b", .len = MIB / 16};
	struct share s = {.message.limited = false};

	share_init(&s, 4e6);
	share_job(&s, "a", 4e6);
	share_job(&s, "b", 0);
	start(f, PIN_NONE, NULL);
	fx_share(f, &s.message);
	load_start(&la, f, a, LOAD_THREADS);
	usleep(300000);
	for (q.block = 0; q.block < 2; q.block++)
		assert_int_equal(fx_read(f, &q), 0);
	load_stop(&la);
}

static void prefetch_has_only_what_nobody_waits_for(void **state)
{
	struct fx *f = *state;
	const struct fx_file *a = fx_add(f, "a", HUGE_BYTES), *b = fx_add(f, "b", HUGE_BYTES);
	struct load la = {.job = NULL};
	struct share s = {.message.limited = false};
	struct fx_read q = {.file = b, .job = "b", .len = BLOCK_BYTES};
	int64_t began_ns, ended_ns;

	share_init(&s, 8e6);
	share_job(&s, "a", 0.5e6);
	share_job(&s, "job-1", 7.5e6);
	start(f, PIN_ALL, NULL);
	fx_share(f, &s.message);
	la.len = BLOCK_BYTES;
	load_start(&la, f, a, LOAD_THREADS);
	sleep(1);
	for (uint64_t i = 0; i < 8; i++)
		assert_int_equal(fx_prefetch(f, b, i), 0);
	began_ns = clock_mono_ns();
	sleep(2);
	ended_ns = clock_mono_ns();
	/* No more than in the moments in which no read of the other waits. */
	assert_true(sent_bytes("b", began_ns, ended_ns) * 4 < sent_bytes("a", began_ns, ended_ns));
	/* Who waits for one of them makes it urgent. */
	assert_int_equal(fx_read(f, &q), 0);
	load_stop(&la);
	for (int ms = 0; ms < 20000 && sent_bytes("b", 0, INT64_MAX) < 8 * BLOCK_BYTES; ms += 10)
		usleep(10000);
	assert_int_equal(sent_bytes("b", 0, INT64_MAX), 8 * BLOCK_BYTES);
	assert_true((double)most_in_a_second(0) <= 1.02 * 8e6);
}

/* ---- deadlines, cancels ------------------------------------------------------------------------ */

static void who_waits_for_his_share_longer_than_the_timeout_does_not_fail(void **state)
{
	struct fx *f = *state;
	const struct fx_file *a = fx_add(f, "a", HUGE_BYTES);
	const struct fx_tuning tune = {.fetch_timeout_ms = 500, .read_timeout_ms = 500};
	struct fx_read q = {.file = a, .job = "a", .len = MIB / 2};
	struct share s = {.message.limited = false};
	int64_t began_ms;

	share_init(&s, 200e3);
	share_job(&s, "a", 200e3);
	start(f, PIN_NONE, &tune);
	fx_share(f, &s.message);
	began_ms = clock_mono_ms();
	assert_int_equal(fx_read(f, &q), 0);
	assert_true(clock_mono_ms() - began_ms >= 1500);
	assert_true(q.waited_us >= 1000000);
	assert_true((double)most_in_a_second(0) <= 1.02 * 200e3);
}

/* It ends before it would have been told on the way. */
static void a_short_wait_is_told_at_its_end(void **state)
{
	struct fx *f = *state;
	const struct fx_file *a = fx_add(f, "a", HUGE_BYTES);
	struct share s = {.message.limited = false};
	uint64_t waited_us = 0;
	int64_t began_ms;

	share_init(&s, 1e6);
	share_job(&s, "a", 1e6);
	start(f, PIN_NONE, NULL);
	fx_share(f, &s.message);
	began_ms = clock_mono_ms();
	for (uint32_t block = 0; block < 20; block++) {
		struct fx_read q = {.file = a, .job = "a", .block = block, .len = 100000};

		assert_int_equal(fx_read(f, &q), 0);
		waited_us += q.waited_us;
	}
	/* 2 MB at 1 MB/s; the origin takes no time. */
	assert_true(waited_us > 900000);
	assert_true((int64_t)waited_us / 1000 <= clock_mono_ms() - began_ms);
}

/* One get would take 60 ms, those of the pieces take longer than the timeout. */
static void gets_in_many_pieces_from_a_slow_origin_do_not_fail(void **state)
{
	struct fx *f = *state;
	const struct fx_file *a = fx_add(f, "a", HUGE_BYTES);
	const struct fx_tuning tune = {.fetch_timeout_ms = 700, .read_timeout_ms = 700};
	struct fx_read q = {.file = a, .job = "a", .len = 2 * MIB};
	struct share s = {.message.limited = false};

	share_init(&s, 5e6);
	start(f, PIN_ALL, &tune);
	fx_share(f, &s.message);
	mem_store_add_fault(
		f->mem, &(struct mem_fault){.kind = MEM_DELAY, .ops = MEM_GET, .ms = 60});
	assert_int_equal(fx_read(f, &q), 0);
}

static void an_origin_that_hangs_still_times_out_under_a_limit(void **state)
{
	struct fx *f = *state;
	const struct fx_file *a = fx_add(f, "a", HUGE_BYTES);
	const struct fx_tuning tune = {.fetch_timeout_ms = 500, .read_timeout_ms = 500};
	struct fx_read q = {.file = a, .job = "a", .len = MIB / 2};
	struct share s = {.message.limited = false};

	share_init(&s, 8e6);
	start(f, PIN_NONE, &tune);
	fx_share(f, &s.message);
	mem_store_add_fault(f->mem, &(struct mem_fault){.kind = MEM_STALL, .ops = MEM_GET});
	assert_int_equal(fx_read(f, &q), -ETIMEDOUT);
}

static void a_huge_block_comes_whole_under_a_tiny_limit(void **state)
{
	struct fx *f = *state;
	const struct fx_file *a = fx_add(f, "a", HUGE_BYTES);
	struct fx_read q = {.file = a, .job = "a", .len = 4096, .offset = MIB, .timeout_ms = 60000};
	struct share s = {.message.limited = false}, t = {.message.limited = false};

	share_init(&s, 300e3);
	share_init(&t, 8e6);
	start(f, PIN_ALL, NULL);
	fx_share(f, &s.message);
	/* The block is pinned, so all of it is fetched; the reader has its part when that is here. */
	assert_int_equal(fx_read(f, &q), 0);
	assert_true((double)most_in_a_second(0) <= 1.02 * 300e3);
	fx_share(f, &t.message);
	for (int ms = 0; ms < 10000 && fake.store->puts < 1; ms++)
		usleep(1000);
	assert_int_equal(fake.store->puts, 1);
	assert_int_equal(fx_origin_bytes(f), BLOCK_BYTES);
}

struct reader {
	struct fx *f;
	struct fx_read q;
	pthread_t thread;
	int result;
};

static void *reader_main(void *arg)
{
	struct reader *r = arg;

	r->result = fx_read(r->f, &r->q);
	return NULL;
}

/* Uses up what there is for seconds to come. */
static void exhaust(struct fx *f, const struct fx_file *file)
{
	struct fx_read q = {.file = file, .block = 200000, .len = 4096};

	assert_int_equal(fx_read(f, &q), 0);
}

static void a_read_that_waits_for_its_turn_can_be_called_off(void **state)
{
	struct fx *f = *state;
	const struct fx_file *a = fx_add(f, "a", HUGE_BYTES);
	struct rpc_stream *_Atomic stream = NULL;
	struct reader r = {.f = f, .q = {.file = a, .block = 1, .len = MIB, .stream = &stream}};
	struct share s = {.message.limited = false}, t = {.message.limited = false};
	struct worker_stat st;
	int64_t began_ms;

	share_init(&s, 4096);
	share_init(&t, 8e6);
	start(f, PIN_NONE, NULL);
	fx_share(f, &s.message);
	exhaust(f, a);
	assert_int_equal(pthread_create(&r.thread, NULL, reader_main, &r), 0);
	while (!stream)
		usleep(1000);
	usleep(300000);
	worker_stat(f->worker, &st);
	assert_int_equal(st.fetches_running, 0); /* no thread waits */
	began_ms = clock_mono_ms();
	rpc_stream_cancel(stream);
	pthread_join(r.thread, NULL);
	rpc_stream_close(stream);
	assert_int_equal(r.result, -ECANCELED);
	assert_true(clock_mono_ms() - began_ms < 5000);
	usleep(300000);
	/* What it wanted is not got any more. */
	fx_share(f, &t.message);
	usleep(300000);
	assert_true(fx_origin_bytes(f) < MIB / 8);
}

static void a_worker_ends_while_fetches_wait_for_their_turn(void **state)
{
	struct fx *f = *state;
	const struct fx_file *a = fx_add(f, "a", HUGE_BYTES);
	struct reader r[8];
	struct share s = {.message.limited = false};

	share_init(&s, 4096);
	start(f, PIN_ALL, NULL);
	fx_share(f, &s.message);
	exhaust(f, a);
	for (uint64_t i = 0; i < 8; i++) {
		r[i] = (struct reader){.f = f, .q = {.file = a, .block = i, .len = MIB}};
		assert_int_equal(pthread_create(&r[i].thread, NULL, reader_main, &r[i]), 0);
		assert_int_equal(fx_prefetch(f, a, 100 + i), 0);
	}
	usleep(300000);
	rpc_server_stop(f->server, 100);
	for (int i = 0; i < 8; i++) {
		pthread_join(r[i].thread, NULL);
		assert_true(r[i].result < 0);
	}
	rpc_channel_free(f->channel);
	rpc_server_free(f->server);
	worker_free(f->worker);
	f->worker = NULL;
}

static void readers_of_a_slow_job_do_not_keep_out_those_of_another(void **state)
{
	struct fx *f = *state;
	const struct fx_file *a = fx_add(f, "a", HUGE_BYTES), *b = fx_add(f, "b", HUGE_BYTES);
	struct fx_read q = {.file = b, .job = "b", .len = MIB / 8};
	static struct reader r[150];
	struct share s = {.message.limited = false}, t = {.message.limited = false};
	unsigned away = 0;
	int64_t began_ms;

	share_init(&s, 2e6);
	share_job(&s, "a", 4096);
	share_job(&s, "b", 1.9e6);
	share_init(&t, 80e6);
	start(f, PIN_NONE, NULL);
	fx_share(f, &s.message);
	for (uint64_t i = 0; i < 150; i++) {
		r[i] = (struct reader){
			.f = f, .q = {.file = a, .job = "a", .block = i, .len = MIB / 2}};
		assert_int_equal(pthread_create(&r[i].thread, NULL, reader_main, &r[i]), 0);
	}
	usleep(500000);
	began_ms = clock_mono_ms();
	for (q.block = 0; q.block < 4; q.block++) {
		do {
			assert_int_equal(fx_read(f, &q), 0);
		} while (q.again);
	}
	assert_true(clock_mono_ms() - began_ms < 10000);
	fx_share(f, &t.message);
	for (int i = 0; i < 150; i++) {
		pthread_join(r[i].thread, NULL);
		assert_int_equal(r[i].result, 0);
		away += r[i].q.again;
	}
	assert_true(away > 0);
}

static void who_joins_a_get_of_a_slower_job_has_it_at_his_own_pace(void **state)
{
	struct fx *f = *state;
	const struct fx_file *a = fx_add(f, "a", HUGE_BYTES), *b = fx_add(f, "b", HUGE_BYTES);
	struct load lb = {.job = NULL};
	struct reader slow = {.f = f, .q = {.file = a, .job = "a", .block = 1, .len = MIB}};
	struct fx_read q = {.file = a, .job = "c", .block = 1, .len = MIB};
	struct share s = {.message.limited = false};
	int64_t began_ms;

	share_init(&s, 8e6);
	share_job(&s, "a", 10e3);
	share_job(&s, "b", 3e6);
	share_job(&s, "c", 4.99e6);
	start(f, PIN_ALL, NULL);
	fx_share(f, &s.message);
	load_start(&lb, f, b, LOAD_THREADS);
	usleep(300000);
	assert_int_equal(pthread_create(&slow.thread, NULL, reader_main, &slow), 0);
	usleep(500000);
	began_ms = clock_mono_ms();
	assert_int_equal(fx_read(f, &q), 0);
	/* At the pace of the other it would be a minute and more. */
	assert_true(clock_mono_ms() - began_ms < 10000);
	pthread_join(slow.thread, NULL);
	assert_int_equal(slow.result, 0);
	load_stop(&lb);
}

static void a_job_with_an_endless_name_is_cut(void **state)
{
	static char name[2000];
	struct fx *f = *state;
	const struct fx_file *a = fx_add(f, "a", HUGE_BYTES);
	struct reader r[4];
	struct share s = {.message.limited = false};

	memset(name, 'x', sizeof(name) - 1);
	share_init(&s, 500e3);
	start(f, PIN_ALL, NULL);
	fx_share(f, &s.message);
	for (uint64_t i = 0; i < 4; i++) {
		r[i] = (struct reader){.f = f, .q = {.file = a, .job = name + i, .len = 300000}};
		assert_int_equal(pthread_create(&r[i].thread, NULL, reader_main, &r[i]), 0);
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(r[i].thread, NULL);
		assert_int_equal(r[i].result, 0);
	}
}

/* Each block is begun for its reader and then waits, with its buffer, until nobody waits. */
static void blocks_that_nobody_waits_for_any_more_do_not_hold_up_readers(void **state)
{
	struct fx *f = *state;
	const struct fx_file *a = fx_add(f, "a", HUGE_BYTES);
	const struct fx_tuning tune = {.fetch_threads = 4,
		.fetch_memory_bytes = 16 * MIB,
		.fetch_timeout_ms = 4000,
		.read_timeout_ms = 4000};
	struct reader r[40];
	struct share s = {.message.limited = false};

	share_init(&s, 20e6);
	start(f, PIN_ALL, &tune);
	fx_share(f, &s.message);
	for (uint64_t i = 0; i < 40; i++) {
		r[i] = (struct reader){.f = f, .q = {.file = a, .block = i, .len = 65536}};
		assert_int_equal(pthread_create(&r[i].thread, NULL, reader_main, &r[i]), 0);
	}
	for (int i = 0; i < 40; i++) {
		pthread_join(r[i].thread, NULL);
		assert_int_equal(r[i].result, 0);
	}
	for (int ms = 0; ms < 30000 && fake.store->puts < 40; ms++)
		usleep(1000);
	assert_int_equal(fake.store->puts, 40);
	assert_true((double)most_in_a_second(0) <= 1.02 * 20e6);
}

static void many_jobs_read_under_one_limit(void **state)
{
	static char names[48][16];
	struct fx *f = *state;
	const struct fx_file *a = fx_add(f, "a", HUGE_BYTES);
	struct load loads[48];
	struct share s = {.message.limited = false};

	share_init(&s, 8e6);
	for (int i = 0; i < 48; i++) {
		snprintf(names[i], sizeof(names[i]), "job%d", i);
		if (i % 2 == 0)
			share_job(&s, names[i], 8e6 / 24);
		loads[i] = (struct load){.job = names[i], .len = MIB / 8};
		loads[i].next = (uint64_t)i * 1000;
	}
	start(f, PIN_NONE, NULL);
	fx_share(f, &s.message);
	for (int i = 0; i < 48; i++)
		load_start(&loads[i], f, a, 1);
	sleep(4);
	for (int i = 0; i < 48; i++)
		loads[i].stop = true;
	for (int i = 0; i < 48; i++)
		load_stop(&loads[i]);
	assert_true((double)most_in_a_second(0) <= 1.02 * 8e6);
}

/* ---- what is said and heard -------------------------------------------------------------------- */

static void the_heartbeat_says_what_a_job_got_and_waited(void **state)
{
	struct fx *f = *state;
	const struct fx_file *a = fx_add(f, "a", HUGE_BYTES);
	struct fx_read q = {.file = a, .len = MIB / 2};
	struct share s = {.message.limited = false};

	share_init(&s, 1e6);
	start(f, PIN_NONE, NULL);
	fx_share(f, &s.message);
	assert_int_equal(fx_read(f, &q), 0);
	usleep(50000);
	assert_int_equal(worker_refresh(f->worker, clock_deadline_ms(20000)), 0);
	mutex_guard(&f->mu);
	assert_int_equal(f->seen_job_bytes, MIB / 2);
	assert_true(f->seen_job_waited_us > 100000);
}

static void assert_refused(struct fx *f, const struct fx_file *file, struct share *s)
{
	static uint64_t block;
	struct fx_read q = {.file = file, .len = 4 * MIB};
	int64_t began_ms;

	q.block = ++block;
	fx_share(f, &s->message);
	/* Had a limit come into force, this would take longer than it may. */
	began_ms = clock_mono_ms();
	assert_int_equal(fx_read(f, &q), 0);
	assert_true(clock_mono_ms() - began_ms < 60000);
}

static void shares_that_make_no_sense_are_not_taken(void **state)
{
	static char name[100];
	struct fx *f = *state;
	const struct fx_file *a = fx_add(f, "a", HUGE_BYTES);
	struct share s;

	start(f, PIN_NONE, NULL);
	memset(name, 'x', sizeof(name) - 1);
	for (int kind = 0; kind < 7; kind++) {
		s = (struct share){.message.limited = false};
		share_init(&s, 4096);
		switch (kind) {
		case 0:
			s.message.bytes_per_s = NAN;
			break;
		case 1:
			s.message.bytes_per_s = -1;
			break;
		case 2:
			s.message.other_bytes_per_s = INFINITY;
			break;
		case 3:
			share_job(&s, "a", NAN);
			break;
		case 4:
			share_job(&s, name, 1);
			break;
		case 5:
			share_job(&s, "a", 1);
			share_job(&s, "a", 2);
			break;
		case 6:
			share_job(&s, "", 1);
			break;
		}
		assert_refused(f, a, &s);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(two_jobs_share_by_what_they_were_granted),
		TEST(what_a_job_does_not_use_goes_to_the_other_until_it_asks),
		TEST(a_change_of_shares_holds_at_once),
		TEST(a_limit_comes_and_goes),
		TEST(jobs_that_nobody_named_share_what_is_for_others),
		TEST(a_job_without_a_grant_is_slow_and_never_fails),
		TEST(prefetch_has_only_what_nobody_waits_for),
		TEST(who_waits_for_his_share_longer_than_the_timeout_does_not_fail),
		TEST(a_short_wait_is_told_at_its_end),
		TEST(gets_in_many_pieces_from_a_slow_origin_do_not_fail),
		TEST(an_origin_that_hangs_still_times_out_under_a_limit),
		TEST(a_huge_block_comes_whole_under_a_tiny_limit),
		TEST(a_read_that_waits_for_its_turn_can_be_called_off),
		TEST(a_worker_ends_while_fetches_wait_for_their_turn),
		TEST(readers_of_a_slow_job_do_not_keep_out_those_of_another),
		TEST(who_joins_a_get_of_a_slower_job_has_it_at_his_own_pace),
		TEST(a_job_with_an_endless_name_is_cut),
		TEST(blocks_that_nobody_waits_for_any_more_do_not_hold_up_readers),
		TEST(many_jobs_read_under_one_limit),
		TEST(the_heartbeat_says_what_a_job_got_and_waited),
		TEST(shares_that_make_no_sense_are_not_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
