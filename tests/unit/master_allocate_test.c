/* What datasets and jobs get together: quotas, jobs, and those without either. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "master/allocate.h"

#define GB ((uint64_t)1000000000)

/* A dataset in blocks so large that charged bytes are all but the bytes. */
static struct plan_item item(uint64_t bytes)
{
	return (struct plan_item){.bytes = bytes, .blocks = 1, .mounted = true};
}

static struct allocate_job job(size_t of, double ideal_bytes_per_s)
{
	static uint64_t id;

	return (struct allocate_job){.id = ++id,
		.item = of,
		.gpus = 1,
		.ideal_bytes_per_s = ideal_bytes_per_s,
		.weight = 1};
}

/* 97 % of it is 100 GB. */
static struct allocate_cluster cluster(double origin_bytes_per_s)
{
	return (struct allocate_cluster){
		.capacity_bytes = 100 * GB * 100 / 97 + 1,
		.origin_limited = origin_bytes_per_s > 0,
		.origin_bytes_per_s = origin_bytes_per_s,
		.policy = GPU_POLICY_FIFO,
		.storage = STORAGE_POLICY_JOINT,
	};
}

static void near(double is, double wanted)
{
	if (!(fabs(is - wanted) <= 0.001 * fabs(wanted) + 1e-9))
		fail_msg("%g is not %g", is, wanted);
}

static void solve(struct plan_item *items, size_t n, struct allocate_job *jobs, size_t m,
	struct allocate_cluster *c)
{
	struct error err = ERROR_INIT;

	if (allocate(items, n, jobs, m, c, &err) < 0)
		fail_msg("%s", err.text);
}

static void cache_goes_where_a_byte_saves_most(void **state)
{
	struct plan_item items[] = {item(80 * GB), item(80 * GB)};
	struct allocate_job jobs[] = {job(0, 1e8), job(1, 4e8)};
	struct allocate_cluster c = cluster(1e9);

	(void)state;
	items[0].granted_bytes = items[1].granted_bytes = 1; /* as if filled */
	jobs[0].effective_bytes = jobs[1].effective_bytes = 80 * GB;
	solve(items, 2, jobs, 2, &c);
	near((double)items[1].granted_bytes, 80e9);
	near((double)items[0].granted_bytes, 20e9);
	near(jobs[0].remote_bytes_per_s, 0.75e8);
	near(jobs[0].predicted_bytes_per_s, 1e8);
	near(jobs[1].predicted_bytes_per_s, 4e8);
	near(c.other_bytes_per_s, 1e7);
	assert_false(items[0].elastic);
}

static void a_first_epoch_gets_bandwidth_for_what_cannot_hit_yet(void **state)
{
	struct plan_item items[] = {item(50 * GB)};
	struct allocate_job jobs[] = {job(0, 1e8)};
	struct allocate_cluster c = cluster(1e9);

	(void)state;
	solve(items, 1, jobs, 1, &c);
	near((double)items[0].granted_bytes, 50e9);
	near(jobs[0].remote_bytes_per_s, 1e8);
	near(jobs[0].hit_ratio, 0);
	jobs[0].effective_bytes = 25 * GB;
	solve(items, 1, jobs, 1, &c);
	near(jobs[0].remote_bytes_per_s, 0.5e8);
	/* All but filled is filled. */
	jobs[0].effective_bytes = 50 * GB * 99 / 100;
	solve(items, 1, jobs, 1, &c);
	near(jobs[0].hit_ratio, 1);
}

static void a_quota_is_kept_whoever_runs(void **state)
{
	struct plan_item items[] = {item(80 * GB), item(80 * GB), item(80 * GB)};
	struct allocate_job jobs[] = {job(1, 1e9), job(2, 1e8)};
	struct allocate_cluster c = cluster(0);

	(void)state;
	items[0].quota_limited = items[2].quota_limited = true;
	items[0].quota_bytes = 30 * GB;
	items[2].quota_bytes = 10 * GB;
	solve(items, 3, jobs, 2, &c);
	assert_int_equal(items[0].granted_bytes, 30 * GB);
	assert_int_equal(items[2].granted_bytes, 10 * GB);
	near((double)items[1].granted_bytes, 60e9);
}

static void what_jobs_leave_goes_to_the_rest(void **state)
{
	struct plan_item items[] = {item(40 * GB), item(80 * GB)};
	struct allocate_job jobs[] = {job(0, 1e9)};
	struct allocate_cluster c = cluster(0);

	(void)state;
	solve(items, 2, jobs, 1, &c);
	near((double)items[0].granted_bytes, 40e9);
	near((double)items[1].granted_bytes, 60e9);
	near((double)jobs[0].cache_bytes, 40e9);
}

