#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "cli/commands.h"
#include "cli/dataset_client.h"
#include "cli/origin_argument.h"
#include "cli/output.h"
#include "cli/table.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/size.h"

static void ratio_text(const Granary__V1__Dataset *d, char text[16])
{
	uint64_t asked = d->hit_bytes + d->miss_bytes;

	if (asked)
		snprintf(text, 16, "%.1f %%", 100.0 * (double)d->hit_bytes / (double)asked);
	else
		snprintf(text, 16, "-");
}

static void quota_text(const Granary__V1__Dataset *d, char text[SIZE_TEXT_BYTES])
{
	if (d->quota_limited)
		size_format(d->quota_bytes, text);
	else
		snprintf(text, SIZE_TEXT_BYTES, "-");
}

/* One line of key and value. */
static void field(const char *name, const char *value)
{
	if (*value)
		printf("%-16s %s\n", name, value);
}

static void size_field(const char *name, uint64_t bytes)
{
	char text[SIZE_TEXT_BYTES];

	printf("%-16s %-10s (%" PRIu64 " bytes)\n", name, size_format(bytes, text), bytes);
}

static void print_dataset(const Granary__V1__Dataset *d)
{
	char text[64];
	time_t created = (time_t)d->snapshot_created_s;
	struct tm tm;

	field("name", d->name);
	field("origin", d->origin);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&created, &tm));
	printf("%-16s %" PRIu64 ", listed %s\n", "snapshot", d->snapshot, text);
	field("guarantee", d->guarantee);
	printf("%-16s %" PRIu64 " files, %" PRIu64 " directories, %" PRIu64 " symlinks\n",
		"entries", d->files, d->dirs, d->symlinks);
	size_field("size", d->bytes);
	if (d->quota_limited)
		size_field("quota", d->quota_bytes);
	else
		field("quota", "unlimited");
	size_field("granted", d->granted_bytes);
	size_field("pinned", d->pinned_bytes);
	size_field("cached", d->cached_bytes);
	size_field("read from cache", d->hit_bytes);
	size_field("read from origin", d->miss_bytes);
	ratio_text(d, text);
	field("hit ratio", text);
	printf("%-16s %" PRIu64 "\n", "mounts", d->mounts);
	if (d->failed_reads)
		printf("%-16s %" PRIu64 "\n", "failed reads", d->failed_reads);
	field("last error", d->last_error);
	for (size_t i = 0; i < d->n_include; i++)
		field("include", d->include[i]);
	for (size_t i = 0; i < d->n_exclude; i++)
		field("exclude", d->exclude[i]);
	for (size_t i = 0; i < d->n_options; i++)
		field(d->options[i]->key, d->options[i]->value);
}

static void show(const struct invocation *inv, Granary__V1__Dataset *d)
{
	if (inv_json(inv))
		output_json(dataset_to_json(d));
	else
		print_dataset(d);
	granary__v1__dataset__free_unpacked(d, NULL);
}

int command_dataset_add(struct invocation *inv)
{
	struct dataset_spec spec = {.name = inv_argument(inv, 0)};
	cleanup_free char *origin = NULL;
	const char *quota = inv_text(inv, "quota");
	struct origin_options *options = NULL;
	Granary__V1__Dataset *d = NULL;
	struct error err = ERROR_INIT;
	struct client c = {0};
	int r;

	r = origin_argument(inv_argument(inv, 1), &origin, &err);
	spec.origin = origin;
	if (r < 0 || (r = dataset_options(inv, spec.origin, &options, &err)) < 0 ||
		(quota && (r = dataset_quota_parse(
				   quota, &spec.quota_limited, &spec.quota_bytes, &err)) < 0) ||
		(r = client_connect(inv, &c, &err)) < 0)
		goto out;
	spec.options = options;
	spec.includes = inv_list(inv, "include", &spec.include);
	spec.excludes = inv_list(inv, "exclude", &spec.exclude);
	r = dataset_add(&c, &spec, &d, &err);
	if (r == 0) {
		dataset_print_report(d->report);
		show(inv, d);
	}
out:
	client_close(&c);
	origin_options_free(options);
	return r < 0 ? inv_fail(inv, r, &err) : EXIT_OK;
}

