#include "master/messages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BRIEF_ERROR_BYTES 128

static char **strings_copy(char *const *from, size_t count, size_t *ret_count)
{
	char **copy = calloc(count + 1, sizeof(*copy));

	for (*ret_count = 0; copy && *ret_count < count; (*ret_count)++) {
		copy[*ret_count] = strdup(from[*ret_count]);
		if (!copy[*ret_count])
			break;
	}
	return copy;
}

static Granary__V1__Option **options_copy(
	Granary__V1__Option *const *from, size_t count, size_t *ret_count)
{
	Granary__V1__Option **copy = calloc(count + 1, sizeof(*copy));

	for (*ret_count = 0; copy && *ret_count < count; (*ret_count)++) {
		Granary__V1__Option *o = malloc(sizeof(*o));

		if (!o)
			break;
		granary__v1__option__init(o);
		o->key = strdup(from[*ret_count]->key);
		o->value = strdup(from[*ret_count]->value);
		copy[*ret_count] = o;
	}
	return copy;
}

static void fill_snapshot(Granary__V1__Dataset *m, const struct snapshot *s)
{
	m->snapshot = s->number;
	m->snapshot_created_s = s->state->created_s;
	m->files = s->state->files;
	m->dirs = s->state->dirs;
	m->symlinks = s->state->symlinks;
	m->bytes = s->state->bytes;
	m->manifest_digest = strdup(s->state->digest);
	m->manifest_bytes = s->state->manifest_bytes;
	m->guarantee = strdup(s->state->guarantee);
}

uint64_t dataset_pin_expected_bytes(const struct dataset *d, const struct workers *workers)
{
	double share = workers_pin_share(workers, d->threshold);

	return share < 1 ? (uint64_t)((double)d->pin_target_bytes * share) : d->pin_target_bytes;
}

Granary__V1__Dataset *message_dataset(const struct dataset *d, const struct workers *workers)
{
	const Granary__State__V1__DatasetConfig *c = d->config->msg;
	const struct snapshot *s = dataset_current((struct dataset *)d);
	struct workers_sum sum = workers_sum(workers, d->id);
	Granary__V1__Dataset *m = malloc(sizeof(*m));

	if (!m)
		return NULL;
	granary__v1__dataset__init(m);
	m->id = d->id;
	m->name = strdup(c->name);
	m->origin = strdup(c->origin);
	if (s)
		fill_snapshot(m, s);
	m->quota_limited = d->quota_limited;
	m->quota_bytes = d->quota_bytes;
	m->granted_bytes = d->granted_bytes;
	m->threshold = d->threshold;
	m->pin_target_bytes = d->pin_target_bytes;
	m->pin_expected_bytes = dataset_pin_expected_bytes(d, workers);
	m->pinned_bytes = sum.pinned_bytes;
	m->cached_bytes = sum.cached_bytes;
	m->hit_bytes = d->hit_bytes;
	m->miss_bytes = d->miss_bytes;
	m->origin_bytes = d->origin_bytes;
	m->mounts = d->live_mounts;
	m->failed_reads = d->failed_reads;
	m->last_error = strdup(d->last_error);
	m->include = strings_copy(c->include, c->n_include, &m->n_include);
	m->exclude = strings_copy(c->exclude, c->n_exclude, &m->n_exclude);
	m->options = options_copy(c->options, c->n_options, &m->n_options);
	return m;
}

void message_dataset_shorten(Granary__V1__Dataset *m)
{
	for (size_t i = 0; i < m->n_include; i++)
		free(m->include[i]);
	for (size_t i = 0; i < m->n_exclude; i++)
		free(m->exclude[i]);
	for (size_t i = 0; i < m->n_options; i++)
		granary__v1__option__free_unpacked(m->options[i], NULL);
	m->n_include = m->n_exclude = m->n_options = 0;
	if (m->last_error && strlen(m->last_error) >= BRIEF_ERROR_BYTES)
		error_cut(m->last_error, BRIEF_ERROR_BYTES, m->last_error, strlen(m->last_error));
}

/* ---- plans ----------------------------------------------------------------------------------- */

static void add_ref(struct plan_entry *e, const struct snapshot *s)
{
	size_t i = e->msg.n_snapshots++;
	struct plan_snapshot *to = &e->snapshots[i];

	granary__v1__snapshot_ref__init(&to->ref);
	memcpy(to->digest, s->state->digest, sizeof(to->digest));
	to->ref.snapshot = s->number;
	to->ref.manifest_digest = to->digest;
	to->ref.manifest_bytes = s->state->manifest_bytes;
	e->refs[i] = &to->ref;
}

int plan_entry_init(struct plan_entry *e, struct dataset *d, uint64_t first, bool local)
{
	const Granary__State__V1__DatasetConfig *c = d->config->msg;
	const struct snapshot *head = dataset_snapshot(d, first);

	memset(e, 0, sizeof(*e));
	granary__v1__dataset_plan__init(&e->msg);
	e->snapshots = calloc(d->snapshots_count + 1, sizeof(*e->snapshots));
	e->refs = calloc(d->snapshots_count + 1, sizeof(*e->refs));
	if (!e->snapshots || !e->refs) {
		plan_entry_deinit(e);
		return -ENOMEM;
	}
	e->config = dataset_config_ref(d->config);
	e->msg.dataset_id = d->id;
	e->msg.name = c->name;
	e->msg.origin = c->origin;
	e->msg.n_options = c->n_options;
	e->msg.options = c->options;
	if (local && d->secrets) {
		e->secrets = dataset_secrets_ref(d->secrets);
		e->msg.n_secrets = d->secrets->count;
		e->msg.secrets = d->secrets->options;
	}
	if (head)
		add_ref(e, head);
	for (size_t i = d->snapshots_count; i-- > 0;)
		if (&d->snapshots[i] != head)
			add_ref(e, &d->snapshots[i]);
	e->msg.snapshots = e->refs;
	e->msg.granted_bytes = d->granted_bytes;
	e->msg.threshold = d->threshold;
	e->msg.elastic = d->elastic;
	return 0;
}

void plan_entry_deinit(struct plan_entry *e)
{
	dataset_config_unref(e->config);
	dataset_secrets_unref(e->secrets);
	free(e->snapshots);
	free(e->refs);
	memset(e, 0, sizeof(*e));
}
