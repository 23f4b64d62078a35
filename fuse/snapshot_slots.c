#include "fuse/snapshot_slots.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "fuse/mount_state.h"
#include "fuse/node_id.h"

void snapshot_slots_init(
	struct snapshot_slots *s, struct manifest *first, struct mount_state *state)
{
	memset(s, 0, sizeof(*s));
	mutex_init(&s->mu);
	s->state = state;
	s->manifests[0] = manifest_ref(first);
	mount_state_show(state, 0, manifest_info(first)->digest);
}

void snapshot_slots_resume(
	struct snapshot_slots *s, struct manifest *shown, struct mount_state *state)
{
	memset(s, 0, sizeof(*s));
	mutex_init(&s->mu);
	s->state = state;
	s->current = atomic_load(&state->current);
	s->manifests[s->current % SNAPSHOT_SLOTS] = manifest_ref(shown);
}

void snapshot_slots_keep(struct snapshot_slots *s, uint32_t number, struct manifest *older)
{
	mutex_guard(&s->mu);

	if (number < s->current && s->current - number < SNAPSHOT_SLOTS &&
		!s->manifests[number % SNAPSHOT_SLOTS])
		s->manifests[number % SNAPSHOT_SLOTS] = manifest_ref(older);
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
		mount_state_show(s->state, s->current + 1, manifest_info(m)->digest);
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
	/* One that another client showed may be lost. */
	return s->manifests[slot % SNAPSHOT_SLOTS]
		       ? manifest_ref(s->manifests[slot % SNAPSHOT_SLOTS])
		       : NULL;
}
