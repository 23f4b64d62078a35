/*
 * See manifest_cache.h. A digest is in one of three states: open (a slot holds it), pending (one
 * thread looks for it on disk and then at the master, others wait on the same struct), or neither.
 */
#include "cluster/manifest_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cluster/manifest_fetch.h"
#include "common/cleanup.h"
#include "common/sync.h"

#define LOG_SUBSYSTEM "manifest"
#include "common/log.h"

#define DIGEST_DIGITS (MANIFEST_DIGEST_TEXT_BYTES - 1)
#define OWN_SUFFIX ".fetched"
#define HALF_FETCHED_MAX_AGE_S 3600

struct slot {
	struct manifest *manifest; /* NULL: free */
	uint64_t used;		   /* tick of the last get */
};

struct pending {
	struct pending *next;
	char digest[MANIFEST_DIGEST_TEXT_BYTES];
	unsigned refs; /* the fetching thread and those who wait */
	struct manifest_fetch_cancel cancel;
	bool done;
	int result;
	struct manifest *manifest;
	struct error err;
};

struct manifest_cache {
	char *dir;
	struct mutex mu;
	struct cond changed; /* a pending one is done */

	/* guarded by mu */
	struct slot slots[MANIFEST_CACHE_OPEN_MAX];
	struct pending *pending;
	uint64_t tick;
	bool cancelled;
};

bool manifest_cache_digest_ok(const char *digest)
{
	return strlen(digest) == DIGEST_DIGITS &&
	       strspn(digest, "0123456789abcdef") == DIGEST_DIGITS;
}

/* ---- the directory --------------------------------------------------------------------------- */

static bool has_suffix(const char *name, const char *suffix)
{
	size_t n = strlen(name), s = strlen(suffix);

	return n >= s && strcmp(name + n - s, suffix) == 0;
}

static void remove_half_fetched(const char *dir)
{
	cleanup_dir DIR *d = opendir(dir);
	const struct dirent *e;
	struct stat st;

	if (!d)
		return;
	while ((e = readdir(d))) {
		if (!strstr(e->d_name, MANIFEST_FETCH_INFIX))
			continue;
		if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
			clock_wall_s() - st.st_mtim.tv_sec > HALF_FETCHED_MAX_AGE_S)
			unlinkat(dirfd(d), e->d_name, 0);
	}
}

static int make_dir(const char *dir, struct error *err)
{
	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return error_set_errno(err, -errno, "cannot make the manifest directory %s", dir);
	return 0;
}

int manifest_cache_new(const char *dir, struct manifest_cache **ret, struct error *err)
{
	struct manifest_cache *c;
	int r;

	r = make_dir(dir, err);
	if (r < 0)
		return r;
	c = calloc(1, sizeof(*c));
	if (!c || !(c->dir = strdup(dir))) {
		free(c);
		return error_set(err, -ENOMEM, "out of memory");
	}
	mutex_init(&c->mu);
	cond_init(&c->changed);
	remove_half_fetched(dir);
	*ret = c;
	return 0;
}

void manifest_cache_free(struct manifest_cache *c)
{
	if (!c)
		return;
	assert(!c->pending);
	for (size_t i = 0; i < MANIFEST_CACHE_OPEN_MAX; i++)
		if (c->slots[i].manifest)
			manifest_unref(c->slots[i].manifest);
	cond_deinit(&c->changed);
	mutex_deinit(&c->mu);
	free(c->dir);
	free(c);
}

/* ---- open ones ------------------------------------------------------------------------------- */

static struct slot *find_open_locked(struct manifest_cache *c, const char *digest)
{
	assert(mutex_held(&c->mu));
	for (size_t i = 0; i < MANIFEST_CACHE_OPEN_MAX; i++) {
		struct slot *s = &c->slots[i];

		if (s->manifest && strcmp(manifest_info(s->manifest)->digest, digest) == 0)
			return s;
	}
	return NULL;
}

/* Returns what had to leave the table, for the caller to unref outside of the lock. */
static struct manifest *keep_open_locked(struct manifest_cache *c, struct manifest *m)
{
	struct slot *oldest = &c->slots[0];
	struct manifest *out;

