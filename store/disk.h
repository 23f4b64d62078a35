/*
 * The IO below the store as one vtable, so that tests can fail the nth operation, keep everything
 * in memory, or lose power between any two of them. store_disk_real is the operating system's.
 *
 * Paths are whole paths below the store's directory. Every function returns 0 (or a descriptor, or
 * a count of bytes) or -errno. What has to be durable is said explicitly: datasync for the bytes,
 * size and holes of one file, syncdir for the names of one directory; nothing else survives a power
 * loss for certain. All functions may be called from any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "common/error.h"
#include "store/index.h"

struct disk_stat {
	uint64_t size_bytes;
	uint64_t allocated_bytes; /* st_blocks */
};

typedef int disk_list_fn(void *arg, const char *name);

struct store_disk {
	void *ctx;
	/* flags: O_RDONLY or O_RDWR, with O_CREAT. */
	int (*open)(void *ctx, const char *path, int flags);
	void (*close)(void *ctx, int fd);
	/* May be short, as pwritev(2) and preadv(2). */
	ssize_t (*pwritev)(void *ctx, int fd, const struct iovec *iov, int count, uint64_t offset);
	ssize_t (*preadv)(void *ctx, int fd, const struct iovec *iov, int count, uint64_t offset);
	int (*fallocate)(void *ctx, int fd, uint64_t offset, uint64_t len); /* grows the size */
	int (*punch)(void *ctx, int fd, uint64_t offset, uint64_t len);	    /* keeps the size */
	int (*truncate)(void *ctx, int fd, uint64_t size);
	int (*datasync)(void *ctx, int fd);
	int (*syncdir)(void *ctx, const char *path);
	int (*mkdir)(void *ctx, const char *path); /* 0 also when it is there */
	int (*unlink)(void *ctx, const char *path);
	int (*list)(void *ctx, const char *path, disk_list_fn *fn, void *arg);
	int (*stat)(void *ctx, const char *path, struct disk_stat *ret);
	int (*free_bytes)(void *ctx, const char *path, uint64_t *ret);
	/* Whether in_use can be asked of the files in a directory. */
	bool (*tells_use)(void *ctx, const char *dir);
	/* 1 when anybody else has the file open or mapped, the kernel on behalf of a FUSE file
	 * included; 0 when nobody has. `fd` is for writing, and every other one of the file counts,
	 * the caller's own too. */
	int (*in_use)(void *ctx, int fd);
	/* Where the first hole begins; at the end when there is none, or that cannot be known. */
	int (*first_hole)(void *ctx, int fd, uint64_t *ret);
	/* Takes the store for this process; -EBUSY when another one has it. */
	int (*lock)(void *ctx, const char *path, int *ret_fd);

	void *index_ctx;
	const struct index_ops *index;
};

extern const struct store_disk store_disk_real;

/* Writes all of it; the iovecs are consumed. */
int disk_write_all(
	const struct store_disk *d, int fd, struct iovec *iov, int count, uint64_t offset);
/* Allocated bytes of the files in a directory and of the directory itself; 0 when it is missing. */
uint64_t disk_usage(const struct store_disk *d, const char *path);
