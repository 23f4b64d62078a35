#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "cli/commands.h"
#include "cli/dataset_client.h"
#include "cli/output.h"
#include "cli/table.h"
#include "common/clock.h"
#include "common/size.h"
#include "granary/v1/cluster.pb-c.h"

static void print_datasets(const Granary__V1__StatusReply *s)
{
	struct table *t = table_new("DATASET\t>FILES\t>SIZE\t>GRANTED\t>PINNED\t>CACHED\t>HIT\t"
				    ">SNAPSHOT\tLAST ERROR");

	for (size_t i = 0; i < s->n_datasets; i++) {
		const Granary__V1__Dataset *d = s->datasets[i];
		uint64_t asked = d->hit_bytes + d->miss_bytes;
		char text[SIZE_TEXT_BYTES];

		table_cell(t, "%s", d->name);
		table_cell(t, "%" PRIu64, d->files);
		table_cell(t, "%s", size_format(d->bytes, text));
		table_cell(t, "%s", size_format(d->granted_bytes, text));
		table_cell(t, "%s", size_format(d->pinned_bytes, text));
		table_cell(t, "%s", size_format(d->cached_bytes, text));
		if (asked)
			table_cell(t, "%.1f %%", 100.0 * (double)d->hit_bytes / (double)asked);
		else
			table_cell(t, "-");
		table_cell(t, "%" PRIu64, d->snapshot);
		table_cell(t, "%s", d->last_error);
	}
	table_print(t, stdout);
	table_free(t);
}

/* Of the bytes that the plan pins, the share that the worker pins of its part: below 1 when it is
 * full. */
static double pin_share(const Granary__V1__StatusReply *s, const Granary__V1__WorkerStatus *w)
{
	double wanted = 0, pinned = 0;

	for (size_t i = 0; i < s->n_datasets; i++) {
		const Granary__V1__Dataset *d = s->datasets[i];
		double bytes = (double)d->pin_target_bytes;

		wanted += bytes;
		pinned += w->pin_ceiling && w->pin_ceiling < d->threshold
				  ? bytes * ((double)w->pin_ceiling / (double)d->threshold)
				  : bytes;
	}
	return wanted > 0 ? pinned / wanted : 1;
}

static void worker_state(
	struct table *t, const Granary__V1__StatusReply *s, const Granary__V1__WorkerStatus *w)
{
	double share = pin_share(s, w);

	if (!w->alive)
		table_cell(t, "lost %" PRIu64 " s ago", w->seen_ms_ago / 1000);
	else if (share < 1)
		table_cell(t, "full: pins %.1f %% of its part%s%s", 100 * share,
			w->degraded[0] ? "; " : "", w->degraded);
	else
		table_cell(t, "%s", w->degraded[0] ? w->degraded : "ok");
}

/* What its scrubber has read since it started. */
static const char *scrubbed(const Granary__V1__WorkerStatus *w, char text[SIZE_TEXT_BYTES])
{
	if (!w->scrub)
		return "-";
	return w->scrub->bytes_per_s ? size_format(w->scrub->read_bytes, text) : "off";
}

static void print_workers(const Granary__V1__StatusReply *s)
{
	struct table *t = table_new("WORKER\tADDRESS\t>CAPACITY\t>USED\t>FREE FLOOR\t"
				    ">SCRUBBED\tSTATE");

	for (size_t i = 0; i < s->n_workers; i++) {
		const Granary__V1__WorkerStatus *w = s->workers[i];
		char text[SIZE_TEXT_BYTES];

		table_cell(t, "%016" PRIx64, w->ref->worker_id);
		table_cell(t, "%s", w->ref->address);
		table_cell(t, "%s", size_format(w->ref->capacity_bytes, text));
		table_cell(t, "%s", size_format(w->used_bytes, text));
		table_cell(t, "%s", size_format(w->free_floor_bytes, text));
		table_cell(t, "%s", scrubbed(w, text));
		worker_state(t, s, w);
	}
	table_print(t, stdout);
	table_free(t);
}

