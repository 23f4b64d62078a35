/* A worker over the real store: what epochs cost, what plans move, what survives. */
#include "tests/unit/worker_fixture.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include "common/metrics.h"
#include "store/store.h"

#define FILES 200
#define FILE_BYTES 110000

extern char **environ;
static const char *self;

static int setup(void **state)
{
	*state = fx_new();
	return 0;
}

static int teardown(void **state)
{
	fx_free(*state);
	return 0;
}

/* FILES files of about FILE_BYTES. */
static uint64_t add_files(struct fx *f)
{
	uint64_t bytes = 0;

	for (int i = 0; i < FILES; i++) {
		char path[32];

		snprintf(path, sizeof(path), "img-%04d", i);
		bytes += fx_add(f, path, FILE_BYTES - (uint64_t)i * 37)->size;
	}
	return bytes;
}

/* Grants `bytes` of the snapshot and waits for the plan; returns what is pinned of it. */
static uint64_t grant(struct fx *f, struct manifest *m, uint64_t bytes)
{
	uint64_t threshold, pinned;
	struct error err = ERROR_INIT;

	assert_int_equal(pin_threshold(m, bytes, &threshold, &pinned, &err), 0);
	fx_grant(f, bytes, threshold);
	return pinned;
}

/* Reads files [first, end) in another order each time; what the origin sent for it. */
static uint64_t epoch(struct fx *f, size_t first, size_t end)
{
	uint64_t before = fx_origin_bytes(f);
	size_t n = end - first, shift = f->beats;

	for (size_t i = 0; i < n; i++) {
		const struct fx_file *file = &f->files[first + (i * 7919 + shift) % n];
		int r = fx_read_file(f, file, UINT32_MAX / 2, NULL);

		if (r < 0)
			fail_msg("%s: %d", file->path, r);
	}
	return fx_origin_bytes(f) - before;
}

/* The reader has its bytes before the store does. */
static void settle(struct fx *f)
{
	struct worker_stat st;

	do {
		usleep(2000);
		worker_stat(f->worker, &st);
	} while (st.fetches_running > 0);
}

static void epochs_cost_what_is_not_pinned(void **state)
{
	struct fx *f = *state;
	uint64_t bytes = add_files(f), pinned;
	struct manifest *m = fx_snapshot(f);

	fx_worker_start(f, NULL);
	pinned = grant(f, m, bytes / 2);
	assert_true(pinned > bytes * 45 / 100 && pinned <= bytes / 2);
	assert_int_equal(epoch(f, 0, FILES), bytes);
	settle(f);
	for (int i = 0; i < 3; i++) {
		uint64_t cost = epoch(f, 0, FILES);

		settle(f);
		/* One more file may sit in what the threshold leaves of the grant. */
		assert_true(cost <= bytes - pinned && cost + FILE_BYTES * 2 >= bytes - pinned);
	}
	assert_int_equal(worker_refresh(f->worker, clock_deadline_ms(5000)), 0);
	assert_int_equal(f->seen_pinned, pinned);
	manifest_unref(m);
}

static void a_quarter_read_again_and_again_is_all_cached_from_the_third_time(void **state)
{
	struct fx *f = *state;
	uint64_t bytes = add_files(f), first;
	struct manifest *m = fx_snapshot(f);

	fx_worker_start(f, NULL);
	grant(f, m, bytes / 2);
	first = epoch(f, 0, FILES / 4);
	settle(f);
	assert_true(epoch(f, 0, FILES / 4) < first * 7 / 10);
	settle(f);
	assert_int_equal(epoch(f, 0, FILES / 4), 0);
	assert_int_equal(epoch(f, 0, FILES / 4), 0);
	manifest_unref(m);
}

static void pinned_blocks_push_the_fillers_out(void **state)
{
	struct fx *f = *state;
	uint64_t bytes = add_files(f), pinned;
	struct manifest *m = fx_snapshot(f);

	fx_worker_start(f, NULL);
	pinned = grant(f, m, bytes / 2);
	for (int i = 0; i < 3; i++) {
		epoch(f, 0, FILES / 2);
		settle(f);
	}
	epoch(f, 0, FILES);
	settle(f);
	assert_true(epoch(f, 0, FILES) <= bytes - pinned);
	assert_int_equal(worker_refresh(f->worker, clock_deadline_ms(5000)), 0);
	assert_int_equal(f->seen_pinned, pinned);
	manifest_unref(m);
}

