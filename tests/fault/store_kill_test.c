/*
 * The owner is killed at random moments, again and again, over one folder on a real filesystem with
 * the real index. After each kill the store opens, has every block that was synced, and serves no
 * wrong byte; the folder stays within the capacity.
 */
#include "../unit/store_fixture.h"

#include <signal.h>
#include <sys/wait.h>

#include "common/log.h"

#define CAPACITY (64 * MIB)
#define BLOCKS 1500u
#define LARGE_FROM 1450u

static struct store_block block_of(uint64_t n)
{
	if (n >= LARGE_FROM)
		return fixture_block(1, LARGE_FROM + (n - LARGE_FROM) / 3, 2 * BLOCK_BYTES + 4321,
			(n - LARGE_FROM) % 3);
	return fixture_block(1, n, 1 + (uint32_t)(fixture_mix(n) % 40000), 0);
}

/* Puts until it is killed; tells the parent, through the pipe, which blocks are synced for certain.
 */
static void child(unsigned seed, int out)
{
	struct store_options opts = {
		.dir = fixture_dir, .capacity_bytes = CAPACITY, .commit_interval_ms = 5};
	static unsigned char data[BLOCK_BYTES];
	uint32_t batch[64];
	struct store *s;

	srand(seed);
	if (store_open(&opts, &s, NULL) < 0)
		_exit(1);
	if (store_set_dataset(s, 1, 50 * MIB, UINT64_MAX, NULL, NULL, NULL) < 0)
		_exit(2);
	for (;;) {
		unsigned count = 0;

		for (unsigned i = 0; i < 64; i++) {
			uint32_t n = (uint32_t)rand() % BLOCKS;
			struct store_block b = block_of(n);
			int r;

			fixture_fill(&b, data);
			r = store_put(s, &b, STORE_ADMIT_GRANT, data, NULL);
			if (r == 0 || r == STORE_EXISTS)
				batch[count++] = n;
		}
		if (rand() % 10 == 0) {
			/* All that was promised so far is taken back. */
			uint32_t none = UINT32_MAX;

			if (write(out, &none, sizeof(none)) < 0)
				_exit(3);
			store_remove_dataset(s, 1, NULL);
			store_set_dataset(s, 1, 50 * MIB, UINT64_MAX, NULL, NULL, NULL);
			continue;
		}
		if (store_sync(s, NULL) == 0 && write(out, batch, count * sizeof(batch[0])) < 0)
			_exit(3);
	}
}

static void drain(int in, bool *promised)
{
	uint32_t n;

	while (read(in, &n, sizeof(n)) == (ssize_t)sizeof(n)) {
		if (n == UINT32_MAX)
			memset(promised, 0, BLOCKS * sizeof(*promised));
		else
			promised[n] = true;
	}
}

static unsigned check(const bool *promised)
{
	struct store *s = fixture_open(CAPACITY);
	unsigned there = 0;

	for (uint32_t n = 0; n < BLOCKS; n++) {
		struct store_block b = block_of(n);
		int r = fixture_read(s, &b);

		there += r == 0;
		if (promised[n])
			assert_int_equal(r, 0);
	}
	assert_int_equal(fixture_stat(s, 1).corrupt_blocks, 0);
	assert_true(fixture_du() <= CAPACITY);
	store_close(s);
	return there;
}

static void a_killed_owner_loses_nothing_that_was_synced(void **state)
{
	bool *promised = calloc(BLOCKS, sizeof(*promised));
	int rounds = getenv("GRANARY_TEST_LARGE") ? 500 : 50;
	unsigned there = 0;

	(void)state;
	log_set_level(LOG_WARN);
	srand(5);
	for (int i = 0; i < rounds; i++) {
		int pipefd[2], status;
		pid_t pid;

		assert_int_equal(pipe(pipefd), 0);
		pid = fork();
		if (pid == 0)
			child((unsigned)i, pipefd[1]);
		close(pipefd[1]);
		usleep(20000 + (useconds_t)rand() % 100000);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		drain(pipefd[0], promised);
		close(pipefd[0]);
		there += check(promised);
	}
	print_message("%d kills, %u blocks there on average\n", rounds, there / (unsigned)rounds);
	free(promised);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_killed_owner_loses_nothing_that_was_synced,
			fixture_setup, fixture_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
