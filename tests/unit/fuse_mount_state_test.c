#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuse/mount_state.h"
#include "fuse/open_records.h"

#define DIGEST_A "0123456789abcdef0123456789abcdef"
#define DIGEST_B "fedcba9876543210fedcba9876543210"

static struct mount_state *state_new(int *ret_fd)
{
	struct error err = ERROR_INIT;
	struct mount_state *s;

	assert_int_equal(mount_state_new(&s, ret_fd, &err), 0);
	return s;
}

static void another_process_sees_what_one_wrote(void **arg)
{
	struct error err = ERROR_INIT;
	struct mount_state *mine, *other;
	char digest[MANIFEST_DIGEST_TEXT_BYTES];
	const void *plan;
	size_t bytes;
	int fd;

	(void)arg;
	mine = state_new(&fd);
	mount_state_show(mine, 0, DIGEST_A);
	assert_int_equal(mount_state_plan_set(mine, "plan", 4), 0);
	assert_int_equal(mount_state_map(fd, &other, &err), 0);
	assert_true(mount_state_shown(other, 0, digest));
	assert_string_equal(digest, DIGEST_A);
	plan = mount_state_plan_get(other, &bytes);
	assert_int_equal(bytes, 4);
	assert_memory_equal(plan, "plan", 4);
	mount_state_unmap(mine);
	mount_state_unmap(other);
	close(fd);
}

static void another_version_or_memory_is_refused(void **arg)
{
	struct error err = ERROR_INIT;
	struct mount_state *mine, *other;
	int fd, open = memfd_create("test", MFD_CLOEXEC), closed;

	(void)arg;
	mine = state_new(&fd);
	mine->version++;
	assert_int_equal(mount_state_map(fd, &other, &err), -EPROTO);
	assert_non_null(strstr(err.text, "version"));
	mine->version--;
	mine->settings_bytes = MOUNT_STATE_SETTINGS_BYTES + 1;
	assert_int_equal(mount_state_map(fd, &other, &err), -EPROTO);
	mine->settings_bytes = 0;
	mine->magic++;
	assert_int_equal(mount_state_map(fd, &other, &err), -EPROTO);
	/* One that can be made shorter, one that is, and what is no memory at all. */
	assert_int_equal(ftruncate(open, sizeof(*mine)), 0);
	assert_int_equal(mount_state_map(open, &other, &err), -EPROTO);
	closed = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(mount_state_map(closed, &other, &err), -EPROTO);
	assert_int_equal(mount_state_map(STDIN_FILENO, &other, &err), -EPROTO);
	mount_state_unmap(mine);
	close(fd);
	close(open);
	close(closed);
}

static void a_snapshot_whose_place_is_being_written_is_none(void **arg)
{
	char digest[MANIFEST_DIGEST_TEXT_BYTES];
	struct mount_state *s;
	int fd;

	(void)arg;
	s = state_new(&fd);
	for (uint32_t n = 0; n <= SNAPSHOT_SLOTS; n++)
		mount_state_show(s, n, n % 2 ? DIGEST_B : DIGEST_A);
	assert_false(mount_state_shown(s, 0, digest));
	assert_true(mount_state_shown(s, 1, digest));
	assert_string_equal(digest, DIGEST_B);
	assert_true(mount_state_shown(s, SNAPSHOT_SLOTS, digest));
	assert_false(mount_state_shown(s, SNAPSHOT_SLOTS + 1, digest));
	/* As a writer leaves it that was killed before `current` moved on. */
	atomic_store(&s->slots[1].number_plus_1, SNAPSHOT_SLOTS + 2);
	assert_false(mount_state_shown(s, 1, digest));
	assert_true(mount_state_shown(s, 2, digest));
	mount_state_unmap(s);
	close(fd);
}

static void a_plan_that_is_too_long_leaves_the_one_before(void **arg)
{
	struct mount_state *s;
	size_t bytes;
	char *long_one = calloc(1, MOUNT_STATE_PLAN_BYTES + 1);
	int fd;

	(void)arg;
	s = state_new(&fd);
	assert_null(mount_state_plan_get(s, &bytes));
	assert_int_equal(mount_state_plan_set(s, "one", 3), 0);
	assert_int_equal(mount_state_plan_set(s, long_one, MOUNT_STATE_PLAN_BYTES + 1), -EMSGSIZE);
	assert_memory_equal(mount_state_plan_get(s, &bytes), "one", 3);
	assert_int_equal(mount_state_plan_set(s, "two", 3), 0);
	assert_memory_equal(mount_state_plan_get(s, &bytes), "two", 3);
	s->plans[0].bytes = s->plans[1].bytes = MOUNT_STATE_PLAN_BYTES + 1;
	assert_null(mount_state_plan_get(s, &bytes));
	free(long_one);
	mount_state_unmap(s);
	close(fd);
}

