/*
 * The one way in which bytes leave the store, shared by the owner and by views in other processes:
 * look the block up, read its bytes and its checks, verify, and look again whether the place still
 * belongs to the block.
 *
 * A read costs one pread of a small block with its trailer, two of a part of a large one. Bytes go
 * straight to the destination; only the ragged ends of a range that does not start and end on 64
 * KiB go through a buffer of the thread's (at most 2 x 64 KiB, allocated at its first such read).
 *
 * A whole small block is read past the page cache where the file has a descriptor for that and the
 * destination has room for the slot: its reader, the kernel behind a mount, keeps the bytes itself.
 */
#pragma once

#include <stdint.h>
#include <sys/uio.h>

#include "store/directory.h"
#include "store/fd_cache.h"
#include "store/store.h"

struct reader {
	const struct directory *directory;
	struct fd_cache *files;
	ssize_t (*preadv)(void *ctx, int fd, const struct iovec *iov, int count, uint64_t offset);
	void *ctx;
};

/* The directory names a place whose bytes or checks are wrong. */
#define READER_DAMAGED 16

/* Where the bytes go. */
struct reader_target {
	void *dst;
	size_t room; /* at dst, >= the bytes asked for: what is behind them may be written, too */
};

/* 0, STORE_MISS or READER_DAMAGED. Whenever the block was found, *ret_entry says where. */
int reader_read(const struct reader *r, const struct store_block *b, uint32_t offset, uint32_t len,
	const struct reader_target *target, struct directory_entry *ret_entry);
