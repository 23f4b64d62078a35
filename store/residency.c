#include "store/residency.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>

/* Rings: after the slots' notes come the lists' heads, linked in the same way, so that taking a
 * block off its list needs no knowledge of which one it is. prev == next == 0 with linked false: on
 * none. */
struct slot_note {
	uint32_t prev, next;
	_Atomic uint32_t touched_s;
	bool linked;
	bool live;
};

static_assert(sizeof(struct slot_note) == 16, "16 bytes a slot");

int residency_init(struct residency *r, uint64_t slots_max, uint32_t lists)
{
	size_t bytes = (size_t)(slots_max + lists) * sizeof(struct slot_note);
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		return -errno;
	*r = (struct residency){
		.notes = at, .map_bytes = bytes, .slots_max = (uint32_t)slots_max, .lists = lists};
	for (uint32_t i = 0; i < lists; i++) {
		struct slot_note *head = &r->notes[slots_max + i];

		head->prev = head->next = (uint32_t)slots_max + i;
	}
	return 0;
}

void residency_deinit(struct residency *r)
{
	if (r->notes)
		munmap(r->notes, r->map_bytes);
	r->notes = NULL;
}

void residency_add(struct residency *r, uint32_t slot, uint32_t list)
{
	uint32_t head = r->slots_max + list;
	struct slot_note *n = &r->notes[slot];

	assert(list < r->lists && slot < r->slots_max && !n->linked);
	n->prev = r->notes[head].prev;
	n->next = head;
	r->notes[n->prev].next = slot;
	r->notes[head].prev = slot;
	n->linked = true;
}

void residency_remove(struct residency *r, uint32_t slot)
{
	struct slot_note *n = &r->notes[slot];

	if (!n->linked)
		return;
	r->notes[n->prev].next = n->next;
	r->notes[n->next].prev = n->prev;
	n->linked = false;
}

uint32_t residency_oldest(const struct residency *r, uint32_t list)
{
	uint32_t first = r->notes[r->slots_max + list].next;

	return first < r->slots_max ? first : RESIDENCY_NONE;
}

void residency_moved(struct residency *r, uint32_t from, uint32_t to)
{
	struct slot_note *f = &r->notes[from], *t = &r->notes[to];

	assert(!t->linked);
	t->live = f->live;
	atomic_store_explicit(&t->touched_s,
		atomic_load_explicit(&f->touched_s, memory_order_relaxed), memory_order_relaxed);
	if (!f->linked)
		return;
	t->prev = f->prev;
	t->next = f->next;
	t->linked = true;
	f->linked = false;
	r->notes[t->prev].next = to;
	r->notes[t->next].prev = to;
}

bool residency_recent(const struct residency *r, uint32_t slot, uint32_t now_s)
{
	return atomic_load_explicit(&r->notes[slot].touched_s, memory_order_relaxed) == now_s;
}

void residency_touch(struct residency *r, uint32_t slot, uint32_t list, uint32_t now_s)
{
	struct slot_note *n = &r->notes[slot];

	atomic_store_explicit(&n->touched_s, now_s, memory_order_relaxed);
	if (!n->linked)
		return;
	residency_remove(r, slot);
	residency_add(r, slot, list);
}

bool residency_live(const struct residency *r, uint32_t slot)
{
	return r->notes[slot].live;
}

void residency_set_live(struct residency *r, uint32_t slot, bool live)
{
	r->notes[slot].live = live;
}
