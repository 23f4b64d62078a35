#include "store_fixture.h"

#include <errno.h>
#include <sys/mman.h>

#include "store/store_private.h"
#include "store/store_view.h"

#define BYTES (3 * BLOCK_BYTES - 5000)

static char socket_path[300];
static const struct store_disk *disk; /* NULL: the real one */
static unsigned commit_interval_ms = 20;

struct worker {
	struct store *store;
	struct store_lease_server *leases;
};

static struct worker worker_start(void)
{
	struct store_options opts = {.dir = fixture_dir,
		.capacity_bytes = 64 * MIB,
		.disk = disk,
		.commit_interval_ms = commit_interval_ms};
	struct error err = ERROR_INIT;
	struct worker w;

	assert_int_equal(store_open(&opts, &w.store, &err), 0);
	snprintf(socket_path, sizeof(socket_path), "%s.sock", fixture_dir);
	assert_int_equal(store_lease_server_start(w.store, socket_path, NULL, &w.leases, &err), 0);
	return w;
}

static void worker_stop(struct worker *w)
{
	store_lease_server_stop(w->leases);
	store_close(w->store);
}

static struct store_view *view(void)
{
	struct store_view_options opts = {.socket_path = socket_path};
	struct store_view *v = NULL;

	assert_int_equal(store_view_new(&opts, &v, NULL), 0);
	EVENTUALLY(store_view_connected(v));
	return v;
}

static struct store_block block(uint64_t index)
{
	return fixture_block(1, 1, BYTES, index);
}

static void put(struct worker *w, uint64_t index)
{
	struct store_block b = block(index);

	assert_int_equal(fixture_put(w->store, &b, STORE_ADMIT_GRANT), 0);
}

static void put_all(struct worker *w)
{
	fixture_plan(w->store, 1, 40 * MIB, UINT64_MAX);
	for (uint64_t i = 0; i < block_count(BYTES); i++)
		put(w, i);
	assert_int_equal(store_sync(w->store, NULL), 0);
}

static int hold(struct store_view *v, struct store_whole **ret)
{
	struct store_block b = block(0);

	return store_view_whole(v, &b.object, BYTES, ret);
}

static struct store_whole *hold_it(struct store_view *v)
{
	struct store_whole *w = NULL;

	assert_int_equal(hold(v, &w), 0);
	return w;
}

static uint64_t held_bytes(struct worker *w)
{
	struct store_stat st;

	store_stat(w->store, &st);
	return st.held_bytes;
}

static uint32_t holders(struct worker *w, uint32_t file)
{
	mutex_guard(&w->store->mu);
	return file_find_locked(w->store, file)->holders;
}

static void drop(struct worker *w, uint64_t index)
{
	struct store_block b = block(index);
	struct directory_entry e;

	assert_true(directory_lookup(w->store->directory, &b.id, &e));
	assert_true(store_drop_damaged(w->store, &e));
	assert_int_equal(store_sync(w->store, NULL), 0);
}

static bool is_sparse(struct worker *w, uint64_t index)
{
	struct store_block b = block(index);
	struct directory_entry e;

	assert_true(directory_lookup(w->store->directory, &b.id, &e));
	return e.flags & FLAG_SPARSE;
}

/* A map made as the kernel's is: through a descriptor that is closed then. */
static char *map(struct store_whole *w)
{
	char *bytes = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, store_whole_fd(w), 0);

	assert_true(bytes != MAP_FAILED);
	return bytes;
}

/* A map of the whole file, whose hold and view are gone. */
static char *map_of_nobody(struct worker *w)
{
	struct store_view *v = view();
	struct store_whole *whole;
	char *bytes;

	put_all(w);
	whole = hold_it(v);
	bytes = map(whole);
	store_whole_free(whole);
	store_view_free(v);
	return bytes;
}

static void everything_goes_with(char *bytes, struct worker *w)
{
	munmap(bytes, BYTES);
	EVENTUALLY(held_bytes(w) == 0);
	EVENTUALLY(fixture_du() < 4 * MIB);
}

static void assert_bytes_right(const char *bytes)
{
	for (uint64_t i = 0; i < block_count(BYTES); i++) {
		struct store_block b = block(i);

		assert_true(fixture_same(&b, bytes + i * BLOCK_BYTES, 0, b.len));
	}
}

static int verify(struct store_whole *w, bool past_page_cache, uint64_t *ret_block)
{
	struct store_block b = block(0);
	struct store_whole_check check = {
		.object = b.object,
		.object_bytes = BYTES,
		.buffer = aligned_alloc(4096, MIB),
		.buffer_bytes = MIB,
		.past_page_cache = past_page_cache,
	};
	int r = store_whole_verify(w, &check, ret_block);

	free(check.buffer);
	return r;
}

