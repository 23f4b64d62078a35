/*
 * The directories of the level above, in order, while the builder writes the level below: what it
 * needs to find each entry's parent without keeping them in memory. Two unlinked files of (index,
 * path): one being read, one being written; a step to the next level swaps them.
 *
 * Entries and directories come in the same order, so finding a parent only ever moves forward.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "manifest/manifest_format.h"

#define MANIFEST_DIRS_BUFFER_BYTES ((size_t)64 << 10)

struct manifest_dir_record {
	uint32_t index;
	uint32_t path_len;
	char path[MANIFEST_PATH_MAX_BYTES + 1];
};

struct manifest_dirs {
	FILE *above;			 /* being read */
	FILE *level;			 /* being written */
	struct manifest_dir_record next; /* read from `above`, not yet passed */
	int has_next;
	char buffers[2][MANIFEST_DIRS_BUFFER_BYTES];
};

/* Makes the two files in `dir`. */
int manifest_dirs_init(struct manifest_dirs *d, const char *dir);
void manifest_dirs_deinit(struct manifest_dirs *d);

/* Another directory of the level being written. */
int manifest_dirs_add(struct manifest_dirs *d, uint32_t index, const char *path, size_t path_len);
/* The level being written becomes the one above. */
int manifest_dirs_descend(struct manifest_dirs *d);

#define MANIFEST_DIRS_NONE 1
/* Moves forward to the directory `path`: 0 and its index, or MANIFEST_DIRS_NONE when the next one
 * stands behind it in the order. */
int manifest_dirs_find(
	struct manifest_dirs *d, const char *path, size_t path_len, uint32_t *ret_index);
