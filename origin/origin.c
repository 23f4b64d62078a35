#include "origin/origin.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "origin/options.h"
#include "origin/origin_ops.h"

struct origin {
	const struct origin_ops *ops;
	void *impl;
	char *url; /* to be shown */
	struct retry retry;
	unsigned list_parallel;
	atomic_uint_fast64_t received_bytes;
};

static const struct origin_ops *const all_ops[] = {
	&origin_file_ops,
	&origin_http_ops,
	&origin_https_ops,
#ifdef GRANARY_HAVE_S3
	&origin_s3_ops,
#endif
	&origin_mem_ops,
};

static const struct origin_ops *find_ops(const char *url)
{
	for (size_t i = 0; i < sizeof(all_ops) / sizeof(all_ops[0]); i++) {
		size_t len = strlen(all_ops[i]->scheme);

		if (strncasecmp(url, all_ops[i]->scheme, len) == 0 &&
			strncmp(url + len, "://", 3) == 0)
			return all_ops[i];
	}
	return NULL;
}

int origin_open(
	const char *url, const struct origin_options *opts, struct origin **ret, struct error *err)
{
	const struct origin_ops *ops = find_ops(url);
	struct origin *o;
	int r;

	if (!ops) {
		/* What stands before an '@' may be a password. */
		int shown = (int)(strchr(url, '@') ? strcspn(url, ":") : strlen(url));

		return error_set(err, -EINVAL,
			"'%.*s' is not an origin: give s3://bucket/prefix, "
			"http(s)://host/path/ or file:///directory",
			shown, url);
	}
	o = calloc(1, sizeof(*o));
	if (!o)
		return error_set(err, -ENOMEM, "origin: out of memory");
	o->ops = ops;
	r = ops->open(url, opts, &o->impl, &o->url, err);
	if (r < 0) {
		free(o->url);
		free(o);
		return r;
	}
	o->retry = (struct retry){
		.env = retry_env_real,
		.attempt_ms = origin_options_ms(opts, "timeout"),
		.attempts_max = (unsigned)origin_options_number(opts, "attempts"),
		.received = &o->received_bytes,
	};
	o->list_parallel = (unsigned)origin_options_number(opts, "list-parallel");
	*ret = o;
	return 0;
}

void origin_free(struct origin *o)
{
	if (!o)
		return;
	o->ops->free(o->impl);
	free(o->url);
	free(o);
}

void origin_set_retry_env(struct origin *o, const struct retry_env *env)
{
	o->retry.env = *env;
}

const char *origin_url(const struct origin *o)
{
	return o->url;
}

const char *origin_guarantee(const struct origin *o)
{
	return o->ops->guarantee(o->impl);
}

uint64_t origin_bytes_received(const struct origin *o)
{
	return atomic_load_explicit(&o->received_bytes, memory_order_relaxed);
}

int origin_renew(struct origin *o, const struct origin_options *opts, struct error *err)
{
	return o->ops->renew ? o->ops->renew(o->impl, opts, err) : 0;
}

int origin_list(struct origin *o, origin_entry_fn *fn, void *arg, const atomic_bool *cancel,
	int64_t deadline_ms, struct error *err)
{
	struct origin_listing l = {
		.retry = &o->retry,
		.url = o->url,
		.threads = o->list_parallel,
		.cancel = cancel,
		.deadline_ms = deadline_ms,
		.fn = fn,
		.arg = arg,
	};

	return o->ops->list(o->impl, &l, err);
}

static int reread_credentials(void *arg, struct origin_attempt *at, struct error *err)
{
	struct origin *const *o = arg; /* every work's first member */

	return (*o)->ops->reread_credentials((*o)->impl, at, err);
}

struct stat_work {
	struct origin *o;
	const char *path;
	size_t path_len;
	struct origin_entry *ret;
	char *validator;
};

static int stat_attempt(void *arg, struct origin_attempt *at, struct error *err)
{
	struct stat_work *w = arg;

	return w->o->ops->stat(w->o->impl, w->path, w->path_len, w->ret, w->validator, at, err);
}

int origin_stat(struct origin *o, const char *path, size_t path_len, struct origin_entry *ret,
	char validator_room[static 256], int64_t deadline_ms, struct error *err)
{
	struct stat_work w = {
		.o = o,
		.path = path,
		.path_len = path_len,
		.ret = ret,
		.validator = validator_room,
	};
	struct retry_work work = {
		.attempt = stat_attempt,
		.reread_credentials = o->ops->reread_credentials ? reread_credentials : NULL,
		.arg = &w,
		.subject = {"stat", o->url, path, path_len},
		.deadline_ms = deadline_ms,
	};

	return retry_run(&o->retry, &work, err);
}

struct get_work {
	struct origin *o;
	const struct origin_get *get;
};

static int get_attempt(void *arg, struct origin_attempt *at, struct error *err)
{
	struct get_work *w = arg;
	const struct origin_get *g = w->get;
	struct origin_range range = {
		.path = g->path,
		.path_len = g->path_len,
		.validator = g->validator,
		.object_bytes = g->object_bytes,
		.offset = g->offset + at->arrived_bytes,
		.len = g->len - at->arrived_bytes,
		.dst = g->dst + at->arrived_bytes,
	};
	int r;

	/* The last attempt broke behind the last byte. */
	if (range.len == 0)
		return 0;
	r = w->o->ops->get(w->o->impl, &range, at, err);
	assert(at->arrived_bytes <= g->len);
	if (r == 0 && at->arrived_bytes < g->len)
		return attempt_retry(at, "the answer ended after %llu of %llu bytes",
			(unsigned long long)at->arrived_bytes, (unsigned long long)g->len);
	return r;
}

int origin_get(struct origin *o, const struct origin_get *get, struct error *err)
{
	struct get_work w = {.o = o, .get = get};
	struct retry_work work = {
		.attempt = get_attempt,
		.reread_credentials = o->ops->reread_credentials ? reread_credentials : NULL,
		.arg = &w,
		.subject = {"read", o->url, get->path, get->path_len},
		.cancel = get->cancel,
		.deadline_ms = get->deadline_ms,
		.progress = get->progress,
		.progress_arg = get->arg,
		.received = get->received,
	};

	if (get->len == 0 || get->offset > get->object_bytes ||
		get->len > get->object_bytes - get->offset)
		return error_set(err, -EINVAL,
			"read %s/%.*s: %llu bytes at %llu are not within %llu", o->url,
			(int)get->path_len, get->path, (unsigned long long)get->len,
			(unsigned long long)get->offset, (unsigned long long)get->object_bytes);
	return retry_run(&o->retry, &work, err);
}
