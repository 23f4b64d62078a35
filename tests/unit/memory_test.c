#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "common/memory.h"

#define MIB (UINT64_C(1) << 20)

static char root[64];

/* Makes the folders on the way, too. */
static void put(const char *path, const char *text)
{
	char full[512];
	FILE *f;

	snprintf(full, sizeof(full), "%s%s", root, path);
	for (char *at = full + strlen(root) + 1; (at = strchr(at, '/')); *at++ = '/') {
		*at = '\0';
		mkdir(full, 0700);
	}
	f = fopen(full, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static int setup(void **state)
{
	(void)state;
	strcpy(root, "/tmp/granary-memory-XXXXXX");
	assert_non_null(mkdtemp(root));
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", root);
	return system(command);
}

static void where_nothing_is_said_there_is_no_limit(void **state)
{
	(void)state;
	assert_true(memory_available_bytes_below(root) == UINT64_MAX);
}

static void the_machine_says_what_is_available(void **state)
{
	(void)state;
	put("/proc/meminfo", "MemTotal:  9999 kB\nMemFree:  1 kB\nMemAvailable:    2048 kB\n");
	put("/proc/self/cgroup", "0::/\n");
	put("/sys/fs/cgroup/memory.max", "max\n");
	assert_true(memory_available_bytes_below(root) == 2 * MIB);
}

static void a_group_around_the_process_limits_it(void **state)
{
	(void)state;
	put("/proc/meminfo", "MemAvailable:    2048 kB\n");
	put("/proc/self/cgroup", "0::/pod/container\n");
	put("/sys/fs/cgroup/pod/container/memory.max", "max\n");
	put("/sys/fs/cgroup/pod/memory.max", "1048576\n");
	assert_true(memory_available_bytes_below(root) == MIB);
}

static void groups_of_version_1_count_as_well(void **state)
{
	(void)state;
	put("/proc/meminfo", "MemAvailable:    2048 kB\n");
	put("/proc/self/cgroup", "4:cpu,cpuacct:/x\n3:memory:/job\n0::/\n");
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	put("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "524288\n");
	assert_true(memory_available_bytes_below(root) == MIB / 2);
}

static void lines_that_make_no_sense_are_passed_over(void **state)
{
	(void)state;
	put("/proc/meminfo", "MemAvailable: lots\nMemAvailable:    1024 kB\n");
	put("/proc/self/cgroup", "\nno colons\n1:memory\n::\n");
	put("/sys/fs/cgroup/memory.max", "many\n");
	assert_true(memory_available_bytes_below(root) == MIB);
}

static void this_machine_has_some(void **state)
{
	(void)state;
	assert_true(memory_available_bytes() > MIB);
	assert_true(memory_available_bytes() < UINT64_MAX);
}

#define test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(where_nothing_is_said_there_is_no_limit),
		test(the_machine_says_what_is_available),
		test(a_group_around_the_process_limits_it),
		test(groups_of_version_1_count_as_well),
		test(lines_that_make_no_sense_are_passed_over),
		test(this_machine_has_some),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