static void print_mounts(const Granary__V1__StatusReply *s)
{
	struct table *t = table_new("MOUNT\tDATASET\tHOST\t>PID\tMODE\t>SNAPSHOT\t>READ\t>HIT\t"
				    ">FAILED\t>REPLACED\tLAST ERROR");

	for (size_t i = 0; i < s->n_mounts; i++) {
		const Granary__V1__MountStatus *m = s->mounts[i];
		uint64_t asked = m->hit_bytes + m->miss_bytes;
		char text[SIZE_TEXT_BYTES];

		table_cell(t, "%s", m->mountpoint);
		table_cell(t, "%s", m->dataset);
		table_cell(t, "%s", m->host);
		table_cell(t, "%" PRIu64, m->pid);
		table_cell(t, "%s", m->mode);
		table_cell(t, "%" PRIu64, m->snapshot);
		table_cell(t, "%s", size_format(asked, text));
		if (asked)
			table_cell(t, "%.1f %%", 100.0 * (double)m->hit_bytes / (double)asked);
		else
			table_cell(t, "-");
		table_cell(t, "%" PRIu64, m->failed_reads);
		table_cell(t, "%" PRIu64, m->takeovers);
		table_cell(t, "%s", m->last_error);
	}
	table_print(t, stdout);
	table_free(t);
}

static json_t *scrub_to_json(const Granary__V1__Scrub *s)
{
	if (!s)
		return json_null();
	return json_pack("{s:I, s:I, s:I, s:I}", "bytes_per_s", (json_int_t)s->bytes_per_s,
		"read_bytes", (json_int_t)s->read_bytes, "damaged_blocks",
		(json_int_t)s->damaged_blocks, "passes", (json_int_t)s->passes);
}

static void print_json(const Granary__V1__StatusReply *s)
{
	json_t *o = json_object(), *datasets = json_array(), *workers = json_array(),
	       *mounts = json_array();

	for (size_t i = 0; i < s->n_datasets; i++)
		json_array_append_new(datasets, dataset_to_json(s->datasets[i]));
	for (size_t i = 0; i < s->n_workers; i++) {
		const Granary__V1__WorkerStatus *w = s->workers[i];
		char id[17];

		snprintf(id, sizeof(id), "%016" PRIx64, w->ref->worker_id);
		json_array_append_new(workers,
			json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:s, s:f, s:o}", "worker_id",
				id, "address", w->ref->address, "capacity_bytes",
				(json_int_t)w->ref->capacity_bytes, "used_bytes",
				(json_int_t)w->used_bytes, "held_bytes", (json_int_t)w->held_bytes,
				"free_floor_bytes", (json_int_t)w->free_floor_bytes, "alive",
				w->alive, "degraded", w->degraded, "pin_share", pin_share(s, w),
				"scrub", scrub_to_json(w->scrub)));
	}
	for (size_t i = 0; i < s->n_mounts; i++) {
		const Granary__V1__MountStatus *m = s->mounts[i];

		json_array_append_new(mounts,
			json_pack("{s:s, s:s, s:s, s:I, s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:s}",
				"mountpoint", m->mountpoint, "dataset", m->dataset, "host", m->host,
				"pid", (json_int_t)m->pid, "mode", m->mode, "job",
				m->job[0] ? output_text(m->job) : json_null(), "snapshot",
				(json_int_t)m->snapshot, "hit_bytes", (json_int_t)m->hit_bytes,
				"miss_bytes", (json_int_t)m->miss_bytes, "failed_reads",
				(json_int_t)m->failed_reads, "takeovers", (json_int_t)m->takeovers,
				"last_error", m->last_error));
	}
	json_object_set_new(o, "version", json_string(s->version));
	json_object_set_new(o, "started_s", json_integer(s->started_s));
	json_object_set_new(o, "datasets", datasets);
	json_object_set_new(o, "workers", workers);
	json_object_set_new(o, "mounts", mounts);
	output_json(o);
}

int command_status(struct invocation *inv)
{
	Granary__V1__StatusRequest q = GRANARY__V1__STATUS_REQUEST__INIT;
	Granary__V1__StatusReply *s;
	struct error err = ERROR_INIT;
	struct client c;
	int r = client_connect(inv, &c, &err);

	if (r < 0)
		return inv_fail(inv, r, &err);
	r = rpc_unary(c.channel, "/granary.v1.ClusterService/Status", &q.base,
		&granary__v1__status_reply__descriptor, (ProtobufCMessage **)&s,
		clock_deadline_ms(CLIENT_TIMEOUT_MS), &err);
	client_close(&c);
	if (r < 0)
		return inv_fail(inv, r, &err);
	if (inv_json(inv)) {
		print_json(s);
	} else {
		print_datasets(s);
		putchar('\n');
		print_workers(s);
		putchar('\n');
		print_mounts(s);
	}
	granary__v1__status_reply__free_unpacked(s, NULL);
	return EXIT_OK;
}
