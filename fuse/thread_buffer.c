#include "fuse/thread_buffer.h"

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/large_page.h"

#define PAGE_BYTES 4096

static_assert(THREAD_BUFFER_BYTES <= LARGE_PAGE_BYTES, "one large page for each thread");

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool key_made;

static void make_key(void)
{
	key_made = pthread_key_create(&key, free) == 0;
}

unsigned char *thread_buffer(enum thread_reads reads)
{
	unsigned char *buffer;

	pthread_once(&once, make_key);
	if (!key_made)
		return NULL;
	buffer = pthread_getspecific(key);
	if (buffer)
		return buffer;
	buffer = reads == THREAD_READS_DISK ? large_page_alloc(THREAD_BUFFER_BYTES)
					    : aligned_alloc(PAGE_BYTES, THREAD_BUFFER_BYTES);
	if (buffer && pthread_setspecific(key, buffer) != 0) {
		free(buffer);
		return NULL;
	}
	return buffer;
}