/* A master that was restarted since has no credentials; this environment's are handed over. */
static int hand_credentials(
	struct invocation *inv, struct client *c, const char *name, struct error *err)
{
	struct origin_options *options = NULL;
	Granary__V1__Dataset *d;
	int r = dataset_get(c, name, &d, err);

	if (r < 0)
		return r;
	r = dataset_options(inv, d->origin, &options, err);
	if (r == 0)
		r = dataset_renew(c, name, options, err);
	origin_options_free(options);
	granary__v1__dataset__free_unpacked(d, NULL);
	return r;
}

int command_dataset_refresh(struct invocation *inv)
{
	const char *name = inv_argument(inv, 0);
	Granary__V1__Dataset *d = NULL;
	struct error err = ERROR_INIT;
	struct client c;
	int r = client_connect(inv, &c, &err);

	if (r < 0)
		return inv_fail(inv, r, &err);
	r = hand_credentials(inv, &c, name, &err);
	if (r == 0)
		r = dataset_refresh(&c, name, inv_switch(inv, "switch"), &d, &err);
	if (r == 0 && d->report)
		fprintf(stderr,
			"snapshot %" PRIu64 ": %" PRIu64 " added, %" PRIu64 " changed, %" PRIu64
			" removed\n",
			d->snapshot, d->report->added, d->report->changed, d->report->removed);
	if (r == 0) {
		dataset_print_report(d->report);
		show(inv, d);
	}
	client_close(&c);
	return r < 0 ? inv_fail(inv, r, &err) : EXIT_OK;
}

static int list(struct invocation *inv, Granary__V1__ListDatasetsReply **ret, struct error *err)
{
	Granary__V1__ListDatasetsRequest q = GRANARY__V1__LIST_DATASETS_REQUEST__INIT;
	struct client c;
	int r = client_connect(inv, &c, err);

	if (r < 0)
		return r;
	r = rpc_unary(c.channel, "/granary.v1.DatasetService/List", &q.base,
		&granary__v1__list_datasets_reply__descriptor, (ProtobufCMessage **)ret,
		clock_deadline_ms(CLIENT_TIMEOUT_MS), err);
	client_close(&c);
	return r;
}

static void print_list_json(const Granary__V1__ListDatasetsReply *reply)
{
	json_t *array = json_array();

	for (size_t i = 0; i < reply->n_datasets; i++)
		json_array_append_new(array, dataset_to_json(reply->datasets[i]));
	output_json(array);
}

/* All datasets, as JSON or as the rows of a table. */
static int show_list(struct invocation *inv, const char *headings,
	void (*row)(struct table *t, const Granary__V1__Dataset *d))
{
	Granary__V1__ListDatasetsReply *reply;
	struct error err = ERROR_INIT;
	int r = list(inv, &reply, &err);

	if (r < 0)
		return inv_fail(inv, r, &err);
	if (inv_json(inv)) {
		print_list_json(reply);
	} else {
		struct table *t = table_new(headings);

		for (size_t i = 0; i < reply->n_datasets; i++)
			row(t, reply->datasets[i]);
		table_print(t, stdout);
		table_free(t);
	}
	granary__v1__list_datasets_reply__free_unpacked(reply, NULL);
	return EXIT_OK;
}

