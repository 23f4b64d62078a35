/*
 * Where a mount's bytes come from. source_chain.c is the real one (local store, workers, origin);
 * tests put their own behind the same three functions.
 *
 * Contracts
 *  - read_local never waits for anything but a local disk: it runs on the threads that take the
 *    kernel's requests.
 *  - read may wait for the network, until the deadline or until the cancel fires, no longer.
 *  - Both fill all of the range with verified bytes of exactly this entry's object, or fail.
 *
 * Threading: any number of threads at once.
 */
#pragma once

#include <stdint.h>

#include "common/error.h"
#include "fuse/read_cancel.h"
#include "manifest/manifest.h"

enum block_from {
	BLOCK_FROM_LOCAL_STORE, /* this host's store, by view or by its worker */
	BLOCK_FROM_PEER_STORE,	/* another worker's store */
	BLOCK_FROM_FETCH,  /* a worker fetched it for this read, or the read waited for a fetch */
	BLOCK_FROM_ORIGIN, /* this mount got it past every worker */
	BLOCK_FROM_COUNT
};

/* A file of a snapshot; borrowed for the call. */
struct block_file {
	struct manifest *manifest;
	uint32_t index; /* of the entry */
	const struct manifest_entry *entry;
};

struct block_range {
	const struct block_file *file;
	uint64_t block;	      /* index in the file */
	uint32_t offset, len; /* within the block; len > 0 */
	uint32_t read_ahead;  /* bytes past the range that a sequential reader will want */
	unsigned char *dst;
	/* At dst, len or more; read_local may write all of it, and is quickest with a page aligned
	 * buffer of BLOCK_EXTRA_BYTES more. */
	size_t room;
};

#define READ_MAX_BYTES ((size_t)1 << 20) /* of one read; the kernel is told to make none longer */
#define BLOCK_EXTRA_BYTES 8192

/* One file on this host that has all bytes of another at their own offsets, and a hold on it: while
 * it lives, and while the kernel or anybody else has that file open or mapped through it, none of its
 * bytes change. */
struct block_whole {
	int fd; /* read-only, until close_fd */
	uint64_t bytes;
	/* What was verified under a key is as good whenever it is held under an equal one. */
	struct block_whole_key {
		uint64_t epoch, version;
	} key;
	/* 0; -ECANCELED when `goes_on`, asked once in a while, says false; or why it is not to be
	 * used. `buffer` is page aligned and has READ_MAX_BYTES. */
	int (*verify)(struct block_whole *w, void *buffer, bool past_page_cache,
		bool (*goes_on)(void *arg), void *arg);
	/* The store would like it back; whoever uses it need not hurry. */
	bool (*wanted_back)(struct block_whole *w);
	void (*close_fd)(struct block_whole *w);
	void (*free)(struct block_whole *w);
};

#define BLOCK_SOURCE_MISS 1

struct block_source {
	/* 0, or BLOCK_SOURCE_MISS. */
	int (*read_local)(struct block_source *s, const struct block_range *range);
	/* 0; -ECANCELED; -ETIMEDOUT; -ESTALE: the object is no longer the snapshot's; or what
	 * failed. */
	int (*read)(struct block_source *s, const struct block_range *range, int64_t deadline_ms,
		struct read_cancel *cancel, enum block_from *ret_from, struct error *err);
	/* A reader will want the range soon (no dst; no len: all of the block): has whoever answers
	 * for it start getting it. What does not work in time is left. Whether it is on its way:
	 * false also for what is stored. NULL: never. */
	bool (*prefetch)(
		struct block_source *s, const struct block_range *range, int64_t deadline_ms);
	/* Bytes of the file that some store holds; what does not answer in time counts as nothing.
	 */
	uint64_t (*cached)(
		struct block_source *s, const struct block_file *file, int64_t deadline_ms);
	/* 0, or BLOCK_SOURCE_MISS: some of it is missing, or cannot be had in this way. May wait for
	 * a worker of this host, a second at most. NULL: never. */
	int (*whole)(
		struct block_source *s, const struct block_file *file, struct block_whole **ret);
};
