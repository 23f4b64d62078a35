/* Manifests by digest: found on disk, fetched once, verified, and got again when damaged. */
#include "tests/unit/worker_fixture.h"

#include <errno.h>
#include <pthread.h>

#include "cluster/host_id.h"

static int setup(void **state)
{
	struct fx *f = fx_new();

	for (int i = 0; i < 200; i++) {
		char path[32];

		snprintf(path, sizeof(path), "file-%03d", i);
		fx_add(f, path, 1000);
	}
	manifest_unref(fx_snapshot(f));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	fx_free(*state);
	return 0;
}

static struct manifest_cache *cache_at(struct fx *f, const char *name)
{
	struct manifest_cache *c;
	struct error err = ERROR_INIT;
	char dir[128];

	snprintf(dir, sizeof(dir), "%s/%s", f->dir, name);
	assert_int_equal(manifest_cache_new(dir, &c, &err), 0);
	return c;
}

static int get(struct fx *f, struct manifest_cache *c, struct manifest **m, struct error *err)
{
	return manifest_cache_get(c, f->to_master, f->digests[0], clock_deadline_ms(5000), m, err);
}

static void the_masters_own_file_is_used_as_it_is(void **state)
{
	struct fx *f = *state;
	struct manifest_cache *c = cache_at(f, "master");
	struct error err = ERROR_INIT;
	struct manifest *m;

	assert_int_equal(get(f, c, &m, &err), 0);
	assert_int_equal(manifest_info(m)->files, 200);
	assert_int_equal(f->manifest_fetches, 0);
	manifest_unref(m);
	manifest_cache_free(c);
}

static void a_manifest_is_fetched_once_and_found_after_a_restart(void **state)
{
	struct fx *f = *state;
	struct manifest_cache *c = cache_at(f, "cache");
	struct error err = ERROR_INIT;
	struct manifest *a, *b;

	assert_int_equal(get(f, c, &a, &err), 0);
	assert_int_equal(get(f, c, &b, &err), 0);
	assert_ptr_equal(a, b);
	manifest_unref(b);
	manifest_cache_free(c);
	assert_int_equal(manifest_verify(a, &err), 0); /* lives on */
	manifest_unref(a);
	fx_master_stop(f);
	c = cache_at(f, "cache");
	assert_int_equal(
		manifest_cache_get(c, NULL, f->digests[0], clock_deadline_ms(5000), &a, &err), 0);
	assert_int_equal(f->manifest_fetches, 1);
	manifest_unref(a);
	manifest_cache_free(c);
}

struct getter {
	struct fx *f;
	struct manifest_cache *cache;
	struct manifest *manifest;
	pthread_t thread;
	int result;
};

static void *getter_main(void *arg)
{
	struct getter *g = arg;

	g->result = get(g->f, g->cache, &g->manifest, NULL);
	return NULL;
}

static void many_who_ask_at_once_make_one_fetch(void **state)
{
	struct fx *f = *state;
	struct manifest_cache *c = cache_at(f, "cache");
	struct getter getters[16];

	for (int i = 0; i < 16; i++) {
		getters[i] = (struct getter){.f = f, .cache = c};
		pthread_create(&getters[i].thread, NULL, getter_main, &getters[i]);
	}
	for (int i = 0; i < 16; i++) {
		pthread_join(getters[i].thread, NULL);
		assert_int_equal(getters[i].result, 0);
		manifest_unref(getters[i].manifest);
	}
	assert_int_equal(f->manifest_fetches, 1);
	manifest_cache_free(c);
}

/* Path of a file named after the current digest. */
static void path_of(struct fx *f, const char *dir, const char *suffix, char ret[256])
{
	snprintf(ret, 256, "%s/%s/%s%s", f->dir, dir, f->digests[0], suffix);
}

static void overwrite(const char *path, long at, const char *text)
{
	FILE *file = fopen(path, "r+b");

	assert_non_null(file);
	fseek(file, at, SEEK_SET);
	fputs(text, file);
	fclose(file);
}

static void a_damaged_file_is_fetched_anew(void **state)
{
	struct fx *f = *state;
	struct manifest_cache *c = cache_at(f, "cache");
	struct error err = ERROR_INIT;
	struct manifest *m;
	char path[256];

	assert_int_equal(get(f, c, &m, &err), 0);
	manifest_unref(m);
	manifest_cache_free(c);
	path_of(f, "cache", ".fetched", path);
	overwrite(path, 0, "garbage!");
	c = cache_at(f, "cache");
	assert_int_equal(get(f, c, &m, &err), 0);
	assert_int_equal(manifest_verify(m, &err), 0);
	manifest_unref(m);
	/* One whose damage shows only when it is read. */
	manifest_cache_damaged(c, f->digests[0]);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(get(f, c, &m, &err), 0);
	manifest_unref(m);
	assert_int_equal(f->manifest_fetches, 3);
	manifest_cache_free(c);
}