static void only_a_complete_and_durable_file_is_whole(void **state)
{
	struct store_whole *whole = NULL;
	struct store_view *v;
	struct worker w;

	(void)state;
	commit_interval_ms = 3600 * 1000;
	w = worker_start();
	v = view();
	assert_int_equal(hold(v, &whole), STORE_MISS);
	fixture_plan(w.store, 1, 40 * MIB, UINT64_MAX);
	put(&w, 0);
	put(&w, 2);
	assert_int_equal(store_sync(w.store, NULL), 0);
	assert_int_equal(hold(v, &whole), STORE_MISS);
	put(&w, 1);
	assert_int_equal(hold(v, &whole), STORE_MISS);
	assert_int_equal(store_sync(w.store, NULL), 0);
	store_whole_free(hold_it(v));
	drop(&w, 1);
	assert_int_equal(hold(v, &whole), STORE_MISS);
	store_view_free(v);
	worker_stop(&w);
	commit_interval_ms = 20;
}

static void a_block_in_a_segment_makes_a_file_incomplete(void **state)
{
	struct worker w = worker_start();
	struct store_view *v = view();
	struct store_whole *whole, *again = NULL;

	(void)state;
	put_all(&w);
	whole = hold_it(v);
	drop(&w, 1);
	put(&w, 1);
	assert_int_equal(store_sync(w.store, NULL), 0);
	assert_false(is_sparse(&w, 1));
	assert_int_equal(hold(v, &again), STORE_MISS);
	store_whole_free(whole);
	store_view_free(v);
	worker_stop(&w);
}

static void its_bytes_are_verified_with_and_without_the_page_cache(void **state)
{
	struct worker w = worker_start();
	struct store_view *v = view();
	struct store_whole *whole;
	uint64_t bad = 0;
	char path[400];
	int fd;

	(void)state;
	put_all(&w);
	whole = hold_it(v);
	assert_int_equal(verify(whole, false, &bad), 0);
	assert_int_equal(verify(whole, true, &bad), 0);
	snprintf(path, sizeof(path), "%s/files/%u", fixture_dir, store_whole_key(whole).file);
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, "damage", 6, (off_t)(2 * BLOCK_BYTES + 70000)), 6);
	assert_int_equal(verify(whole, false, &bad), -EBADMSG);
	assert_int_equal(bad, 2);
	assert_int_equal(fsync(fd), 0);
	assert_int_equal(verify(whole, true, &bad), -EBADMSG);
	assert_int_equal(bad, 2);
	close(fd);
	store_whole_free(whole);
	store_view_free(v);
	worker_stop(&w);
}

static bool same_key(struct store_whole_key a, struct store_whole_key b)
{
	return a.epoch == b.epoch && a.file == b.file && a.generation == b.generation;
}

static void its_key_changes_with_its_blocks_and_with_the_store(void **state)
{
	struct worker w = worker_start();
	struct store_view *v = view();
	struct store_whole *whole;
	struct store_whole_key first, second;

	(void)state;
	put_all(&w);
	whole = hold_it(v);
	first = store_whole_key(whole);
	store_whole_free(whole);
	whole = hold_it(v);
	assert_true(same_key(first, store_whole_key(whole)));
	store_whole_free(whole);
	/* The hold ends when the worker has heard of it, and the file's place is free after that. */
	EVENTUALLY(holders(&w, first.file) == 0);
	drop(&w, 1);
	EVENTUALLY(held_bytes(&w) == 0);
	put(&w, 1);
	assert_int_equal(store_sync(w.store, NULL), 0);
	assert_true(is_sparse(&w, 1));
	whole = hold_it(v);
	second = store_whole_key(whole);
	assert_false(same_key(first, second));
	assert_false(store_whole_wanted_back(whole));
	worker_stop(&w);
	w = worker_start();
	EVENTUALLY(store_whole_wanted_back(whole));
	store_whole_free(whole);
	whole = hold_it(v);
	assert_false(same_key(second, store_whole_key(whole)));
	store_whole_free(whole);
	store_view_free(v);
	worker_stop(&w);
}

static void a_dropped_block_makes_it_wanted_back(void **state)
{
	struct worker w = worker_start();
	struct store_view *v = view();
	struct store_whole *whole;

	(void)state;
	put_all(&w);
	whole = hold_it(v);
	assert_false(store_whole_wanted_back(whole));
	drop(&w, 2);
	EVENTUALLY(store_whole_wanted_back(whole));
	store_whole_free(whole);
	store_view_free(v);
	worker_stop(&w);
}

