/*
 * Which 4 KiB pages of a segment are taken: one bit each.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define PAGE_MAP_NONE UINT32_MAX

struct page_map {
	uint64_t *words;
	uint32_t pages;	     /* bits */
	uint32_t used_pages; /* set ones */
	uint32_t hint;	     /* no free page lies before it */
	uint32_t run_max;    /* no free run below the last limit was longer */
};

int page_map_init(struct page_map *m, uint32_t pages);
void page_map_deinit(struct page_map *m);

/* Takes a run; false, and nothing taken, when part of it is taken or beyond the end. */
bool page_map_take(struct page_map *m, uint32_t first, uint32_t count);
void page_map_give(struct page_map *m, uint32_t first, uint32_t count);
/* The first free run of `count` pages that ends at or before `limit`, or PAGE_MAP_NONE. */
uint32_t page_map_find(struct page_map *m, uint32_t limit, uint32_t count);
/* The next run of free pages at or after *first and before `limit`: its start in *first, its length
 * returned; 0 at the end. */
uint32_t page_map_next_free(const struct page_map *m, uint32_t *first, uint32_t limit);
/* One beyond the last taken page. */
uint32_t page_map_end(const struct page_map *m);