static void readers_without_a_job_keep_a_part_of_the_origins(void **state)
{
	struct plan_item items[] = {item(40 * GB)};
	struct allocate_job jobs[] = {job(0, 1e12), job(0, 1e12)};
	struct allocate_cluster c = cluster(9e8);

	(void)state;
	c.others = 1;
	solve(items, 1, jobs, 2, &c);
	near(c.other_bytes_per_s, 3e8);
	near(jobs[0].remote_bytes_per_s + jobs[1].remote_bytes_per_s, 6e8);
	/* Under FIFO the first could take all; nobody is left without. */
	assert_true(jobs[1].remote_bytes_per_s >= 0.0099 * 3e8);
}

static void an_lru_pins_nothing_but_quotas(void **state)
{
	struct plan_item items[] = {item(80 * GB), item(80 * GB), item(80 * GB)};
	struct allocate_job jobs[] = {job(0, 1e8), job(1, 1e8)};
	struct allocate_cluster c = cluster(1e9);

	(void)state;
	c.storage = STORAGE_POLICY_LRU;
	items[2].quota_limited = true;
	items[2].quota_bytes = 20 * GB;
	jobs[0].effective_bytes = jobs[1].effective_bytes = 1;
	solve(items, 3, jobs, 2, &c);
	for (int i = 0; i < 2; i++) {
		assert_true(items[i].elastic);
		assert_int_equal(items[i].granted_bytes, 0);
		/* Half of it cached, and an LRU hits 0.153 of that. */
		near(jobs[i].hit_ratio, 0.5 + 0.5 * log(0.5));
	}
	assert_false(items[2].elastic);
	assert_int_equal(items[2].granted_bytes, 20 * GB);
}

static void private_shares_are_by_gpus_and_whole_ones_whole(void **state)
{
	struct plan_item items[] = {item(80 * GB), item(80 * GB)};
	struct allocate_job jobs[] = {job(0, 1e8), job(1, 4e8)};
	struct allocate_cluster c = cluster(1e9);

	(void)state;
	c.storage = STORAGE_POLICY_PRIVATE;
	jobs[0].gpus = 3;
	solve(items, 2, jobs, 2, &c);
	near((double)items[0].granted_bytes, 75e9);
	near((double)items[1].granted_bytes, 25e9);
	c.storage = STORAGE_POLICY_WHOLE;
	solve(items, 2, jobs, 2, &c);
	assert_int_equal(items[0].granted_bytes, 0);
	assert_int_equal(items[1].granted_bytes, 80 * GB);
}

static void an_irregular_job_has_room_that_nothing_is_pinned_in(void **state)
{
	struct plan_item items[] = {item(80 * GB), item(80 * GB)};
	struct allocate_job jobs[] = {job(0, 1e8), job(1, 1e8)};
	struct allocate_cluster c = cluster(1e9);

	(void)state;
	jobs[1].irregular = true;
	solve(items, 2, jobs, 2, &c);
	assert_true(items[1].elastic);
	assert_int_equal(items[1].granted_bytes, 0);
	near((double)items[0].granted_bytes, 50e9);
}

static void an_unknown_rate_counts_as_the_largest_known_or_an_equal_share(void **state)
{
	struct plan_item items[] = {item(50 * GB), item(50 * GB)};
	struct allocate_job jobs[] = {job(0, 0), job(1, 0)};
	struct allocate_cluster c = cluster(1e8);

	(void)state;
	c.policy = GPU_POLICY_MAX_MIN;
	solve(items, 2, jobs, 2, &c);
	near(jobs[0].remote_bytes_per_s, jobs[1].remote_bytes_per_s);
	jobs[1].ideal_bytes_per_s = 1e9;
	solve(items, 2, jobs, 2, &c);
	near(jobs[0].remote_bytes_per_s, jobs[1].remote_bytes_per_s);
}

/* ---- limits of single origins ----------------------------------------------------------------- */

