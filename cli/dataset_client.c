#include "cli/dataset_client.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"
#include "cli/progress.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/size.h"

#define OPTIONS_MAX 64

int dataset_options(const struct invocation *inv, const char *origin, struct origin_options **ret,
	struct error *err)
{
	struct origin_options *o = origin_options_new();
	int r = 0;

	if (!o)
		return error_set(err, -ENOMEM, "out of memory");
	for (const struct origin_option_info *i = origin_option_table(); r == 0 && i->key; i++) {
		const char *text = i->secret ? NULL : inv_text(inv, i->key);

		if (text)
			r = origin_options_set(o, i->key, text, err);
	}
	if (r == 0 && inv_switch(inv, "no-sign-request"))
		r = origin_options_set(o, "sign", "no", err);
	if (r < 0) {
		origin_options_free(o);
		return r;
	}
	/* A directory has no use for what the environment says of endpoints and credentials. */
	if (strncmp(origin, "file://", 7) != 0)
		origin_options_from_environment(o);
	*ret = o;
	return 0;
}

int dataset_quota_parse(const char *text, bool *ret_limited, uint64_t *ret_bytes, struct error *err)
{
	if (strcmp(text, "unlimited") == 0) {
		*ret_limited = false;
		*ret_bytes = 0;
		return 0;
	}
	*ret_limited = true;
	return size_parse(text, ret_bytes, err);
}

/* The options as messages: the secret ones or the others. */
struct option_messages {
	Granary__V1__Option items[OPTIONS_MAX];
	Granary__V1__Option *pointers[OPTIONS_MAX];
	size_t count;
};

static void fill_options(struct option_messages *m, const struct origin_options *o, bool secret)
{
	m->count = 0;
	for (const struct origin_option_info *i = origin_option_table(); i->key; i++) {
		const char *value = o ? origin_options_get(o, i->key) : NULL;
		Granary__V1__Option *item = &m->items[m->count];

		if (!value || i->secret != secret || m->count == OPTIONS_MAX)
			continue;
		granary__v1__option__init(item);
		item->key = (char *)i->key;
		item->value = (char *)value;
		m->pointers[m->count++] = item;
	}
}

/* Follows an import to its last message. */
static int follow(struct client *c, const char *method, const ProtobufCMessage *request,
	const char *label, Granary__V1__Dataset **ret, struct error *err)
{
	struct rpc_stream *stream;
	struct progress progress;
	bool moved = false;
	int r = rpc_stream_open(c->channel, method, request,
		clock_deadline_ms(CLIENT_IMPORT_TIMEOUT_MS), &stream, err);

	if (r < 0)
		return r;
	*ret = NULL;
	progress_start(&progress, label, "entries", 0, 0);
	for (;;) {
		Granary__V1__ImportProgress *p;
		struct rpc_message *m;

		r = rpc_stream_next(stream, &m, err);
		if (r != 0)
			break;
		p = (void *)rpc_message_unpack(m, &granary__v1__import_progress__descriptor);
		rpc_message_free(m);
		if (!p) {
			r = error_set(err, -EPROTO, "the master sent a damaged message");
			break;
		}
		if (p->dataset) {
			granary__v1__dataset__free_unpacked(*ret, NULL);
			*ret = steal(&p->dataset);
			if (moved)
				progress_finish(&progress, p->entries, p->bytes);
		} else {
			moved = true;
			progress_update(&progress, p->entries, p->bytes);
		}
		granary__v1__import_progress__free_unpacked(p, NULL);
	}
	rpc_stream_close(stream);
	if (r == RPC_STREAM_END && *ret)
		return 0;
	granary__v1__dataset__free_unpacked(*ret, NULL);
	*ret = NULL;
	return r < 0 ? r : error_set(err, -EPROTO, "the master ended the import without a result");
}

int dataset_add(struct client *c, const struct dataset_spec *spec, Granary__V1__Dataset **ret,
	struct error *err)
{
	Granary__V1__AddDatasetRequest q = GRANARY__V1__ADD_DATASET_REQUEST__INIT;
	struct option_messages *options = calloc(2, sizeof(*options));
	struct error why = ERROR_INIT;
	int r;

	if (!options)
		return error_set(err, -ENOMEM, "out of memory");
	fill_options(&options[0], spec->options, false);
	if (client_is_local(c))
		fill_options(&options[1], spec->options, true);
	q.name = (char *)spec->name;
	q.origin = (char *)spec->origin;
	q.n_include = spec->includes;
	q.include = spec->include;
	q.n_exclude = spec->excludes;
	q.exclude = spec->exclude;
	q.n_options = options[0].count;
	q.options = options[0].pointers;
	q.n_secrets = options[1].count;
	q.secrets = options[1].pointers;
	q.quota_limited = spec->quota_limited;
	q.quota_bytes = spec->quota_bytes;
	q.exists_ok = spec->exists_ok;
	r = follow(c, "/granary.v1.DatasetService/Add", &q.base, "listing", ret, &why);
	if (r == -EIO || r == -ETIMEDOUT || r == -EHOSTUNREACH)
		error_set(
			err, r, "%.400s; `granary doctor %.80s` tries it", why.text, spec->origin);
	else if (r < 0)
		error_set(err, r, "%s", why.text);
	free(options);
	return r;
}

