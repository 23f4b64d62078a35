/*
 * Whether large files are read whole here: by loaders that go through shards or volumes one after the
 * other, in whatever order. Then the next one is, too, and much of it can be begun with its first
 * byte.
 *
 * Of the last WHOLE_FILES_SEEN files that somebody began to read at their first byte it is known
 * which were read in order, nearly to the last one. Files are read whole when at least
 * WHOLE_FILES_FEW and at least half of them were; the other half are those that others are at.
 *
 * Threading: any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/sync.h"

#define WHOLE_FILES_SEEN 32u
#define WHOLE_FILES_FEW 2u

struct whole_files {
	struct mutex mu;
	struct whole_file {
		uint64_t ino;
		bool ended;
	} seen[WHOLE_FILES_SEEN]; /* a ring */
	unsigned begun, ended;	  /* begun counts on; ended: of those in the ring */
};

void whole_files_init(struct whole_files *w);
void whole_files_deinit(struct whole_files *w);
/* A file is begun. Whether those before it were read whole. */
bool whole_files_begin(struct whole_files *w, uint64_t ino);
/* It was read to its end. */
void whole_files_end(struct whole_files *w, uint64_t ino);
