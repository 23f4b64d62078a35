/*
 * Descriptors of the store's files by number: opened on demand, shared by all who use one at the
 * same time, closed when idle, when told, or when there are more than the bound (least recently
 * used first). A sparse file has two, its data and its sidecar; a
 * segment may have a second one, for reads past the page cache.
 *
 * Threading: any thread. `open` and `close` of the ops are called without the cache's lock.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/sync.h"

struct fd_cache_ops {
	/* Fills fds[0], and fds[1] of a sparse file; of a segment the second is -1 where there is
	 * none. Negative -errno. May block, boundedly. */
	int (*open)(void *ctx, uint32_t number, bool sparse, int fds[2]);
	void (*close)(void *ctx, uint32_t number, bool sparse, int fds[2]);
};

struct fd_entry;

struct fd_cache {
	const struct fd_cache_ops *ops;
	void *ctx;
	unsigned max;
	struct mutex mu;
	struct cond opened;
	/* guarded by mu */
	struct fd_entry *by_number; /* uthash, in order of use */
};

/* At most `wanted`, and so few that two descriptors each are a quarter of the process's limit. */
unsigned fd_cache_room(unsigned wanted);
void fd_cache_init(struct fd_cache *c, unsigned max, const struct fd_cache_ops *ops, void *ctx);
/* Closes all; nobody may be using one. */
void fd_cache_deinit(struct fd_cache *c);

/* -EMFILE when all are in use, or what open said. */
int fd_cache_get(struct fd_cache *c, uint32_t number, bool sparse, struct fd_entry **ret);
void fd_cache_put(struct fd_cache *c, struct fd_entry *e);
int fd_entry_data(const struct fd_entry *e);
int fd_entry_checks(const struct fd_entry *e); /* of a sparse file */
int fd_entry_direct(const struct fd_entry *e); /* of a segment; else -1 */

/* Closes it as soon as nobody uses it; a get meanwhile opens it anew. */
void fd_cache_drop(struct fd_cache *c, uint32_t number);
/* Closes those that nobody used since `before_ms` (monotonic). */
void fd_cache_close_idle(struct fd_cache *c, int64_t before_ms);
