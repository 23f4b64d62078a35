#include "store/page_map.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int page_map_init(struct page_map *m, uint32_t pages)
{
	uint64_t *words = calloc((pages + 63) / 64, sizeof(*words));

	if (!words)
		return -ENOMEM;
	*m = (struct page_map){.words = words, .pages = pages, .run_max = pages};
	return 0;
}

void page_map_deinit(struct page_map *m)
{
	free(m->words);
	m->words = NULL;
}

static bool page_taken(const struct page_map *m, uint32_t page)
{
	return m->words[page / 64] >> (page % 64) & 1;
}

/* The first page at or after `from` that is taken (or free), or `limit`. */
static uint32_t next_page(const struct page_map *m, uint32_t from, uint32_t limit, bool taken)
{
	while (from < limit) {
		uint64_t word = m->words[from / 64];

		word = (taken ? word : ~word) >> (from % 64);
		if (word) {
			from += (uint32_t)__builtin_ctzll(word);
			return from < limit ? from : limit;
		}
		from = (from / 64 + 1) * 64;
	}
	return limit;
}

bool page_map_take(struct page_map *m, uint32_t first, uint32_t count)
{
	if (count > m->pages || first > m->pages - count)
		return false;
	if (next_page(m, first, first + count, true) != first + count)
		return false;
	for (uint32_t p = first; p < first + count; p++)
		m->words[p / 64] |= (uint64_t)1 << (p % 64);
	m->used_pages += count;
	return true;
}

void page_map_give(struct page_map *m, uint32_t first, uint32_t count)
{
	for (uint32_t p = first; p < first + count; p++) {
		assert(page_taken(m, p));
		m->words[p / 64] &= ~((uint64_t)1 << (p % 64));
	}
	m->used_pages -= count;
	if (first < m->hint)
		m->hint = first;
	m->run_max = m->pages;
}

uint32_t page_map_find(struct page_map *m, uint32_t limit, uint32_t count)
{
	uint32_t longest = 0, first = m->hint, run;

	if (count > m->run_max)
		return PAGE_MAP_NONE;
	first = next_page(m, first, limit, false);
	m->hint = first < limit ? first : m->hint;
	while ((run = page_map_next_free(m, &first, limit))) {
		if (run >= count)
			return first;
		if (run > longest)
			longest = run;
		first += run;
	}
	m->run_max = longest;
	return PAGE_MAP_NONE;
}

uint32_t page_map_next_free(const struct page_map *m, uint32_t *first, uint32_t limit)
{
	*first = next_page(m, *first, limit, false);
	return next_page(m, *first, limit, true) - *first;
}

uint32_t page_map_end(const struct page_map *m)
{
	for (uint32_t w = (m->pages + 63) / 64; w-- > 0;) {
		if (m->words[w])
			return w * 64 + 64 - (uint32_t)__builtin_clzll(m->words[w]);
	}
	return 0;
}
