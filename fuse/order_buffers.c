#include "fuse/order_buffers.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

struct order_buffer {
	struct order_buffer *next;
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
}

static void *pop(struct order_buffers *b, unsigned c)
{
	struct order_buffer *kept = b->kept[c];

	if (!kept)
		return NULL;
	b->kept[c] = kept->next;
	b->kept_bytes -= class_bytes(c);
	return kept;
}

static void unmap_one(struct order_buffers *b, unsigned c)
{
	munmap(pop(b, c), class_bytes(c));
}

void order_buffers_trim(struct order_buffers *b)
{
	for (unsigned c = 0; c < ORDER_BUFFER_SIZES; c++) {
		while (b->kept[c])
			unmap_one(b, c);
	}
}

void order_buffers_deinit(struct order_buffers *b)
{
	assert(b->used_bytes == 0);
	order_buffers_trim(b);
}

/* Lets go of what is kept, the largest first, until `bytes` more fit. */
static void make_room(struct order_buffers *b, uint32_t bytes)
{
	for (unsigned c = ORDER_BUFFER_SIZES; c-- > 0;) {
		while (b->kept[c] && b->used_bytes + b->kept_bytes + bytes > b->budget_bytes)
			unmap_one(b, c);
	}
}

unsigned char *order_buffers_get(struct order_buffers *b, uint32_t len)
{
	unsigned c = size_class(len);
	void *bytes;

	if (b->used_bytes + class_bytes(c) > b->budget_bytes)
		return NULL;
	bytes = pop(b, c);
	if (!bytes) {
		make_room(b, class_bytes(c));
		bytes = mmap(NULL, class_bytes(c), PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (bytes == MAP_FAILED)
			return NULL;
	}
	b->used_bytes += class_bytes(c);
	return bytes;
}

void order_buffers_put(struct order_buffers *b, unsigned char *bytes, uint32_t len)
{
	unsigned c = size_class(len);
	struct order_buffer *kept = (struct order_buffer *)(void *)bytes;

	kept->next = b->kept[c];
	b->kept[c] = kept;
	b->kept_bytes += class_bytes(c);
	assert(b->used_bytes >= class_bytes(c));
	b->used_bytes -= class_bytes(c);
}
