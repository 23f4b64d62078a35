#include "origin/retry.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "common/buf.h"
#include "common/clock.h"

static int64_t real_now_ms(void *arg)
{
	(void)arg;
	return clock_mono_ms();
}

static bool cancelled(const atomic_bool *cancel)
{
	return cancel && atomic_load_explicit(cancel, memory_order_relaxed);
}

static void real_sleep_ms(void *arg, int64_t ms, const atomic_bool *cancel)
{
	int64_t end = clock_mono_ms() + ms;

	(void)arg;
	while (!cancelled(cancel)) {
		int64_t left = end - clock_mono_ms();
		struct timespec ts = {0};

		if (left <= 0)
			return;
		/* A flag has no one to wake us: look at it often enough that nobody notices. */
		if (left > RETRY_SLICE_MS)
			left = RETRY_SLICE_MS;
		ts.tv_nsec = left * 1000000;
		nanosleep(&ts, NULL);
	}
}

static uint64_t real_random(void *arg)
{
	uint64_t v = 0;

	(void)arg;
	/* Chance only spreads the retries of many clients: any value will do when there is none. */
	if (getrandom(&v, sizeof(v), GRND_NONBLOCK) != sizeof(v))
		v = (uint64_t)clock_mono_ns() * 0x9E3779B97F4A7C15u;
	return v;
}

const struct retry_env retry_env_real = {
	.now_ms = real_now_ms,
	.sleep_ms = real_sleep_ms,
	.random = real_random,
};

bool attempt_stopped(const struct origin_attempt *at)
{
	return cancelled(at->cancel) ||
	       at->retry->env.now_ms(at->retry->env.arg) >= at->deadline_ms;
}

void attempt_count_received(struct origin_attempt *at, uint64_t bytes)
{
	if (at->retry->received)
		atomic_fetch_add_explicit(at->retry->received, bytes, memory_order_relaxed);
	if (at->received)
		*at->received += bytes;
}

void attempt_arrived(struct origin_attempt *at, uint64_t bytes)
{
	at->arrived_bytes += bytes;
	attempt_count_received(at, bytes);
	if (at->progress)
		at->progress(at->progress_arg, at->arrived_bytes);
}

static void set_cause(struct origin_attempt *at, const char *fmt, va_list ap)
{
	vsnprintf(at->cause, sizeof(at->cause), fmt, ap);
}

int attempt_retry(struct origin_attempt *at, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	set_cause(at, fmt, ap);
	va_end(ap);
	return ORIGIN_RETRY;
}

void attempt_pause(struct origin_attempt *at, int64_t seconds)
{
	if (seconds > 0)
		at->retry_after_ms = seconds > 3600 ? 3600000 : seconds * 1000;
}

int attempt_refused(struct origin_attempt *at, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	set_cause(at, fmt, ap);
	va_end(ap);
	return ORIGIN_CREDENTIALS;
}

static void name_object(const struct retry_subject *s, char ret[static ERROR_OBJECT_BYTES])
{
	size_t url_len = strlen(s->url);
	bool slash = s->path_len && url_len && s->url[url_len - 1] != '/';
	cleanup_buf struct buf name = BUF_INIT;

	if (buf_append(&name, s->url, url_len) == 0 && buf_append(&name, "/", slash) == 0 &&
		buf_append(&name, s->path, s->path_len) == 0 && name.data)
		error_cut(ret, ERROR_OBJECT_BYTES, name.data, name.len);
	else
		error_cut(ret, ERROR_OBJECT_BYTES, s->url, url_len);
}

/* "read s3://bucket/prefix/path: CAUSE": every failure names origin, object and cause. */
static int fail(
	const struct retry_work *w, int code, const char *cause, unsigned tries, struct error *err)
{
	char name[ERROR_OBJECT_BYTES];

	name_object(&w->subject, name);
	if (tries > 1)
		return error_set(err, code, "%s %s: %s (tried %u times)", w->subject.verb, name,
			cause, tries);
	return error_set(err, code, "%s %s: %s", w->subject.verb, name, cause);
}

