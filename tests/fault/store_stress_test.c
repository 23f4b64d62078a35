/*
 * Everything at once: writers of several datasets, readers through the store and through a view,
 * another process with a view of its own, quotas that go up and down, datasets that are removed,
 * elastic traffic that evicts, the scrubber. Every byte that is served is compared with what its
 * block's id says.
 */
#include "../unit/store_fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "common/log.h"
#include "store/store_view.h"

#define CAPACITY (96 * MIB)
#define DATASETS 3u
#define BLOCKS 1200u
#define LARGE_FROM 1170u
#define RANGE_MAX 200000u
#define VIEW_ROOM ((RANGE_MAX + STORE_VIEW_EXTRA_BYTES + 4095) / 4096 * 4096)

static struct {
	struct store *store;
	struct store_view *view;
	char socket_path[300];
	int64_t end_ms;
	_Atomic uint64_t puts, hits, misses, view_hits;
	atomic_bool wrong;
} run;

static struct store_block block_of(uint64_t dataset, uint64_t n)
{
	if (n >= LARGE_FROM)
		return fixture_block(dataset, LARGE_FROM + (n - LARGE_FROM) / 3,
			2 * BLOCK_BYTES + 4321, (n - LARGE_FROM) % 3);
	return fixture_block(dataset, n, 1 + (uint32_t)(fixture_mix(n) % 60000), 0);
}

static uint64_t next_random(uint64_t *seed)
{
	return *seed = fixture_mix(*seed);
}

static bool going_on(void)
{
	return clock_mono_ms() < run.end_ms && !atomic_load(&run.wrong);
}

/* Generates only the words that the range needs: reading has to be the work, not comparing. */
static bool same(
	const struct store_block *b, const unsigned char *data, uint32_t offset, uint32_t len)
{
	uint64_t x = b->id.lo ^ b->id.hi;
	uint32_t at = 0;

	while (at < len) {
		uint32_t in = (offset + at) % 8;
		uint64_t word = fixture_mix(x + (offset + at) / 8 * 8);
		uint32_t n = 8 - in < len - at ? 8 - in : len - at;

		if (memcmp((unsigned char *)&word + in, data + at, n) != 0)
			return false;
		at += n;
	}
	return true;
}

static void *writer(void *arg)
{
	uint64_t seed = (uintptr_t)arg + 100;
	unsigned char *data = malloc(BLOCK_BYTES);

	while (going_on()) {
		struct store_block b =
			block_of(1 + next_random(&seed) % DATASETS, next_random(&seed) % BLOCKS);
		int r;

		fixture_fill(&b, data);
		r = store_put(run.store, &b,
			next_random(&seed) % 4 ? STORE_ADMIT_GRANT : STORE_ADMIT_ELASTIC, data,
			NULL);
		run.puts += r == 0;
		if (r < 0)
			run.wrong = true;
	}
	free(data);
	return NULL;
}

typedef int read_fn(const struct store_block *b, uint32_t offset, uint32_t len, void *dst);

static int read_store(const struct store_block *b, uint32_t offset, uint32_t len, void *dst)
{
	return store_read(run.store, b, offset, len, dst, NULL);
}

static int read_view(const struct store_block *b, uint32_t offset, uint32_t len, void *dst)
{
	return store_view_read(run.view, b, offset, len, dst, VIEW_ROOM);
}

static void read_some(uint64_t *seed, read_fn *fn, unsigned char *data, _Atomic uint64_t *hits)
{
	struct store_block b =
		block_of(1 + next_random(seed) % DATASETS, next_random(seed) % BLOCKS);
	uint32_t offset = 0, len = b.len;
	int r;

	if (len > RANGE_MAX || next_random(seed) % 3 == 0) {
		offset = (uint32_t)(next_random(seed) % b.len);
		len = 1 + (uint32_t)(next_random(seed) % (b.len - offset));
		len = len < RANGE_MAX ? len : RANGE_MAX;
	}
	r = fn(&b, offset, len, data);
	if (r == 0 && !same(&b, data, offset, len)) {
		fprintf(stderr, "wrong bytes: block %lu of %lu, %u+%u\n", (unsigned long)b.index,
			(unsigned long)b.object_bytes, offset, len);
		run.wrong = true;
	}
	if (r == 0)
		++*hits;
	else
		run.misses++;
}

