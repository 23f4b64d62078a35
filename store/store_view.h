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
int store_view_new(const struct store_view_options *opts, struct store_view **ret, struct error *err);
void store_view_free(struct store_view *v);

/* 0 and verified bytes, or STORE_MISS (not there, recycled meanwhile, damaged: reported). */
int store_view_read(struct store_view *v, const struct store_block *b, uint32_t offset, uint32_t len,
		void *dst);
/* As far as the directory says; a moment later it may differ. */
bool store_view_has(struct store_view *v, const struct block_id *id);
bool store_view_connected(struct store_view *v);
