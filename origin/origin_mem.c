#include "origin/origin_mem.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "common/cleanup.h"
#include "common/sync.h"
#include "origin/origin_ops.h"
#include "origin/walk.h"

#define MEM_CHUNK_BYTES 65536
#define MEM_FAULTS_MAX 256

struct mem_object {
	UT_hash_handle hh;
	enum origin_entry_type type;
	unsigned char *data; /* NULL: the pattern */
	uint64_t size, seed;
	char *text; /* target of a symlink, reason of an other */
	uint32_t mode, uid, gid;
	int64_t mtime_ns;
	char validator[64];
	uint64_t gets;
	size_t path_len;
	char path[];
};

struct mem_store {
	char name[64];
	struct mem_store *next; /* guarded by stores_mu */

	struct mutex mu;
	/* guarded by mu */
	struct mem_object *objects;
	unsigned versions;
	struct mem_fault faults[MEM_FAULTS_MAX];
	unsigned fault_hits[MEM_FAULTS_MAX];
	char *fault_paths[MEM_FAULTS_MAX];
	unsigned n_faults;
	unsigned accepted_credentials, source_credentials;
	unsigned gets_at_once;
	struct mem_counts counts;
	atomic_bool undivided;
	mem_sent_fn *sent;
	void *sent_arg;
};

struct mem_origin {
	struct mem_store *store;
	atomic_uint credentials;
};

static struct mutex stores_mu = MUTEX_INIT;
static struct mem_store *stores; /* guarded by stores_mu */

struct mem_store *mem_store_new(const char *name)
{
	struct mem_store *s = calloc(1, sizeof(*s));

	assert(s && strlen(name) < sizeof(s->name));
	strcpy(s->name, name);
	mutex_init(&s->mu);
	mutex_guard(&stores_mu);
	s->next = stores;
	stores = s;
	return s;
}

static void object_free(struct mem_object *m)
{
	free(m->data);
	free(m->text);
	free(m);
}

void mem_store_free(struct mem_store *s)
{
	struct mem_object *m, *next;

	if (!s)
		return;
	mutex_lock(&stores_mu);
	for (struct mem_store **at = &stores; *at; at = &(*at)->next) {
		if (*at == s) {
			*at = s->next;
			break;
		}
	}
	mutex_unlock(&stores_mu);
	HASH_ITER (hh, s->objects, m, next) {
		HASH_DEL(s->objects, m);
		object_free(m);
	}
	mem_store_clear_faults(s);
	mutex_deinit(&s->mu);
	free(s);
}

static struct mem_object *find_locked(struct mem_store *s, const char *path, size_t len)
{
	struct mem_object *m;

	assert(mutex_held(&s->mu));
	HASH_FIND(hh, s->objects, path, len, m);
	return m;
}

/* Takes `data` and `text`. */
static void put(struct mem_store *s, const void *path, size_t len, enum origin_entry_type type,
	unsigned char *data, uint64_t size, uint64_t seed, char *text)
{
	struct mem_object *m = calloc(1, sizeof(*m) + len + 1), *old;

	assert(m);
	m->type = type;
	m->data = data;
	m->size = size;
	m->seed = seed;
	m->text = text;
	m->mode = ORIGIN_UNKNOWN_MODE;
	m->uid = m->gid = ORIGIN_UNKNOWN_ID;
	m->path_len = len;
	memcpy(m->path, path, len);

	mutex_guard(&s->mu);
	snprintf(m->validator, sizeof(m->validator), "\"v%u\"", ++s->versions);
	old = find_locked(s, path, len);
	if (old) {
		m->gets = old->gets;
		HASH_DEL(s->objects, old);
		object_free(old);
	}
	HASH_ADD_KEYPTR(hh, s->objects, m->path, m->path_len, m);
}

void mem_store_put(struct mem_store *s, const char *path, const void *data, size_t len)
{
	unsigned char *copy = malloc(len + 1);

	assert(copy);
	memcpy(copy, data, len);
	put(s, path, strlen(path), ORIGIN_FILE, copy, len, 0, NULL);
}

void mem_store_put_pattern(struct mem_store *s, const char *path, uint64_t size, uint64_t seed)
{
	put(s, path, strlen(path), ORIGIN_FILE, NULL, size, seed, NULL);
}

static uint64_t pattern_word(uint64_t seed, uint64_t index)
{
	uint64_t x = (index + 1) * 0x9E3779B97F4A7C15u ^ seed * 0xC2B2AE3D27D4EB4Fu;

	x ^= x >> 29;
	x *= 0xBF58476D1CE4E5B9u;
	return x ^ x >> 32;
}

