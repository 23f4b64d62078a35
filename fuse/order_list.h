/*
 * What was announced and not looked at yet: a queue of ranges of files, in chunks, so that it takes
 * memory only for what waits.
 *
 * What a client announces as one entry may be several ranges here (a file of more than
 * ORDER_RANGE_MAX_BYTES); the last of them has `ends`. An entry with nothing to read (a path that is
 * not in the snapshot, an empty file) is ORDER_NOTHING: it still counts as a position.
 *
 * Memory: 16 bytes a range. Threading: none of its own.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ORDER_NOTHING UINT32_MAX
#define ORDER_RANGE_MAX_BYTES ((uint64_t)1 << 31)
#define ORDER_CHUNK_RANGES 4096u

struct order_range {
	uint32_t index; /* of the manifest's entry */
	uint32_t len;
	uint64_t offset : 63, ends : 1;
};

struct order_chunk;

struct order_list {
	struct order_chunk *first, *last;
	uint32_t at, filled; /* in the first, in the last chunk */
	uint64_t count;
};

void order_list_init(struct order_list *l);
void order_list_deinit(struct order_list *l);				   /* leaves an empty one */
int order_list_add(struct order_list *l, const struct order_range *range); /* -ENOMEM */
/* NULL when it is empty; good until the next call. */
struct order_range *order_list_first(struct order_list *l);
void order_list_pop(struct order_list *l);
