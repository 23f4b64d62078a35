/* Grants and thresholds, alone and through the services. */
#include "tests/unit/master_fixture.h"

#include "manifest/block.h"
#include "master/plan.h"
#include "placement/pin.h"

#define MIB ((uint64_t)1 << 20)

static uint64_t charged(const struct plan_item *i)
{
	return i->granted_bytes + (i->bytes ? i->granted_bytes * (i->blocks * 4096) / i->bytes : 0);
}

static void quotas_are_granted_to_the_byte(void **state)
{
	struct plan_item items[] = {
		{.bytes = 1000003, .blocks = 9, .quota_limited = true, .quota_bytes = 500001},
		{.bytes = 1000, .blocks = 1, .quota_limited = true, .quota_bytes = 5000},
		{.bytes = 1000, .blocks = 1, .quota_limited = true, .quota_bytes = 0},
		{.bytes = 0, .blocks = 0},
		{.bytes = 100000, .blocks = 1},
	};

	(void)state;
	assert_int_equal(plan_grant(items, 5, 10 * MIB), 0);
	assert_int_equal(items[0].granted_bytes, 500001);
	assert_int_equal(items[1].granted_bytes, 1000);
	assert_int_equal(items[2].granted_bytes, 0);
	assert_int_equal(items[3].granted_bytes, 0);
	assert_int_equal(items[4].granted_bytes, 100000);
}

static void what_is_pinned_fits_the_disk_with_its_alignment(void **state)
{
	/* Ten thousand files of 100 bytes take forty times their size. */
	struct plan_item small = {.bytes = 1000000, .blocks = 10000, .mounted = true};
	struct plan_item large = {.bytes = 1000 * MIB, .blocks = 250, .mounted = true};
	struct plan_item items[2] = {small, large};

	(void)state;
	assert_int_equal(plan_grant(items, 2, 100 * MIB), 0);
	assert_true(charged(&items[0]) + charged(&items[1]) <= 97 * MIB);
	assert_true(charged(&items[0]) + charged(&items[1]) > 96 * MIB);
	assert_int_equal(items[0].granted_bytes, 1000000); /* the smaller one is satisfied */
}

static void nothing_overflows(void **state)
{
	struct plan_item items[] = {
		{.bytes = INT64_MAX, .blocks = UINT64_MAX / 2, .mounted = true},
		{.bytes = INT64_MAX, .blocks = INT64_MAX / BLOCK_BYTES},
	};

	(void)state;
	assert_int_equal(plan_grant(items, 2, UINT64_MAX), 0);
	assert_true(items[0].granted_bytes <= items[0].bytes);
	assert_true(items[1].granted_bytes <= items[1].bytes);
	assert_int_equal(plan_grant(items, 2, 0), 0);
	assert_int_equal(items[0].granted_bytes, 0);
	assert_int_equal(plan_grant(NULL, 0, 100), 0);
}

/* ---- through the services -------------------------------------------------------------------- */

static void put_files(struct fixture *f, int count, uint64_t size)
{
	char name[64];

	for (int i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "f%04d", i);
		mem_store_put_pattern(f->store, name, size + (uint64_t)i, (uint64_t)i);
	}
}

/* The bytes under the threshold, and the next block's size that would have to fit too. */
static uint64_t pinned_by_hand(struct manifest *m, uint64_t threshold, uint64_t *ret_next_bytes)
{
	uint64_t sum = 0, next_hash = UINT64_MAX;

	*ret_next_bytes = 0;
	for (uint32_t i = 0; i < manifest_info(m)->entries; i++) {
		struct manifest_entry e;

		assert_int_equal(manifest_entry(m, i, &e), 0);
		for (uint64_t b = 0; e.type == MANIFEST_FILE && b < block_count(e.size); b++) {
			struct block_id id = block_id_make(&e.object, b);
			uint64_t hash = block_pin_hash(&id);

			if (pin_holds(threshold, &id)) {
				sum += block_len(e.size, b);
			} else if (hash < next_hash) {
				next_hash = hash;
				*ret_next_bytes = block_len(e.size, b);
			}
		}
	}
	return sum;
}