int dataset_refresh(struct client *c, const char *name, bool switch_mounts,
	Granary__V1__Dataset **ret, struct error *err)
{
	Granary__V1__RefreshDatasetRequest q = GRANARY__V1__REFRESH_DATASET_REQUEST__INIT;

	q.name = (char *)name;
	q.switch_mounts = switch_mounts;
	return follow(c, "/granary.v1.DatasetService/Refresh", &q.base, "listing", ret, err);
}

int dataset_get(struct client *c, const char *name, Granary__V1__Dataset **ret, struct error *err)
{
	Granary__V1__GetDatasetRequest q = GRANARY__V1__GET_DATASET_REQUEST__INIT;

	q.name = (char *)name;
	return rpc_unary(c->channel, "/granary.v1.DatasetService/Get", &q.base,
		&granary__v1__dataset__descriptor, (ProtobufCMessage **)ret,
		clock_deadline_ms(CLIENT_TIMEOUT_MS), err);
}

int dataset_renew(
	struct client *c, const char *name, const struct origin_options *options, struct error *err)
{
	Granary__V1__RenewRequest q = GRANARY__V1__RENEW_REQUEST__INIT;
	struct option_messages *secrets = calloc(1, sizeof(*secrets));
	ProtobufCMessage *reply;
	int r = 0;

	if (!secrets)
		return error_set(err, -ENOMEM, "out of memory");
	if (client_is_local(c))
		fill_options(secrets, options, true);
	q.name = (char *)name;
	q.n_secrets = secrets->count;
	q.secrets = secrets->pointers;
	if (secrets->count) {
		r = rpc_unary(c->channel, "/granary.v1.DatasetService/Renew", &q.base,
			&granary__v1__renew_reply__descriptor, &reply,
			clock_deadline_ms(CLIENT_TIMEOUT_MS), err);
		if (r == 0)
			protobuf_c_message_free_unpacked(reply, NULL);
	}
	free(secrets);
	return r;
}

static void set_uint(json_t *o, const char *key, uint64_t value)
{
	json_object_set_new(o, key, json_integer((json_int_t)value));
}

static void set_text(json_t *o, const char *key, const char *value)
{
	json_object_set_new(o, key, output_text(value));
}

static json_t *report_to_json(const Granary__V1__ImportReport *report)
{
	json_t *array = json_array();

	for (size_t i = 0; report && i < report->n_skipped; i++) {
		json_t *o = json_object();

		set_text(o, "reason", report->skipped[i]->reason);
		set_uint(o, "count", report->skipped[i]->count);
		json_array_append_new(array, o);
	}
	return array;
}

json_t *dataset_to_json(const Granary__V1__Dataset *d)
{
	json_t *o = json_object(), *options = json_object();

	set_text(o, "name", d->name);
	set_text(o, "origin", d->origin);
	set_uint(o, "id", d->id & INT64_MAX);
	set_uint(o, "snapshot", d->snapshot);
	set_uint(o, "snapshot_created_s", (uint64_t)d->snapshot_created_s);
	set_text(o, "manifest_digest", d->manifest_digest);
	set_uint(o, "manifest_bytes", d->manifest_bytes);
	set_uint(o, "files", d->files);
	set_uint(o, "dirs", d->dirs);
	set_uint(o, "symlinks", d->symlinks);
	set_uint(o, "bytes", d->bytes);
	if (d->quota_limited)
		set_uint(o, "quota_bytes", d->quota_bytes);
	else
		json_object_set_new(o, "quota_bytes", json_null());
	set_uint(o, "granted_bytes", d->granted_bytes);
	set_uint(o, "pin_target_bytes", d->pin_target_bytes);
	set_uint(o, "pin_expected_bytes", d->pin_expected_bytes);
	set_uint(o, "pinned_bytes", d->pinned_bytes);
	set_uint(o, "cached_bytes", d->cached_bytes);
	set_uint(o, "hit_bytes", d->hit_bytes);
	set_uint(o, "miss_bytes", d->miss_bytes);
	if (d->hit_bytes + d->miss_bytes)
		json_object_set_new(o, "hit_ratio",
			json_real((double)d->hit_bytes / (double)(d->hit_bytes + d->miss_bytes)));
	else
		json_object_set_new(o, "hit_ratio", json_null());
	set_uint(o, "origin_bytes", d->origin_bytes);
	set_uint(o, "mounts", d->mounts);
	set_uint(o, "failed_reads", d->failed_reads);
	set_text(o, "last_error", d->last_error);
	set_text(o, "guarantee", d->guarantee);
	for (size_t i = 0; i < d->n_options; i++)
		set_text(options, d->options[i]->key, d->options[i]->value);
	json_object_set_new(o, "options", options);
	json_object_set_new(o, "skipped", report_to_json(d->report));
	return o;
}

void dataset_print_report(const Granary__V1__ImportReport *report)
{
	for (size_t i = 0; report && i < report->n_skipped; i++) {
		const Granary__V1__ImportReport__Skipped *s = report->skipped[i];

		fprintf(stderr, "granary: left out %" PRIu64 " entries: %s", s->count, s->reason);
		for (size_t k = 0; k < s->n_examples && k < 3; k++) {
			fputs(k ? ", '" : ", such as '", stderr);
			for (size_t b = 0; b < s->examples[k].len && b < 100; b++) {
				unsigned char ch = s->examples[k].data[b];

				fputc(ch < 0x20 || ch == 0x7f ? '?' : ch, stderr);
			}
			fputc('\'', stderr);
		}
		fputc('\n', stderr);
	}
}
