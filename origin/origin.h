/*
 * A remote store of immutable objects: what a dataset is listed and read from.
 *
 * One vtable (struct origin_ops), implementations origin_file.c, origin_http.c, origin_s3.c and
 * origin_mem.c (tests, with fault injection). Retries, back-off, deadlines and cancelling live
 * above the vtable in origin.c, so every implementation has the same behaviour; an implementation
 * makes one attempt and classifies its failure.
 *
 * URLs: file:///dir, s3://bucket[/prefix], http(s)://host[:port]/path/, mem://name (tests).
 * Paths are relative to the URL, arbitrary bytes but NUL, not NUL-terminated, '/' between
 * components.
 *
 * Outcomes of stat and get: 0; ORIGIN_CHANGED: the object is not the one of the snapshot (validator
 * or size differ) and no byte of it was kept; ORIGIN_GONE: there is no such object.
 * Errors: -EACCES credentials refused (after they were read anew once), -ETIMEDOUT the deadline
 * passed, -ECANCELED, -EIO all retries failed or an answer made no sense, -EINVAL bad URL or
 * option, -ENOMEM. Texts name origin, object and cause, and never hold a secret.
 *
 * Threading: an origin may be used from many threads at once. All strings are borrowed for the
 * call.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define ORIGIN_CHANGED 1
#define ORIGIN_GONE 2

enum origin_entry_type {
	ORIGIN_FILE,
	ORIGIN_DIR,
	ORIGIN_SYMLINK,
	ORIGIN_OTHER /* device, socket, symlink out of the tree, unreadable directory: listed so
		      * that the import can report it */
};

/* Attributes that an origin does not know are ORIGIN_UNKNOWN_MODE / ORIGIN_UNKNOWN_ID. */
#define ORIGIN_UNKNOWN_MODE UINT32_MAX
#define ORIGIN_UNKNOWN_ID UINT32_MAX

struct origin_entry {
	const char *path;
	size_t path_len;
	enum origin_entry_type type;
	uint64_t size;
	int64_t mtime_ns;
	/* What proves that bytes are still the listed ones: an etag as the server wrote it, quotes
	 * included; "ino:ctime_ns" for file://; "" where the origin gives none (weaker guarantee).
	 */
	const char *validator;
	uint32_t mode; /* permission bits */
	uint32_t uid, gid;
	const char *target; /* of a symlink, as stored */
	size_t target_len;
	const char *reason; /* ORIGIN_OTHER: why it cannot be served; NULL otherwise */
};

/*
 * Options: one table in options.c declares each key with its doc, default and whether it is secret.
 * Secret ones (credentials) are held in memory only: never persisted, logged, shown or sent over
 * anything but a unix socket.
 */
struct origin_options; /* a small map of known keys */
struct origin_options *origin_options_new(void);
struct origin_options *origin_options_copy(const struct origin_options *o);
void origin_options_free(struct origin_options *o);
/* -EINVAL names an unknown key or a malformed value. */
int origin_options_set(
	struct origin_options *o, const char *key, const char *value, struct error *err);
const char *origin_options_get(const struct origin_options *o, const char *key); /* NULL: unset */
/* Takes what the environment of this process says (AWS_*, proxies, ...) for keys that are unset. */
void origin_options_from_environment(struct origin_options *o);

struct origin_option_info {
	const char *key;      /* "endpoint", "region", "profile", "addressing", "sign", ... */
	const char *doc;      /* one line for --help */
	const char *fallback; /* shown as the default; NULL for none */
	bool secret;
	bool off; /* yes or no, and no when nobody says it: a flag without a value */
};
/* The table; ends with key == NULL. The CLI makes its flags from it. */
const struct origin_option_info *origin_option_table(void);

struct origin;

/* Checks the URL and the options; talks to nobody. The options are copied. */
int origin_open(
	const char *url, const struct origin_options *opts, struct origin **ret, struct error *err);
void origin_free(struct origin *o);
const char *origin_url(const struct origin *o); /* without credentials that were in it */
/* How strong the snapshot guarantee is: "etag", "inode+ctime", "size only", ... */
const char *origin_guarantee(const struct origin *o);
/* New credentials for a live origin (renewed by a second `granary up`); the options are copied. */
int origin_renew(struct origin *o, const struct origin_options *opts, struct error *err);

/* ---- list ------------------------------------------------------------------------------------ */

/* Called from several threads, but never at once for one listing. Negative stops the listing. */
typedef int origin_entry_fn(void *arg, const struct origin_entry *e, struct error *err);

/* Every entry below the URL, in no order; implied parent directories may be left out. Entries with
 * odd names are passed on as they are: judging names is the import's business. */
int origin_list(struct origin *o, origin_entry_fn *fn, void *arg, const atomic_bool *cancel,
	int64_t deadline_ms, struct error *err);

int origin_stat(struct origin *o, const char *path, size_t path_len, struct origin_entry *ret,
	char validator_room[static 256], int64_t deadline_ms, struct error *err);

/* ---- ranged get ------------------------------------------------------------------------------ */

struct origin_get {
	const char *path;
	size_t path_len;
	const char *validator; /* of the snapshot; "" for none */
	uint64_t object_bytes; /* of the snapshot */
	uint64_t offset, len;  /* within the object; len > 0 */
	unsigned char *dst;    /* room for len */
	/* May be NULL. Called on the getting thread as bytes arrive: dst[0..filled) are final. */
	void (*progress)(void *arg, uint64_t filled);
	void *arg;
	const atomic_bool *cancel; /* may be NULL; looked at while waiting */
	int64_t deadline_ms;
	/* May be NULL. Body bytes that came are added to it, also those that came twice or were
	 * thrown away, and those of a get that fails. */
	uint64_t *received;
};

/* Fills exactly len bytes, or fails. A retry goes on behind the bytes that arrived. */
int origin_get(struct origin *o, const struct origin_get *get, struct error *err);

/* Body bytes received so far, retried ones included. */
uint64_t origin_bytes_received(const struct origin *o);
