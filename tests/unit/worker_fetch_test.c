/* Misses: who fetches what, once, for whom, and what a failure does. The store is a fake one. */
#include "tests/unit/worker_fetch_fixture.h"

/* ---- pinned blocks --------------------------------------------------------------------------- */

static void many_readers_of_a_pinned_block_make_one_get(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BIG);
	struct reader readers[24];

	start(f, PIN_ALL, NULL);
	mem_store_add_fault(
		f->mem, &(struct mem_fault){.kind = MEM_DELAY, .ops = MEM_GET, .ms = 100});
	for (int i = 0; i < 24; i++) {
		readers[i].q = (struct fx_read){
			.file = file, .block = 1, .offset = (uint32_t)i * 100000, .len = MIB + 1};
		reader_start(&readers[i], f);
	}
	for (int i = 0; i < 24; i++) {
		pthread_join(readers[i].thread, NULL);
		assert_int_equal(readers[i].result, 0);
		assert_true(readers[i].q.from_origin);
	}
	wait_for_puts(1);
	assert_int_equal(fx_gets(f), 1);
	assert_int_equal(fx_origin_bytes(f), BLOCK_BYTES);
}

static void a_block_is_read_from_the_store_the_second_time(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", 110000);
	struct fx_read q = {.file = file, .len = 110000};

	start(f, PIN_ALL, NULL);
	assert_int_equal(fx_read(f, &q), 0);
	assert_true(q.from_origin);
	wait_for_puts(1);
	assert_int_equal(fx_read(f, &q), 0);
	assert_false(q.from_origin);
	assert_int_equal(fx_gets(f), 1);
}

static void a_block_that_comes_right_after_the_look_is_not_got_again(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", 110000);
	struct fx_read q = {.file = file, .len = 110000};

	start(f, PIN_ALL, NULL);
	assert_int_equal(fx_read(f, &q), 0);
	wait_for_puts(1);
	atomic_store(&fake.misses, 1);
	assert_int_equal(fx_read(f, &q), 0);
	assert_int_equal(fx_gets(f), 1);
}

static void a_reader_has_its_bytes_before_the_block_is_complete(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BIG);
	struct fx_read q = {.file = file, .len = MIB / 2};
	struct reader tail = {.q = {.file = file, .offset = MIB, .len = 3 * MIB}};

	start(f, PIN_ALL, NULL);
	/* The origin breaks off after 1 MiB, and takes its time when it is asked again. */
	mem_store_add_fault(
		f->mem, &(struct mem_fault){
				.kind = MEM_TRUNCATE, .ops = MEM_GET, .count = 1, .bytes = MIB});
	mem_store_add_fault(f->mem,
		&(struct mem_fault){.kind = MEM_DELAY, .ops = MEM_GET, .count = 1, .ms = 500});
	reader_start(&tail, f);
	assert_int_equal(fx_read(f, &q), 0);
	q.first_ms = clock_mono_ms();
	pthread_join(tail.thread, NULL);
	assert_int_equal(tail.result, 0);
	assert_true(tail.done_ms - q.first_ms >= 300);
	assert_int_equal(fx_origin_bytes(f), BLOCK_BYTES);
}

static void a_fetch_goes_on_when_its_first_reader_leaves(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BIG);
	struct rpc_stream *_Atomic stream = NULL;
	struct reader first = {.q = {.file = file, .len = MIB}};
	struct reader second = {.q = {.file = file, .offset = MIB, .len = MIB}};

	first.q.stream = &stream;
	start(f, PIN_ALL, NULL);
	mem_store_add_fault(
		f->mem, &(struct mem_fault){.kind = MEM_DELAY, .ops = MEM_GET, .ms = 600});
	reader_start(&first, f);
	while (fx_gets(f) == 0)
		usleep(1000);
	reader_start(&second, f);
	usleep(100000);
	rpc_stream_cancel(stream);
	pthread_join(first.thread, NULL);
	rpc_stream_close(stream);
	assert_int_equal(first.result, -ECANCELED);
	pthread_join(second.thread, NULL);
	assert_int_equal(second.result, 0);
	wait_for_puts(1);
	assert_int_equal(fx_gets(f), 1);
}

