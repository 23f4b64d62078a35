/*
 * The manifests that a mount answers from: the one it shows, and those it showed before, which open
 * files, working directories and the kernel's caches still name.
 *
 * Slots are numbered in the order of showing, 0 first, and a number is never used again. The kernel
 * is not asked what it still holds (nodes are stateless), so a fixed number of older manifests
 * stays mapped; nodes of a still older one are answered with ESTALE.
 *
 * Threading: any thread. Manifests are handed out as references of the caller's own.
 */
#pragma once

#include <stdint.h>

#include "common/sync.h"
#include "manifest/manifest.h"

struct mount_state;

#define SNAPSHOT_SLOTS 9 /* the shown one and eight older ones */

struct snapshot_slots {
	struct mount_state *state; /* what is shown is written there before it is */
	struct mutex mu;
	/* guarded by mu */
	uint32_t current; /* its manifest is at current % SNAPSHOT_SLOTS */
	struct manifest *manifests[SNAPSHOT_SLOTS];
};

/* Takes a reference of its own. */
void snapshot_slots_init(
	struct snapshot_slots *s, struct manifest *first, struct mount_state *state);
/* Goes on as the state says; `shown` is the one that it names. The older ones follow by _keep, as far
 * as they are there. */
void snapshot_slots_resume(
	struct snapshot_slots *s, struct manifest *shown, struct mount_state *state);
void snapshot_slots_keep(struct snapshot_slots *s, uint32_t number, struct manifest *older);
void snapshot_slots_deinit(struct snapshot_slots *s);

/* Shows `m` from now on (a reference of its own); 0, or -EOVERFLOW when the numbers are used up. */
int snapshot_slots_show(struct snapshot_slots *s, struct manifest *m);

/* `slot` may be NODE_SLOT_CURRENT; ret_slot (may be NULL) receives the number. NULL: no longer, or
 * never, there. */
struct manifest *snapshot_slots_get(struct snapshot_slots *s, uint32_t slot, uint32_t *ret_slot);