static void jobs_of_a_limited_origin_share_its_limit_and_others_have_the_rest(void **state)
{
	struct allocate_limit limit = {.bytes_per_s = 1e8};
	struct plan_item items[] = {item(80 * GB), item(80 * GB), item(80 * GB)};
	struct allocate_job jobs[] = {job(0, 1e12), job(0, 1e12), job(1, 1e12), job(2, 2e8)};
	struct allocate_cluster c = cluster(1e9);

	(void)state;
	c.capacity_bytes = 0;
	c.policy = GPU_POLICY_MAX_MIN;
	c.limits = &limit;
	c.limit_count = 1;
	items[0].limit = &limit;
	jobs[1].weight = 3;
	solve(items, 3, jobs, 4, &c);
	near(jobs[0].remote_bytes_per_s, 0.99e8 / 4);
	near(jobs[1].remote_bytes_per_s, 0.99e8 * 3 / 4);
	near(jobs[1].predicted_bytes_per_s, 0.99e8 * 3 / 4);
	/* 1 % is for others. */
	near(jobs[3].remote_bytes_per_s, 2e8);
	near(jobs[2].remote_bytes_per_s, 9.9e8 - 0.99e8 - 2e8);
	near(c.origin_bytes_per_s_left, 0);
	near(limit.bytes_per_s_left, 0);
	near(limit.other_bytes_per_s, 0.01e8);
}

static void a_limit_that_is_not_reached_changes_nothing(void **state)
{
	struct allocate_limit limit = {.bytes_per_s = 5e8};
	struct plan_item items[] = {item(80 * GB), item(80 * GB)};
	struct allocate_job jobs[] = {job(0, 1e8), job(1, 4e8)};
	struct allocate_cluster c = cluster(1e9);

	(void)state;
	items[0].granted_bytes = items[1].granted_bytes = 1; /* as if filled */
	jobs[0].effective_bytes = jobs[1].effective_bytes = 80 * GB;
	c.limits = &limit;
	c.limit_count = 1;
	items[0].limit = &limit;
	solve(items, 2, jobs, 2, &c);
	near((double)items[1].granted_bytes, 80e9);
	near((double)items[0].granted_bytes, 20e9);
	near(jobs[0].remote_bytes_per_s, 0.75e8);
	near(limit.bytes_per_s_left, 4.95e8 - 0.75e8);
}

static void without_a_limit_of_all_cache_goes_to_limited_origins_first(void **state)
{
	struct allocate_limit limits[] = {{.bytes_per_s = 1e8}, {.bytes_per_s = 2e8}};
	struct plan_item items[] = {item(80 * GB), item(80 * GB), item(80 * GB)};
	struct allocate_job jobs[] = {job(0, 4e8), job(1, 9e8), job(2, 3e8)};
	struct allocate_cluster c = cluster(0);

	(void)state;
	for (int i = 0; i < 3; i++) {
		items[i].granted_bytes = 1; /* as if filled */
		jobs[i].effective_bytes = 80 * GB;
	}
	items[0].limit = &limits[0];
	items[2].limit = &limits[1];
	c.limits = limits;
	c.limit_count = 2;
	solve(items, 3, jobs, 3, &c);
	near((double)items[0].granted_bytes, 80e9);
	near((double)items[2].granted_bytes, 20e9);
	near(jobs[0].predicted_bytes_per_s, 4e8);
	near(jobs[1].predicted_bytes_per_s, 9e8);
	near(jobs[2].remote_bytes_per_s, 1.98e8);
	near(jobs[2].predicted_bytes_per_s, 1.98e8 / 0.75);
}

static void a_settled_origin_leaves_its_cache_to_itself_and_quotas_to_all(void **state)
{
	struct allocate_limit limit = {.bytes_per_s = 1e7};
	struct plan_item items[] = {item(80 * GB), item(80 * GB), item(80 * GB)};
	struct allocate_job jobs[] = {job(0, 1e9), job(1, 1e9)};
	struct allocate_cluster c = cluster(1e9);
	uint64_t sum = 0;

	(void)state;
	for (enum storage_policy p = STORAGE_POLICY_JOINT; p <= STORAGE_POLICY_WHOLE; p++) {
		c.storage = p;
		c.policy = GPU_POLICY_MAX_MIN;
		c.limits = &limit;
		c.limit_count = 1;
		items[0].limit = &limit;
		items[2].quota_limited = true;
		items[2].quota_bytes = 30 * GB;
		for (int i = 0; i < 2; i++)
			jobs[i].effective_bytes = 80 * GB;
		solve(items, 3, jobs, 2, &c);
		assert_int_equal(items[2].granted_bytes, 30 * GB);
		near(jobs[0].remote_bytes_per_s, 0.99e7);
		near(jobs[0].predicted_bytes_per_s, fmin(1e9, 0.99e7 / (1 - jobs[0].hit_ratio)));
		assert_true(jobs[1].remote_bytes_per_s <= 9.9e8 - 0.98e7);
		sum = items[0].granted_bytes + items[1].granted_bytes + items[2].granted_bytes;
		assert_true(sum <= 101 * GB);
	}
}