static void a_pass_through_is_cancelled_with_its_only_reader(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BIG);
	struct rpc_stream *_Atomic stream = NULL;
	struct reader first = {.q = {.file = file, .len = MIB}};
	struct worker_stat st;
	int64_t deadline_ms;

	first.q.stream = &stream;
	start(f, PIN_NONE, NULL);
	mem_store_add_fault(f->mem, &(struct mem_fault){.kind = MEM_STALL, .ops = MEM_GET});
	reader_start(&first, f);
	while (fx_gets(f) == 0 || !stream)
		usleep(1000);
	rpc_stream_cancel(stream);
	pthread_join(first.thread, NULL);
	rpc_stream_close(stream);
	deadline_ms = clock_deadline_ms(30000);
	do {
		usleep(10000);
		worker_stat(f->worker, &st);
	} while (st.fetches_running > 0 && !clock_passed(deadline_ms));
	assert_int_equal(st.fetches_running, 0);
}

/* ---- a reader that gets by itself ------------------------------------------------------------- */

static void a_mount_of_the_process_gets_and_another_thread_stores(void **state)
{
	static const atomic_bool never;
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", 110000);
	struct fx_read q = {.file = file, .len = 110000, .cancel = &never};

	start(f, PIN_ALL, NULL);
	assert_int_equal(fx_read(f, &q), 0);
	assert_true(q.from_origin);
	wait_for_puts(1);
	assert_int_equal(fx_read(f, &q), 0);
	assert_false(q.from_origin);
	assert_int_equal(fx_gets(f), 1);
}

/* Both want a block that stalls, the first one gets it by itself. */
static void two_at_a_stalled_block(struct fx *f, struct reader *first, struct reader *second)
{
	start(f, PIN_ALL, NULL);
	mem_store_add_fault(
		f->mem, &(struct mem_fault){.kind = MEM_STALL, .ops = MEM_GET, .count = 1});
	reader_start(first, f);
	while (fx_gets(f) == 0)
		usleep(1000);
	reader_start(second, f);
	usleep(50000);
}

static void its_cancel_costs_those_who_joined_another_get(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", 110000);
	atomic_bool cancel = false;
	struct reader first = {.q = {.file = file, .len = 110000, .cancel = &cancel}};
	struct reader second = {.q = {.file = file, .len = 110000}};
	int64_t begun_ms;

	two_at_a_stalled_block(f, &first, &second);
	begun_ms = clock_mono_ms();
	atomic_store(&cancel, true);
	pthread_join(first.thread, NULL);
	assert_int_equal(first.result, -ECANCELED);
	assert_true(first.done_ms - begun_ms < 5000);
	pthread_join(second.thread, NULL);
	assert_int_equal(second.result, 0);
	assert_int_equal(fx_gets(f), 2);
}

static void its_deadline_costs_those_who_joined_another_get(void **state)
{
	static const atomic_bool never;
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", 110000);
	struct reader first = {
		.q = {.file = file, .len = 110000, .cancel = &never, .timeout_ms = 700}};
	struct reader second = {.q = {.file = file, .len = 110000}};

	two_at_a_stalled_block(f, &first, &second);
	pthread_join(first.thread, NULL);
	assert_int_equal(first.result, -ETIMEDOUT);
	pthread_join(second.thread, NULL);
	assert_int_equal(second.result, 0);
}

/* ---- pass-through ---------------------------------------------------------------------------- */

static void random_records_of_an_unpinned_file_cost_what_was_read(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BIG);
	uint64_t asked = 0;

	start(f, PIN_NONE, NULL);
	for (uint32_t i = 0; i < 60; i++) {
		struct fx_read q = {.file = file,
			.block = i * 7 % 3,
			.offset = i * 977 * 4096 % (3 * MIB),
			.len = 114660};

		assert_int_equal(fx_read(f, &q), 0);
		assert_true(q.from_origin);
		asked += q.len;
	}
	assert_true(fx_origin_bytes(f) <= asked);
	assert_int_equal(fake.store->puts, 0);
}

