/* The log of a mount in the background: each mount point has one of its own. */
#pragma once

#include <stddef.h>
#include <stdio.h>

/* STATE/mount-mnt-imagenet.log */
static inline void mount_log_name(
	const char *state_dir, const char *mountpoint, char *ret, size_t room)
{
	size_t n = (size_t)snprintf(ret, room, "%s/mount", state_dir);

	for (const char *p = mountpoint; *p && n + sizeof(".log") < room; p++)
		ret[n++] = *p == '/' ? '-' : *p;
	snprintf(ret + n, room - n, ".log");
}
