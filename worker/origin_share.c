#include "worker/origin_share.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

DEFINE_CLEANUP(struct origin_share *, origin_share_free)

static bool rate_makes_sense(double bytes_per_s)
{
	return isfinite(bytes_per_s) && bytes_per_s >= 0;
}

static int by_name(const void *a, const void *b)
{
	const struct origin_share_job *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static int take_job(
	const Granary__V1__JobShare *message, struct origin_share_job *ret, struct error *err)
{
	size_t len = strlen(message->job);

	if (len == 0 || len >= sizeof(ret->name))
		return error_set(err, -EINVAL, "a job's name of %zu bytes (1 to %zu are right)",
			len, sizeof(ret->name) - 1);
	if (!rate_makes_sense(message->bytes_per_s))
		return error_set(err, -EINVAL, "job %s: a rate of %g bytes/s", message->job,
			message->bytes_per_s);
	strcpy(ret->name, message->job);
	ret->bytes_per_s = message->bytes_per_s;
	return 0;
}

static int take_jobs(
	struct origin_share *s, const Granary__V1__OriginShare *message, struct error *err)
{
	int r;

	for (size_t i = 0; i < message->n_jobs; i++) {
		r = take_job(message->jobs[i], &s->jobs[i], err);
		if (r < 0)
			return r;
	}
	s->job_count = message->n_jobs;
	qsort(s->jobs, s->job_count, sizeof(s->jobs[0]), by_name);
	for (size_t i = 1; i < s->job_count; i++)
		if (strcmp(s->jobs[i - 1].name, s->jobs[i].name) == 0)
			return error_set(err, -EINVAL, "job %s is there twice", s->jobs[i].name);
	return 0;
}

/* ---- single origins --------------------------------------------------------------------------- */

static int by_prefix(const void *a, const void *b)
{
	const struct origin_share_origin *x = a, *y = b;

	return strcmp(x->prefix, y->prefix);
}

static int take_origin(const Granary__V1__SingleOriginShare *message,
	struct origin_share_origin *ret, struct error *err)
{
	size_t len = strlen(message->prefix);

	if (len == 0 || len >= sizeof(ret->prefix))
		return error_set(err, -EINVAL,
			"an origin's prefix of %zu bytes (1 to %zu are right)", len,
			sizeof(ret->prefix) - 1);
	if (!rate_makes_sense(message->bytes_per_s) ||
		!rate_makes_sense(message->other_bytes_per_s))
		return error_set(err, -EINVAL, "origin %s: rates of %g and %g bytes/s",
			message->prefix, message->bytes_per_s, message->other_bytes_per_s);
	strcpy(ret->prefix, message->prefix);
	ret->bytes_per_s = message->bytes_per_s;
	ret->other_bytes_per_s = message->other_bytes_per_s;
	return 0;
}

static int take_origins(
	struct origin_share *s, const Granary__V1__OriginShare *message, struct error *err)
{
	int r;

	if (message->n_origins > ORIGIN_LIMITS_MAX)
		return error_set(err, -EINVAL, "%zu single origins (at most %d)",
			message->n_origins, ORIGIN_LIMITS_MAX);
	s->origins = calloc(message->n_origins + 1, sizeof(*s->origins));
	if (!s->origins)
		return error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < message->n_origins; i++) {
		r = take_origin(message->origins[i], &s->origins[i], err);
		if (r < 0)
			return r;
	}
	s->origin_count = message->n_origins;
	qsort(s->origins, s->origin_count, sizeof(s->origins[0]), by_prefix);
	for (size_t i = 1; i < s->origin_count; i++)
		if (strcmp(s->origins[i - 1].prefix, s->origins[i].prefix) == 0)
			return error_set(
				err, -EINVAL, "origin %s is there twice", s->origins[i].prefix);
	return 0;
}

int origin_share_new(
	const Granary__V1__OriginShare *message, struct origin_share **ret, struct error *err)
{
	CLEANUP(origin_share_free_ptr) struct origin_share *s = NULL;
	size_t jobs = message ? message->n_jobs : 0;
	int r;

	if (jobs > ORIGIN_SHARE_JOBS_MAX)
		return error_set(
			err, -EINVAL, "%zu jobs (at most %d)", jobs, ORIGIN_SHARE_JOBS_MAX);
	s = calloc(1, sizeof(*s) + jobs * sizeof(s->jobs[0]));
	if (!s)
		return error_set(err, -ENOMEM, "out of memory");
	if (message) {
		if (!rate_makes_sense(message->bytes_per_s) ||
			!rate_makes_sense(message->other_bytes_per_s))
			return error_set(err, -EINVAL, "rates of %g and %g bytes/s",
				message->bytes_per_s, message->other_bytes_per_s);
		s->limited = message->limited;
		s->bytes_per_s = message->bytes_per_s;
		s->other_bytes_per_s = message->other_bytes_per_s;
		r = take_jobs(s, message, err);
		if (r == 0)
			r = take_origins(s, message, err);
		if (r < 0)
			return r;
	}
	*ret = steal(&s);
	return 0;
}

void origin_share_free(struct origin_share *s)
{
	if (!s)
		return;
	free(s->origins);
	free(s);
}

const struct origin_share_job *origin_share_find(const struct origin_share *s, const char *job)
{
	struct origin_share_job key = {.bytes_per_s = 0};

	strncat(key.name, job, sizeof(key.name) - 1);
	return bsearch(&key, s->jobs, s->job_count, sizeof(s->jobs[0]), by_name);
}
