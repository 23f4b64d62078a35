/*
 * Memory for bytes that were brought before their reader asked, in pieces of powers of two, 4 KiB to
 * 1 MiB, under a hard budget. Pieces are cut from large pages (common/large_page.h says why), halved
 * until they fit, and become whole again with their other half (a buddy allocator). A large page that
 * is free again is kept for the next taker until trim.
 *
 * Invariant: used_bytes <= budget_bytes. Resident is at most the budget, filled up to whole large
 * pages.
 *
 * Threading: none of its own.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define ORDER_BUFFER_MIN_BYTES ((uint32_t)4 << 10)
#define ORDER_BUFFER_MAX_BYTES ((uint32_t)1 << 20)
#define ORDER_BUFFER_SIZES 9

struct order_buffer; /* a free piece, within itself */

struct order_buffers {
	uint64_t budget_bytes, used_bytes;
	unsigned char *memory; /* address space for all of it; NULL before the first is taken */
	uint32_t page_count;   /* large pages, at `memory` */
	uint32_t kept_pages;   /* free, and resident */
	uint32_t *next_page;   /* in the lists of free pages */
	uint32_t kept, unused; /* which begin here; ORDER_BUFFERS_NONE */
	/* For each ORDER_BUFFER_MIN_BYTES of memory: which size of free piece begins there, from 1;
	 * 0 for none. */
	uint8_t *starts;
	struct order_buffer *free[ORDER_BUFFER_SIZES];
};

#define ORDER_BUFFERS_NONE UINT32_MAX

void order_buffers_init(struct order_buffers *b, uint64_t budget_bytes);
void order_buffers_deinit(struct order_buffers *b); /* all were returned */
/* What a buffer for len bytes (1 to the maximum) takes of the budget. */
uint32_t order_buffers_room(uint32_t len);
/* Page aligned; NULL: over the budget, no piece of it that lies together, or no memory. */
unsigned char *order_buffers_get(struct order_buffers *b, uint32_t len);
void order_buffers_put(struct order_buffers *b, unsigned char *bytes, uint32_t len);
void order_buffers_trim(struct order_buffers *b);
