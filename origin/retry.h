/*
 * The retry loop that all origin operations share: attempts with jittered exponential back-off,
 * until one is final, the deadline passes, the caller cancels, or too many in a row brought
 * nothing.
 *
 * Rules: the n-th wait is between half of and all of min(RETRY_WAIT_MIN_MS << n,
 * RETRY_WAIT_MAX_MS), or what the server asked for (bounded by RETRY_AFTER_MAX_MS) when that is
 * longer. An attempt that brought bytes starts the count anew. Refused credentials are read anew
 * once and tried once more.
 *
 * Errors of retry_run: -ETIMEDOUT, -ECANCELED, -EACCES (credentials), -EIO (attempts used up), or
 * the attempt's own. Texts: "SUBJECT: CAUSE (tried N times)".
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define ORIGIN_RETRY 3
#define ORIGIN_CREDENTIALS 4

#define RETRY_WAIT_MIN_MS 50
#define RETRY_WAIT_MAX_MS 5000
#define RETRY_AFTER_MAX_MS 30000
#define RETRY_FIRST_CONTACT 6
/* How often a wait looks at the caller's cancel flag. */
#define RETRY_SLICE_MS 20

/* Time and chance, so that tests control them. */
struct retry_env {
	void *arg;
	int64_t (*now_ms)(void *arg);
	/* Sleeps; may return early when *cancel (may be NULL) becomes true. */
	void (*sleep_ms)(void *arg, int64_t ms, const atomic_bool *cancel);
	uint64_t (*random)(void *arg);
};

extern const struct retry_env retry_env_real;

struct retry {
	struct retry_env env;
	int64_t attempt_ms;		/* time limit of one attempt */
	unsigned attempts_max;		/* in a row, without a byte */
	atomic_uint_fast64_t *received; /* counts body bytes; may be NULL */
};

#define ORIGIN_CAUSE_BYTES 256

struct origin_attempt {
	/* set by the loop */
	const struct retry *retry;
	const atomic_bool *cancel; /* may be NULL */
	int64_t deadline_ms;	   /* of this attempt */
	void (*progress)(void *arg, uint64_t filled);
	void *progress_arg;
	uint64_t *received; /* of this operation alone; may be NULL */
	/* grows over the attempts of one operation */
	uint64_t arrived_bytes;
	/* the implementation's own: which credentials the last attempt used */
	uint64_t credentials_used;
	/* set by the attempt */
	int64_t retry_after_ms; /* 0: the server did not say */
	bool unreachable;	/* no answer at all came: a wrong name, port, protocol? */
	char cause[ORIGIN_CAUSE_BYTES];
};

/* True when the attempt should end: cancelled, or its time is up. */
bool attempt_stopped(const struct origin_attempt *at);
/* `bytes` more are final in the destination. */
void attempt_arrived(struct origin_attempt *at, uint64_t bytes);
/* Body bytes that are not (only) the destination's: listings, bytes thrown away. */
void attempt_count_received(struct origin_attempt *at, uint64_t bytes);
/* Writes at->cause; returns ORIGIN_RETRY. */
int attempt_retry(struct origin_attempt *at, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* The server asks to wait for so long; before attempt_retry. */
void attempt_pause(struct origin_attempt *at, int64_t seconds);
/* Writes at->cause; returns ORIGIN_CREDENTIALS. */
int attempt_refused(struct origin_attempt *at, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* What an operation is about, for its error text; borrowed. */
struct retry_subject {
	const char *verb; /* "list", "stat", "read" */
	const char *url;
	const char *path;
	size_t path_len;
};

struct retry_work {
	int (*attempt)(void *arg, struct origin_attempt *at, struct error *err);
	/* NULL: refused credentials are final. */
	int (*reread_credentials)(void *arg, struct origin_attempt *at, struct error *err);
	void *arg;
	struct retry_subject subject;
	/* Somebody waits for a first sign of life: a server that is not there is not retried for
	 * longer than RETRY_FIRST_CONTACT attempts. */
	bool first_contact;
	const atomic_bool *cancel;
	int64_t deadline_ms;
	void (*progress)(void *arg, uint64_t filled);
	void *progress_arg;
	uint64_t *received; /* body bytes are added to it; may be NULL */
};

/* 0, ORIGIN_CHANGED, ORIGIN_GONE, or negative with a text. */
int retry_run(const struct retry *r, const struct retry_work *work, struct error *err);