static void a_quota_moves_only_the_difference(void **state)
{
	struct fx *f = *state;
	uint64_t bytes = add_files(f), half, most, cost;
	struct manifest *m = fx_snapshot(f);

	fx_worker_start(f, NULL);
	half = grant(f, m, bytes / 2);
	epoch(f, 0, FILES);
	settle(f);
	most = grant(f, m, bytes * 3 / 4);
	/* What was pinned stays: only the rest is read from the origin. */
	cost = epoch(f, 0, FILES);
	settle(f);
	assert_true(cost <= bytes - half);
	cost = epoch(f, 0, FILES);
	settle(f);
	assert_true(cost <= bytes - most);
	half = grant(f, m, bytes / 2);
	cost = epoch(f, 0, FILES);
	assert_true(cost <= bytes - half);
	manifest_unref(m);
}

static void a_restart_is_warm(void **state)
{
	struct fx *f = *state;
	uint64_t bytes = add_files(f);
	struct manifest *m = fx_snapshot(f);

	fx_worker_start(f, NULL);
	grant(f, m, bytes * 2);
	assert_int_equal(epoch(f, 0, FILES), bytes);
	settle(f);
	fx_worker_stop(f);
	fx_worker_start(f, NULL);
	assert_int_equal(epoch(f, 0, FILES), 0);
	manifest_unref(m);
}

static void the_metrics_say_what_was_read_and_kept(void **state)
{
	struct fx *f = *state;
	uint64_t bytes = add_files(f);
	struct manifest *m = fx_snapshot(f);
	struct buf text = BUF_INIT;
	char line[160];

	fx_worker_start(f, NULL);
	grant(f, m, bytes * 2);
	epoch(f, 0, FILES);
	settle(f);
	assert_int_equal(metrics_render(&text), 0);
	snprintf(line, sizeof(line),
		"granary_worker_origin_bytes_total{dataset=\"pictures\",job=\"job-1\"} %llu\n",
		(unsigned long long)bytes);
	assert_non_null(strstr(text.data, line));
	snprintf(line, sizeof(line),
		"granary_worker_cached_bytes{dataset=\"pictures\",class=\"pinned\"} %llu\n",
		(unsigned long long)bytes);
	assert_non_null(strstr(text.data, line));
	assert_non_null(strstr(text.data, "\ngranary_worker_capacity_bytes 268435456\n"));
	buf_deinit(&text);
	manifest_unref(m);
}

/* ---- kill -9 --------------------------------------------------------------------------------- */

/* The killed process: reads epochs until it dies, at the latest when they are done. */
static int run_victim(const char *dir, long die_after_ms)
{
	struct fx *f = fx_new();
	struct manifest *m;
	char command[256];
	int64_t begun_ms;

	add_files(f);
	m = fx_snapshot(f);
	/* Its cache is the parent's. */
	snprintf(command, sizeof(command), "ln -s %s/cache %s/cache", dir, f->dir);
	assert_int_equal(system(command), 0);
	fx_worker_start(f, NULL);
	grant(f, m, (uint64_t)1 << 30);
	begun_ms = clock_mono_ms();
	printf("ready\n");
	fflush(stdout);
	for (int i = 0; i < FILES; i++) {
		fx_read_file(f, &f->files[i], UINT32_MAX / 2, NULL);
		if (clock_mono_ms() - begun_ms > die_after_ms)
			break;
	}
	if (die_after_ms > 1000)
		usleep(500000);
	snprintf(command, sizeof(command), "rm -rf %s", f->dir);
	assert_int_equal(system(command), 0);
	return kill(getpid(), SIGKILL);
}