static void a_quota_pins_as_much_as_fits_and_no_more(void **state)
{
	struct fixture *f = *state;
	Granary__V1__Dataset *d;
	struct manifest *m;
	uint64_t next, pinned;

	put_files(f, 500, 100000);
	mem_store_put_pattern(f->store, "large", 21 * MIB + 17, 5);
	worker_join(f, 1, 1000 * MIB);
	assert_int_equal(call_add(f, "data", "mem://data", NULL), 0);
	for (uint64_t quota = 0; quota < 60 * MIB; quota = quota * 3 + 99999) {
		assert_int_equal(call_quota(f, "data", true, quota, &d), 0);
		assert_int_equal(d->granted_bytes, quota);
		assert_int_equal(d->quota_bytes, quota);
		m = open_manifest(f, d->manifest_digest);
		pinned = pinned_by_hand(m, d->threshold, &next);
		assert_int_equal(pinned, d->pin_target_bytes);
		assert_true(pinned <= quota);
		assert_true(pinned + next > quota);
		manifest_unref(m);
		granary__v1__dataset__free_unpacked(d, NULL);
	}
	assert_int_equal(call_quota(f, "data", false, 0, &d), 0);
	assert_true(d->threshold == PIN_ALL);
	assert_false(d->quota_limited);
	assert_int_equal(d->pin_target_bytes, d->bytes);
	granary__v1__dataset__free_unpacked(d, NULL);
}

static void a_quota_beyond_the_disk_shows_what_is_granted(void **state)
{
	struct fixture *f = *state;
	Granary__V1__Dataset *d;

	put_files(f, 10, 10 * MIB);
	worker_join(f, 1, 50 * MIB);
	assert_int_equal(call_add(f, "data", "mem://data", NULL), 0);
	assert_int_equal(call_quota(f, "data", true, 500 * MIB, &d), 0);
	assert_int_equal(d->quota_bytes, 500 * MIB);
	assert_true(d->granted_bytes > 47 * MIB && d->granted_bytes < 49 * MIB);
	granary__v1__dataset__free_unpacked(d, NULL);
	assert_int_equal(call_quota(f, "nothing", true, 5, &d), -ENOENT);
}

static void without_quotas_the_mounted_come_first(void **state)
{
	struct fixture *f = *state;
	struct mem_store *other = mem_store_new("other");
	Granary__V1__OpenMountReply *mount;
	Granary__V1__Dataset *idle, *used;

	put_files(f, 10, 10 * MIB);
	mem_store_put_pattern(other, "x", 100 * MIB, 1);
	worker_join(f, 1, 110 * MIB);
	assert_int_equal(call_add(f, "other", "mem://other", NULL), 0);
	assert_int_equal(call_get(f, "other", &idle), 0);
	assert_int_equal(idle->granted_bytes, 100 * MIB); /* nobody else needs it */
	granary__v1__dataset__free_unpacked(idle, NULL);
	assert_int_equal(call_add(f, "data", "mem://data", NULL), 0);
	assert_int_equal(call_open(f, "data", &mount), 0);
	assert_int_equal(call_get(f, "data", &used), 0);
	assert_int_equal(used->granted_bytes, used->bytes);
	assert_int_equal(used->mounts, 1);
	assert_int_equal(call_get(f, "other", &idle), 0);
	assert_true(idle->granted_bytes < 10 * MIB);
	granary__v1__dataset__free_unpacked(idle, NULL);
	granary__v1__dataset__free_unpacked(used, NULL);
	granary__v1__open_mount_reply__free_unpacked(mount, NULL);
	mem_store_free(other);
}

static void a_worker_is_told_when_the_plan_changes_and_only_then(void **state)
{
	struct fixture *f = *state;
	Granary__V1__WorkerHeartbeatRequest beat = worker_beat(1, 1000 * MIB);
	Granary__V1__WorkerHeartbeatReply *reply;
	Granary__V1__Dataset *d;
	uint64_t threshold;

	put_files(f, 100, 100000);
	reply = worker_plan(f, &beat);
	assert_int_equal(reply->n_datasets, 0);
	beat.plan_version = reply->plan_version;
	granary__v1__worker_heartbeat_reply__free_unpacked(reply, NULL);
	assert_int_equal(call_add(f, "data", "mem://data", NULL), 0);
	reply = worker_plan(f, &beat);
	assert_int_equal(reply->n_datasets, 1);
	assert_string_equal(reply->datasets[0]->name, "data");
	assert_string_equal(reply->datasets[0]->origin, "mem://data");
	assert_int_equal(reply->datasets[0]->n_snapshots, 1);
	beat.plan_version = reply->plan_version;
	granary__v1__worker_heartbeat_reply__free_unpacked(reply, NULL);

	assert_int_equal(call_unary(f, CLUSTER "WorkerHeartbeat", &beat.base,
				 &granary__v1__worker_heartbeat_reply__descriptor, &reply),
		0);
	assert_false(reply->has_plan);
	assert_int_equal(reply->n_datasets, 0);
	assert_true(reply->plan_version == beat.plan_version);
	assert_int_equal(reply->interval_ms, 1000);
	granary__v1__worker_heartbeat_reply__free_unpacked(reply, NULL);

	assert_int_equal(call_quota(f, "data", true, 1000000, &d), 0);
	threshold = d->threshold;
	granary__v1__dataset__free_unpacked(d, NULL);
	reply = worker_plan(f, &beat);
	assert_true(reply->datasets[0]->threshold == threshold);
	assert_int_equal(reply->datasets[0]->granted_bytes, 1000000);
	beat.plan_version = reply->plan_version;
	granary__v1__worker_heartbeat_reply__free_unpacked(reply, NULL);
	assert_int_equal(call_remove(f, "data", false), 0);
	reply = worker_plan(f, &beat);
	assert_int_equal(reply->n_datasets, 0);
	granary__v1__worker_heartbeat_reply__free_unpacked(reply, NULL);
}