void mem_store_pattern(uint64_t seed, uint64_t offset, void *dst, size_t len)
{
	unsigned char *to = dst;
	uint64_t word;
	size_t n;

	for (; len > 0; offset += n, to += n, len -= n) {
		word = htole64(pattern_word(seed, offset / 8) >> (offset % 8 * 8));
		n = 8 - offset % 8;
		if (n > len)
			n = len;
		memcpy(to, &word, n);
	}
}

void mem_store_put_dir(struct mem_store *s, const char *path)
{
	put(s, path, strlen(path), ORIGIN_DIR, NULL, 0, 0, NULL);
}

void mem_store_put_symlink(struct mem_store *s, const char *path, const char *target)
{
	put(s, path, strlen(path), ORIGIN_SYMLINK, NULL, strlen(target), 0, strdup(target));
}

void mem_store_put_other(struct mem_store *s, const char *path, const char *reason)
{
	put(s, path, strlen(path), ORIGIN_OTHER, NULL, 0, 0, strdup(reason));
}

void mem_store_put_raw_name(struct mem_store *s, const void *path, size_t path_len)
{
	put(s, path, path_len, ORIGIN_FILE, NULL, 0, 0, NULL);
}

void mem_store_remove(struct mem_store *s, const char *path)
{
	struct mem_object *m;

	mutex_guard(&s->mu);
	m = find_locked(s, path, strlen(path));
	if (m) {
		HASH_DEL(s->objects, m);
		object_free(m);
	}
}

void mem_store_set_attr(struct mem_store *s, const char *path, uint32_t mode, uint32_t uid,
	uint32_t gid, int64_t mtime_ns)
{
	struct mem_object *m;

	mutex_guard(&s->mu);
	m = find_locked(s, path, strlen(path));
	assert(m);
	m->mode = mode;
	m->uid = uid;
	m->gid = gid;
	m->mtime_ns = mtime_ns;
}

void mem_store_set_validator(struct mem_store *s, const char *path, const char *validator)
{
	struct mem_object *m;

	mutex_guard(&s->mu);
	m = find_locked(s, path, strlen(path));
	assert(m && strlen(validator) < sizeof(m->validator));
	strcpy(m->validator, validator);
}

void mem_store_add_fault(struct mem_store *s, const struct mem_fault *f)
{
	mutex_guard(&s->mu);
	assert(s->n_faults < MEM_FAULTS_MAX);
	s->faults[s->n_faults] = *f;
	s->fault_hits[s->n_faults] = 0;
	s->fault_paths[s->n_faults] = f->path ? strdup(f->path) : NULL;
	s->n_faults++;
}

void mem_store_clear_faults(struct mem_store *s)
{
	mutex_guard(&s->mu);
	while (s->n_faults > 0)
		free(s->fault_paths[--s->n_faults]);
}

void mem_store_expire_credentials(struct mem_store *s, bool source_has_new)
{
	mutex_guard(&s->mu);
	s->accepted_credentials++;
	if (source_has_new)
		s->source_credentials = s->accepted_credentials;
}

void mem_store_set_undivided(struct mem_store *s)
{
	atomic_store(&s->undivided, true);
}

void mem_store_on_sent(struct mem_store *s, mem_sent_fn *fn, void *arg)
{
	mutex_guard(&s->mu);
	s->sent = fn;
	s->sent_arg = arg;
}

struct mem_counts mem_store_counts(struct mem_store *s)
{
	mutex_guard(&s->mu);
	return s->counts;
}

uint64_t mem_store_gets_of(struct mem_store *s, const char *path)
{
	struct mem_object *m;

	mutex_guard(&s->mu);
	m = find_locked(s, path, strlen(path));
	return m ? m->gets : 0;
}

/* ---- the origin ------------------------------------------------------------------------------ */

static int mem_open(const char *url, const struct origin_options *opts, void **ret_impl,
	char **ret_shown, struct error *err)
{
	const char *name = url + strlen("mem://");
	struct mem_origin *o;
	struct mem_store *s;

	(void)opts;
	mutex_guard(&stores_mu);
	for (s = stores; s && strcmp(s->name, name) != 0;)
		s = s->next;
	if (!s)
		return error_set(
			err, -EINVAL, "%s: mem:// is for tests, and no test made this store", url);
	o = calloc(1, sizeof(*o));
	*ret_shown = strdup(url);
	if (!o || !*ret_shown) {
		free(o);
		return error_set(err, -ENOMEM, "%s: out of memory", url);
	}
	o->store = s;
	mutex_guard(&s->mu);
	o->credentials = s->accepted_credentials;
	*ret_impl = o;
	return 0;
}

static void mem_free(void *impl)
{
	free(impl);
}

static const char *mem_guarantee(void *impl)
{
	(void)impl;
	return "etag";
}

