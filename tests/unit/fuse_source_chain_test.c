/* The way of a read through workers that fail in every way, to the origin. */
#include "tests/unit/fuse_chain_fixture.h"

/* ---- the tests ----------------------------------------------------------------------------------
 */

static void the_home_is_asked_and_nobody_else(void **state)
{
	int order[WORKERS_MAX];
	struct world w;

	(void)state;
	make_world(&w, 3, true);
	rank(&w, order);
	read_well(&w, BLOCK_FROM_PEER_STORE);
	atomic_store(&w.workers[order[0]].behaviour, SERVES_FETCHED);
	read_well(&w, BLOCK_FROM_FETCH);
	assert_int_equal(w.workers[order[0]].asked, 2);
	assert_int_equal(w.workers[order[1]].asked, 0);
	assert_int_equal(w.workers[order[2]].asked, 0);
	drop_world(&w);
}

static void the_home_alone_prefetches(void **state)
{
	int order[WORKERS_MAX];
	struct world w;
	const struct block_range first = {.file = &w.file};

	(void)state;
	make_world(&w, 3, true);
	rank(&w, order);
	w.chain.source.prefetch(&w.chain.source, &first, clock_deadline_ms(FAR_MS));
	assert_int_equal(w.workers[order[0]].prefetched, 1);
	assert_int_equal(w.workers[order[1]].prefetched + w.workers[order[2]].prefetched, 0);
	/* One that is away is nobody's concern. */
	stop_worker(&w.workers[order[0]]);
	w.chain.source.prefetch(&w.chain.source, &first, clock_deadline_ms(FAR_MS));
	assert_int_equal(w.workers[order[1]].prefetched + w.workers[order[2]].prefetched, 0);
	drop_world(&w);
}

static void a_worker_that_fails_is_followed_by_the_next(void **state)
{
	static const enum behaviour failures[] = {FAILS, SHORT, LONG};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		int order[WORKERS_MAX];
		struct world w;

		make_world(&w, 3, true);
		rank(&w, order);
		atomic_store(&w.workers[order[0]].behaviour, failures[i]);
		read_well(&w, BLOCK_FROM_PEER_STORE);
		assert_int_equal(w.workers[order[0]].asked, 1);
		assert_int_equal(w.workers[order[1]].asked, 1);
		drop_world(&w);
	}
}

static void wait_good(struct peer *p)
{
	int64_t end_ms = clock_deadline_ms(SOON_MS);

	while (peer_ask(p) != PEER_GOOD) {
		assert_false(clock_passed(end_ms));
		usleep(10000);
	}
}

static void one_that_is_gone_is_left_aside_until_it_is_back(void **state)
{
	int order[WORKERS_MAX];
	struct peer_set *set;
	struct world w;

	(void)state;
	make_world(&w, 2, true);
	rank(&w, order);
	stop_worker(&w.workers[order[0]]);
	read_well(&w, BLOCK_FROM_PEER_STORE);
	set = peers_get(&w.peers);
	assert_int_equal(peer_ask(set->peers[order[0]]), PEER_ASIDE);
	assert_int_equal(peer_ask(set->peers[order[1]]), PEER_GOOD);
	usleep(1200000); /* checked more than once, and still gone */
	assert_int_equal(peer_ask(set->peers[order[0]]), PEER_ASIDE);
	assert_int_equal(peer_ask(set->peers[order[0]]), PEER_ASIDE);
	start_worker(&w, &w.workers[order[0]], order[0]);
	wait_good(set->peers[order[0]]);
	peer_set_unref(set);
	drop_world(&w);
}

static void one_that_fails_is_tried_by_a_single_read(void **state)
{
	struct peer_set *set;
	struct world w;

	(void)state;
	make_world(&w, 1, true);
	set = peers_get(&w.peers);
	peer_failed(set->peers[0]);
	assert_int_equal(peer_ask(set->peers[0]), PEER_ASIDE);
	atomic_store(&set->peers[0]->aside_until_ms, clock_mono_ms());
	assert_int_equal(peer_ask(set->peers[0]), PEER_PROBE);
	assert_int_equal(peer_ask(set->peers[0]), PEER_ASIDE); /* one is enough */
	peer_answered(set->peers[0]);
	assert_int_equal(peer_ask(set->peers[0]), PEER_GOOD);
	peer_set_unref(set);
	drop_world(&w);
}

