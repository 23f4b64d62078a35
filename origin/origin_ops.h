/*
 * What an implementation of an origin provides: one attempt of each operation, and its failure
 * classified. Everything that all origins share (retries, back-off, deadlines, cancelling, renewed
 * credentials, error texts) is in origin.c and retry.c, above this vtable.
 *
 * Outcomes of an attempt:
 *   0                   done
 *   ORIGIN_CHANGED      the object is not the one of the snapshot; final
 *   ORIGIN_GONE         there is no such object; final
 *   ORIGIN_RETRY        may succeed if tried again: 5xx, 429, RequestTimeout, a broken connection,
 * a short body, a stall. at->cause says why, at->retry_after_ms what the server asked for
 *   ORIGIN_CREDENTIALS  refused for who we are; tried once more after ops->reread_credentials
 *   negative            fatal, with a text that names the cause only: the loop puts origin and
 *                       object before it
 *
 * An implementation looks at attempt_stopped() at least five times a second while it waits and
 * returns ORIGIN_RETRY then: the loop finds out which of cancel and deadline it was.
 */
#pragma once

#include "origin/origin.h"
#include "origin/retry.h"

/* One attempt's part of a get: what is still missing. */
struct origin_range {
	const char *path;
	size_t path_len;
	const char *validator; /* "" for none */
	uint64_t object_bytes;
	uint64_t offset, len; /* len > 0; offset + len <= object_bytes */
	unsigned char *dst;   /* for len bytes */
};

struct origin_listing {
	const struct retry *retry; /* for the requests that a listing is made of */
	const char *url;
	unsigned threads;
	const atomic_bool *cancel; /* may be NULL */
	int64_t deadline_ms;
	origin_entry_fn *fn; /* never called by two threads at once: go through walk.h */
	void *arg;
};

struct origin_ops {
	const char *scheme; /* "s3": all URLs that begin with s3:// */

	/* Checks the URL and keeps what it needs of the options; talks to nobody. Writes the URL to
	 * be shown, without credentials, to ret_shown (malloc'ed). */
	int (*open)(const char *url, const struct origin_options *opts, void **ret_impl,
		char **ret_shown, struct error *err);
	void (*free)(void *impl);
	const char *(*guarantee)(void *impl);

	/* All entries to l->fn. Not retried as a whole: retries its own requests with l->retry. */
	int (*list)(void *impl, const struct origin_listing *l, struct error *err);

	/* Fills *ret; strings point into ret_validator or the caller's path. */
	int (*stat)(void *impl, const char *path, size_t path_len, struct origin_entry *ret,
		char ret_validator[static 256], struct origin_attempt *at, struct error *err);

	/* Fills range->dst from its start, reporting bytes by attempt_arrived() in order once they
	 * are known to be the snapshot's; 0 only when all have arrived. */
	int (*get)(void *impl, const struct origin_range *range, struct origin_attempt *at,
		struct error *err);

	/* NULL where there are no credentials. Gets them from their source again; a failure is
	 * final for the operation. */
	int (*reread_credentials)(void *impl, struct origin_attempt *at, struct error *err);
	/* New options for a live origin; only credentials may differ. NULL: nothing to renew. */
	int (*renew)(void *impl, const struct origin_options *opts, struct error *err);
};

/* Seconds of a server, which may be any number; 0 for what makes no sense. */
static inline int64_t origin_mtime_ns(int64_t seconds)
{
	return seconds > 0 && seconds <= INT64_MAX / 1000000000 ? seconds * 1000000000 : 0;
}

extern const struct origin_ops origin_mem_ops;
extern const struct origin_ops origin_file_ops;
extern const struct origin_ops origin_http_ops;
extern const struct origin_ops origin_https_ops;
extern const struct origin_ops origin_s3_ops;

/* For tests: another clock, sleep and chance; before the origin's first use. */
void origin_set_retry_env(struct origin *o, const struct retry_env *env);
