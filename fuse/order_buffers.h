/*
 * Memory for bytes that were brought before their reader asked: mapped pages in sizes of powers of
 * two, 4 KiB to 1 MiB, under a hard budget. What is returned is kept for the next taker and unmapped
 * when another size needs the room, or by trim.
 *
 * Invariant: used_bytes + kept bytes <= budget_bytes.
 *
 * Threading: none of its own.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define ORDER_BUFFER_MIN_BYTES ((uint32_t)4 << 10)
#define ORDER_BUFFER_MAX_BYTES ((uint32_t)1 << 20)
#define ORDER_BUFFER_SIZES 9

struct order_buffer; /* one that is kept, within itself */

struct order_buffers {
	uint64_t budget_bytes, used_bytes, kept_bytes;
	struct order_buffer *kept[ORDER_BUFFER_SIZES];
};

void order_buffers_init(struct order_buffers *b, uint64_t budget_bytes);
void order_buffers_deinit(struct order_buffers *b); /* all were returned */
/* What a buffer for len bytes (1 to the maximum) takes of the budget. */
uint32_t order_buffers_room(uint32_t len);
/* Page aligned; NULL: over the budget, or no memory. */
unsigned char *order_buffers_get(struct order_buffers *b, uint32_t len);
void order_buffers_put(struct order_buffers *b, unsigned char *bytes, uint32_t len);
void order_buffers_trim(struct order_buffers *b);