static void without_workers_the_origin_is_read(void **state)
{
	struct world w;

	(void)state;
	make_world(&w, 0, true);
	read_well(&w, BLOCK_FROM_ORIGIN);
	drop_world(&w);
	make_world(&w, 2, true);
	stop_worker(&w.workers[0]);
	atomic_store(&w.workers[1].behaviour, FAILS);
	read_well(&w, BLOCK_FROM_ORIGIN);
	drop_world(&w);
}

/* A read past the workers waits for its turn much longer than its deadline. */
static void a_throttled_read_of_the_origin_is_slow_and_does_not_fail(void **state)
{
	int64_t began_ms = clock_mono_ms();
	struct world w;

	(void)state;
	make_world(&w, 0, true);
	direct_pace_lease(
		&w.origin.pace, FILE_BYTES / 4.0, CLOCK_NEVER, FILE_BYTES / 4.0, CLOCK_NEVER);
	read_within(&w, BLOCK_FROM_ORIGIN, 500);
	assert_true(clock_mono_ms() - began_ms > 2000);
	drop_world(&w);
}

static void expect_failure(struct world *w, int code, const char *said)
{
	struct read_cancel cancel;
	struct error err = ERROR_INIT;
	enum block_from from;

	read_cancel_init(&cancel);
	assert_int_equal(read_some(w, 0, 1000, FAR_MS, &cancel, &from, &err), code);
	read_cancel_deinit(&cancel);
	if (!strstr(err.text, said))
		print_error("%s\n", err.text);
	assert_non_null(strstr(err.text, said));
}

static void a_changed_object_is_final(void **state)
{
	int order[WORKERS_MAX];
	struct world w;

	(void)state;
	make_world(&w, 2, true);
	rank(&w, order);
	atomic_store(&w.workers[order[0]].behaviour, STALE);
	expect_failure(&w, -ESTALE, "the object has changed");
	assert_int_equal(w.workers[order[1]].asked, 0);
	drop_world(&w);
}

static void a_changed_object_at_the_origin_is_not_served(void **state)
{
	char path[600];
	struct world w;
	FILE *f;

	(void)state;
	make_world(&w, 0, true);
	snprintf(path, sizeof(path), "%s/file", w.origin_dir);
	f = fopen(path, "r+");
	fputc('x', f);
	fclose(f);
	expect_failure(&w, -ESTALE, "changed since the snapshot");
	unlink(path);
	expect_failure(&w, -ESTALE, "gone since the snapshot");
	drop_world(&w);
}

static void the_failure_names_all_that_was_tried(void **state)
{
	struct world w;

	(void)state;
	make_world(&w, 1, false);
	atomic_store(&w.workers[0].behaviour, FAILS);
	expect_failure(&w, -EIO, "the disk is on fire; past it: the master has not told");
	drop_world(&w);
}

static int64_t read_well_ms(struct world *w, enum block_from want)
{
	int64_t began_ms = clock_mono_ms();

	read_well(w, want);
	return clock_mono_ms() - began_ms;
}

static void a_silent_worker_is_given_up_soon_and_used_again(void **state)
{
	struct peer_set *set;
	struct world w;

	(void)state;
	make_world(&w, 1, true);
	read_well(&w, BLOCK_FROM_PEER_STORE);
	atomic_store(&w.workers[0].behaviour, HANGS);
	atomic_store(&w.workers[0].health, SILENT);
	assert_in_range(read_well_ms(&w, BLOCK_FROM_ORIGIN), PEER_LINE_ANSWER_MS, SOON_MS);
	/* Nobody else waits, however often it is checked meanwhile. */
	for (int64_t end_ms = clock_deadline_ms(3000); !clock_passed(end_ms); usleep(100000))
		assert_in_range(read_well_ms(&w, BLOCK_FROM_ORIGIN), 0, PEER_LINE_QUIET_MS - 1);
	assert_int_equal(w.workers[0].asked, 2);
	atomic_store(&w.workers[0].behaviour, SERVES);
	atomic_store(&w.workers[0].health, ANSWERS);
	set = peers_get(&w.peers);
	wait_good(set->peers[0]);
	peer_set_unref(set);
	read_well(&w, BLOCK_FROM_PEER_STORE);
	drop_world(&w);
}