static bool fault_fits_locked(
	struct mem_store *s, unsigned i, enum mem_op op, const char *path, size_t len)
{
	const struct mem_fault *f = &s->faults[i];
	const char *only = s->fault_paths[i];

	if (f->ops && !(f->ops & op))
		return false;
	if (only && (strlen(only) != len || memcmp(only, path, len) != 0))
		return false;
	return !f->count || s->fault_hits[i] < f->skip + f->count;
}

/* Takes the fault of this attempt; false when there is none. */
static bool take_fault(
	struct mem_origin *o, enum mem_op op, const char *path, size_t len, struct mem_fault *ret)
{
	struct mem_store *s = o->store;

	mutex_guard(&s->mu);
	s->counts.lists += op == MEM_LIST;
	s->counts.stats += op == MEM_STAT;
	s->counts.gets += op == MEM_GET;
	if (o->credentials != s->accepted_credentials) {
		*ret = (struct mem_fault){.kind = MEM_FAIL_CREDENTIALS};
		return true;
	}
	for (unsigned i = 0; i < s->n_faults; i++) {
		if (!fault_fits_locked(s, i, op, path, len))
			continue;
		if (s->fault_hits[i]++ < s->faults[i].skip)
			continue;
		*ret = s->faults[i];
		return true;
	}
	return false;
}

static void stall(struct origin_attempt *at, int64_t ms)
{
	const struct retry_env *env = &at->retry->env;
	int64_t end = env->now_ms(env->arg) + ms;

	while (!attempt_stopped(at)) {
		int64_t left = end - env->now_ms(env->arg);

		if (left <= 0)
			return;
		env->sleep_ms(env->arg, left < 10 ? left : 10, at->cancel);
	}
}

/* 0: go on, at most *limit bytes. */
static int suffer(struct mem_origin *o, enum mem_op op, const char *path, size_t len,
	struct origin_attempt *at, uint64_t *limit, struct error *err)
{
	struct mem_fault f;

	*limit = UINT64_MAX;
	if (!take_fault(o, op, path, len, &f))
		return 0;
	at->retry_after_ms = f.retry_after_ms;
	switch (f.kind) {
	case MEM_FAIL_RETRY:
		return attempt_retry(at, "injected failure");
	case MEM_FAIL_CREDENTIALS:
		return attempt_refused(at, "injected refusal of the credentials");
	case MEM_FAIL_FATAL:
		return error_set(err, -EIO, "injected fatal failure");
	case MEM_STALL:
		stall(at, INT64_MAX / 2);
		return attempt_retry(at, "injected stall");
	case MEM_TRUNCATE:
		*limit = f.bytes;
		return 0;
	case MEM_DELAY:
		stall(at, f.ms);
		return attempt_stopped(at) ? attempt_retry(at, "injected delay") : 0;
	case MEM_CHANGED:
		return ORIGIN_CHANGED;
	case MEM_GONE:
		return ORIGIN_GONE;
	}
	return 0;
}

static void describe_locked(const struct mem_object *m, struct origin_entry *ret)
{
	*ret = (struct origin_entry){
		.path = m->path,
		.path_len = m->path_len,
		.type = m->type,
		.size = m->size,
		.mtime_ns = m->mtime_ns,
		.validator = m->type == ORIGIN_FILE ? m->validator : "",
		.mode = m->mode,
		.uid = m->uid,
		.gid = m->gid,
	};
	if (m->type == ORIGIN_SYMLINK) {
		ret->target = m->text;
		ret->target_len = strlen(m->text);
	} else if (m->type == ORIGIN_OTHER) {
		ret->reason = m->text;
	}
}

struct list_work {
	struct mem_origin *o;
};

static int list_attempt(void *arg, struct origin_attempt *at, struct error *err)
{
	struct list_work *w = arg;
	uint64_t limit;

	return suffer(w->o, MEM_LIST, "", 0, at, &limit, err);
}

static int list_reread(void *arg, struct origin_attempt *at, struct error *err)
{
	struct list_work *w = arg;

	return origin_mem_ops.reread_credentials(w->o, at, err);
}

