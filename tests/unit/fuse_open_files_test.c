#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <assert.h>
#include <cmocka.h>
#include <pthread.h>
#include <unistd.h>

#include "common/sync.h"
#include "fuse/open_files.h"
#include "fuse/open_records.h"

struct fake_whole {
	struct block_whole whole;
	bool wanted;
};

static bool wanted_back(struct block_whole *w)
{
	return ((struct fake_whole *)w)->wanted;
}

static struct fake_whole fake(void)
{
	return (struct fake_whole){.whole = {.wanted_back = wanted_back}};
}

static struct open_files table(unsigned max)
{
	struct open_files t;

	open_files_init(&t, max);
	return t;
}

static enum open_step enter(struct open_files *t, uint64_t ino)
{
	struct open_waiter waiter;
	struct open_backing gone;
	int32_t id = -1;
	enum open_step step = open_files_enter(t, ino, &waiter, &id, &gone);

	assert_null(gone.whole);
	assert_int_not_equal(step, OPEN_WAITS);
	assert_int_equal(id > 0, step == OPEN_AS_PASSED);
	return step;
}

static void pass(struct open_files *t, uint64_t ino, int32_t id, struct fake_whole *w)
{
	struct open_backing backing = {id, &w->whole};

	assert_int_equal(enter(t, ino), OPEN_DECIDE);
	assert_null(open_files_decided(t, ino, &backing));
}

static void cache(struct open_files *t, uint64_t ino)
{
	struct open_backing none = {0};

	assert_int_equal(enter(t, ino), OPEN_DECIDE);
	assert_null(open_files_decided(t, ino, &none));
}

static void the_first_decides_and_the_others_follow_until_all_have_left(void **state)
{
	struct open_files t = table(10);
	struct fake_whole w = fake();
	struct open_backing gone;

	(void)state;
	cache(&t, 1);
	pass(&t, 2, 7, &w);
	assert_int_equal(enter(&t, 1), OPEN_AS_CACHED);
	assert_int_equal(enter(&t, 2), OPEN_AS_PASSED);
	open_files_leave(&t, 1, true, 0);
	open_files_leave(&t, 2, true, 0);
	assert_int_equal(enter(&t, 1), OPEN_AS_CACHED);
	open_files_leave(&t, 1, true, 0);
	open_files_leave(&t, 1, true, 0);
	/* What was cached is decided anew, what was passed through is kept for a while. */
	cache(&t, 1);
	open_files_leave(&t, 2, true, 100);
	assert_false(open_files_collect(&t, 100, false, &gone));
	assert_int_equal(enter(&t, 2), OPEN_AS_PASSED);
	assert_false(open_files_collect(&t, 1000, false, &gone));
	open_files_leave(&t, 2, true, 200);
	assert_true(open_files_collect(&t, 201, false, &gone));
	assert_int_equal(gone.id, 7);
	assert_ptr_equal(gone.whole, &w.whole);
	assert_int_equal(enter(&t, 2), OPEN_DECIDE);
	open_files_deinit(&t);
}

static void who_comes_during_the_decision_waits_for_it(void **state)
{
	struct open_files t = table(10);
	struct fake_whole w = fake();
	struct open_backing gone, backing = {3, &w.whole};
	struct open_waiter first, second, *waiters;
	int32_t id = 0;

	(void)state;
	assert_int_equal(enter(&t, 5), OPEN_DECIDE);
	assert_int_equal(open_files_enter(&t, 5, &first, &id, &gone), OPEN_WAITS);
	assert_int_equal(open_files_enter(&t, 5, &second, &id, &gone), OPEN_WAITS);
	waiters = open_files_decided(&t, 5, &backing);
	assert_ptr_equal(waiters, &second);
	assert_ptr_equal(waiters->next, &first);
	assert_null(first.next);
	/* All three are counted. */
	open_files_leave(&t, 5, true, 0);
	open_files_leave(&t, 5, true, 0);
	assert_false(open_files_collect(&t, 1, false, &gone));
	open_files_leave(&t, 5, true, 0);
	assert_true(open_files_collect(&t, 1, false, &gone));
	open_files_deinit(&t);
}

static void what_is_wanted_back_goes_once_it_is_idle(void **state)
{
	struct open_files t = table(10);
	struct fake_whole w = fake(), again = fake();
	struct open_backing gone, backing = {4, &again.whole};
	struct open_waiter waiter;
	int32_t id = 0;

	(void)state;
	pass(&t, 1, 3, &w);
	w.wanted = true;
	assert_int_equal(enter(&t, 1), OPEN_AS_PASSED);
	open_files_leave(&t, 1, true, 0);
	assert_false(open_files_collect(&t, 0, false, &gone));
	open_files_leave(&t, 1, true, 0);
	/* The next one closes it and decides anew. */
	assert_int_equal(open_files_enter(&t, 1, &waiter, &id, &gone), OPEN_DECIDE);
	assert_int_equal(gone.id, 3);
	assert_null(open_files_decided(&t, 1, &backing));
	open_files_leave(&t, 1, true, 0);
	again.wanted = true;
	assert_true(open_files_collect(&t, 0, false, &gone));
	assert_int_equal(gone.id, 4);
	open_files_deinit(&t);
}