static void a_worker_that_waits_for_its_origin_is_waited_for(void **state)
{
	struct world w;

	(void)state;
	make_world(&w, 1, true);
	atomic_store(&w.workers[0].behaviour, SLOW);
	assert_in_range(read_well_ms(&w, BLOCK_FROM_PEER_STORE), SLOW_MS, FAR_MS / 2);
	/* One that refuses the check lives, too: it says so. */
	atomic_store(&w.workers[0].health, REFUSES);
	assert_in_range(read_well_ms(&w, BLOCK_FROM_PEER_STORE), SLOW_MS, FAR_MS / 2);
	drop_world(&w);
}

struct reader {
	struct world *w;
	pthread_t thread;
	int result;
	enum block_from from;
	int64_t took_ms;
	unsigned char got[1000];
};

static void *read_main(void *arg)
{
	struct reader *r = arg;
	struct block_range range = {
		.file = &r->w->file, .offset = 5, .len = sizeof(r->got), .dst = r->got};
	struct error err = ERROR_INIT;
	struct read_cancel cancel;
	int64_t began_ms = clock_mono_ms();

	read_cancel_init(&cancel);
	r->result = r->w->chain.source.read(
		&r->w->chain.source, &range, clock_deadline_ms(FAR_MS), &cancel, &r->from, &err);
	read_cancel_deinit(&cancel);
	r->took_ms = clock_mono_ms() - began_ms;
	return NULL;
}

static void many_readers_find_out_together(void **state)
{
	struct reader readers[READERS] = {0};
	struct world w;

	(void)state;
	make_world(&w, 1, true);
	atomic_store(&w.workers[0].behaviour, HANGS);
	atomic_store(&w.workers[0].health, SILENT);
	for (int i = 0; i < READERS; i++) {
		readers[i].w = &w;
		assert_int_equal(thread_start(&readers[i].thread, read_main, &readers[i]), 0);
	}
	for (int i = 0; i < READERS; i++) {
		pthread_join(readers[i].thread, NULL);
		assert_int_equal(readers[i].result, 0);
		assert_int_equal(readers[i].from, BLOCK_FROM_ORIGIN);
		assert_in_range(readers[i].took_ms, 0, SOON_MS);
		for (size_t k = 0; k < sizeof(readers[i].got); k++)
			assert_int_equal(readers[i].got[k], byte_at(5 + k));
	}
	drop_world(&w);
}

static void only_the_workers_own_refusal_puts_it_aside(void **state)
{
	struct peer_set *set;
	struct world w;

	(void)state;
	make_world(&w, 1, true);
	set = peers_get(&w.peers);
	/* Its origin refuses the worker: that is not the worker's refusal. */
	atomic_store(&w.workers[0].behaviour, DENIES);
	read_well(&w, BLOCK_FROM_ORIGIN);
	assert_int_equal(peer_ask(set->peers[0]), PEER_GOOD);
	assert_false(peer_refuses(set->peers[0]));
	peer_set_unref(set);
	drop_world(&w);

	make_world(&w, 1, true);
	set = peers_get(&w.peers);
	atomic_store(&w.workers[0].behaviour, DENIES);
	atomic_store(&w.workers[0].health, REFUSES);
	read_well(&w, BLOCK_FROM_ORIGIN);
	assert_int_equal(peer_ask(set->peers[0]), PEER_ASIDE);
	assert_true(peer_refuses(set->peers[0]));
	peer_set_unref(set);
	drop_world(&w);
}

static void a_worker_whose_reads_hang_leaves_time_for_the_origin(void **state)
{
	struct read_cancel cancel;
	struct error err = ERROR_INIT;
	enum block_from from;
	struct world w;
	int64_t began_ms = clock_mono_ms();

	(void)state;
	make_world(&w, 1, true);
	atomic_store(&w.workers[0].behaviour, HANGS);
	read_cancel_init(&cancel);
	assert_int_equal(read_some(&w, 0, 1000, 4000, &cancel, &from, &err), 0);
	assert_int_equal(from, BLOCK_FROM_ORIGIN);
	assert_in_range(clock_mono_ms() - began_ms, 1600, 4000);
	read_cancel_deinit(&cancel);
	drop_world(&w);
}

