/*
 * What `up` and `mount` say once the mount answers, for programs.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct mount_report {
	const char *dataset, *origin;
	const char *mountpoint; /* as the kernel's table has it */
	const char *mode;	/* "no-open", "open" or "open, passthrough", as it became */
	const char *master;
	uint64_t snapshot, files, bytes;
	uint64_t pid; /* of the process that serves it */
	bool joined;  /* that process ran already */
};

void mount_report_print(const struct mount_report *r);