/* In thousandths of what the plan pins. */
static uint64_t pin_expected(struct fixture *f)
{
	Granary__V1__Dataset *d;
	uint64_t share;

	assert_int_equal(call_get(f, "data", &d), 0);
	assert_true(d->pin_target_bytes > 400 * MIB);
	share = d->pin_expected_bytes * 1000 / d->pin_target_bytes;
	granary__v1__dataset__free_unpacked(d, NULL);
	return share;
}

/* Half of the files are pinned. Of two workers one has three quarters of the capacity. */
static void what_full_workers_do_not_pin_is_not_expected(void **state)
{
	struct fixture *f = *state;
	Granary__V1__WorkerHeartbeatRequest beat = worker_beat(1, 750 * MIB);
	Granary__V1__WorkerHeartbeatReply *reply;
	Granary__V1__Dataset *d;
	uint64_t threshold;

	put_files(f, 1000, MIB);
	worker_join(f, 1, 750 * MIB);
	worker_join(f, 2, 250 * MIB);
	assert_int_equal(call_add(f, "data", "mem://data", NULL), 0);
	assert_int_equal(call_quota(f, "data", true, 500 * MIB, &d), 0);
	threshold = d->threshold;
	granary__v1__dataset__free_unpacked(d, NULL);
	/* One that says nothing is not full. */
	assert_int_equal(pin_expected(f), 1000);
	beat.pin_ceiling = threshold / 2;
	beat.plan_version = 1;
	reply = worker_plan(f, &beat);
	beat.plan_version = reply->plan_version;
	granary__v1__worker_heartbeat_reply__free_unpacked(reply, NULL);
	assert_in_range(pin_expected(f), 624, 625);
	/* A ceiling above the threshold takes nothing away. */
	beat.pin_ceiling = threshold + 1;
	assert_int_equal(call_unary(f, CLUSTER "WorkerHeartbeat", &beat.base,
				 &granary__v1__worker_heartbeat_reply__descriptor, &reply),
		0);
	granary__v1__worker_heartbeat_reply__free_unpacked(reply, NULL);
	assert_int_equal(pin_expected(f), 1000);
}

static void a_restarted_master_tells_the_same_plan_to_the_first_worker_that_comes(void **state)
{
	struct fixture *f = *state;
	Granary__V1__WorkerHeartbeatRequest beat = worker_beat(1, 500 * MIB);
	Granary__V1__WorkerHeartbeatReply *reply;
	Granary__V1__Dataset *d;
	uint64_t threshold, version;

	put_files(f, 100, 10 * MIB);
	worker_join(f, 1, 500 * MIB);
	worker_join(f, 2, 400 * MIB);
	assert_int_equal(call_add(f, "data", "mem://data", NULL), 0);
	assert_int_equal(call_quota(f, "data", true, 700 * MIB, &d), 0);
	assert_int_equal(d->granted_bytes, 700 * MIB);
	threshold = d->threshold;
	mutex_lock(&f->master->mu);
	version = f->master->plan_version;
	mutex_unlock(&f->master->mu);
	granary__v1__dataset__free_unpacked(d, NULL);
	fixture_restart(f);
	beat.plan_version = version;
	/* The second worker has not come yet: its capacity is remembered. */
	reply = worker_plan(f, &beat);
	assert_true(reply->plan_version != version);
	assert_true(reply->datasets[0]->threshold == threshold);
	granary__v1__worker_heartbeat_reply__free_unpacked(reply, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(quotas_are_granted_to_the_byte),
		cmocka_unit_test(what_is_pinned_fits_the_disk_with_its_alignment),
		cmocka_unit_test(nothing_overflows),
		TEST(a_quota_pins_as_much_as_fits_and_no_more),
		TEST(a_quota_beyond_the_disk_shows_what_is_granted),
		TEST(without_quotas_the_mounted_come_first),
		TEST(a_worker_is_told_when_the_plan_changes_and_only_then),
		TEST(what_full_workers_do_not_pin_is_not_expected),
		TEST(a_restarted_master_tells_the_same_plan_to_the_first_worker_that_comes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
