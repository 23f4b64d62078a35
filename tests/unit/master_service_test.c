#include "tests/unit/master_fixture.h"

static void a_directory_becomes_a_dataset_that_is_mounted(void **state)
{
	struct fixture *f = *state;
	Granary__V1__ImportProgress *last;
	Granary__V1__OpenMountReply *mount;
	Granary__V1__MountHeartbeatReply *beat;
	Granary__V1__MountHeartbeatRequest request;
	char tree[128], url[160];

	snprintf(tree, sizeof(tree), "%s/tree", f->dir);
	assert_int_equal(mkdir(tree, 0755), 0);
	write_file(tree, "a", 10);
	write_file(tree, "b", 20);
	snprintf(url, sizeof(url), "file://%s", tree);
	worker_join(f, 7, 1 << 20);
	if (call_add(f, "data", url, &last) < 0)
		fail_msg("%s", f->err.text);
	assert_string_equal(last->dataset->name, "data");
	assert_string_equal(last->dataset->origin, url);
	assert_string_equal(last->phase, "done");
	assert_int_equal(last->dataset->files, 2);
	assert_int_equal(last->dataset->bytes, 30);
	assert_int_equal(last->dataset->snapshot, 1);
	assert_int_equal(last->dataset->granted_bytes, 30);
	assert_int_equal(last->report->added, 2);
	granary__v1__import_progress__free_unpacked(last, NULL);

	assert_int_equal(call_open(f, "data", &mount), 0);
	assert_string_equal(mount->plan->origin, url);
	assert_int_equal(mount->plan->snapshots[0]->snapshot, 1);
	assert_true(mount->plan->threshold == UINT64_MAX);
	assert_int_equal(mount->n_workers, 1);
	assert_string_equal(mount->workers[0]->lease_socket, "/run/lease");
	request = mount_beat(mount->mount_id, 1);
	assert_int_equal(call_mount_beat(f, &request, &beat), 0);
	assert_int_equal(beat->plan->snapshots[0]->snapshot, 1);
	granary__v1__mount_heartbeat_reply__free_unpacked(beat, NULL);
	assert_int_equal(call_close(f, mount->mount_id, NULL), 0);
	granary__v1__open_mount_reply__free_unpacked(mount, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_directory_becomes_a_dataset_that_is_mounted,
			fixture_setup, fixture_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
