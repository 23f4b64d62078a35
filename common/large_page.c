#include "common/large_page.h"

#include <stdlib.h>
#include <sys/mman.h>

void *large_page_alloc(size_t bytes)
{
	size_t whole = (bytes + LARGE_PAGE_BYTES - 1) / LARGE_PAGE_BYTES * LARGE_PAGE_BYTES;
	void *p = aligned_alloc(LARGE_PAGE_BYTES, whole);

	/* Small pages do as well. */
	if (p)
		(void)madvise(p, whole, MADV_HUGEPAGE);
	return p;
}
