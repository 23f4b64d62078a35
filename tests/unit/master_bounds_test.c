/* Every table of the master has a bound, and what it shows is bounded and printable. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/log.h"
#include "common/rpc/rpc.h"
#include "master/dataset_registry.h"
#include "master/import_report.h"
#include "master/messages.h"
#include "master/mounts.h"
#include "master/text.h"
#include "master/workers.h"

static struct dataset *dataset_make(uint64_t id, size_t pattern_bytes)
{
	Granary__State__V1__DatasetConfig *c = malloc(sizeof(*c));
	char name[32];

	granary__state__v1__dataset_config__init(c);
	snprintf(name, sizeof(name), "d%llu", (unsigned long long)id);
	c->name = strdup(name);
	c->origin = strdup("file:///data");
	c->include = calloc(1, sizeof(*c->include));
	c->include[0] = calloc(1, pattern_bytes + 1);
	memset(c->include[0], 'x', pattern_bytes);
	c->n_include = 1;
	return dataset_new(id, dataset_config_new(c), NULL);
}

static void datasets_are_bounded_in_number(void **state)
{
	struct dataset_registry r = {0};
	struct error err = ERROR_INIT;
	struct dataset *d;

	(void)state;
	for (uint64_t i = 1; i <= DATASETS_MAX; i++)
		assert_int_equal(dataset_registry_insert(&r, dataset_make(i, 1), &err), 0);
	d = dataset_make(DATASETS_MAX + 1, 1);
	assert_int_equal(dataset_registry_insert(&r, d, &err), -ENOSPC);
	dataset_registry_remove(&r, dataset_registry_get(&r, 5));
	assert_int_equal(dataset_registry_insert(&r, d, &err), 0);
	assert_ptr_equal(dataset_registry_find(&r, "d10001"), d);
	dataset_registry_deinit(&r);
	assert_int_equal(r.config_bytes, 0);
}

static void datasets_are_bounded_in_what_their_plan_takes(void **state)
{
	struct dataset_registry r = {0};
	struct error err = ERROR_INIT;
	struct dataset *d;
	uint64_t count = 0;
	size_t bytes = 0;

	(void)state;
	for (;;) {
		struct plan_entry e;

		d = dataset_make(++count, 65536);
		if (dataset_registry_insert(&r, d, &err) < 0)
			break;
		assert_int_equal(plan_entry_init(&e, d, 0, true), 0);
		bytes += granary__v1__dataset_plan__get_packed_size(&e.msg) + 8;
		plan_entry_deinit(&e);
	}
	dataset_free(d);
	assert_true(count > 50 && count < 100);
	assert_true(bytes < RPC_MESSAGE_MAX_BYTES);
	dataset_registry_deinit(&r);
}

static void workers_are_bounded(void **state)
{
	Granary__V1__WorkerHeartbeatRequest request = GRANARY__V1__WORKER_HEARTBEAT_REQUEST__INIT;
	struct dataset_registry r = {0};
	struct workers w = {0};
	struct jobs jobs = {0};
	struct error err = ERROR_INIT;
	bool changed;

	(void)state;
	request.address = (char *)"x:1";
	for (uint64_t i = 1; i <= WORKERS_MAX; i++) {
		request.worker_id = i;
		assert_int_equal(workers_heard(&w, &r, &jobs, &request, 1000, &changed, &err), 0);
		assert_true(changed);
	}
	request.worker_id++;
	assert_int_equal(workers_heard(&w, &r, &jobs, &request, 1000, &changed, &err), -ENOSPC);
	request.worker_id = 7;
	assert_int_equal(workers_heard(&w, &r, &jobs, &request, 2000, &changed, &err), 0);
	assert_false(changed);
	workers_deinit(&w);
}

static void mounts_are_bounded(void **state)
{
	Granary__V1__OpenMountRequest request = GRANARY__V1__OPEN_MOUNT_REQUEST__INIT;
	struct dataset *d = dataset_make(1, 1);
	struct dataset_registry r = {0};
	struct mounts m = {0};
	struct jobs jobs = {0};
	struct error err = ERROR_INIT;
	struct mount_peer *p;
	char *long_path = calloc(1, MOUNT_PATH_BYTES + 1);

	(void)state;
	assert_int_equal(dataset_registry_insert(&r, d, &err), 0);
	for (uint64_t i = 1; i <= MOUNTS_MAX; i++)
		assert_int_equal(mounts_open(&m, d, NULL, i, &request, 0, &p, &err), 0);
	assert_int_equal(mounts_open(&m, d, NULL, MOUNTS_MAX + 1, &request, 0, &p, &err), -ENOSPC);
	assert_int_equal(d->live_mounts, MOUNTS_MAX);
	mounts_remove(&m, &r, &jobs, p);
	assert_int_equal(d->live_mounts, MOUNTS_MAX - 1);
	memset(long_path, '/', MOUNT_PATH_BYTES);
	request.mountpoint = long_path;
	assert_int_equal(mounts_open(&m, d, NULL, MOUNTS_MAX + 1, &request, 0, &p, &err), -EINVAL);
	free(long_path);
	mounts_deinit(&m);
	dataset_registry_deinit(&r);
}

static void a_report_is_bounded(void **state)
{
	struct import_report *r = import_report_new();
	Granary__V1__ImportReport *m;
	char reason[32], path[1000];

	(void)state;
	memset(path, 'p', sizeof(path));
	for (int i = 0; i < 100; i++)
		for (int j = 0; j < 200; j++) {
			snprintf(reason, sizeof(reason), "reason %d", i);
			import_report_skip(r, reason, path, sizeof(path));
		}
	m = import_report_message(r);
	assert_int_equal(m->n_skipped, IMPORT_REASONS_MAX);
	assert_string_equal(m->skipped[0]->reason, "reason 0");
	assert_int_equal(m->skipped[0]->count, 200);
	assert_int_equal(m->skipped[0]->n_examples, IMPORT_EXAMPLES_MAX);
	assert_int_equal(m->skipped[0]->examples[0].len, IMPORT_EXAMPLE_MAX_BYTES);
	assert_string_equal(m->skipped[IMPORT_REASONS_MAX - 1]->reason, "other reasons");
	assert_int_equal(
		m->skipped[IMPORT_REASONS_MAX - 1]->count, 200 * (100 - IMPORT_REASONS_MAX + 1));
	assert_true(granary__v1__import_report__get_packed_size(m) < RPC_MESSAGE_MAX_BYTES / 4);
	granary__v1__import_report__free_unpacked(m, NULL);
	import_report_free(r);
}

static void check_text(const char *in, const char *want, size_t room)
{
	char out[64];

	text_copy_printable(out, room, in);
	assert_string_equal(out, want);
}

static void text_from_the_wire_is_made_valid_and_cut_between_characters(void **state)
{
	(void)state;
	check_text("plain", "plain", 64);
	check_text(
		"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 64);
	check_text("a\x01\n\x7f", "a???", 64);
	check_text("\xff\xc3", "??", 64);
	check_text("\xc0\xaf", "??", 64);	    /* overlong */
	check_text("\xed\xa0\x80", "???", 64);	    /* half a surrogate pair */
	check_text("\xf4\x90\x80\x80", "????", 64); /* beyond the last */
	check_text("abc\xc3\xa4", "abc", 5);	    /* no half character */
	check_text("abcdef", "abcd", 5);
	check_text("", "", 1);
}

static void credentials_in_urls_are_seen(void **state)
{
	(void)state;
	assert_true(dataset_url_has_credentials("http://u:p@host/x"));
	assert_true(dataset_url_has_credentials("https://token@host"));
	assert_false(dataset_url_has_credentials("http://host/x@y"));
	assert_false(dataset_url_has_credentials("http://host?a=b@c"));
	assert_false(dataset_url_has_credentials("a@b"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(datasets_are_bounded_in_number),
		cmocka_unit_test(datasets_are_bounded_in_what_their_plan_takes),
		cmocka_unit_test(workers_are_bounded),
		cmocka_unit_test(mounts_are_bounded),
		cmocka_unit_test(a_report_is_bounded),
		cmocka_unit_test(text_from_the_wire_is_made_valid_and_cut_between_characters),
		cmocka_unit_test(credentials_in_urls_are_seen),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