static void what_the_master_sends_is_verified(void **state)
{
	struct fx *f = *state;
	struct manifest_cache *c = cache_at(f, "cache");
	struct error err = ERROR_INIT;
	struct manifest *m;
	char path[256], command[512];

	path_of(f, "master", ".manifest", path);
	overwrite(path, 9000, "flipped");
	assert_int_equal(get(f, c, &m, &err), -EIO);
	/* Nothing is left behind. */
	snprintf(command, sizeof(command), "test -z \"$(ls -A %s/cache)\"", f->dir);
	assert_int_equal(system(command), 0);
	manifest_cache_free(c);
}

static void failures_say_which(void **state)
{
	struct fx *f = *state;
	struct manifest_cache *c = cache_at(f, "cache");
	const char *unknown = "00000000000000000000000000000000";
	struct error err = ERROR_INIT;
	int64_t soon_ms = clock_deadline_ms(3000);
	struct manifest *m;

	assert_int_equal(manifest_cache_get(c, f->to_master, "../x", soon_ms, &m, &err), -EINVAL);
	assert_int_equal(manifest_cache_get(c, f->to_master, unknown, soon_ms, &m, &err), -ENOENT);
	assert_int_equal(manifest_cache_get(c, NULL, unknown, soon_ms, &m, &err), -EAGAIN);
	rpc_server_stop(f->master, 100);
	assert_int_equal(
		manifest_cache_get(c, f->to_master, f->digests[0], soon_ms, &m, &err), -EAGAIN);
	manifest_cache_free(c);
}

static void pruning_keeps_what_is_named_and_the_masters_files(void **state)
{
	struct fx *f = *state;
	struct manifest_cache *c = cache_at(f, "master"), *own = cache_at(f, "cache");
	const char *keep[] = {f->digests[0]};
	struct error err = ERROR_INIT;
	struct manifest *m;
	char masters[256], fetched[256];

	path_of(f, "master", ".manifest", masters);
	path_of(f, "cache", ".fetched", fetched);
	assert_int_equal(get(f, c, &m, &err), 0);
	manifest_unref(m);
	assert_int_equal(get(f, own, &m, &err), 0);
	manifest_cache_prune(own, keep, 1);
	assert_int_equal(access(fetched, F_OK), 0);
	manifest_cache_prune(own, NULL, 0);
	manifest_cache_prune(c, NULL, 0);
	assert_int_equal(access(fetched, F_OK), -1);
	assert_int_equal(access(masters, F_OK), 0);
	assert_int_equal(manifest_verify(m, &err), 0); /* still mapped */
	manifest_unref(m);
	manifest_cache_free(c);
	manifest_cache_free(own);
}

static void *cancel_after_a_while(void *arg)
{
	usleep(200000);
	manifest_cache_cancel(arg);
	return NULL;
}

static void a_fetch_from_a_stuck_master_can_be_cancelled(void **state)
{
	struct fx *f = *state;
	struct manifest_cache *c = cache_at(f, "cache");
	struct error err = ERROR_INIT;
	int64_t begun_ms = clock_mono_ms();
	struct manifest *m;
	pthread_t thread;

	f->manifests_stall = true;
	pthread_create(&thread, NULL, cancel_after_a_while, c);
	assert_int_equal(manifest_cache_get(c, f->to_master, f->digests[0],
				 clock_deadline_ms(30000), &m, &err),
		-ECANCELED);
	assert_true(clock_mono_ms() - begun_ms < 5000);
	pthread_join(thread, NULL);
	f->manifests_stall = false;
	manifest_cache_free(c);
}

static void the_host_has_an_id_that_stays(void **state)
{
	char a[HOST_ID_TEXT_BYTES], b[HOST_ID_TEXT_BYTES];

	(void)state;
	assert_int_equal(host_id_get(a, NULL), 0);
	assert_int_equal(host_id_get(b, NULL), 0);
	assert_string_equal(a, b);
	assert_true(strlen(a) >= 8);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_masters_own_file_is_used_as_it_is),
		TEST(a_manifest_is_fetched_once_and_found_after_a_restart),
		TEST(many_who_ask_at_once_make_one_fetch),
		TEST(a_damaged_file_is_fetched_anew),
		TEST(what_the_master_sends_is_verified),
		TEST(failures_say_which),
		TEST(pruning_keeps_what_is_named_and_the_masters_files),
		TEST(a_fetch_from_a_stuck_master_can_be_cancelled),
		cmocka_unit_test(the_host_has_an_id_that_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