static void a_sequential_reader_costs_each_byte_once(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BIG + 12345);
	const uint32_t step = 128 << 10;
	uint64_t gets;

	start(f, PIN_NONE, NULL);
	for (uint64_t b = 0; b < block_count(file->size); b++) {
		uint32_t blen = (uint32_t)block_len(file->size, b);

		for (uint32_t at = 0; at < blen; at += step) {
			struct fx_read q = {.file = file,
				.block = b,
				.offset = at,
				.len = blen - at < step ? blen - at : step,
				.read_ahead = MIB};

			assert_int_equal(fx_read(f, &q), 0);
		}
	}
	gets = fx_gets(f);
	assert_int_equal(fx_origin_bytes(f), file->size);
	assert_true(gets < 40); /* of 97 requests */
	assert_int_equal(fake.store->puts, 0);
}

static void sequential_readers_at_once_share_the_read_ahead(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BLOCK_BYTES);
	const uint32_t step = 256 << 10;
	struct reader readers[16];

	start(f, PIN_NONE, NULL);
	for (uint32_t i = 0; i < 16; i++) {
		readers[i].q = (struct fx_read){
			.file = file, .offset = i * step, .len = step, .read_ahead = MIB};
		reader_start(&readers[i], f);
	}
	for (int i = 0; i < 16; i++) {
		pthread_join(readers[i].thread, NULL);
		assert_int_equal(readers[i].result, 0);
	}
	assert_int_equal(fx_origin_bytes(f), BLOCK_BYTES);
}

/* ---- blocks that are read again -------------------------------------------------------------- */

static void one_pass_in_small_requests_is_no_second_read(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BIG);

	start(f, PIN_NONE, NULL);
	assert_int_equal(fx_read_file(f, file, 128 << 10, NULL), 0);
	assert_int_equal(fake.store->puts, 0);
	assert_int_equal(fx_origin_bytes(f), BIG);
}

static void the_second_pass_stores_and_the_third_hits(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BIG);
	uint64_t from_origin = 0;

	start(f, PIN_NONE, NULL);
	assert_int_equal(fx_read_file(f, file, 128 << 10, NULL), 0);
	assert_int_equal(fx_read_file(f, file, 300000, NULL), 0);
	wait_for_puts(3);
	assert_int_equal(fx_read_file(f, file, 128 << 10, &from_origin), 0);
	assert_int_equal(from_origin, 0);
	assert_int_equal(fx_origin_bytes(f), 2 * BIG);
}

static void a_full_quota_keeps_passing_through(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BIG);

	start(f, PIN_NONE, NULL);
	atomic_store(&fake.would_not_take, true);
	for (int pass = 0; pass < 4; pass++)
		assert_int_equal(fx_read_file(f, file, MIB, NULL), 0);
	assert_int_equal(fx_origin_bytes(f), 4 * BIG);
	assert_int_equal(fake.store->puts, 0);
}

/* ---- a store that does not take -------------------------------------------------------------- */

static void a_full_disk_fails_no_read_and_fetches_no_block_twice(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", BIG);

	start(f, PIN_ALL, NULL);
	atomic_store(&fake.put_says_full, true);
	assert_int_equal(fx_read_file(f, file, 128 << 10, NULL), 0);
	assert_int_equal(fx_origin_bytes(f), BIG);
	/* One that says beforehand that it is full is not even tried. */
	atomic_store(&fake.would_not_take, true);
	assert_int_equal(fx_read_file(f, file, MIB, NULL), 0);
	assert_int_equal(fx_origin_bytes(f), 2 * BIG);
	assert_int_equal(fake.store->puts, 0);
}

static void a_store_that_loses_what_it_has_fails_no_read(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", 110000);

	start(f, PIN_ALL, NULL);
	assert_int_equal(fx_read_file(f, file, 110000, NULL), 0);
	wait_for_puts(1);
	atomic_store(&fake.reads_miss, true);
	assert_int_equal(fx_read_file(f, file, 110000, NULL), 0);
}

