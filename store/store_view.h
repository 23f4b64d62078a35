/*
 * The reader's side of the local short circuit: a mount on the worker's host reads the store's files
 * itself, through read-only descriptors and a read-only map of the store's directory.
 *
 * A view survives the worker: while the worker is gone, the blocks that the last directory names and
 * whose descriptors are held stay readable; it reconnects by itself (at most once a second) and then
 * uses the new directory.
 *
 * Descriptors held are bounded (`max_files`) and closed when idle or when the worker asks, so that
 * the worker can free what it dropped.
 *
 * Threading: any thread may read.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "store/store.h"

struct store_view;

struct store_view_options {
	const char *socket_path;
	unsigned max_files; /* 0: 256 */
};

/* Succeeds also while nobody listens: everything is STORE_MISS until then. */
int store_view_new(
	const struct store_view_options *opts, struct store_view **ret, struct error *err);
void store_view_free(struct store_view *v);

/* 0 and verified bytes, or STORE_MISS (not there, recycled meanwhile, damaged: reported). `room` at
 * dst is len or more, and all of it may be written: with STORE_VIEW_EXTRA_BYTES more, page aligned,
 * a whole small block is read past the page cache. */
#define STORE_VIEW_EXTRA_BYTES 8192
int store_view_read(struct store_view *v, const struct store_block *b, uint32_t offset,
	uint32_t len, void *dst, size_t room);
/* As far as the directory says; a moment later it may differ. */
bool store_view_has(struct store_view *v, const struct block_id *id);
bool store_view_connected(struct store_view *v);

/* ---- whole files: for whoever lets the kernel read one ---------------------------------------- */

/* A file of the store that has every block of an object at the object's own offset, and a hold on it:
 * as long as it lives, and as long as a descriptor that came from its own or a map made through one
 * is open anywhere, none of the file's bytes change, whatever becomes of the worker. */
struct store_whole;

/* What the file holds as long as that compares equal: a file that was verified once is as good when
 * it is held again. */
struct store_whole_key {
	uint64_t epoch; /* of the store's directory: another one whenever the store is opened */
	uint32_t file, generation;
};

/* 0; STORE_MISS: not whole, not durable yet, or nobody to ask; -EOPNOTSUPP: the store's file system
 * does not tell who uses a file. Waits for the worker, a second at most. The view outlives it. */
int store_view_whole(struct store_view *v, const struct object_id *object, uint64_t object_bytes,
	struct store_whole **ret);
/* Read-only, until close_fds. */
int store_whole_fd(const struct store_whole *w);
struct store_whole_key store_whole_key(const struct store_whole *w);
/* The worker wants it back, for it has dropped a block of it, or is another one by now. */
bool store_whole_wanted_back(const struct store_whole *w);

struct store_whole_check {
	struct object_id object;
	uint64_t object_bytes;
	void *buffer;	      /* page aligned */
	size_t buffer_bytes;  /* a multiple of BLOCK_CHECK_BYTES */
	bool past_page_cache; /* direct IO where there is any: nobody is about to read it */
	/* Asked before each piece of the buffer's size. */
	bool (*goes_on)(void *arg);
	void *arg;
};
/* Are all bytes the object's? 0; -EBADMSG: not those of *ret_block; -ECANCELED; or what failed. */
int store_whole_verify(
	struct store_whole *w, const struct store_whole_check *check, uint64_t *ret_block);
/* Closes its descriptors: whoever got one of his own goes on. */
void store_whole_close_fds(struct store_whole *w);
void store_whole_free(struct store_whole *w); /* NULL is fine */
