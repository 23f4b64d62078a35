#include "fuse/order_buffers.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <utlist.h>

#include "common/large_page.h"

struct order_buffer {
	struct order_buffer *prev, *next;
};

static unsigned size_class(uint32_t len)
{
	unsigned c = 0;

	assert(len > 0 && len <= ORDER_BUFFER_MAX_BYTES);
	while (ORDER_BUFFER_MIN_BYTES << c < len)
		c++;
	return c;
}

static uint32_t class_bytes(unsigned c)
{
	return ORDER_BUFFER_MIN_BYTES << c;
}

uint32_t order_buffers_room(uint32_t len)
{
	return class_bytes(size_class(len));
}

void order_buffers_init(struct order_buffers *b, uint64_t budget_bytes)
{
	memset(b, 0, sizeof(*b));
	b->budget_bytes = budget_bytes;
	b->kept = b->unused = ORDER_BUFFERS_NONE;
}

/* ---- large pages ------------------------------------------------------------------------------ */

static size_t memory_bytes(const struct order_buffers *b)
{
	return (size_t)b->page_count * LARGE_PAGE_BYTES;
}

/* Address space for all of the budget, and for the way to where a large page begins. */
static void *reserve(size_t bytes)
{
	size_t room = bytes + LARGE_PAGE_BYTES, before;
	unsigned char *p =
		mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	before = LARGE_PAGE_BYTES - (uintptr_t)p % LARGE_PAGE_BYTES;
	munmap(p, before);
	if (before < LARGE_PAGE_BYTES)
		munmap(p + before + bytes, LARGE_PAGE_BYTES - before);
	return p + before;
}

static void release_all(struct order_buffers *b)
{
	if (b->memory)
		munmap(b->memory, memory_bytes(b));
	free(b->next_page);
	free(b->starts);
	b->memory = NULL;
	b->next_page = NULL;
	b->starts = NULL;
}

static bool set_up(struct order_buffers *b)
{
	size_t units;

	if (b->memory)
		return true;
	b->page_count = (uint32_t)((b->budget_bytes + LARGE_PAGE_BYTES - 1) / LARGE_PAGE_BYTES);
	units = memory_bytes(b) / ORDER_BUFFER_MIN_BYTES;
	b->memory = reserve(memory_bytes(b));
	b->next_page = calloc(b->page_count, sizeof(b->next_page[0]));
	b->starts = calloc(units, 1);
	if (!b->memory || !b->next_page || !b->starts) {
		release_all(b);
		return false;
	}
	(void)madvise(b->memory, memory_bytes(b), MADV_HUGEPAGE);
	for (uint32_t i = 0; i < b->page_count; i++)
		b->next_page[i] = i + 1 < b->page_count ? i + 1 : ORDER_BUFFERS_NONE;
	b->unused = 0;
	return true;
}

static unsigned char *take_page(struct order_buffers *b)
{
	uint32_t page = b->kept;
	unsigned char *p;

	if (page != ORDER_BUFFERS_NONE) {
		b->kept = b->next_page[page];
		b->kept_pages--;
		return b->memory + page * LARGE_PAGE_BYTES;
	}
	page = b->unused;
	if (page == ORDER_BUFFERS_NONE)
		return NULL;
	p = b->memory + page * LARGE_PAGE_BYTES;
	if (mprotect(p, LARGE_PAGE_BYTES, PROT_READ | PROT_WRITE) < 0)
		return NULL;
	b->unused = b->next_page[page];
	return p;
}

static void keep_page(struct order_buffers *b, const unsigned char *p)
{
	uint32_t page = (uint32_t)((size_t)(p - b->memory) / LARGE_PAGE_BYTES);

	b->next_page[page] = b->kept;
	b->kept = page;
	b->kept_pages++;
}

void order_buffers_trim(struct order_buffers *b)
{
	uint32_t page;

	while ((page = b->kept) != ORDER_BUFFERS_NONE) {
		b->kept = b->next_page[page];
		b->kept_pages--;
		(void)madvise(b->memory + page * LARGE_PAGE_BYTES, LARGE_PAGE_BYTES, MADV_DONTNEED);
		b->next_page[page] = b->unused;
		b->unused = page;
	}
}

void order_buffers_deinit(struct order_buffers *b)
{
	assert(b->used_bytes == 0);
	release_all(b);
}

/* ---- pieces of them --------------------------------------------------------------------------- */

static uint8_t *start_of(struct order_buffers *b, const void *piece)
{
	return &b->starts[(size_t)((const unsigned char *)piece - b->memory) /
			  ORDER_BUFFER_MIN_BYTES];
}

static void add_free(struct order_buffers *b, void *piece, unsigned c)
{
	struct order_buffer *free = piece;

	*start_of(b, piece) = (uint8_t)(c + 1);
	DL_PREPEND(b->free[c], free);
}

static void remove_free(struct order_buffers *b, struct order_buffer *free, unsigned c)
{
	*start_of(b, free) = 0;
	DL_DELETE(b->free[c], free);
}

/* Cuts a larger one in two where there is none of that size. */
static unsigned char *take(struct order_buffers *b, unsigned c)
{
	struct order_buffer *free;
	unsigned char *larger;

	if (c == ORDER_BUFFER_SIZES)
		return take_page(b);
	free = b->free[c];
	if (free) {
		remove_free(b, free, c);
		return (unsigned char *)free;
	}
	larger = take(b, c + 1);
	if (larger)
		add_free(b, larger + class_bytes(c), c);
	return larger;
}

/* With its other half, when that is free as a whole, it is the larger one again. */
static void give(struct order_buffers *b, unsigned char *piece, unsigned c)
{
	for (; c < ORDER_BUFFER_SIZES; c++) {
		size_t offset = (size_t)(piece - b->memory);
		unsigned char *half = b->memory + (offset ^ class_bytes(c));

		if (*start_of(b, half) != c + 1) {
			add_free(b, piece, c);
			return;
		}
		remove_free(b, (struct order_buffer *)(void *)half, c);
		piece = half < piece ? half : piece;
	}
	keep_page(b, piece);
}

unsigned char *order_buffers_get(struct order_buffers *b, uint32_t len)
{
	unsigned c = size_class(len);
	unsigned char *bytes;

	if (b->used_bytes + class_bytes(c) > b->budget_bytes || !set_up(b))
		return NULL;
	bytes = take(b, c);
	if (bytes)
		b->used_bytes += class_bytes(c);
	return bytes;
}

void order_buffers_put(struct order_buffers *b, unsigned char *bytes, uint32_t len)
{
	unsigned c = size_class(len);

	assert(b->used_bytes >= class_bytes(c));
	b->used_bytes -= class_bytes(c);
	give(b, bytes, c);
}
