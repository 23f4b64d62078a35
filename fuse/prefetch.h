/*
 * Prefetching: blocks that a sequential reader will come to (read_ahead.h names them), records of one
 * who reads at equal distances (record_stride.h), and files of one who reads file by file
 * (file_sequence.h) are begun by those who answer for them while he reads what is before. A thread of
 * the pool asks; no read waits for that, and nothing comes of it where every thread has more urgent
 * work for PREFETCH_PATIENCE_MS.
 *
 * Threading: any thread.
 */
#pragma once

#include <stdint.h>

#include "fuse/fs.h"

#define PREFETCH_PATIENCE_MS 2000
#define PREFETCH_FILES_BYTES ((uint64_t)16 << 20)

/* Of blocks [block, end) of the node's file; the node stays the caller's. */
void prefetch_start(struct fs *fs, const struct fs_node *node, uint64_t block, uint64_t end);
void prefetch_records(
	struct fs *fs, const struct fs_node *node, const struct record_advice *records);
/* The first blocks of these files of the node's snapshot, PREFETCH_FILES_BYTES at most together. */
void prefetch_files(
	struct fs *fs, const struct fs_node *node, const struct file_sequence_advice *files);