static void *fire_soon(void *arg)
{
	usleep(200000);
	read_cancel_fire(arg);
	return NULL;
}

static void a_cancel_ends_the_wait_for_a_worker(void **state)
{
	struct read_cancel cancel;
	struct error err = ERROR_INIT;
	enum block_from from;
	struct world w;
	int64_t began_ms;
	pthread_t thread;

	(void)state;
	make_world(&w, 2, true);
	atomic_store(&w.workers[0].behaviour, HANGS);
	atomic_store(&w.workers[1].behaviour, HANGS);
	read_cancel_init(&cancel);
	assert_int_equal(thread_start(&thread, fire_soon, &cancel), 0);
	began_ms = clock_mono_ms();
	assert_int_equal(read_some(&w, 0, 1000, FAR_MS, &cancel, &from, &err), -ECANCELED);
	assert_in_range(clock_mono_ms() - began_ms, 100, 5000);
	pthread_join(thread, NULL);
	assert_int_equal(read_some(&w, 0, 1000, FAR_MS, &cancel, &from, &err), -ECANCELED);
	read_cancel_deinit(&cancel);
	drop_world(&w);
}

static void a_new_list_of_workers_keeps_the_known_ones(void **state)
{
	struct peer_ref refs[2];
	struct peer_set *before, *after;
	struct world w;

	(void)state;
	make_world(&w, 2, true);
	before = peers_get(&w.peers);
	refs[0] = (struct peer_ref){.id = 7,
		.address = "unix:/nowhere",
		.lease_socket = "",
		.local_address = "",
		.local_identity = "",
		.host_id = "",
		.capacity_bytes = 0};
	refs[1] = (struct peer_ref){.id = 101,
		.address = w.workers[1].address,
		.lease_socket = "",
		.local_address = "",
		.local_identity = "",
		.host_id = "another-host",
		.capacity_bytes = 1000};
	peer_failed(before->peers[0]);
	assert_int_equal(peers_update(&w.peers, refs, 2), 0);
	after = peers_get(&w.peers);
	assert_ptr_not_equal(before, after);
	assert_int_equal(after->count, 2);
	assert_ptr_equal(before->peers[1], after->peers[1]);
	assert_true(after->nodes[0].weight > 0);
	peer_set_unref(before);
	assert_int_equal(peers_update(&w.peers, refs, 2), 0);
	before = peers_get(&w.peers);
	assert_ptr_equal(before, after); /* nothing changed */
	peer_set_unref(before);
	peer_set_unref(after);
	drop_world(&w);
}

static void a_master_that_knows_nobody_yet_takes_no_good_worker_away(void **state)
{
	struct peer_set *set;
	struct world w;

	(void)state;
	make_world(&w, 2, true);
	set = peers_get(&w.peers);
	peer_failed(set->peers[0]);
	peer_set_unref(set);
	assert_int_equal(peers_update(&w.peers, NULL, 0), 0);
	set = peers_get(&w.peers);
	assert_int_equal(set->count, 1);
	assert_int_equal(set->peers[0]->id, 101);
	set->peers[0]->listed_ms -= PEERS_LINGER_MS;
	peer_set_unref(set);
	assert_int_equal(peers_update(&w.peers, NULL, 0), 0);
	set = peers_get(&w.peers);
	assert_int_equal(set->count, 0);
	peer_set_unref(set);
	drop_world(&w);
}

/* ---- a worker whose share is small -------------------------------------------------------------- */

static int read_patiently(struct world *w, int64_t patience_ms, struct throttle *throttle)
{
	struct read_cancel cancel;
	struct error err = ERROR_INIT;
	enum block_from from;
	int r;

	read_cancel_init(&cancel);
	cancel.throttle = throttle;
	r = read_some(w, 0, 200000, patience_ms, &cancel, &from, &err);
	read_cancel_deinit(&cancel);
	if (r == 0)
		assert_int_equal(from, BLOCK_FROM_PEER_STORE);
	return r;
}

static void waiting_for_a_share_is_not_the_readers_time(void **state)
{
	struct throttle throttle = {0};
	struct world w;

	(void)state;
	make_world(&w, 1, false);
	atomic_store(&w.workers[0].behaviour, THROTTLES);
	assert_int_equal(read_patiently(&w, 1000, &throttle), 0);
	assert_in_range(throttle_ms(&throttle), SLOW_MS - 300, SLOW_MS + 300);
	drop_world(&w);
}