/* ---- open_records.h -------------------------------------------------------------------------- */

static void an_open_is_found_by_its_request_and_released_once(void **arg)
{
	struct open_records r;
	struct mount_state *s;
	uint64_t a, b;
	int fd;

	(void)arg;
	s = state_new(&fd);
	open_records_init(&r, s);
	a = open_records_add(&r, OPEN_TRACKED, 7, 100);
	b = open_records_add(&r, OPEN_COUNTED, 7, 102);
	assert_true(a != 0 && b != 0 && a != b);
	assert_true(open_records_find(&r, 7, 100) == a);
	assert_true(open_records_find(&r, 7, 102) == b);
	assert_true(open_records_find(&r, 8, 100) == 0);
	assert_int_equal(open_records_remove(&r, a, 8), OPEN_FREE);
	assert_int_equal(open_records_remove(&r, a, 7), OPEN_TRACKED);
	assert_int_equal(open_records_remove(&r, a, 7), OPEN_FREE);
	assert_true(open_records_find(&r, 7, 100) == 0);
	assert_int_equal(open_records_remove(&r, b, 7), OPEN_COUNTED);
	assert_int_equal(open_records_remove(&r, 0, 7), OPEN_FREE);
	assert_int_equal(open_records_remove(&r, UINT64_MAX, 7), OPEN_FREE);
	open_records_deinit(&r);
	mount_state_unmap(s);
	close(fd);
}

static void a_late_release_spares_the_next_open_in_its_place(void **arg)
{
	struct open_records r;
	struct mount_state *s;
	uint64_t first, last = 0;
	int fd;

	(void)arg;
	s = state_new(&fd);
	open_records_init(&r, s);
	first = open_records_add(&r, OPEN_TRACKED, 7, 1);
	for (uint32_t i = 1; i < MOUNT_STATE_OPENS; i++)
		assert_true(open_records_add(&r, OPEN_TRACKED, 7, 2 * i + 1) != 0);
	assert_true(open_records_add(&r, OPEN_TRACKED, 7, 3) == 0);
	assert_int_equal(open_records_remove(&r, first, 7), OPEN_TRACKED);
	last = open_records_add(&r, OPEN_TRACKED, 7, 9);
	assert_true(last != 0 && last != first);
	assert_int_equal(open_records_remove(&r, first, 7), OPEN_FREE);
	assert_int_equal(open_records_remove(&r, last, 7), OPEN_TRACKED);
	open_records_deinit(&r);
	mount_state_unmap(s);
	close(fd);
}

static void backing_files_are_known_until_they_are_closed(void **arg)
{
	struct open_records r;
	struct mount_state *s;
	int fd, place;

	(void)arg;
	s = state_new(&fd);
	open_records_init(&r, s);
	open_records_backing_seen(&r, 5);
	open_records_backing_seen(&r, 4);
	assert_int_equal(atomic_load(&s->last_backing_id), 5);
	place = open_records_backing_add(&r, 7, 5);
	assert_true(place >= 0);
	assert_true(open_records_backing_known(&r, 5));
	assert_false(open_records_backing_known(&r, 4));
	open_records_backing_closing(&r, (uint32_t)place);
	assert_true(open_records_backing_known(&r, 5));
	open_records_backing_closed(&r, (uint32_t)place);
	assert_false(open_records_backing_known(&r, 5));
	for (uint32_t i = 0; i < MOUNT_STATE_BACKINGS; i++)
		assert_true(open_records_backing_add(&r, i + 2, (int32_t)i + 1) >= 0);
	assert_int_equal(open_records_backing_add(&r, 1, 1), -ENOSPC);
	open_records_deinit(&r);
	mount_state_unmap(s);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(another_process_sees_what_one_wrote),
		cmocka_unit_test(another_version_or_memory_is_refused),
		cmocka_unit_test(a_snapshot_whose_place_is_being_written_is_none),
		cmocka_unit_test(a_plan_that_is_too_long_leaves_the_one_before),
		cmocka_unit_test(an_open_is_found_by_its_request_and_released_once),
		cmocka_unit_test(a_late_release_spares_the_next_open_in_its_place),
		cmocka_unit_test(backing_files_are_known_until_they_are_closed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