static void its_bytes_stay_while_a_map_outlives_the_hold(void **state)
{
	struct worker w = worker_start();
	char *bytes = map_of_nobody(&w);

	(void)state;
	/* Each in its own way: one block, and all of the file. */
	drop(&w, 1);
	put(&w, 1);
	assert_false(is_sparse(&w, 1));
	assert_int_equal(store_remove_dataset(w.store, 1, NULL), 0);
	assert_int_equal(store_sync(w.store, NULL), 0);
	assert_int_equal(held_bytes(&w), 3 * BLOCK_BYTES - 4096);
	/* Long enough for the commit thread to look again. */
	usleep(2500000);
	assert_int_equal(held_bytes(&w), 3 * BLOCK_BYTES - 4096);
	assert_bytes_right(bytes);
	everything_goes_with(bytes, &w);
	worker_stop(&w);
}

static void its_bytes_stay_when_the_worker_starts_anew(void **state)
{
	struct worker w = worker_start();
	char *bytes = map_of_nobody(&w);
	struct store_stat before, after;

	(void)state;
	drop(&w, 1);
	store_stat(w.store, &before);
	worker_stop(&w);
	/* Nobody has told this one who has the file. */
	w = worker_start();
	store_stat(w.store, &after);
	assert_int_equal(after.held_bytes, BLOCK_BYTES);
	assert_true(after.charged_bytes + MIB > before.charged_bytes);
	assert_bytes_right(bytes);
	put(&w, 1);
	assert_false(is_sparse(&w, 1));
	drop(&w, 2);
	assert_int_equal(store_remove_dataset(w.store, 1, NULL), 0);
	assert_int_equal(store_sync(w.store, NULL), 0);
	assert_bytes_right(bytes);
	assert_int_equal(held_bytes(&w), 3 * BLOCK_BYTES - 4096);
	worker_stop(&w);
	/* And now without any block of it. */
	w = worker_start();
	assert_int_equal(held_bytes(&w), 3 * BLOCK_BYTES - 4096);
	assert_bytes_right(bytes);
	everything_goes_with(bytes, &w);
	worker_stop(&w);
}

static void an_open_descriptor_alone_keeps_them_too(void **state)
{
	struct worker w = worker_start();
	struct store_view *v = view();
	struct store_whole *whole;
	char *bytes = malloc(BYTES);
	int fd;

	(void)state;
	assert_non_null(bytes);
	put_all(&w);
	whole = hold_it(v);
	fd = dup(store_whole_fd(whole));
	store_whole_free(whole);
	store_view_free(v);
	assert_int_equal(store_remove_dataset(w.store, 1, NULL), 0);
	assert_int_equal(store_sync(w.store, NULL), 0);
	assert_int_equal(pread(fd, bytes, BYTES, 0), BYTES);
	assert_bytes_right(bytes);
	assert_true(held_bytes(&w) > 0);
	close(fd);
	EVENTUALLY(held_bytes(&w) == 0);
	free(bytes);
	worker_stop(&w);
}

static bool tells_nothing(void *ctx, const char *dir)
{
	(void)ctx;
	(void)dir;
	return false;
}

static int in_use_always(void *ctx, int fd)
{
	(void)ctx;
	(void)fd;
	return 1;
}

/* As network file systems are: they refuse every lease. */
static void a_file_system_that_does_not_tell_hands_nothing_out_and_frees(void **state)
{
	struct store_disk mute = store_disk_real;
	struct store_whole *whole = NULL;
	struct store_view *v;
	struct worker w;

	(void)state;
	mute.tells_use = tells_nothing;
	mute.in_use = in_use_always;
	disk = &mute;
	w = worker_start();
	disk = NULL;
	v = view();
	put_all(&w);
	assert_int_equal(hold(v, &whole), -EOPNOTSUPP);
	assert_int_equal(store_remove_dataset(w.store, 1, NULL), 0);
	EVENTUALLY(held_bytes(&w) == 0);
	EVENTUALLY(fixture_du() < 4 * MIB);
	store_view_free(v);
	worker_stop(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
		TEST(only_a_complete_and_durable_file_is_whole),
		TEST(a_block_in_a_segment_makes_a_file_incomplete),
		TEST(its_bytes_are_verified_with_and_without_the_page_cache),
		TEST(its_key_changes_with_its_blocks_and_with_the_store),
		TEST(a_dropped_block_makes_it_wanted_back),
		TEST(its_bytes_stay_while_a_map_outlives_the_hold),
		TEST(its_bytes_stay_when_the_worker_starts_anew),
		TEST(an_open_descriptor_alone_keeps_them_too),
		TEST(a_file_system_that_does_not_tell_hands_nothing_out_and_frees),
	};

	fixture_setup(NULL);
	if (!store_disk_real.tells_use(NULL, fixture_dir)) {
		fprintf(stderr, "skipped: %s does not tell who has a file open\n", fixture_dir);
		fixture_teardown(NULL);
		return 77;
	}
	fixture_teardown(NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