	assert(mutex_held(&c->mu));
	for (size_t i = 0; i < MANIFEST_CACHE_OPEN_MAX && oldest->manifest; i++)
		if (!c->slots[i].manifest || c->slots[i].used < oldest->used)
			oldest = &c->slots[i];
	out = oldest->manifest;
	oldest->manifest = manifest_ref(m);
	oldest->used = ++c->tick;
	return out;
}

/* ---- finding one ----------------------------------------------------------------------------- */

static int open_file(const char *path, const char *digest, struct manifest **ret, struct error *err)
{
	struct manifest *m;
	int r;

	if (access(path, F_OK) < 0)
		return -ENOENT;
	r = manifest_open(path, &m, err);
	if (r < 0)
		return r;
	if (strcmp(manifest_info(m)->digest, digest) != 0) {
		manifest_unref(m);
		return error_set(
			err, -EINVAL, "%s holds another manifest than its name says", path);
	}
	*ret = m;
	return 0;
}

/* On disk or from the master; called without the lock, by one thread at a time per digest. */
static int obtain(struct manifest_cache *c, struct rpc_channel *channel, struct pending *p,
	int64_t deadline_ms, struct manifest **ret, struct error *err)
{
	const char *digest = p->digest;
	cleanup_free char *masters = NULL;
	cleanup_free char *own = NULL;
	struct error why = ERROR_INIT;
	int r;

	if (asprintf(&masters, "%s/%s.manifest", c->dir, digest) < 0) {
		masters = NULL;
		return error_set(err, -ENOMEM, "out of memory");
	}
	if (asprintf(&own, "%s/%s" OWN_SUFFIX, c->dir, digest) < 0) {
		own = NULL;
		return error_set(err, -ENOMEM, "out of memory");
	}
	r = open_file(masters, digest, ret, &why);
	if (r == 0)
		return 0;
	if (r != -ENOENT)
		log_warn("passing over %s: %s", masters, why.text);
	r = open_file(own, digest, ret, &why);
	if (r == 0)
		return 0;
	if (r != -ENOENT) {
		log_warn("fetching %s anew: %s", own, why.text);
		unlink(own);
	}
	if (!channel)
		return error_set(err, -EAGAIN,
			"manifest %s is not in %s and there is no master to ask", digest, c->dir);
	r = make_dir(c->dir, err);
	if (r < 0)
		return r;
	r = manifest_fetch(channel, digest, own, deadline_ms, &p->cancel, err);
	if (r < 0)
		return r;
	r = open_file(own, digest, ret, err);
	return r == -ENOENT ? error_set(err, -EIO, "%s vanished", own) : r;
}

static void pending_unref_locked(struct pending *p)
{
	if (--p->refs > 0)
		return;
	if (p->manifest)
		manifest_unref(p->manifest);
	free(p);
}

static struct pending *find_pending_locked(struct manifest_cache *c, const char *digest)
{
	for (struct pending *p = c->pending; p; p = p->next)
		if (strcmp(p->digest, digest) == 0)
			return p;
	return NULL;
}

static void forget_pending_locked(struct manifest_cache *c, struct pending *p)
{
	struct pending **at = &c->pending;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
}

/* Waits for another thread's search: 0 with *ret, its failure, or 1 to start over. */
static int wait_pending_locked(struct manifest_cache *c, struct pending *p, int64_t deadline_ms,
	struct manifest **ret, struct error *err)
{
	int r = 0;

	p->refs++;
	while (!p->done && r == 0)
		r = cond_wait(&c->changed, &c->mu, deadline_ms);
	if (!p->done) {
		r = error_set(err, -ETIMEDOUT, "manifest %s did not come in time", p->digest);
	} else if (p->result == 0) {
		*ret = manifest_ref(p->manifest);
		r = 0;
	} else if (p->result == -ETIMEDOUT && !clock_passed(deadline_ms)) {
		r = 1; /* the deadline was the other thread's */
	} else {
		r = error_set(err, p->result, "%s", p->err.text);
	}
	pending_unref_locked(p);
	return r;
}

