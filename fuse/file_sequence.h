/*
 * Who reads one file after the other, in the order that a listing shows them (`cp -r`, `tar`, a
 * loader that does not shuffle), so that the files to come are fetched while the one at hand is
 * read.
 *
 * Files of a snapshot are numbered in that order (manifest/manifest.h). A stream is a reader who went
 * on by the same step, FILE_SEQUENCE_STEP_MAX at most (pictures beside their labels), from
 * FILE_SEQUENCE_FEW files on. As many files as it has read are named ahead, FILE_SEQUENCE_AHEAD at
 * most, each once, and only while some file of the last FILE_SEQUENCE_CREDIT was not in the store:
 * who reads what is cached costs nothing. A shuffled reader has no streams but by chance.
 *
 * A bounded table of FILE_SEQUENCE_STREAMS, the one that was used least recently is replaced.
 *
 * Threading: any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/sync.h"

#define FILE_SEQUENCE_STREAMS 32
#define FILE_SEQUENCE_STEP_MAX 4
#define FILE_SEQUENCE_FEW 3
#define FILE_SEQUENCE_AHEAD 32
#define FILE_SEQUENCE_CREDIT 64

struct file_stream {
	uint32_t slot, index; /* of the file begun last; step 0 and no run: only that is known */
	uint32_t step;
	uint32_t run;	 /* steps in a row */
	uint32_t named;	 /* files up to this one were named */
	uint32_t credit; /* files to go without a miss */
	uint64_t used;	 /* 0: free */
};

struct file_sequence {
	struct mutex mu;
	uint64_t clock;
	struct file_stream streams[FILE_SEQUENCE_STREAMS];
};

/* Files first, first + step, ...: none of them may exist, or be a file. */
struct file_sequence_advice {
	uint32_t first, step, count;
};

void file_sequence_init(struct file_sequence *s);
void file_sequence_deinit(struct file_sequence *s);
/* File `index` of the snapshot in `slot` is begun; `miss`: it is not in the store. */
struct file_sequence_advice file_sequence_note(
	struct file_sequence *s, uint32_t slot, uint32_t index, bool miss);
