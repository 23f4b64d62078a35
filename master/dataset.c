#include "master/dataset.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "master/text.h"

DEFINE_CLEANUP(struct origin_options *, origin_options_free)

/* ---- config ---------------------------------------------------------------------------------- */

struct dataset_config *dataset_config_new(Granary__State__V1__DatasetConfig *msg)
{
	struct dataset_config *c = calloc(1, sizeof(*c));

	if (!c) {
		granary__state__v1__dataset_config__free_unpacked(msg, NULL);
		return NULL;
	}
	atomic_init(&c->refs, 1);
	c->msg = msg;
	c->packed_bytes = granary__state__v1__dataset_config__get_packed_size(msg);
	return c;
}

struct dataset_config *dataset_config_ref(struct dataset_config *c)
{
	atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	return c;
}

void dataset_config_unref(struct dataset_config *c)
{
	if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
		return;
	granary__state__v1__dataset_config__free_unpacked(c->msg, NULL);
	free(c);
}

/* ---- secrets --------------------------------------------------------------------------------- */

static const struct origin_option_info *option_find(const char *key)
{
	for (const struct origin_option_info *i = origin_option_table(); i->key; i++)
		if (strcmp(i->key, key) == 0)
			return i;
	return NULL;
}

/* Never shows the value: it may be a secret under a mistyped key. */
static int option_check(const Granary__V1__Option *o, bool want_secret, struct error *err)
{
	const struct origin_option_info *info = option_find(o->key);

	if (!info)
		return error_set(err, -EINVAL, "there is no origin option '%.64s'", o->key);
	if (info->secret && !want_secret)
		return error_set(err, -EINVAL,
			"the option '%s' is a secret: options are stored and shown, so send "
			"it in `secrets`, which are only held in memory",
			o->key);
	if (!info->secret && want_secret)
		return error_set(err, -EINVAL,
			"the option '%s' is not a secret: send it in `options`", o->key);
	return 0;
}

static void secret_option_free(Granary__V1__Option *o)
{
	if (!o)
		return;
	if (o->value)
		explicit_bzero(o->value, strlen(o->value));
	free(o->value);
	free(o->key);
	free(o);
}

static Granary__V1__Option *secret_option_new(const Granary__V1__Option *from)
{
	Granary__V1__Option *o = malloc(sizeof(*o));

	if (!o)
		return NULL;
	granary__v1__option__init(o);
	o->key = strdup(from->key);
	o->value = strdup(from->value);
	if (o->key && o->value)
		return o;
	secret_option_free(o);
	return NULL;
}

int dataset_secrets_new(Granary__V1__Option *const *options, size_t count,
	struct dataset_secrets **ret, struct error *err)
{
	struct dataset_secrets *s;
	size_t bytes = 0;

	for (size_t i = 0; i < count; i++) {
		int r = option_check(options[i], true, err);

		if (r < 0)
			return r;
		bytes += strlen(options[i]->key) + strlen(options[i]->value) + 16;
	}
	if (count > DATASET_OPTIONS_MAX || bytes > DATASET_SECRETS_MAX_BYTES)
		return error_set(err, -EINVAL,
			"%zu secrets of %zu bytes are more than the %d of %d "
			"that are possible",
			count, bytes, DATASET_OPTIONS_MAX, DATASET_SECRETS_MAX_BYTES);
	s = calloc(1, sizeof(*s));
	if (!s)
		return error_set(err, -ENOMEM, "no memory for credentials");
	atomic_init(&s->refs, 1);
	s->bytes = bytes;
	s->options = calloc(count + 1, sizeof(*s->options));
	for (size_t i = 0; s->options && i < count; i++) {
		s->options[i] = secret_option_new(options[i]);
		if (!s->options[i])
			break;
		s->count++;
	}
	if (s->count < count || !s->options) {
		dataset_secrets_unref(s);
		return error_set(err, -ENOMEM, "no memory for credentials");
	}
	*ret = s;
	return 0;
}

struct dataset_secrets *dataset_secrets_ref(struct dataset_secrets *s)
{
	if (s)
		atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

void dataset_secrets_unref(struct dataset_secrets *s)
{
	if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < s->count; i++)
		secret_option_free(s->options[i]);
	free(s->options);
	free(s);
}

/* ---- checks ---------------------------------------------------------------------------------- */

int dataset_name_check(const char *name, struct error *err)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789._-";
	size_t len = strlen(name);

	if (len >= 1 && len <= DATASET_NAME_MAX_BYTES && strspn(name, allowed) == len &&
		strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
		return 0;
	return error_set(err, -EINVAL,
		"'%.*s' cannot name a dataset: use 1 to %d letters, digits, '.', '_' and '-'",
		DATASET_NAME_MAX_BYTES, name, DATASET_NAME_MAX_BYTES);
}

bool dataset_url_has_credentials(const char *url)
{
	const char *authority = strstr(url, "://");

	if (!authority)
		return false;
	authority += 3;
	return memchr(authority, '@', strcspn(authority, "/?#")) != NULL;
}