/* Makes this thread the one that searches; drops the lock while it does. */
static int search_locked(struct manifest_cache *c, struct rpc_channel *channel, const char *digest,
	int64_t deadline_ms, struct manifest **ret, struct error *err)
{
	struct pending *p = calloc(1, sizeof(*p));
	struct manifest *out = NULL;
	int r;

	if (!p)
		return error_set(err, -ENOMEM, "out of memory");
	memcpy(p->digest, digest, sizeof(p->digest));
	p->refs = 1;
	p->cancel.mu = &c->mu;
	p->cancel.cancelled = c->cancelled;
	p->next = c->pending;
	c->pending = p;
	mutex_unlock(&c->mu);
	r = obtain(c, channel, p, deadline_ms, &p->manifest, &p->err);
	mutex_lock(&c->mu);
	p->result = r;
	p->done = true;
	forget_pending_locked(c, p);
	if (r == 0) {
		out = keep_open_locked(c, p->manifest);
		*ret = manifest_ref(p->manifest);
	} else {
		error_set(err, r, "%s", p->err.text);
	}
	cond_broadcast(&c->changed);
	pending_unref_locked(p);
	if (out)
		manifest_unref(out);
	return r;
}

int manifest_cache_get(struct manifest_cache *c, struct rpc_channel *channel, const char *digest,
	int64_t deadline_ms, struct manifest **ret, struct error *err)
{
	struct pending *p;
	struct slot *s;
	int r;

	if (!manifest_cache_digest_ok(digest))
		return error_set(err, -EINVAL, "not the digest of a manifest");
	mutex_guard(&c->mu);
	do {
		s = find_open_locked(c, digest);
		if (s) {
			s->used = ++c->tick;
			*ret = manifest_ref(s->manifest);
			return 0;
		}
		p = find_pending_locked(c, digest);
		r = p ? wait_pending_locked(c, p, deadline_ms, ret, err)
		      : search_locked(c, channel, digest, deadline_ms, ret, err);
	} while (r > 0);
	return r;
}

int manifest_cache_file(struct manifest_cache *c, const char *digest)
{
	static const char *const suffixes[] = {".manifest", OWN_SUFFIX};
	int fd = -1;

	if (!manifest_cache_digest_ok(digest))
		return -EINVAL;
	for (size_t i = 0; fd < 0 && i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		cleanup_free char *path = NULL;

		if (asprintf(&path, "%s/%s%s", c->dir, digest, suffixes[i]) < 0) {
			path = NULL;
			return -ENOMEM;
		}
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	return fd < 0 ? -errno : fd;
}

void manifest_cache_cancel(struct manifest_cache *c)
{
	mutex_guard(&c->mu);
	c->cancelled = true;
	for (struct pending *p = c->pending; p; p = p->next)
		manifest_fetch_cancel_locked(&p->cancel);
}

/* ---- letting go ------------------------------------------------------------------------------ */

static void drop(struct manifest_cache *c, const char *digest)
{
	struct manifest *m = NULL;
	struct slot *s;

	mutex_lock(&c->mu);
	s = find_open_locked(c, digest);
	if (s)
		m = steal(&s->manifest);
	mutex_unlock(&c->mu);
	if (m)
		manifest_unref(m);
}

void manifest_cache_damaged(struct manifest_cache *c, const char *digest)
{
	cleanup_free char *own = NULL;

	if (!manifest_cache_digest_ok(digest))
		return;
	drop(c, digest);
	if (asprintf(&own, "%s/%s" OWN_SUFFIX, c->dir, digest) < 0) {
		own = NULL;
		return;
	}
	if (unlink(own) == 0)
		log_warn("%s is damaged: it will be fetched anew", own);
}

static bool is_kept(const char *digest, const char *const *keep, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (strncmp(digest, keep[i], DIGEST_DIGITS) == 0)
			return true;
	return false;
}

void manifest_cache_prune(struct manifest_cache *c, const char *const *keep, size_t count)
{
	cleanup_dir DIR *d = NULL;
	const struct dirent *e;

	for (size_t i = 0; i < MANIFEST_CACHE_OPEN_MAX; i++) {
		struct manifest *m = NULL;

		mutex_lock(&c->mu);
		if (c->slots[i].manifest &&
			!is_kept(manifest_info(c->slots[i].manifest)->digest, keep, count))
			m = steal(&c->slots[i].manifest);
		mutex_unlock(&c->mu);
		if (m)
			manifest_unref(m);
	}
	d = opendir(c->dir);
	if (!d)
		return;
	while ((e = readdir(d)))
		if (has_suffix(e->d_name, OWN_SUFFIX) && !is_kept(e->d_name, keep, count))
			unlinkat(dirfd(d), e->d_name, 0);
}
