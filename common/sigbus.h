/*
 * Mapped files whose pages cannot be read: the kernel answers such a touch with SIGBUS, and a
 * truncated file or a bad disk must not end the process. Inside a guarded range the handler puts
 * zeros over the page that failed and tells the owner, who then distrusts what it read there.
 * Everywhere else SIGBUS goes to the handler that was installed before.
 *
 * Calling sequence: sigbus_guard after mmap, sigbus_unguard before munmap. Whoever reads the range
 * looks at what its callback noted after reading, before believing the bytes.
 *
 * Threading: any thread. The callback runs inside the signal handler of the thread that touched the
 * page, before the zeros appear: it may only store to atomics. Nobody may touch a range while it is
 * unguarded.
 */
#pragma once

#include <stddef.h>

#include "common/error.h"

#define SIGBUS_RANGES_MAX 256

/* offset: of the failed page within the range. */
typedef void sigbus_fault_fn(void *arg, size_t offset);

/* base: page-aligned. Returns a slot >= 0 for sigbus_unguard, -ENOSPC when SIGBUS_RANGES_MAX ranges
 * are guarded already, or what sigaction said. */
int sigbus_guard(const void *base, size_t len, sigbus_fault_fn *fn, void *arg, struct error *err);
void sigbus_unguard(int slot);
