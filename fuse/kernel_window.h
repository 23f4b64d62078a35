/*
 * How far the kernel reads ahead of who reads a file of the mount in sequence. A larger window
 * means larger requests, and more of them under way: at 2 MiB a file of another worker's store
 * came 1.3 times as fast as at 512 KiB, a cold one from an S3 server on the same machine 1.2 times
 * at 1 MiB and at 4 MiB. It also means more than he wants for whoever jumps about in a map: random
 * slices of 114 KB in a mapped file of 3 GB fetched 3.3 times what was used with the kernel's 128
 * KiB, 4.5 times with 512 KiB, 8.5 times with 1 MiB. So files get the widest where large files are
 * read whole (whole_files.h), from their next open on.
 *
 * Only root may set it; reads are as right without.
 *
 * Threading: start before anything else; the rest from any thread.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "common/sync.h"

#define KERNEL_WINDOW_SMALL_FILES_KB 1024 /* a small file is one request */
#define KERNEL_WINDOW_LARGE_FILES_KB 512
#define KERNEL_WINDOW_WHOLE_FILES_KB 2048

struct kernel_window {
	char path[64]; /* of the kernel's setting, empty before start */
	int narrow_kb;
	struct mutex mu;
	int kb; /* set last; guarded by mu */
};

void kernel_window_init(struct kernel_window *w);
void kernel_window_deinit(struct kernel_window *w);

/* Of the mount with that device number. */
void kernel_window_start(struct kernel_window *w, dev_t dev, bool small_files);
/* A large file is begun; whether those before it were read whole. */
void kernel_window_file(struct kernel_window *w, bool whole);