static void a_full_table_gives_up_idle_ones_first(void **state)
{
	struct open_files t = table(2);
	struct fake_whole w = fake(), v = fake();
	struct open_backing gone, none = {0};
	struct open_waiter waiter;
	int32_t id = 0;

	(void)state;
	pass(&t, 1, 3, &w);
	pass(&t, 2, 4, &v);
	open_files_leave(&t, 2, true, 0);
	open_files_leave(&t, 1, true, 1);
	assert_int_equal(open_files_enter(&t, 9, &waiter, &id, &gone), OPEN_DECIDE);
	assert_int_equal(gone.id, 4);
	assert_null(open_files_decided(&t, 9, &none));
	assert_int_equal(enter(&t, 1), OPEN_AS_PASSED);
	open_files_leave(&t, 1, true, 1);
	assert_true(open_files_collect(&t, 2, false, &gone));
	open_files_deinit(&t);
}

static void beyond_a_full_table_nothing_begins_to_be_passed_through(void **state)
{
	struct open_files t = table(2);
	struct fake_whole w = fake();
	struct open_backing gone;

	(void)state;
	pass(&t, 1, 3, &w);
	cache(&t, 2);
	assert_int_equal(enter(&t, 5), OPEN_UNTRACKED);
	assert_int_equal(enter(&t, 6), OPEN_UNTRACKED);
	assert_int_equal(enter(&t, 1), OPEN_AS_PASSED);
	open_files_leave(&t, 2, true, 0);
	/* There is room, but 5 may still be open cached. */
	assert_int_equal(enter(&t, 5), OPEN_AS_CACHED);
	open_files_leave(&t, 5, true, 0);
	open_files_leave(&t, 5, false, 0);
	assert_int_equal(enter(&t, 5), OPEN_AS_CACHED);
	open_files_leave(&t, 5, true, 0);
	open_files_leave(&t, 6, false, 0);
	assert_int_equal(enter(&t, 5), OPEN_DECIDE);
	while (open_files_collect(&t, 0, true, &gone))
		;
	open_files_deinit(&t);
}

static void at_the_end_all_is_collected_and_late_releases_do_no_harm(void **state)
{
	struct open_files t = table(10);
	struct fake_whole w = fake(), v = fake();
	struct open_backing gone;

	(void)state;
	pass(&t, 1, 3, &w);
	pass(&t, 2, 4, &v);
	cache(&t, 3);
	open_files_leave(&t, 2, true, 0);
	assert_true(open_files_collect(&t, 0, true, &gone));
	assert_int_equal(gone.id, 4);
	assert_true(open_files_collect(&t, 0, true, &gone));
	assert_int_equal(gone.id, 3);
	assert_false(open_files_collect(&t, 0, true, &gone));
	open_files_leave(&t, 1, true, 0);
	open_files_leave(&t, 3, true, 0);
	open_files_leave(&t, 3, true, 0);
	open_files_leave(&t, 3, false, 0);
	open_files_deinit(&t);
}

/* ---- many threads: no inode is ever open in both ways, or by two backings ---------------------- */

#define INODES 8
#define THREADS 4
#define ROUNDS 20000

struct storm_request {
	struct open_waiter waiter; /* first */
	struct mutex mu;
	struct cond changed;
	int32_t id; /* -1: not decided */
};

static struct open_files storm_table;
static struct fake_whole storm_whole;
static atomic_int cached[INODES], passed[INODES];
static atomic_int next_id = 1;

static void storm_answer(struct storm_request *r, int32_t id)
{
	mutex_guard(&r->mu);
	r->id = id;
	cond_signal(&r->changed);
}

static int32_t storm_open(uint64_t ino, bool *ret_tracked)
{
	struct storm_request r = {.id = -1};
	struct open_backing gone;
	struct open_waiter *w;
	int32_t id = 0;
	enum open_step step;

	mutex_init(&r.mu);
	cond_init(&r.changed);
	step = open_files_enter(&storm_table, ino, &r.waiter, &id, &gone);
	*ret_tracked = step != OPEN_UNTRACKED;
	if (step == OPEN_DECIDE) {
		struct open_backing backing = {0};

		if (rand() % 2)
			backing = (struct open_backing){
				atomic_fetch_add(&next_id, 1), &storm_whole.whole};
		id = backing.id;
		for (w = open_files_decided(&storm_table, ino, &backing); w;) {
			struct open_waiter *next = w->next;

			storm_answer((struct storm_request *)w, id);
			w = next;
		}
	} else if (step == OPEN_WAITS) {
		mutex_guard(&r.mu);
		while (r.id < 0)
			cond_wait(&r.changed, &r.mu, CLOCK_NEVER);
		id = r.id;
	}
	cond_deinit(&r.changed);
	mutex_deinit(&r.mu);
	return id;
}