int dataset_options_check(Granary__V1__Option *const *options, size_t count, struct error *err)
{
	if (count > DATASET_OPTIONS_MAX)
		return error_set(err, -EINVAL, "%zu options are too many, %d are possible", count,
			DATASET_OPTIONS_MAX);
	for (size_t i = 0; i < count; i++) {
		int r = option_check(options[i], false, err);

		if (r < 0)
			return r;
		if (strlen(options[i]->value) > DATASET_OPTION_MAX_BYTES)
			return error_set(err, -EINVAL, "the value of option '%s' is over %d bytes",
				options[i]->key, DATASET_OPTION_MAX_BYTES);
		if (dataset_url_has_credentials(options[i]->value))
			return error_set(err, -EINVAL,
				"the value of option '%s' has a user or password in it, which "
				"would be stored and shown: give them as secrets",
				options[i]->key);
	}
	return 0;
}

static int options_set(struct origin_options *to, Granary__V1__Option *const *options, size_t count,
	struct error *err)
{
	for (size_t i = 0; i < count; i++) {
		int r = origin_options_set(to, options[i]->key, options[i]->value, err);

		if (r < 0)
			return r;
	}
	return 0;
}

int dataset_origin_open(const struct dataset_config *config, const struct dataset_secrets *secrets,
	struct origin **ret, struct error *err)
{
	CLEANUP(origin_options_free_ptr) struct origin_options *options = origin_options_new();
	int r;

	if (!options)
		return error_set(err, -ENOMEM, "no memory to open %s", config->msg->origin);
	r = options_set(options, config->msg->options, config->msg->n_options, err);
	if (r == 0 && secrets)
		r = options_set(options, secrets->options, secrets->count, err);
	if (r < 0)
		return r;
	/* What the user did not say the master's own environment may, as for workers and mounts. */
	origin_options_from_environment(options);
	return origin_open(config->msg->origin, options, ret, err);
}

/* ---- dataset --------------------------------------------------------------------------------- */

struct dataset *dataset_new(
	uint64_t id, struct dataset_config *config, struct dataset_secrets *secrets)
{
	struct dataset *d = calloc(1, sizeof(*d));

	if (!d) {
		dataset_config_unref(config);
		dataset_secrets_unref(secrets);
		return NULL;
	}
	d->id = id;
	d->config = config;
	d->secrets = secrets;
	return d;
}

void dataset_free(struct dataset *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < d->snapshots_count; i++)
		granary__state__v1__snapshot_state__free_unpacked(d->snapshots[i].state, NULL);
	free(d->snapshots);
	dataset_config_unref(d->config);
	dataset_secrets_unref(d->secrets);
	free(d);
}

struct snapshot *dataset_snapshot(struct dataset *d, uint64_t number)
{
	for (size_t i = d->snapshots_count; i-- > 0;)
		if (d->snapshots[i].number == number)
			return &d->snapshots[i];
	return NULL;
}

struct snapshot *dataset_current(struct dataset *d)
{
	return d->current ? dataset_snapshot(d, d->current) : NULL;
}

int dataset_add_snapshot(struct dataset *d, uint64_t number,
	Granary__State__V1__SnapshotState *state, int64_t now_ms)
{
	struct snapshot *more =
		reallocarray(d->snapshots, d->snapshots_count + 1, sizeof(*d->snapshots));

	if (!more) {
		granary__state__v1__snapshot_state__free_unpacked(state, NULL);
		return -ENOMEM;
	}
	d->snapshots = more;
	assert(d->snapshots_count == 0 || more[d->snapshots_count - 1].number < number);
	more[d->snapshots_count++] =
		(struct snapshot){.number = number, .state = state, .named_ms = now_ms};
	return 0;
}

void dataset_drop_snapshot(struct dataset *d, uint64_t number)
{
	struct snapshot *s = dataset_snapshot(d, number);
	size_t at;

	if (!s)
		return;
	assert(number != d->current);
	granary__state__v1__snapshot_state__free_unpacked(s->state, NULL);
	at = (size_t)(s - d->snapshots);
	memmove(s, s + 1, (--d->snapshots_count - at) * sizeof(*s));
}

void dataset_state(const struct dataset *d, Granary__State__V1__DatasetState *ret)
{
	granary__state__v1__dataset_state__init(ret);
	ret->config = d->config->msg;
	ret->quota_limited = d->quota_limited;
	ret->quota_bytes = d->quota_bytes;
	ret->current_snapshot = d->current;
	ret->last_snapshot = d->last_snapshot;
}

void dataset_totals(const struct dataset *d, Granary__State__V1__TotalsState *ret)
{
	granary__state__v1__totals_state__init(ret);
	ret->hit_bytes = d->hit_bytes;
	ret->miss_bytes = d->miss_bytes;
	ret->failed_reads = d->failed_reads;
	ret->origin_bytes = d->origin_bytes;
}

void dataset_set_error(struct dataset *d, const char *text)
{
	text_copy_printable(d->last_error, sizeof(d->last_error), text);
}