/* ---- an origin that fails -------------------------------------------------------------------- */

static void server_errors_are_retried(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", 110000);

	start(f, PIN_ALL, NULL);
	mem_store_add_fault(
		f->mem, &(struct mem_fault){.kind = MEM_FAIL_RETRY, .ops = MEM_GET, .count = 3});
	assert_int_equal(fx_read_file(f, file, 110000, NULL), 0);
}

static void fail_with(
	struct fx *f, enum mem_fault_kind kind, uint64_t threshold, int status, const char *words)
{
	const struct fx_file *file = fx_add(f, "some file", 110000);
	struct fx_read q = {.file = file, .len = 110000};

	start(f, threshold, NULL);
	mem_store_add_fault(f->mem, &(struct mem_fault){.kind = kind, .ops = MEM_GET});
	assert_int_equal(fx_read(f, &q), status);
	assert_int_equal(q.got, 0);
	if (!strstr(q.err.text, words) || !strstr(q.err.text, "some file"))
		fail_msg("says: %s", q.err.text);
	assert_int_equal(worker_refresh(f->worker, clock_deadline_ms(5000)), 0);
	assert_int_equal(f->seen_failures, 1);
	assert_true(fx_error_says(f, "some file"));
	/* It is the object that fails, not the worker. */
	mem_store_clear_faults(f->mem);
	assert_int_equal(fx_read(f, &q), 0);
}

static void a_changed_object_is_stale_and_named(void **state)
{
	fail_with(*state, MEM_CHANGED, PIN_ALL, -ESTALE, "changed");
}

static void a_changed_object_is_stale_on_pass_through_too(void **state)
{
	fail_with(*state, MEM_CHANGED, PIN_NONE, -ESTALE, "changed");
}

static void a_vanished_object_is_stale_and_named(void **state)
{
	fail_with(*state, MEM_GONE, PIN_ALL, -ESTALE, "gone");
}

static void a_fatal_answer_is_an_io_error(void **state)
{
	fail_with(*state, MEM_FAIL_FATAL, PIN_ALL, -EIO, "mem://");
}

static void new_credentials_of_the_plan_reach_the_origin(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", 110000);
	struct fx_read q = {.file = file, .len = 110000};

	strcpy(f->secret, "old");
	start(f, PIN_ALL, NULL);
	mem_store_expire_credentials(f->mem, false);
	assert_int_equal(fx_read(f, &q), -EACCES);
	mutex_lock(&f->mu);
	strcpy(f->secret, "new");
	mutex_unlock(&f->mu);
	fx_grant(f, UINT64_MAX, PIN_ALL);
	assert_int_equal(fx_read(f, &q), 0);
}

static void a_stalled_origin_fails_at_the_readers_deadline(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", 110000);
	struct fx_read q = {.file = file, .len = 110000, .timeout_ms = 700};
	int64_t begun_ms;

	start(f, PIN_ALL, NULL);
	mem_store_add_fault(f->mem, &(struct mem_fault){.kind = MEM_STALL, .ops = MEM_GET});
	begun_ms = clock_mono_ms();
	assert_int_equal(fx_read(f, &q), -ETIMEDOUT);
	assert_in_range(clock_mono_ms() - begun_ms, 600, 20000);
	mem_store_clear_faults(f->mem);
	/* The caller's clock runs out a moment before the worker's: a read within that moment joins
	 * the get that stalls and shares its fate. */
	usleep(500000);
	q.timeout_ms = 20000;
	assert_int_equal(fx_read(f, &q), 0);
}

static void a_stalled_origin_fails_at_the_workers_own_bound(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", 110000);
	struct fx_read q = {.file = file, .len = 110000, .timeout_ms = 30000};
	int64_t begun_ms;

	start(f, PIN_ALL, &(struct fx_tuning){.read_timeout_ms = 500});
	mem_store_add_fault(f->mem, &(struct mem_fault){.kind = MEM_STALL, .ops = MEM_GET});
	begun_ms = clock_mono_ms();
	assert_int_equal(fx_read(f, &q), -ETIMEDOUT);
	assert_in_range(clock_mono_ms() - begun_ms, 400, 20000);
}