static int64_t backoff_ms(const struct retry *r, unsigned barren, int64_t asked_ms)
{
	int64_t wait = RETRY_WAIT_MAX_MS;

	if (barren < 16 && (RETRY_WAIT_MIN_MS << barren) < RETRY_WAIT_MAX_MS)
		wait = RETRY_WAIT_MIN_MS << barren;
	wait = wait / 2 + (int64_t)(r->env.random(r->env.arg) % (uint64_t)(wait / 2 + 1));
	if (asked_ms > RETRY_AFTER_MAX_MS)
		asked_ms = RETRY_AFTER_MAX_MS;
	return asked_ms > wait ? asked_ms : wait;
}

/* Where the loop stands. */
struct loop {
	const struct retry *r;
	const struct retry_work *w;
	struct origin_attempt at;
	unsigned tries;	 /* for the text */
	unsigned barren; /* attempts in a row that brought nothing: drives the back-off */
	bool reread_done;
};

static int give_up(struct loop *l, int code, struct error *err)
{
	const char *cause = l->at.cause;

	if (code == -ECANCELED)
		cause = "cancelled";
	else if (!cause[0])
		cause = "the deadline has passed";
	return fail(l->w, code, cause, l->tries, err);
}

static int attempt_once(struct loop *l, struct error *err)
{
	const struct retry *r = l->r;
	int64_t now = r->env.now_ms(r->env.arg);
	struct error why = ERROR_INIT;
	uint64_t before = l->at.arrived_bytes;
	int out;

	if (cancelled(l->w->cancel))
		return give_up(l, -ECANCELED, err);
	if (now >= l->w->deadline_ms)
		return give_up(l, -ETIMEDOUT, err);
	l->at.deadline_ms =
		l->w->deadline_ms - now > r->attempt_ms ? now + r->attempt_ms : l->w->deadline_ms;
	l->at.retry_after_ms = 0;
	l->at.unreachable = false;
	l->at.cause[0] = '\0';
	l->tries++;
	out = l->w->attempt(l->w->arg, &l->at, &why);
	if (out < 0)
		return fail(l->w, out, why.text, l->tries, err);
	l->barren = l->at.arrived_bytes > before ? 0 : l->barren + 1;
	return out;
}

/* 0 when there are new credentials to try once. */
static int reread(struct loop *l, struct error *err)
{
	struct error why = ERROR_INIT;
	int out;

	if (l->reread_done || !l->w->reread_credentials)
		return give_up(l, -EACCES, err);
	out = l->w->reread_credentials(l->w->arg, &l->at, &why);
	if (out < 0)
		return fail(l->w, out, why.text, l->tries, err);
	assert(out == 0 || out == ORIGIN_RETRY);
	l->reread_done = out == 0;
	return out;
}

static int wait_for_next(struct loop *l, struct error *err)
{
	const struct retry *r = l->r;
	int64_t left = CLOCK_NEVER, wait;

	if (cancelled(l->w->cancel))
		return give_up(l, -ECANCELED, err);
	if (l->barren >= r->attempts_max ||
		(l->w->first_contact && l->at.unreachable && l->barren >= RETRY_FIRST_CONTACT))
		return give_up(l, -EIO, err);
	if (l->w->deadline_ms != CLOCK_NEVER)
		left = l->w->deadline_ms - r->env.now_ms(r->env.arg);
	wait = backoff_ms(r, l->barren ? l->barren - 1 : 0, l->at.retry_after_ms);
	/* A wait of our own choice shrinks for a last attempt before the deadline; one that the
	 * server asked for does not. */
	if (wait >= left && l->at.retry_after_ms < left && left >= 2 * RETRY_WAIT_MIN_MS)
		wait = left / 2;
	if (wait >= left)
		return give_up(l, -ETIMEDOUT, err);
	r->env.sleep_ms(r->env.arg, wait, l->w->cancel);
	return 0;
}

int retry_run(const struct retry *r, const struct retry_work *w, struct error *err)
{
	struct loop l = {
		.r = r,
		.w = w,
		.at =
			{
				.retry = r,
				.cancel = w->cancel,
				.progress = w->progress,
				.progress_arg = w->progress_arg,
				.received = w->received,
			},
	};

	for (;;) {
		int out = attempt_once(&l, err);

		if (out == ORIGIN_CREDENTIALS) {
			out = reread(&l, err);
			if (out == 0)
				continue;
		}
		if (out != ORIGIN_RETRY)
			return out;
		out = wait_for_next(&l, err);
		if (out < 0)
			return out;
	}
}
