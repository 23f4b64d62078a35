#include "fuse/order_list.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct order_chunk {
	struct order_chunk *next;
	struct order_range ranges[ORDER_CHUNK_RANGES];
};

void order_list_init(struct order_list *l)
{
	memset(l, 0, sizeof(*l));
}

void order_list_deinit(struct order_list *l)
{
	while (l->first) {
		struct order_chunk *next = l->first->next;

		free(l->first);
		l->first = next;
	}
	order_list_init(l);
}

static int add_chunk(struct order_list *l)
{
	struct order_chunk *c = malloc(sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->next = NULL;
	if (l->last)
		l->last->next = c;
	else
		l->first = c;
	l->last = c;
	l->filled = 0;
	return 0;
}

int order_list_add(struct order_list *l, const struct order_range *range)
{
	if ((!l->last || l->filled == ORDER_CHUNK_RANGES) && add_chunk(l) < 0)
		return -ENOMEM;
	l->last->ranges[l->filled++] = *range;
	l->count++;
	return 0;
}

struct order_range *order_list_first(struct order_list *l)
{
	return l->count > 0 ? &l->first->ranges[l->at] : NULL;
}

void order_list_pop(struct order_list *l)
{
	struct order_chunk *c = l->first;

	assert(l->count > 0);
	l->count--;
	if (++l->at < ORDER_CHUNK_RANGES && l->count > 0)
		return;
	/* Used up, or empty: then the chunk goes, too. */
	l->first = c->next;
	l->at = 0;
	free(c);
	if (!l->first) {
		l->last = NULL;
		l->filled = 0;
	}
}
