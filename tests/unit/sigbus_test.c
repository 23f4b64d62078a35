#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/sigbus.h"

#define PAGES 8

static size_t page_bytes;

struct faults {
	_Atomic unsigned count;
	_Atomic size_t last_offset;
};

static void on_fault(void *arg, size_t offset)
{
	struct faults *f = arg;

	atomic_fetch_add(&f->count, 1);
	atomic_store(&f->last_offset, offset);
}

/* A map of PAGES pages of 'x', of which the file then loses all but `keep`. */
static char *map_cut_file(size_t keep)
{
	char path[] = "/tmp/granary-sigbus-XXXXXX";
	int fd = mkstemp(path);
	char *map, *text = malloc(PAGES * page_bytes);

	assert_true(fd >= 0);
	unlink(path);
	memset(text, 'x', PAGES * page_bytes);
	assert_int_equal(write(fd, text, PAGES * page_bytes), PAGES * page_bytes);
	free(text);
	map = mmap(NULL, PAGES * page_bytes, PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_equal(ftruncate(fd, (off_t)(keep * page_bytes)), 0);
	close(fd);
	return map;
}

static char touch(const char *at)
{
	return *(const volatile char *)at;
}

static void a_page_that_cannot_be_read_becomes_zeros_and_is_reported_once(void **state)
{
	char *map = map_cut_file(2);
	struct faults f = {0};
	int slot = sigbus_guard(map, PAGES * page_bytes, on_fault, &f, NULL);

	(void)state;
	assert_true(slot >= 0);
	assert_int_equal(touch(map + 2 * page_bytes - 1), 'x');
	assert_int_equal(f.count, 0);
	assert_int_equal(touch(map + 5 * page_bytes + 7), 0);
	assert_int_equal(f.count, 1);
	assert_int_equal(f.last_offset, 5 * page_bytes);
	assert_int_equal(touch(map + 5 * page_bytes + 9), 0);
	assert_int_equal(f.count, 1);
	assert_int_equal(touch(map + 2 * page_bytes), 0);
	assert_int_equal(f.count, 2);
	assert_int_equal(touch(map), 'x');
	sigbus_unguard(slot);
	munmap(map, PAGES * page_bytes);
}

static void each_range_reports_to_its_owner(void **state)
{
	char *a = map_cut_file(0), *b = map_cut_file(0);
	struct faults fa = {0}, fb = {0};
	int slot_a = sigbus_guard(a, PAGES * page_bytes, on_fault, &fa, NULL);
	int slot_b = sigbus_guard(b, PAGES * page_bytes, on_fault, &fb, NULL);

	(void)state;
	touch(b);
	assert_int_equal(fa.count, 0);
	assert_int_equal(fb.count, 1);
	sigbus_unguard(slot_b);
	touch(a + page_bytes);
	assert_int_equal(fa.count, 1);
	assert_int_equal(fb.count, 1);
	sigbus_unguard(slot_a);
	munmap(a, PAGES * page_bytes);
	munmap(b, PAGES * page_bytes);
}

static void the_table_is_bounded_and_its_slots_are_used_again(void **state)
{
	char *map = map_cut_file(PAGES);
	struct error err = ERROR_INIT;
	int slots[SIGBUS_RANGES_MAX];
	struct faults f = {0};

	(void)state;
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < SIGBUS_RANGES_MAX; i++) {
			slots[i] = sigbus_guard(map, page_bytes, on_fault, &f, NULL);
			assert_true(slots[i] >= 0);
		}
		assert_int_equal(sigbus_guard(map, page_bytes, on_fault, &f, &err), -ENOSPC);
		assert_true(err.text[0] != '\0');
		for (int i = 0; i < SIGBUS_RANGES_MAX; i++)
			sigbus_unguard(slots[i]);
	}
	munmap(map, PAGES * page_bytes);
}

/* Runs `fn` in a child; returns its wait status. */
static int status_of(void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void guard_something(void)
{
	static struct faults f;

	sigbus_guard(map_cut_file(1), page_bytes, on_fault, &f, NULL);
}

static void previous_handler(int sig)
{
	(void)sig;
	_exit(7);
}

static void fault_elsewhere(void)
{
	guard_something();
	touch(map_cut_file(0));
}

static void fault_elsewhere_with_a_handler_before(void)
{
	signal(SIGBUS, previous_handler);
	fault_elsewhere();
}

static void signal_sent_with_a_handler_before(void)
{
	signal(SIGBUS, previous_handler);
	guard_something();
	raise(SIGBUS);
}

static void fault_elsewhere_by_default(void)
{
	signal(SIGBUS, SIG_DFL);
	fault_elsewhere();
}

static void signal_sent_by_default(void)
{
	signal(SIGBUS, SIG_DFL);
	guard_something();
	raise(SIGBUS);
}

/* First of all tests: the handler is installed once a process, and the children need it not yet. */
static void what_is_not_guarded_goes_where_it_went_before(void **state)
{
	int status;

	(void)state;
	status = status_of(fault_elsewhere_with_a_handler_before);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	status = status_of(signal_sent_with_a_handler_before);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	status = status_of(fault_elsewhere_by_default);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	status = status_of(signal_sent_by_default);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_not_guarded_goes_where_it_went_before),
		cmocka_unit_test(a_page_that_cannot_be_read_becomes_zeros_and_is_reported_once),
		cmocka_unit_test(each_range_reports_to_its_owner),
		cmocka_unit_test(the_table_is_bounded_and_its_slots_are_used_again),
	};

	page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