/* ---- everything at once -----------------------------------------------------------------------
 */

struct chaos {
	struct fx *f;
	pthread_t thread;
	unsigned seed, served, failed;
};

/* Of each reader, however slow the machine. */
enum { CHAOS_READS = 10 };

/* Reads ranges at random while the grant changes and until CHAOS_READS were served, a few of them
 * with hardly any time. fx_read compares each byte. */
static void *chaos_main(void *arg)
{
	static const atomic_bool never;
	struct chaos *c = arg;
	int64_t changed_ms = clock_deadline_ms(1500);
	int64_t give_up_ms = clock_deadline_ms(120000);

	while (!clock_passed(give_up_ms) &&
		(!clock_passed(changed_ms) || c->served < CHAOS_READS)) {
		struct fx_file *file = &c->f->files[(unsigned)rand_r(&c->seed) % c->f->file_count];
		uint64_t block = (unsigned)rand_r(&c->seed) % block_count(file->size);
		uint32_t blen = (uint32_t)block_len(file->size, block);
		uint32_t offset = (unsigned)rand_r(&c->seed) % blen;
		uint32_t len = 1 + (unsigned)rand_r(&c->seed) % 300000;
		struct fx_read q = {.file = file,
			.block = block,
			.offset = offset,
			.len = blen - offset < len ? blen - offset : len,
			.read_ahead = rand_r(&c->seed) % 2 ? MIB : 0,
			.timeout_ms = rand_r(&c->seed) % 8 ? 20000 : 3,
			.cancel = rand_r(&c->seed) % 2 ? &never : NULL};

		if (fx_read(c->f, &q) == 0)
			c->served++;
		else
			c->failed++;
	}
	return NULL;
}

static void readers_of_all_kinds_at_once_see_only_right_bytes(void **state)
{
	struct fx *f = *state;
	struct chaos readers[12];

	for (int i = 0; i < 6; i++) {
		char path[8] = {(char)('a' + i), 0};

		fx_add(f, path, i % 2 ? BIG : 100000);
	}
	start(f, PIN_ALL / 2, &(struct fx_tuning){.fetch_threads = 8});
	mem_store_add_fault(f->mem,
		&(struct mem_fault){
			.kind = MEM_TRUNCATE, .ops = MEM_GET, .count = 20, .bytes = 100000});
	mem_store_add_fault(
		f->mem, &(struct mem_fault){.kind = MEM_DELAY, .ops = MEM_GET, .ms = 5});
	for (unsigned i = 0; i < 12; i++) {
		readers[i] = (struct chaos){.f = f, .seed = i + 1};
		pthread_create(&readers[i].thread, NULL, chaos_main, &readers[i]);
	}
	for (int i = 0; i < 10; i++) {
		usleep(100000);
		fx_grant(f, UINT64_MAX, i % 2 ? PIN_ALL : PIN_NONE);
		atomic_store(&fake.put_says_full, i % 3 == 0);
		atomic_store(&fake.would_not_take, i % 3 == 1);
		atomic_store(&fake.reads_miss, i % 4 == 1);
	}
	for (int i = 0; i < 12; i++) {
		pthread_join(readers[i].thread, NULL);
		assert_true(readers[i].served >= CHAOS_READS);
	}
}

/* ---- requests that make no sense --------------------------------------------------------------
 */