static void the_least_of_a_job_is_kept_within_the_limit_of_its_origin(void **state)
{
	struct allocate_limit limit = {.bytes_per_s = 1e8};
	struct plan_item items[] = {item(80 * GB)};
	struct allocate_job jobs[] = {job(0, 1e12), job(0, 1e12), job(0, 1e12)};
	struct allocate_cluster c = cluster(0);

	(void)state;
	c.capacity_bytes = 0;
	c.policy = GPU_POLICY_MAX_MIN;
	c.limits = &limit;
	c.limit_count = 1;
	items[0].limit = &limit;
	jobs[0].min_remote_bytes_per_s = 0.5e8;
	jobs[1].weight = 1e-6;
	solve(items, 1, jobs, 3, &c);
	near(jobs[0].remote_bytes_per_s, 0.5e8);
	assert_true(jobs[1].remote_bytes_per_s >= 0.0099 * 0.99e8 / 3);
	near(jobs[0].remote_bytes_per_s + jobs[1].remote_bytes_per_s + jobs[2].remote_bytes_per_s,
		0.99e8);
	/* More than there is. */
	jobs[0].min_remote_bytes_per_s = jobs[2].min_remote_bytes_per_s = 1e9;
	solve(items, 1, jobs, 3, &c);
	assert_true(jobs[0].remote_bytes_per_s + jobs[1].remote_bytes_per_s +
			    jobs[2].remote_bytes_per_s <=
		    0.99e8 * 1.000001);
}

static void readers_without_a_job_keep_a_part_of_what_they_can_read(void **state)
{
	struct allocate_limit limit = {.bytes_per_s = 1e8, .others = 1};
	struct plan_item items[] = {item(40 * GB), item(40 * GB)};
	struct allocate_job jobs[] = {job(0, 1e12), job(1, 1e12)};
	struct allocate_cluster c = cluster(9e8);

	(void)state;
	c.capacity_bytes = 0;
	c.policy = GPU_POLICY_MAX_MIN;
	c.others = 1;
	c.limits = &limit;
	c.limit_count = 1;
	items[0].limit = &limit;
	solve(items, 2, jobs, 2, &c);
	/* Half of what that origin has; of the rest it could not read. */
	near(limit.other_bytes_per_s, 0.5e8);
	near(jobs[0].remote_bytes_per_s, 0.5e8);
	near(c.other_bytes_per_s, 0.09e8);
	near(jobs[1].remote_bytes_per_s, 9e8 - 0.59e8 - 0.5e8);
}

static void degenerate_clusters_are_solved(void **state)
{
	struct plan_item items[] = {item(0), item(UINT64_MAX / 2)};
	struct allocate_job jobs[] = {job(0, 1e8), job(1, 1e17)};
	struct allocate_cluster c = cluster(1);

	(void)state;
	items[1].blocks = UINT64_MAX / 2;
	c.capacity_bytes = 0;
	solve(items, 2, jobs, 2, &c);
	assert_int_equal(items[1].granted_bytes, 0);
	c = cluster(0);
	solve(items, 2, jobs, 0, &c);
	solve(items, 0, jobs, 0, &c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cache_goes_where_a_byte_saves_most),
		cmocka_unit_test(a_first_epoch_gets_bandwidth_for_what_cannot_hit_yet),
		cmocka_unit_test(a_quota_is_kept_whoever_runs),
		cmocka_unit_test(what_jobs_leave_goes_to_the_rest),
		cmocka_unit_test(readers_without_a_job_keep_a_part_of_the_origins),
		cmocka_unit_test(an_lru_pins_nothing_but_quotas),
		cmocka_unit_test(private_shares_are_by_gpus_and_whole_ones_whole),
		cmocka_unit_test(an_irregular_job_has_room_that_nothing_is_pinned_in),
		cmocka_unit_test(an_unknown_rate_counts_as_the_largest_known_or_an_equal_share),
		cmocka_unit_test(jobs_of_a_limited_origin_share_its_limit_and_others_have_the_rest),
		cmocka_unit_test(a_limit_that_is_not_reached_changes_nothing),
		cmocka_unit_test(without_a_limit_of_all_cache_goes_to_limited_origins_first),
		cmocka_unit_test(a_settled_origin_leaves_its_cache_to_itself_and_quotas_to_all),
		cmocka_unit_test(the_least_of_a_job_is_kept_within_the_limit_of_its_origin),
		cmocka_unit_test(readers_without_a_job_keep_a_part_of_what_they_can_read),
		cmocka_unit_test(degenerate_clusters_are_solved),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
