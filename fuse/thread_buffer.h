/*
 * The one buffer of a thread that serves reads.
 *
 * Memory: THREAD_BUFFER_BYTES for each thread that asks, a large page where it reads the disk.
 *
 * Threading: any thread; a buffer is its thread's own.
 */
#pragma once

#include "fuse/block_source.h"

#define THREAD_BUFFER_BYTES (READ_MAX_BYTES + BLOCK_EXTRA_BYTES)

enum thread_reads {
	THREAD_READS_DISK,   /* past the page cache; in a large page (common/large_page.h) */
	THREAD_READS_OTHERS, /* what workers send and the page cache has */
};

/* This thread's, page aligned, freed when the thread ends; NULL: no memory. The first call decides
 * where it lies. */
unsigned char *thread_buffer(enum thread_reads reads);