static void ranges_outside_of_the_block_are_refused(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", 5 * (uint64_t)MIB);
	const struct fx_read bad[] = {
		{.file = file, .block = 2, .len = 1},
		{.file = file, .block = UINT64_MAX, .len = 1},
		{.file = file, .block = 1, .offset = MIB, .len = 1},
		{.file = file, .block = 1, .offset = MIB - 1, .len = 2},
		{.file = file, .block = 0, .offset = UINT32_MAX, .len = 2},
		{.file = file, .len = 0},
		{.file = file, .len = 8 * MIB},
		{.file = file, .len = 1, .digest = "../../../../etc/passwd"},
		{.file = file, .len = 1, .digest = ""},
	};
	struct fx_file nothing = {.entry = 99}, root = {.entry = 0};
	struct fx_read q = {.file = &nothing, .len = 1};

	start(f, PIN_ALL, NULL);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		q = bad[i];
		assert_int_equal(fx_read(f, &q), -EINVAL);
	}
	q = (struct fx_read){.file = &nothing, .len = 1};
	assert_int_equal(fx_read(f, &q), -EINVAL);
	q.file = &root;
	assert_int_equal(fx_read(f, &q), -EINVAL);
	q = (struct fx_read){.file = file, .len = 1, .digest = "0123456789abcdef0123456789abcdef"};
	assert_int_equal(fx_read(f, &q), -EAGAIN);
	assert_int_equal(fx_gets(f), 0);
}

static void a_long_scan_of_the_store_does_not_stop_the_heart(void **state)
{
	struct fx *f = *state;
	const struct fx_file *file = fx_add(f, "a", 1000);
	int64_t end_ms = clock_deadline_ms(30000);
	unsigned beats;

	atomic_store(&fake.scans_stall, true);
	manifest_unref(fx_snapshot(f));
	fx_worker_start(f, NULL);
	for (int i = 0; i < 3; i++) {
		/* Another grant, so that another scan is due. */
		mutex_lock(&f->mu);
		f->grant_bytes = f->threshold = UINT64_MAX - (uint64_t)i;
		f->plan_version++;
		mutex_unlock(&f->mu);
		for (beats = f->beats; f->beats < beats + 2 && !clock_passed(end_ms);)
			usleep(1000);
	}
	assert_false(clock_passed(end_ms));
	/* The new dataset had its grant at once. */
	assert_int_equal(fx_read_file(f, file, UINT32_MAX / 2, NULL), 0);
	atomic_store(&fake.scans_stall, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(many_readers_of_a_pinned_block_make_one_get),
		TEST(a_block_is_read_from_the_store_the_second_time),
		TEST(a_block_that_comes_right_after_the_look_is_not_got_again),
		TEST(a_reader_has_its_bytes_before_the_block_is_complete),
		TEST(a_fetch_goes_on_when_its_first_reader_leaves),
		TEST(a_pass_through_is_cancelled_with_its_only_reader),
		TEST(a_mount_of_the_process_gets_and_another_thread_stores),
		TEST(its_cancel_costs_those_who_joined_another_get),
		TEST(its_deadline_costs_those_who_joined_another_get),
		TEST(random_records_of_an_unpinned_file_cost_what_was_read),
		TEST(a_sequential_reader_costs_each_byte_once),
		TEST(sequential_readers_at_once_share_the_read_ahead),
		TEST(one_pass_in_small_requests_is_no_second_read),
		TEST(the_second_pass_stores_and_the_third_hits),
		TEST(a_full_quota_keeps_passing_through),
		TEST(a_full_disk_fails_no_read_and_fetches_no_block_twice),
		TEST(a_store_that_loses_what_it_has_fails_no_read),
		TEST(server_errors_are_retried),
		TEST(a_changed_object_is_stale_and_named),
		TEST(a_changed_object_is_stale_on_pass_through_too),
		TEST(a_vanished_object_is_stale_and_named),
		TEST(a_fatal_answer_is_an_io_error),
		TEST(new_credentials_of_the_plan_reach_the_origin),
		TEST(a_stalled_origin_fails_at_the_readers_deadline),
		TEST(a_stalled_origin_fails_at_the_workers_own_bound),
		TEST(readers_of_all_kinds_at_once_see_only_right_bytes),
		TEST(ranges_outside_of_the_block_are_refused),
		TEST(a_long_scan_of_the_store_does_not_stop_the_heart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
