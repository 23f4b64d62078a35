/*
 * A bounded, parallel walk over the folders of an origin: each item (a directory, a prefix, an
 * index page) is visited once by one of a few threads, which report entries and push further items.
 *
 * Items are opaque bytes. They wait on one stack (last in, first out: a depth-first walk keeps it
 * short) of at most WALK_STACK_BYTES. The first error stops all threads and is the walk's result.
 * The caller's thread takes part, so a walk works, more slowly, when no thread can be made.
 */
#pragma once

#include <stddef.h>

#include "origin/origin_ops.h"

#define WALK_STACK_BYTES ((size_t)256 << 20)
#define WALK_THREADS_MAX 64

struct walk;

/* The item is the visitor's for the call. */
typedef int walk_visit_fn(
	void *arg, struct walk *w, const char *item, size_t len, struct error *err);

/* 0, or the first error; -ECANCELED and -ETIMEDOUT as the listing says. */
int walk_run(const struct origin_listing *l, const char *item, size_t len, walk_visit_fn *visit,
	void *arg, struct error *err);

/* 0, or -ENOMEM when the stack is full. */
int walk_push(struct walk *w, const char *item, size_t len, struct error *err);
/* Items that wait or are being visited. */
size_t walk_pending(struct walk *w);
int walk_emit(struct walk *w, const struct origin_entry *e, struct error *err);
/* Looked at by visitors between requests: negative, with a text, when the walk is to end. */
int walk_check(struct walk *w, struct error *err);