static void kill_a_worker(struct fx *f, const char *die_after_ms)
{
	char *argv[] = {(char *)self, (char *)"victim", f->dir, (char *)die_after_ms, NULL};
	pid_t pid;
	int status;

	assert_int_equal(posix_spawn(&pid, self, NULL, NULL, argv, environ), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void a_killed_worker_comes_back_warm(void **state)
{
	struct fx *f = *state;
	uint64_t bytes = add_files(f);
	struct manifest *m = fx_snapshot(f);
	char path[128];

	snprintf(path, sizeof(path), "%s/cache", f->dir);
	assert_int_equal(mkdir(path, 0700), 0);
	kill_a_worker(f, "100000");
	fx_worker_start(f, NULL);
	grant(f, m, bytes * 2);
	assert_int_equal(epoch(f, 0, FILES), 0);
	manifest_unref(m);
}

static void a_worker_killed_at_any_moment_serves_no_wrong_byte(void **state)
{
	static const char *const moments[] = {"1", "20", "60", "110"};
	struct fx *f = *state;
	uint64_t bytes = add_files(f);
	struct manifest *m = fx_snapshot(f);
	char path[128];

	snprintf(path, sizeof(path), "%s/cache", f->dir);
	assert_int_equal(mkdir(path, 0700), 0);
	for (size_t i = 0; i < sizeof(moments) / sizeof(moments[0]); i++)
		kill_a_worker(f, moments[i]);
	fx_worker_start(f, NULL);
	grant(f, m, bytes * 2);
	assert_true(epoch(f, 0, FILES) <= bytes); /* fx_read compares every byte */
	settle(f);
	assert_int_equal(epoch(f, 0, FILES), 0);
	manifest_unref(m);
}

static void flipped_bits_are_read_from_the_origin_again(void **state)
{
	struct fx *f = *state;
	uint64_t bytes = add_files(f), cost;
	struct manifest *m = fx_snapshot(f);
	char command[256];

	fx_worker_start(f, NULL);
	grant(f, m, bytes * 2);
	epoch(f, 0, FILES);
	settle(f);
	fx_worker_stop(f);
	snprintf(command, sizeof(command),
		"for s in %s/cache/segments/*; do printf XYZ | dd of=$s bs=1 seek=300000 "
		"conv=notrunc status=none; done",
		f->dir);
	assert_int_equal(system(command), 0);
	fx_worker_start(f, NULL);
	cost = epoch(f, 0, FILES);
	assert_true(cost > 0 && cost < bytes / 2);
	settle(f);
	assert_int_equal(epoch(f, 0, FILES), 0);
	manifest_unref(m);
}

/* ---- the master ------------------------------------------------------------------------------ */

static void reads_go_on_without_the_master(void **state)
{
	struct fx *f = *state;
	uint64_t bytes = add_files(f), pinned;
	struct manifest *m = fx_snapshot(f);

	fx_worker_start(f, NULL);
	pinned = grant(f, m, bytes / 2);
	epoch(f, 0, FILES / 2);
	fx_master_stop(f);
	usleep(300000);
	epoch(f, 0, FILES);
	settle(f);
	assert_true(epoch(f, 0, FILES) <= bytes - pinned);
	manifest_unref(m);
}

static void a_worker_may_be_there_before_its_master(void **state)
{
	struct fx *f = *state;
	struct fx_read q = {.len = 1000};
	int64_t begun_ms = clock_mono_ms();
	struct manifest *m;

	add_files(f);
	m = fx_snapshot(f);
	q.file = &f->files[0];
	fx_master_stop(f);
	fx_worker_start(f, NULL);
	assert_int_equal(fx_read(f, &q), -EAGAIN);
	assert_true(clock_mono_ms() - begun_ms < 5000);
	fx_master_start(f);
	for (int i = 0; i < 100 && fx_read(f, &q) == -EAGAIN; i++)
		usleep(100000);
	assert_int_equal(fx_read(f, &q), 0);
	manifest_unref(m);
}

static void a_read_that_is_ahead_of_the_plan_waits_for_it(void **state)
{
	struct fx *f = *state;
	struct fx_read q = {.len = 1000};
	struct manifest *m;

	f->no_dataset = true;
	fx_worker_start(f, NULL);
	assert_int_equal(worker_refresh(f->worker, clock_deadline_ms(5000)), 0);
	add_files(f);
	q.file = &f->files[3];
	m = fx_snapshot(f);
	f->no_dataset = false;
	assert_int_equal(fx_read(f, &q), 0);
	manifest_unref(m);
}

static void a_new_snapshot_costs_only_what_changed(void **state)
{
	struct fx *f = *state;
	uint64_t bytes = add_files(f);
	struct manifest *old = fx_snapshot(f), *new;
	struct fx_read q = {.digest = manifest_info(old)->digest, .len = 1000};
	uint64_t before;

	fx_worker_start(f, NULL);
	grant(f, old, bytes * 2);
	epoch(f, 0, FILES);
	settle(f);
	for (int i = 0; i < 5; i++) {
		f->files[i].seed += 1000;
		mem_store_put_pattern(f->mem, f->files[i].path, f->files[i].size, f->files[i].seed);
	}
	new = fx_snapshot(f);
	grant(f, new, bytes * 2);
	before = fx_origin_bytes(f);
	/* Mounts that still show the old one have what did not change. */
	q.file = &f->files[10];
	assert_int_equal(fx_read(f, &q), 0);
	assert_int_equal(fx_origin_bytes(f), before);
	assert_int_equal(epoch(f, 0, FILES), f->files[0].size + f->files[1].size +
						     f->files[2].size + f->files[3].size +
						     f->files[4].size);
	/* Of what changed they have the old bytes, as long as some store keeps them. */
	q.file = &f->files[0];
	f->files[0].seed -= 1000;
	assert_int_equal(fx_read(f, &q), 0);
	manifest_unref(old);
	manifest_unref(new);
}

static void the_quota_holds_for_mounts_of_an_older_snapshot_too(void **state)
{
	struct fx *f = *state;
	uint64_t bytes = add_files(f), cost = 0;
	struct manifest *old = fx_snapshot(f), *new;

	fx_worker_start(f, NULL);
	fx_add(f, "one-more", 1000);
	new = fx_snapshot(f);
	grant(f, new, bytes * 2);
	for (int pass = 0; pass < 2; pass++) {
		cost = fx_origin_bytes(f);
		for (int i = 0; i < FILES; i++) {
			struct fx_file file = f->files[i];
			struct fx_read q = {.digest = manifest_info(old)->digest,
				.file = &file,
				.len = (uint32_t)file.size};

			assert_int_equal(manifest_lookup_path(
						 old, file.path, strlen(file.path), &file.entry),
				0);
			assert_int_equal(fx_read(f, &q), 0);
		}
		cost = fx_origin_bytes(f) - cost;
		settle(f);
		assert_int_equal(cost, pass == 0 ? bytes : 0);
	}
	assert_int_equal(worker_refresh(f->worker, clock_deadline_ms(5000)), 0);
	assert_int_equal(f->seen_pinned, bytes);
	manifest_unref(old);
	manifest_unref(new);
}

static void a_removed_dataset_gives_its_room_back(void **state)
{
	struct fx *f = *state;
	uint64_t bytes = add_files(f);
	struct manifest *m = fx_snapshot(f);
	struct fx_read q = {.file = &f->files[0], .len = 1000};

	fx_worker_start(f, NULL);
	grant(f, m, bytes * 2);
	epoch(f, 0, FILES);
	settle(f);
	mutex_lock(&f->mu);
	f->no_dataset = true;
	f->plan_version++;
	mutex_unlock(&f->mu);
	assert_int_equal(worker_refresh(f->worker, clock_deadline_ms(5000)), 0);
	assert_int_equal(fx_read(f, &q), -EAGAIN);
	f->no_dataset = false;
	grant(f, m, bytes * 2);
	assert_int_equal(epoch(f, 0, FILES), bytes);
	manifest_unref(m);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static void a_dataset_kept_as_an_lru_cache_is_fetched_once_while_it_fits(void **state)
{
	struct fx *f = *state;
	uint64_t all = add_files(f);
	const struct fx_file *large = fx_add(f, "large", (uint64_t)40 << 20);
	struct fx_read q = {.file = large, .block = 3, .offset = 1000, .len = 100000};

	manifest_unref(fx_snapshot(f));
	fx_worker_start(f, NULL);
	f->elastic = true;
	fx_grant(f, 0, 0);
	assert_int_equal(epoch(f, 0, FILES), all);
	settle(f);
	assert_int_equal(epoch(f, 0, FILES), 0);
	/* Of a large file the block, at the first read of a part. */
	assert_int_equal(fx_read(f, &q), 0);
	settle(f);
	q.offset = 2000000;
	assert_int_equal(fx_read(f, &q), 0);
	assert_false(q.from_origin);
	assert_int_equal(fx_origin_bytes(f), all + BLOCK_BYTES);
	/* Not any more: what is there stays as long as nobody needs the room, nothing is added. */
	f->elastic = false;
	fx_grant(f, 0, 0);
	q.offset = 3000000;
	assert_int_equal(fx_read(f, &q), 0);
	assert_false(q.from_origin);
	q.block = 4;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(fx_read(f, &q), 0);
		assert_true(q.from_origin);
		settle(f);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(epochs_cost_what_is_not_pinned),
		TEST(a_quarter_read_again_and_again_is_all_cached_from_the_third_time),
		TEST(pinned_blocks_push_the_fillers_out),
		TEST(a_quota_moves_only_the_difference),
		TEST(a_restart_is_warm),
		TEST(the_metrics_say_what_was_read_and_kept),
		TEST(a_killed_worker_comes_back_warm),
		TEST(a_worker_killed_at_any_moment_serves_no_wrong_byte),
		TEST(flipped_bits_are_read_from_the_origin_again),
		TEST(reads_go_on_without_the_master),
		TEST(a_worker_may_be_there_before_its_master),
		TEST(a_read_that_is_ahead_of_the_plan_waits_for_it),
		TEST(a_new_snapshot_costs_only_what_changed),
		TEST(the_quota_holds_for_mounts_of_an_older_snapshot_too),
		TEST(a_dataset_kept_as_an_lru_cache_is_fetched_once_while_it_fits),
		TEST(a_removed_dataset_gives_its_room_back),
	};

	self = argv[0];
	if (argc == 4 && strcmp(argv[1], "victim") == 0)
		return run_victim(argv[2], strtol(argv[3], NULL, 10));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
