#include "common/memory.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"

/* A number at the start of the file; "max" and what cannot be read are no limit. */
static uint64_t number_in(const char *path)
{
	cleanup_file FILE *f = fopen(path, "re");
	uint64_t n;

	return f && fscanf(f, "%" SCNu64, &n) == 1 ? n : UINT64_MAX;
}

static uint64_t lower(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* The lowest limit of a group and of those around it. `group` is cut on the way up. */
static uint64_t limit_of_group(
	const char *root, const char *hierarchy, char *group, const char *name)
{
	uint64_t lowest = UINT64_MAX;
	char path[PATH_MAX];
	char *slash;

	do {
		snprintf(path, sizeof(path), "%s/sys/fs/cgroup%s%s/%s", root, hierarchy, group,
			name);
		lowest = lower(lowest, number_in(path));
		slash = strrchr(group, '/');
		if (slash)
			*slash = '\0';
	} while (slash);
	return lowest;
}

/* A line of /proc/self/cgroup: id, controllers (none in version 2) and path, parted by colons. */
static uint64_t limit_of_line(const char *root, char *line)
{
	char *controllers = strchr(line, ':'), *group;

	group = controllers ? strchr(controllers + 1, ':') : NULL;
	if (!group)
		return UINT64_MAX;
	*group++ = '\0';
	group[strcspn(group, "\n")] = '\0';
	controllers++;
	if (!*controllers)
		return limit_of_group(root, "", group, "memory.max");
	if (strcmp(controllers, "memory") == 0)
		return limit_of_group(root, "/memory", group, "memory.limit_in_bytes");
	return UINT64_MAX;
}

static uint64_t group_limit(const char *root)
{
	uint64_t lowest = UINT64_MAX;
	char path[PATH_MAX], line[PATH_MAX];
	cleanup_file FILE *f = NULL;

	snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		lowest = lower(lowest, limit_of_line(root, line));
	return lowest;
}

static uint64_t machine_available(const char *root)
{
	char path[PATH_MAX], line[256];
	cleanup_file FILE *f = NULL;
	uint64_t kib;

	snprintf(path, sizeof(path), "%s/proc/meminfo", root);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1)
			return kib * 1024;
	}
	return UINT64_MAX;
}

uint64_t memory_available_bytes_below(const char *root)
{
	return lower(machine_available(root), group_limit(root));
}

uint64_t memory_available_bytes(void)
{
	return memory_available_bytes_below("");
}