static void a_worker_that_hangs_after_its_share_came_is_given_up(void **state)
{
	int64_t began_ms;
	struct world w;

	(void)state;
	make_world(&w, 1, true);
	atomic_store(&w.workers[0].behaviour, THROTTLES_HANGS);
	began_ms = clock_mono_ms();
	{
		struct read_cancel cancel;
		struct error err = ERROR_INIT;
		enum block_from from;

		read_cancel_init(&cancel);
		assert_int_equal(read_some(&w, 0, 1000, 2000, &cancel, &from, &err), 0);
		read_cancel_deinit(&cancel);
		assert_int_equal(from, BLOCK_FROM_ORIGIN);
	}
	assert_true(clock_mono_ms() - began_ms >= SLOW_MS + 900);
	drop_world(&w);
}

static void a_crowded_worker_is_asked_again(void **state)
{
	struct throttle throttle = {0};
	struct world w;

	(void)state;
	make_world(&w, 1, false);
	atomic_store(&w.workers[0].behaviour, CROWDED);
	assert_int_equal(read_patiently(&w, 1000, &throttle), 0);
	for (uint32_t i = 0; i < 200000; i++)
		assert_int_equal(w.got[i], byte_at(i));
	assert_int_equal(w.workers[0].asked, (200000 + CHUNK_BYTES - 1) / CHUNK_BYTES);
	drop_world(&w);
}

static void a_reader_who_waits_for_his_share_can_be_interrupted(void **state)
{
	static const enum behaviour both[] = {THROTTLES, CROWDED};
	struct read_cancel cancel;
	struct error err;
	enum block_from from;
	pthread_t thread;
	int64_t began_ms;
	struct world w;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		make_world(&w, 1, true);
		atomic_store(&w.workers[0].behaviour, both[i]);
		read_cancel_init(&cancel);
		began_ms = clock_mono_ms();
		assert_int_equal(pthread_create(&thread, NULL, fire_soon, &cancel), 0);
		assert_int_equal(
			read_some(&w, 0, FILE_BYTES, FAR_MS, &cancel, &from, &err), -ECANCELED);
		assert_true(clock_mono_ms() - began_ms < SLOW_MS);
		pthread_join(thread, NULL);
		read_cancel_deinit(&cancel);
		drop_world(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_home_is_asked_and_nobody_else),
		cmocka_unit_test(the_home_alone_prefetches),
		cmocka_unit_test(a_worker_that_fails_is_followed_by_the_next),
		cmocka_unit_test(one_that_is_gone_is_left_aside_until_it_is_back),
		cmocka_unit_test(one_that_fails_is_tried_by_a_single_read),
		cmocka_unit_test(without_workers_the_origin_is_read),
		cmocka_unit_test(a_throttled_read_of_the_origin_is_slow_and_does_not_fail),
		cmocka_unit_test(a_changed_object_is_final),
		cmocka_unit_test(a_changed_object_at_the_origin_is_not_served),
		cmocka_unit_test(the_failure_names_all_that_was_tried),
		cmocka_unit_test(a_silent_worker_is_given_up_soon_and_used_again),
		cmocka_unit_test(a_worker_that_waits_for_its_origin_is_waited_for),
		cmocka_unit_test(many_readers_find_out_together),
		cmocka_unit_test(only_the_workers_own_refusal_puts_it_aside),
		cmocka_unit_test(a_worker_whose_reads_hang_leaves_time_for_the_origin),
		cmocka_unit_test(a_cancel_ends_the_wait_for_a_worker),
		cmocka_unit_test(waiting_for_a_share_is_not_the_readers_time),
		cmocka_unit_test(a_worker_that_hangs_after_its_share_came_is_given_up),
		cmocka_unit_test(a_crowded_worker_is_asked_again),
		cmocka_unit_test(a_reader_who_waits_for_his_share_can_be_interrupted),
		cmocka_unit_test(a_new_list_of_workers_keeps_the_known_ones),
		cmocka_unit_test(a_master_that_knows_nobody_yet_takes_no_good_worker_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
