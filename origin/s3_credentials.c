#include "origin/s3_credentials.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/sync.h"
#include "origin/options.h"
#include "origin/origin_ops.h"
#include "origin/s3_metadata.h"
#include "origin/s3_profile.h"

#define WAIT_SLICE_MS 100
#define QUIET_MS 10000
/* Of a reader that renews what still holds. */
#define EARLY_MS 5000

struct s3_credentials {
	struct http_client *client; /* constant */

	struct mutex mu;
	struct cond changed;
	/* guarded by mu; opts is also read without it by the thread that set `reading` */
	struct origin_options *opts;
	struct origin_options *next_opts; /* of a renew during a reading */
	bool reading;
	bool have;
	struct s3_keys keys;
	/* owned by the thread that set `reading` */
	bool instance_gave; /* keys, once: its silence is a failure now, not its absence */
	/* guarded by mu */
	uint64_t generation;	/* counts the readings that brought keys */
	int64_t quiet_until_ms; /* no early renewal before: a service that is down is not flooded */
};

int s3_credentials_new(
	const struct origin_options *opts, struct s3_credentials **ret, struct error *err)
{
	struct s3_credentials *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return error_set(err, -ENOMEM, "credentials: out of memory");
	mutex_init(&c->mu);
	cond_init(&c->changed);
	c->opts = origin_options_copy(opts);
	r = c->opts ? http_client_new(opts, &c->client, err)
		    : error_set(err, -ENOMEM, "credentials: out of memory");
	if (r < 0) {
		s3_credentials_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void s3_credentials_free(struct s3_credentials *c)
{
	if (!c)
		return;
	http_client_free(c->client);
	origin_options_free(c->opts);
	origin_options_free(c->next_opts);
	s3_keys_deinit(&c->keys);
	cond_deinit(&c->changed);
	mutex_deinit(&c->mu);
	free(c);
}

/* ---- the chain: each link ORIGIN_GONE when it has nothing ------------------------------------ */

static int from_options(const struct origin_options *opts, struct s3_keys *ret, struct error *err)
{
	const char *id = origin_options_get(opts, "access-key-id");
	const char *secret = origin_options_get(opts, "secret-access-key");

	if (!id && !secret)
		return ORIGIN_GONE;
	if (!id || !secret)
		return error_set(err, -EACCES,
			"credentials: access key and secret have to be given together");
	if (s3_keys_init(ret, id, secret, origin_options_get(opts, "session-token"), 0) < 0)
		return error_set(err, -ENOMEM, "credentials: out of memory");
	return 0;
}

static int ask_sts(struct s3_credentials *c, struct s3_web_identity *w, const char *region,
	struct s3_keys *ret, struct origin_attempt *at, struct error *err)
{
	cleanup_buf struct buf endpoint = BUF_INIT;
	const char *given = origin_options_get(c->opts, "sts-endpoint");
	int r;

	if (given)
		r = buf_append_str(&endpoint, given);
	else if (region)
		r = buf_printf(&endpoint, "https://sts.%s.amazonaws.com%s/", region,
			strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
	else
		r = buf_append_str(&endpoint, "https://sts.amazonaws.com/");
	if (r < 0)
		return error_set(err, -ENOMEM, "credentials: out of memory");
	w->endpoint = endpoint.data;
	return s3_keys_from_web_identity(c->client, w, ret, at, err);
}

static int from_web_identity(
	struct s3_credentials *c, struct s3_keys *ret, struct origin_attempt *at, struct error *err)
{
	struct s3_web_identity w = {
		.token_file = origin_options_get(c->opts, "web-identity-token-file"),
		.role_arn = origin_options_get(c->opts, "role-arn"),
		.session_name = origin_options_get(c->opts, "role-session-name"),
	};

	if (!w.token_file || !w.role_arn)
		return ORIGIN_GONE;
	return ask_sts(c, &w, origin_options_get(c->opts, "region"), ret, at, err);
}

static int from_profile(struct s3_credentials *c, const struct s3_profile *p, struct s3_keys *ret,
	struct origin_attempt *at, struct error *err)
{
	const char *name = origin_options_get(c->opts, "profile");
	struct s3_web_identity w = {
		.token_file = p->web_identity_token_file,
		.role_arn = p->role_arn,
		.session_name = p->role_session_name,
	};

	/* A role first: a profile with one names its keys only as the means to assume it. */
	if (w.token_file && w.role_arn)
		return ask_sts(c, &w, p->region, ret, at, err);
	if (!p->role_arn && p->access_key_id && p->secret_access_key) {
		if (s3_keys_init(ret, p->access_key_id, p->secret_access_key, p->session_token, 0) <
			0)
			return error_set(err, -ENOMEM, "credentials: out of memory");
		return 0;
	}
	if (p->credential_process || p->source_profile || p->role_arn || p->sso)
		return error_set(err, -EACCES,
			"credentials: profile %s gets its keys by %s, which is not "
			"supported: export them, as in `eval $(aws configure "
			"export-credentials --format env)`",
			name ? name : "default",
			p->credential_process ? "a process"
			: p->sso	      ? "single sign-on"
					      : "assuming a role");
	if (name && !p->found)
		return error_set(err, -EACCES, "credentials: there is no profile '%s'", name);
	return ORIGIN_GONE;
}

static int from_files(
	struct s3_credentials *c, struct s3_keys *ret, struct origin_attempt *at, struct error *err)
{
	struct s3_profile p;
	int r = s3_profile_read(c->opts, &p, err);

	if (r < 0)
		return r;
	r = from_profile(c, &p, ret, at, err);
	s3_profile_deinit(&p);
	return r;
}

static int walk_chain(
	struct s3_credentials *c, struct s3_keys *ret, struct origin_attempt *at, struct error *err)
{
	bool named = origin_options_get(c->opts, "profile") != NULL;
	int r = from_options(c->opts, ret, err);

	if (r == ORIGIN_GONE && !named)
		r = from_web_identity(c, ret, at, err);
	if (r == ORIGIN_GONE)
		r = from_files(c, ret, at, err);
	if (r == ORIGIN_GONE && !named)
		r = s3_keys_from_container(c->client, c->opts, ret, at, err);
	if (r == ORIGIN_GONE && !named) {
		r = s3_keys_from_instance(c->client, c->opts, c->instance_gave, ret, at, err);
		c->instance_gave |= r == 0;
	}
	if (r == ORIGIN_GONE)
		return error_set(err, -EACCES,
			"no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
			"name a profile, or say sign=no for a public bucket");
	return r;
}

/* ---- the ones at hand ------------------------------------------------------------------------ */

static int64_t left_s(const struct s3_keys *keys)
{
	return keys->expires_s ? keys->expires_s - clock_wall_s() : INT64_MAX;
}

static void take_next_options_locked(struct s3_credentials *c)
{
	assert(mutex_held(&c->mu));
	if (!c->next_opts)
		return;
	origin_options_free(c->opts);
	c->opts = c->next_opts;
	c->next_opts = NULL;
	c->have = false;
	c->instance_gave = false;
}

/* Reads the chain without the lock, alone; others wait. */
static int read_locked(struct s3_credentials *c, struct origin_attempt *at, struct error *err)
{
	struct s3_keys fresh = {0};
	int r;

	assert(mutex_held(&c->mu));
	c->reading = true;
	mutex_unlock(&c->mu);
	r = walk_chain(c, &fresh, at, err);
	mutex_lock(&c->mu);
	c->reading = false;
	if (r == 0) {
		s3_keys_deinit(&c->keys);
		c->keys = fresh;
		c->have = true;
		c->generation++;
	}
	c->quiet_until_ms = clock_deadline_ms(QUIET_MS);
	take_next_options_locked(c);
	cond_broadcast(&c->changed);
	return r;
}

/* A failure is none for the reader, who goes on with what still holds: not even his attempt shows
 * it. */
static void renew_early_locked(struct s3_credentials *c, const struct origin_attempt *at)
{
	struct origin_attempt own = *at;
	struct error ignored = ERROR_INIT;

	if (clock_deadline_ms(EARLY_MS) < own.deadline_ms)
		own.deadline_ms = clock_deadline_ms(EARLY_MS);
	read_locked(c, &own, &ignored);
}

static bool due_locked(struct s3_credentials *c)
{
	int64_t left = left_s(&c->keys);

	assert(mutex_held(&c->mu));
	return !c->have || left <= 0 ||
	       (left < S3_RENEW_BEFORE_S && clock_passed(c->quiet_until_ms));
}

int s3_credentials_get(
	struct s3_credentials *c, struct s3_keys *ret, struct origin_attempt *at, struct error *err)
{
	mutex_guard(&c->mu);
	while (due_locked(c)) {
		bool hold = c->have && left_s(&c->keys) > 0;
		int r;

		/* While one renews, the others go on with what still holds. */
		if (c->reading && hold)
			break;
		if (c->reading) {
			if (attempt_stopped(at))
				return attempt_retry(at, "the credentials are still being read");
			cond_wait(&c->changed, &c->mu, clock_deadline_ms(WAIT_SLICE_MS));
			continue;
		}
		if (hold) {
			renew_early_locked(c, at);
			continue;
		}
		r = read_locked(c, at, err);
		if (r != 0)
			return r;
		if (c->have && left_s(&c->keys) <= 0)
			return error_set(
				err, -EACCES, "credentials: those of the source have expired");
	}
	at->credentials_used = c->generation;
	return s3_keys_copy(ret, &c->keys) < 0
		       ? error_set(err, -ENOMEM, "credentials: out of memory")
		       : 0;
}

int s3_credentials_reread(struct s3_credentials *c, struct origin_attempt *at, struct error *err)
{
	mutex_guard(&c->mu);
	while (c->reading) {
		if (attempt_stopped(at))
			return attempt_retry(at, "the credentials are still being read");
		cond_wait(&c->changed, &c->mu, clock_deadline_ms(WAIT_SLICE_MS));
	}
	/* Another thread was refused, too, and has read them since. */
	if (c->have && c->generation != at->credentials_used)
		return 0;
	return read_locked(c, at, err);
}

int s3_credentials_renew(
	struct s3_credentials *c, const struct origin_options *opts, struct error *err)
{
	struct origin_options *copy = origin_options_copy(opts);
	int r = copy ? http_client_renew_proxies(c->client, opts, err)
		     : error_set(err, -ENOMEM, "credentials: out of memory");

	if (r < 0) {
		origin_options_free(copy);
		return r;
	}
	mutex_guard(&c->mu);
	origin_options_free(c->next_opts);
	c->next_opts = copy;
	if (!c->reading)
		take_next_options_locked(c);
	return 0;
}
