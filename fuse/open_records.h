/*
 * What a mount has told the kernel of open files, in its state (mount_state.h), so that another
 * client neither takes a file away that the kernel still has nor keeps one that it has given back:
 * the opens that are counted (open_files.h), and the files of the store behind inodes that are
 * passed through.
 *
 * Invariants
 *  1. An open is recorded before the kernel hears of it, with the number of its request. One that is
 *     repeated to another client, for the answer did not get through, is found by that number and is
 *     not counted twice.
 *  2. A handle names its open and a generation, so a release that is repeated is done once.
 *  3. A backing file is recorded before an open is answered with it. From before the kernel is asked to
 *     close it until it has, it is marked, and the next client closes it again.
 *
 * What can be lost is the record of an open whose opener was killed together with the client: the
 * inode counts as open until the mount ends.
 *
 * Threading: any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/sync.h"
#include "fuse/mount_state.h"

struct open_records {
	struct mount_state *state;
	struct mutex mu;
	/* guarded by mu, as are the writes of state->opens and state->backings */
	uint32_t open_at, backing_at; /* where to look for a free one */
};

void open_records_init(struct open_records *r, struct mount_state *state);
void open_records_deinit(struct open_records *r);

/* The handle of a new open, never 0; 0: there is no room. `use`: OPEN_TRACKED or OPEN_COUNTED. */
uint64_t open_records_add(
	struct open_records *r, enum mount_state_open_use use, uint64_t ino, uint64_t unique);
/* What it was; OPEN_FREE when it is gone already, or never was. */
enum mount_state_open_use open_records_remove(
	struct open_records *r, uint64_t handle, uint64_t ino);
/* The handle that was recorded for that request; 0: none. */
uint64_t open_records_find(struct open_records *r, uint64_t ino, uint64_t unique);

/* The place of a new one, or -ENOSPC. */
int open_records_backing_add(struct open_records *r, uint64_t ino, int32_t id);
void open_records_backing_closing(struct open_records *r, uint32_t place);
void open_records_backing_closed(struct open_records *r, uint32_t place);
/* An id that the kernel has given; the highest is remembered. */
void open_records_backing_seen(struct open_records *r, int32_t id);
bool open_records_backing_known(struct open_records *r, int32_t id);