static void *storm(void *arg)
{
	struct open_backing gone;

	(void)arg;
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t n = (uint64_t)rand() % INODES;
		bool tracked;
		int32_t id = storm_open(n + 1, &tracked);

		if (id > 0) {
			assert(atomic_load(&cached[n]) == 0);
			atomic_fetch_add(&passed[n], 1);
		} else {
			assert(atomic_load(&passed[n]) == 0);
			atomic_fetch_add(&cached[n], 1);
		}
		if (rand() % 4 == 0)
			open_files_collect(&storm_table, INT64_MAX, false, &gone);
		if (id > 0)
			atomic_fetch_sub(&passed[n], 1);
		else
			atomic_fetch_sub(&cached[n], 1);
		open_files_leave(&storm_table, n + 1, tracked, 0);
	}
	return NULL;
}

static void a_storm_of_opens_never_mixes_the_ways(void **state)
{
	pthread_t threads[THREADS];
	struct open_backing gone;

	(void)state;
	storm_whole = fake();
	storm_table = table(INODES / 2);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, storm, NULL), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(storm_table.untracked, 0);
	while (open_files_collect(&storm_table, 0, true, &gone))
		;
	assert_int_equal(storm_table.count, 0);
	open_files_deinit(&storm_table);
}

static void what_another_client_left_is_followed_and_given_up_once_it_is_idle(void **state)
{
	struct open_files t = table(3);
	struct fake_whole w = fake(), idle = fake();
	struct open_backing gone, backing = {7, &w.whole, 0}, other = {8, &idle.whole, 1};
	int32_t id = 0;
	struct open_waiter waiter;

	(void)state;
	w.wanted = idle.wanted = true;
	assert_true(open_files_resume(&t, 1, &backing));
	assert_true(open_files_resume(&t, 2, &other));
	assert_false(open_files_resume(&t, 2, &other));
	assert_true(open_files_resume_open(&t, 1, true));
	assert_true(open_files_resume_open(&t, 1, true));
	assert_true(open_files_resume_open(&t, 3, true));
	assert_int_equal(open_files_backing(&t, 1), 7);
	assert_int_equal(open_files_backing(&t, 3), 0);
	/* The way of those who have it open, though the store wants it back. */
	assert_int_equal(enter(&t, 1), OPEN_AS_PASSED);
	assert_int_equal(enter(&t, 3), OPEN_AS_CACHED);
	/* Idle: anew. */
	assert_int_equal(open_files_enter(&t, 2, &waiter, &id, &gone), OPEN_DECIDE);
	assert_int_equal(gone.id, 8);
	assert_null(open_files_decided(&t, 2, &(struct open_backing){0}));
	for (int i = 0; i < 3; i++) {
		assert_false(open_files_collect(&t, 0, false, &gone));
		open_files_leave(&t, 1, true, 0);
	}
	assert_true(open_files_collect(&t, 0, false, &gone));
	assert_int_equal(gone.id, 7);
	/* Without room for an open that is there, nothing begins to be passed through. */
	assert_int_equal(enter(&t, 4), OPEN_DECIDE);
	assert_null(open_files_decided(&t, 4, &(struct open_backing){0}));
	assert_false(open_files_resume_open(&t, 5, true));
	assert_int_equal(t.untracked, 1);
	open_files_deinit(&t);
}

static void what_is_given_up_is_recorded_before_it_can_be_decided_anew(void **state)
{
	struct open_files t = table(10);
	struct fake_whole w = fake();
	struct open_records records;
	struct mount_state *kept;
	struct error err = ERROR_INIT;
	struct open_backing gone;
	int fd;

	(void)state;
	assert_int_equal(mount_state_new(&kept, &fd, &err), 0);
	open_records_init(&records, kept);
	t.records = &records;
	pass(&t, 1, 7, &w);
	kept->backings[0].use = BACKING_USED;
	open_files_leave(&t, 1, true, 0);
	assert_true(open_files_collect(&t, 1, false, &gone));
	assert_int_equal(atomic_load(&kept->backings[0].use), BACKING_CLOSING);
	open_files_deinit(&t);
	open_records_deinit(&records);
	mount_state_unmap(kept);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_decides_and_the_others_follow_until_all_have_left),
		cmocka_unit_test(who_comes_during_the_decision_waits_for_it),
		cmocka_unit_test(what_is_wanted_back_goes_once_it_is_idle),
		cmocka_unit_test(a_full_table_gives_up_idle_ones_first),
		cmocka_unit_test(beyond_a_full_table_nothing_begins_to_be_passed_through),
		cmocka_unit_test(at_the_end_all_is_collected_and_late_releases_do_no_harm),
		cmocka_unit_test(what_another_client_left_is_followed_and_given_up_once_it_is_idle),
		cmocka_unit_test(what_is_given_up_is_recorded_before_it_can_be_decided_anew),
		cmocka_unit_test(a_storm_of_opens_never_mixes_the_ways),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
