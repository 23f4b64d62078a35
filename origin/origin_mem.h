/*
 * An origin in memory, for tests: mem://NAME serves what a test puts into the store of that name,
 * and fails the way the test's faults say.
 *
 * A store is made before the origins that use it and freed after them. Objects get a new validator
 * ("v1", "v2", ... with quotes) whenever they are put. Faults are taken in the order they were
 * added: an attempt takes the first one that fits (operation, path) and still has a skip or a count
 * left. All functions may be called while origins are in use, from any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mem_store;

/* The name is free for use again after mem_store_free. */
struct mem_store *mem_store_new(const char *name);
void mem_store_free(struct mem_store *s);

void mem_store_put(struct mem_store *s, const char *path, const void *data, size_t len);
/* An object of any size without memory: its bytes are mem_store_pattern's. */
void mem_store_put_pattern(struct mem_store *s, const char *path, uint64_t size, uint64_t seed);
/* The bytes [offset, offset+len) of any object with that seed. */
void mem_store_pattern(uint64_t seed, uint64_t offset, void *dst, size_t len);
void mem_store_put_dir(struct mem_store *s, const char *path);
void mem_store_put_symlink(struct mem_store *s, const char *path, const char *target);
void mem_store_put_other(struct mem_store *s, const char *path, const char *reason);
/* Listed as it is, whatever the bytes; an empty file. */
void mem_store_put_raw_name(struct mem_store *s, const void *path, size_t path_len);
void mem_store_remove(struct mem_store *s, const char *path);
/* Mode, owner and time of an entry; entries start with unknown mode and owner, and time 0. */
void mem_store_set_attr(struct mem_store *s, const char *path, uint32_t mode, uint32_t uid,
	uint32_t gid, int64_t mtime_ns);
/* The validator from now on; "" for an origin that gives none. */
void mem_store_set_validator(struct mem_store *s, const char *path, const char *validator);
/* From now on each get sends the object from its beginning, as a server does that knows no ranges:
 * what is before the range counts as received, not in mem_counts. */
void mem_store_set_undivided(struct mem_store *s);

enum mem_op { MEM_LIST = 1, MEM_STAT = 2, MEM_GET = 4, MEM_ANY = 7 };

enum mem_fault_kind {
	MEM_FAIL_RETRY,	      /* 500, 429 or a broken connection: retryable */
	MEM_FAIL_CREDENTIALS, /* refused, whatever the credentials */
	MEM_FAIL_FATAL,	      /* -EIO at once */
	MEM_STALL,	      /* nothing until the attempt's deadline or cancel, then retryable */
	MEM_TRUNCATE,	      /* brings `bytes`, then breaks off */
	MEM_DELAY,	      /* waits `ms`, then goes on as if there were no fault */
	MEM_CHANGED,
	MEM_GONE
};

struct mem_fault {
	enum mem_fault_kind kind;
	unsigned ops;	  /* enum mem_op, or-ed; 0 means MEM_ANY */
	const char *path; /* copied; NULL: any */
	unsigned skip;	  /* this many fitting attempts go well first */
	unsigned count;	  /* then so many are hit; 0: all */
	uint64_t bytes;
	unsigned ms;
	unsigned retry_after_ms;
};

void mem_store_add_fault(struct mem_store *s, const struct mem_fault *f);
void mem_store_clear_faults(struct mem_store *s);
/* From now on the credentials of all origins are refused, until they are read anew from a source
 * that has new ones. */
void mem_store_expire_credentials(struct mem_store *s, bool source_has_new);

struct mem_counts {
	uint64_t lists, stats, gets; /* attempts */
	uint64_t bytes;
	uint64_t rereads;
	unsigned gets_at_once_max;
};

/* Told of all body bytes in the moment that they leave, one call at a time; before the first get. It
 * must not call the store. */
typedef void mem_sent_fn(void *arg, const char *path, size_t path_len, uint64_t bytes);
void mem_store_on_sent(struct mem_store *s, mem_sent_fn *fn, void *arg);

struct mem_counts mem_store_counts(struct mem_store *s);
/* Attempts of gets of one object. */
uint64_t mem_store_gets_of(struct mem_store *s, const char *path);
