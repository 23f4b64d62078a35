/*
 * The idle class of the disk's scheduler, for a thread whose reads are to wait for everybody else's.
 */
#pragma once

#include <errno.h>
#include <linux/ioprio.h>
#include <sys/syscall.h>
#include <unistd.h>

/* For the calling thread; 0 or -errno. Schedulers without classes ignore it. */
static inline int io_priority_idle(void)
{
	return syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0,
		       IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0)) < 0
		       ? -errno
		       : 0;
}