static int visit(void *arg, struct walk *walk, const char *item, size_t len, struct error *err)
{
	struct mem_store *s = ((struct mem_origin *)arg)->store;
	struct mem_object *m, *next;
	int r = 0;

	(void)item;
	(void)len;
	/* Tests list small stores: the lock may be held over their callback. */
	mutex_guard(&s->mu);
	HASH_ITER (hh, s->objects, m, next) {
		struct origin_entry e;

		describe_locked(m, &e);
		r = walk_emit(walk, &e, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int mem_list(void *impl, const struct origin_listing *l, struct error *err)
{
	struct list_work w = {.o = impl};
	struct retry_work work = {
		.attempt = list_attempt,
		.reread_credentials = list_reread,
		.arg = &w,
		.subject = {"list", l->url, "", 0},
		.cancel = l->cancel,
		.deadline_ms = l->deadline_ms,
	};
	int r = retry_run(l->retry, &work, err);

	if (r < 0)
		return r;
	if (r > 0)
		return error_set(err, -EIO, "list %s: it is gone", l->url);
	return walk_run(l, "", 0, visit, impl, err);
}

static int mem_stat(void *impl, const char *path, size_t path_len, struct origin_entry *ret,
	char ret_validator[static 256], struct origin_attempt *at, struct error *err)
{
	struct mem_origin *o = impl;
	struct mem_object *m;
	uint64_t limit;
	int r = suffer(o, MEM_STAT, path, path_len, at, &limit, err);

	if (r != 0)
		return r;
	mutex_guard(&o->store->mu);
	m = find_locked(o->store, path, path_len);
	if (!m)
		return ORIGIN_GONE;
	describe_locked(m, ret);
	strcpy(ret_validator, ret->validator);
	ret->validator = ret_validator;
	ret->path = path;
	return 0;
}

/* One chunk under the lock, so that a put between chunks is seen like on a real server. */
static int copy_chunk(
	struct mem_origin *o, const struct origin_range *range, uint64_t done, size_t n)
{
	struct mem_object *m;

	mutex_guard(&o->store->mu);
	m = find_locked(o->store, range->path, range->path_len);
	if (!m || m->type != ORIGIN_FILE)
		return ORIGIN_GONE;
	if (m->size != range->object_bytes ||
		(range->validator[0] && strcmp(m->validator, range->validator) != 0))
		return ORIGIN_CHANGED;
	if (m->data)
		memcpy(range->dst + done, m->data + range->offset + done, n);
	else
		mem_store_pattern(m->seed, range->offset + done, range->dst + done, n);
	o->store->counts.bytes += n;
	if (o->store->sent)
		o->store->sent(o->store->sent_arg, range->path, range->path_len, n);
	return 0;
}

static void count_get(struct mem_origin *o, const struct origin_range *range, int by)
{
	struct mem_store *s = o->store;
	struct mem_object *m;

	mutex_guard(&s->mu);
	s->gets_at_once += (unsigned)by;
	if (s->gets_at_once > s->counts.gets_at_once_max)
		s->counts.gets_at_once_max = s->gets_at_once;
	m = find_locked(s, range->path, range->path_len);
	if (m && by > 0)
		m->gets++;
}

static int get_counted(struct mem_origin *o, const struct origin_range *range,
	struct origin_attempt *at, struct error *err)
{
	uint64_t limit, done = 0;
	int r = suffer(o, MEM_GET, range->path, range->path_len, at, &limit, err);

	if (atomic_load(&o->store->undivided))
		attempt_count_received(at, range->offset);
	while (r == 0 && done < range->len) {
		uint64_t n = range->len - done;

		if (done >= limit)
			return attempt_retry(at, "injected end of the body after %llu bytes",
				(unsigned long long)done);
		if (n > MEM_CHUNK_BYTES)
			n = MEM_CHUNK_BYTES;
		if (n > limit - done)
			n = limit - done;
		if (attempt_stopped(at))
			return attempt_retry(at, "stopped");
		r = copy_chunk(o, range, done, n);
		if (r == 0)
			attempt_arrived(at, n);
		done += n;
	}
	return r;
}

static int mem_get(
	void *impl, const struct origin_range *range, struct origin_attempt *at, struct error *err)
{
	int r;

	count_get(impl, range, 1);
	r = get_counted(impl, range, at, err);
	count_get(impl, range, -1);
	return r;
}

static int mem_reread(void *impl, struct origin_attempt *at, struct error *err)
{
	struct mem_origin *o = impl;

	(void)at;
	(void)err;
	mutex_guard(&o->store->mu);
	o->store->counts.rereads++;
	o->credentials = o->store->source_credentials;
	return 0;
}

static int mem_renew(void *impl, const struct origin_options *opts, struct error *err)
{
	struct mem_origin *o = impl;

	(void)opts;
	(void)err;
	mutex_guard(&o->store->mu);
	o->credentials = o->store->accepted_credentials;
	return 0;
}

const struct origin_ops origin_mem_ops = {
	.scheme = "mem",
	.open = mem_open,
	.free = mem_free,
	.guarantee = mem_guarantee,
	.list = mem_list,
	.stat = mem_stat,
	.get = mem_get,
	.reread_credentials = mem_reread,
	.renew = mem_renew,
};