static void dataset_row(struct table *t, const Granary__V1__Dataset *d)
{
	char text[SIZE_TEXT_BYTES], ratio[16];

	table_cell(t, "%s", d->name);
	table_cell(t, "%" PRIu64, d->files);
	table_cell(t, "%s", size_format(d->bytes, text));
	quota_text(d, text);
	table_cell(t, "%s", text);
	table_cell(t, "%s", size_format(d->cached_bytes, text));
	ratio_text(d, ratio);
	table_cell(t, "%s", ratio);
	table_cell(t, "%" PRIu64, d->mounts);
	table_cell(t, "%s", d->origin);
}

int command_dataset_ls(struct invocation *inv)
{
	return show_list(
		inv, "NAME\t>FILES\t>SIZE\t>QUOTA\t>CACHED\t>HIT\t>MOUNTS\tORIGIN", dataset_row);
}

int command_dataset_stat(struct invocation *inv)
{
	Granary__V1__Dataset *d;
	struct error err = ERROR_INIT;
	struct client c;
	int r = client_connect(inv, &c, &err);

	if (r < 0)
		return inv_fail(inv, r, &err);
	r = dataset_get(&c, inv_argument(inv, 0), &d, &err);
	client_close(&c);
	if (r < 0)
		return inv_fail(inv, r, &err);
	show(inv, d);
	return EXIT_OK;
}

int command_dataset_rm(struct invocation *inv)
{
	Granary__V1__RemoveDatasetRequest q = GRANARY__V1__REMOVE_DATASET_REQUEST__INIT;
	ProtobufCMessage *reply;
	struct error err = ERROR_INIT;
	struct client c;
	int r = client_connect(inv, &c, &err);

	if (r < 0)
		return inv_fail(inv, r, &err);
	q.name = (char *)inv_argument(inv, 0);
	q.force = inv_switch(inv, "force");
	r = rpc_unary(c.channel, "/granary.v1.DatasetService/Remove", &q.base,
		&granary__v1__remove_dataset_reply__descriptor, &reply,
		clock_deadline_ms(CLIENT_TIMEOUT_MS), &err);
	client_close(&c);
	if (r < 0)
		return inv_fail(inv, r, &err);
	protobuf_c_message_free_unpacked(reply, NULL);
	if (inv_json(inv))
		output_json(json_pack("{s:o}", "removed", output_text(inv_argument(inv, 0))));
	return EXIT_OK;
}

int command_quota_set(struct invocation *inv)
{
	Granary__V1__SetQuotaRequest q = GRANARY__V1__SET_QUOTA_REQUEST__INIT;
	Granary__V1__Dataset *d;
	struct error err = ERROR_INIT;
	struct client c;
	bool limited;
	int r = dataset_quota_parse(inv_argument(inv, 1), &limited, &q.quota_bytes, &err);

	if (r < 0 || (r = client_connect(inv, &c, &err)) < 0)
		return inv_fail(inv, r, &err);
	q.name = (char *)inv_argument(inv, 0);
	q.quota_limited = limited;
	r = rpc_unary(c.channel, "/granary.v1.DatasetService/SetQuota", &q.base,
		&granary__v1__dataset__descriptor, (ProtobufCMessage **)&d,
		clock_deadline_ms(CLIENT_TIMEOUT_MS), &err);
	client_close(&c);
	if (r < 0)
		return inv_fail(inv, r, &err);
	show(inv, d);
	return EXIT_OK;
}

static void quota_row(struct table *t, const Granary__V1__Dataset *d)
{
	char text[SIZE_TEXT_BYTES];

	table_cell(t, "%s", d->name);
	table_cell(t, "%s", size_format(d->bytes, text));
	quota_text(d, text);
	table_cell(t, "%s", text);
	table_cell(t, "%s", size_format(d->granted_bytes, text));
	table_cell(t, "%s", size_format(d->pinned_bytes, text));
	table_cell(t, "%s", size_format(d->cached_bytes, text));
}

int command_quota_ls(struct invocation *inv)
{
	return show_list(inv, "DATASET\t>SIZE\t>QUOTA\t>GRANTED\t>PINNED\t>CACHED", quota_row);
}
