#include "fuse/snapshot_slots.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "fuse/node_id.h"

void snapshot_slots_init(struct snapshot_slots *s, struct manifest *first)
{
	memset(s, 0, sizeof(*s));
	mutex_init(&s->mu);
	s->manifests[0] = manifest_ref(first);
}

void snapshot_slots_deinit(struct snapshot_slots *s)
{
	for (int i = 0; i < SNAPSHOT_SLOTS; i++) {
		if (s->manifests[i])
			s->manifests[i] = manifest_unref(s->manifests[i]);
	}
	mutex_deinit(&s->mu);
}

int snapshot_slots_show(struct snapshot_slots *s, struct manifest *m)
{
	struct manifest *gone;

	{
		mutex_guard(&s->mu);
		if (s->current == NODE_SLOT_MAX)
			return -EOVERFLOW;
		s->current++;
		gone = s->manifests[s->current % SNAPSHOT_SLOTS];
		s->manifests[s->current % SNAPSHOT_SLOTS] = manifest_ref(m);
	}
	if (gone)
		manifest_unref(gone);
	return 0;
}

struct manifest *snapshot_slots_get(struct snapshot_slots *s, uint32_t slot, uint32_t *ret_slot)
{
	mutex_guard(&s->mu);

	if (slot == NODE_SLOT_CURRENT)
		slot = s->current;
	if (slot > s->current || s->current - slot >= SNAPSHOT_SLOTS)
		return NULL;
	if (ret_slot)
		*ret_slot = slot;
	return manifest_ref(s->manifests[slot % SNAPSHOT_SLOTS]);
}