static void *store_reader(void *arg)
{
	uint64_t seed = (uintptr_t)arg + 200;
	unsigned char *data = malloc(RANGE_MAX);

	while (going_on())
		read_some(&seed, read_store, data, &run.hits);
	free(data);
	return NULL;
}

static void *view_reader(void *arg)
{
	uint64_t seed = (uintptr_t)arg + 300;
	unsigned char *data = aligned_alloc(4096, VIEW_ROOM); /* whole blocks past the page cache */

	while (going_on())
		read_some(&seed, read_view, data, &run.view_hits);
	free(data);
	return NULL;
}

static void *planner(void *arg)
{
	uint64_t seed = (uintptr_t)arg + 400;

	while (going_on()) {
		uint64_t dataset = 1 + next_random(&seed) % DATASETS;

		if (next_random(&seed) % 10 == 0)
			store_remove_dataset(run.store, dataset, NULL);
		else
			store_set_dataset(run.store, dataset, next_random(&seed) % (50 * MIB),
				next_random(&seed), NULL, NULL, NULL);
		usleep(30000);
	}
	return NULL;
}

/* Another process: only its exit code says how it was. */
static pid_t start_other_process(int64_t ms)
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	struct store_view_options opts = {.socket_path = run.socket_path, .max_files = 4};

	for (int i = 0; i < 500 && !run.view; i++) {
		if (store_view_new(&opts, &run.view, NULL) < 0)
			_exit(2);
		if (!store_view_connected(run.view)) {
			store_view_free(run.view);
			run.view = NULL;
			usleep(10000);
		}
	}
	run.end_ms = clock_deadline_ms(ms);
	view_reader((void *)7);
	store_view_free(run.view);
	fprintf(stderr, "other process: %lu hits\n", (unsigned long)run.view_hits);
	_exit(run.wrong ? 1 : run.view_hits ? 0 : 3);
}

static void nothing_wrong_is_served_under_any_traffic(void **state)
{
	struct store_view_options view_opts = {.max_files = 6};
	int64_t ms = getenv("GRANARY_TEST_LARGE") ? 60000 : 5000;
	struct store_lease_server *lease = NULL;
	uint64_t worst = 0;
	pthread_t threads[8];
	struct store_stat st;
	int status;
	pid_t pid;

	(void)state;
	log_set_level(LOG_WARN);
	snprintf(run.socket_path, sizeof(run.socket_path), "%s.sock", fixture_dir);
	view_opts.socket_path = run.socket_path;
	pid = start_other_process(ms - 500);
	fixture_scrub_bytes_per_s = 200 * MIB;
	run.store = fixture_open(CAPACITY);
	assert_int_equal(
		store_lease_server_start(run.store, run.socket_path, NULL, &lease, NULL), 0);
	assert_int_equal(store_view_new(&view_opts, &run.view, NULL), 0);
	run.end_ms = clock_deadline_ms(ms);
	pthread_create(&threads[0], NULL, writer, (void *)0);
	pthread_create(&threads[1], NULL, writer, (void *)1);
	pthread_create(&threads[2], NULL, writer, (void *)2);
	pthread_create(&threads[3], NULL, store_reader, (void *)0);
	pthread_create(&threads[4], NULL, store_reader, (void *)1);
	pthread_create(&threads[5], NULL, view_reader, (void *)0);
	pthread_create(&threads[6], NULL, view_reader, (void *)1);
	pthread_create(&threads[7], NULL, planner, (void *)0);
	while (going_on()) {
		uint64_t du = fixture_du();

		worst = du > worst ? du : worst;
		usleep(50000);
	}
	for (int i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_false(run.wrong);
	for (uint64_t dataset = 1; dataset <= DATASETS; dataset++)
		assert_int_equal(fixture_stat(run.store, dataset).corrupt_blocks, 0);
	store_view_free(run.view);
	assert_int_equal(store_sync(run.store, NULL), 0);
	store_stat(run.store, &st);
	print_message("%lu puts, %lu + %lu hits, %lu misses; at most %lu MiB, held %lu\n",
		(unsigned long)run.puts, (unsigned long)run.hits, (unsigned long)run.view_hits,
		(unsigned long)run.misses, (unsigned long)(worst / MIB),
		(unsigned long)st.held_bytes);
	assert_true(worst <= CAPACITY);
	assert_true(run.hits > 100 && run.view_hits > 100);
	store_lease_server_stop(lease);
	store_close(run.store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			nothing_wrong_is_served_under_any_traffic, fixture_setup, fixture_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
