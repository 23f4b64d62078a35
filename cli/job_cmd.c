/* `granary job`: what the master knows of training jobs, what it gives them, and what they get. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/job_client.h"
#include "cli/output.h"
#include "cli/signals.h"
#include "cli/table.h"
#include "common/clock.h"
#include "common/size.h"
#include "granary/v1/job.pb-c.h"
#include "scheduler/model.h"

#define DATA_WAIT_FINE 0.05 /* of a job's time */
#define MORE 0.1	    /* what `explain` adds to cache and bandwidth */

/* ---- as JSON --------------------------------------------------------------------------------- */

/* Unknown is null, never 0. */
static json_t *real_or_null(bool known, double value)
{
	return known ? json_real(value) : json_null();
}

static json_t *waits_to_json(const Granary__V1__ReadWaits *w)
{
	if (!w)
		return json_null();
	return json_pack("{s:f, s:f, s:f, s:f, s:f}", "share", (double)w->share_us / 1e6, "origin",
		(double)w->origin_us / 1e6, "peer", (double)w->peer_us / 1e6, "disk",
		(double)w->disk_us / 1e6, "queue", (double)w->queue_us / 1e6);
}

/* That its origin has one of its own. */
static bool own_limit(const Granary__V1__Job *j)
{
	return j->limited_origin[0] != '\0';
}

static json_t *job_to_json(const Granary__V1__Job *j)
{
	bool ideal = j->ideal_source[0] != '\0', measured = j->measured_s > 0;
	bool consumed = j->consumed_bytes > 0;

	return json_pack(
		"{s:o, s:o, s:I, s:f, s:i, s:b, s:b, s:f, s:I, s:I, s:I, s:o, s:o, s:I, "
		"s:I, s:o, s:f, s:o, s:s, s:o, s:o, s:o, s:I, s:I, s:I, s:f, s:I, s:o, s:o, s:I, "
		"s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
		"name", output_text(j->name), "dataset", output_text(j->dataset), "gpus",
		(json_int_t)j->gpus, "weight", j->weight, "epochs", (int)j->epochs, "irregular",
		(int)j->irregular, "implicit", (int)j->implicit, "min_remote_bytes_per_s",
		j->min_remote_bytes_per_s, "started_s", (json_int_t)j->started_s, "mounts",
		(json_int_t)j->mounts, "no_mount_for_s", (json_int_t)j->no_mount_for_s,
		"ideal_bytes_per_s", real_or_null(ideal, j->ideal_bytes_per_s), "ideal_source",
		ideal ? output_text(j->ideal_source) : json_null(), "dataset_bytes",
		(json_int_t)j->dataset_bytes, "cache_bytes", (json_int_t)j->cache_bytes,
		"remote_bytes_per_s", real_or_null(j->origin_limited, j->remote_bytes_per_s),
		"hit_ratio", j->hit_ratio, "predicted_bytes_per_s",
		real_or_null(ideal, j->predicted_bytes_per_s), "reason", j->reason,
		"read_bytes_per_s", real_or_null(measured, j->read_bytes_per_s),
		"origin_bytes_per_s", real_or_null(measured, j->origin_bytes_per_s), "measured_s",
		real_or_null(measured, j->measured_s), "hit_bytes", (json_int_t)j->hit_bytes,
		"miss_bytes", (json_int_t)j->miss_bytes, "origin_bytes",
		(json_int_t)j->origin_bytes, "origin_wait_s", (double)j->waited_us / 1e6, "loaders",
		(json_int_t)j->loaders, "measured_ideal_bytes_per_s",
		real_or_null(j->loaders > 0, j->measured_ideal_bytes_per_s), "data_wait_ratio",
		real_or_null(j->loaders > 0, j->data_wait_ratio), "loader_workers",
		(json_int_t)j->loader_workers, "ideal_error",
		real_or_null(j->ideal_error > 0, j->ideal_error), "sampled_ideal_bytes_per_s",
		real_or_null(j->sampled_ideal_bytes_per_s > 0, j->sampled_ideal_bytes_per_s),
		"sampled_ideal_error",
		real_or_null(j->sampled_ideal_bytes_per_s > 0, j->sampled_ideal_error),
		"consumed_bytes",
		consumed ? json_integer((json_int_t)j->consumed_bytes) : json_null(),
		"consumed_bytes_per_s", real_or_null(consumed && measured, j->consumed_bytes_per_s),
		"consumed_epochs",
		real_or_null(consumed && j->dataset_bytes > 0,
			(double)j->consumed_bytes / (double)j->dataset_bytes),
		"read_wait_s", waits_to_json(j->read_waits), "read_wait_measured_s",
		measured ? waits_to_json(j->read_waits_measured) : json_null(), "limited_origin",
		own_limit(j) ? output_text(j->limited_origin) : json_null(),
		"limited_origin_bytes_per_s",
		real_or_null(own_limit(j), j->limited_origin_bytes_per_s));
}

static json_t *origins_to_json(const Granary__V1__ClusterShare *c)
{
	json_t *list = json_array();

	for (size_t i = 0; i < c->n_origins; i++)
		json_array_append_new(list,
			json_pack("{s:o, s:f, s:f}", "prefix", output_text(c->origins[i]->prefix),
				"bytes_per_s", c->origins[i]->bytes_per_s, "bytes_per_s_left",
				c->origins[i]->bytes_per_s_left));
	return list;
}

static json_t *cluster_to_json(const Granary__V1__ClusterShare *c)
{
	return json_pack("{s:s, s:s, s:I, s:I, s:o, s:o, s:o}", "policy", c->policy, "storage",
		c->storage, "cache_bytes", (json_int_t)c->cache_bytes, "cache_bytes_left",
		(json_int_t)c->cache_bytes_left, "origin_bytes_per_s",
		real_or_null(c->origin_limited, c->origin_bytes_per_s), "origin_bytes_per_s_left",
		real_or_null(c->origin_limited, c->origin_bytes_per_s_left), "origins",
		origins_to_json(c));
}

/* ---- for people ------------------------------------------------------------------------------ */

static void rate_cell(struct table *t, bool known, double bytes_per_s)
{
	char text[RATE_TEXT_BYTES];

	table_cell(t, "%s", known ? rate_format(bytes_per_s, text) : "-");
}

#define SOURCE_TEXT_BYTES 48

/* Who says what its ideal rate is, and how sure that is. */
static const char *source_text(const Granary__V1__Job *j, char text[static SOURCE_TEXT_BYTES])
{
	if (j->ideal_error > 0)
		snprintf(text, SOURCE_TEXT_BYTES, "%.24s, +-%.0f %%", j->ideal_source,
			ceil(100 * j->ideal_error));
	else
		snprintf(text, SOURCE_TEXT_BYTES, "%.24s", j->ideal_source);
	return text;
}

static void job_row(struct table *t, const Granary__V1__Job *j)
{
	char size[SIZE_TEXT_BYTES], cache[SIZE_TEXT_BYTES], source[SOURCE_TEXT_BYTES];
	bool ideal = j->ideal_source[0] != '\0', measured = j->measured_s > 0;

	table_cell(t, "%s", j->name);
	table_cell(t, "%s", j->dataset);
	table_cell(t, "%" PRIu64, j->gpus);
	table_cell(t, "%" PRIu64, j->mounts);
	rate_cell(t, ideal, j->ideal_bytes_per_s);
	table_cell(t, "%s", ideal ? source_text(j, source) : "-");
	table_cell(t, "%s of %s", size_format(j->cache_bytes, cache),
		size_format(j->dataset_bytes, size));
	rate_cell(t, j->origin_limited, j->remote_bytes_per_s);
	rate_cell(t, ideal, j->predicted_bytes_per_s);
	rate_cell(t, measured, j->read_bytes_per_s);
	rate_cell(t, measured, j->origin_bytes_per_s);
}

static void print_list(const Granary__V1__ListJobsReply *reply)
{
	const Granary__V1__ClusterShare *c = reply->cluster;
	char a[RATE_TEXT_BYTES], b[RATE_TEXT_BYTES];
	struct table *t =
		table_new("JOB\tDATASET\t>GPUS\t>MOUNTS\t>IDEAL\tSOURCE\t>CACHE\t>ORIGIN SHARE\t"
			  ">PREDICTED\t>READ\t>FROM ORIGIN");

	for (size_t i = 0; i < reply->n_jobs; i++)
		job_row(t, reply->jobs[i]);
	table_print(t, stdout);
	table_free(t);
	if (!c)
		return;
	printf("%s, %s; cache left %s", c->policy, c->storage, size_format(c->cache_bytes_left, a));
	if (c->origin_limited)
		printf("; origins %s, left %s", rate_format(c->origin_bytes_per_s, a),
			rate_format(c->origin_bytes_per_s_left, b));
	for (size_t i = 0; i < c->n_origins; i++)
		printf("; %s %s, left %s", c->origins[i]->prefix,
			rate_format(c->origins[i]->bytes_per_s, a),
			rate_format(c->origins[i]->bytes_per_s_left, b));
	putchar('\n');
}

static void field(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void field(const char *name, const char *fmt, ...)
{
	va_list args;

	printf("%-18s ", name);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
}

static double miss_with(const Granary__V1__Job *j, double more_cache)
{
	double miss = 1 - j->hit_ratio - more_cache;

	return miss > 0 ? miss : 0;
}

/* What the model says of a little more of each. */
static void print_what_if(const Granary__V1__Job *j)
{
	double now = j->predicted_bytes_per_s, remote = j->remote_bytes_per_s;
	double cache = model_perf(j->ideal_bytes_per_s, remote, miss_with(j, MORE));
	double bandwidth = model_perf(j->ideal_bytes_per_s, remote * (1 + MORE), miss_with(j, 0));
	char what[SIZE_TEXT_BYTES], rate[RATE_TEXT_BYTES];

	field("with more cache", "%s more: %s (%+.0f %%)",
		size_format((uint64_t)(MORE * (double)j->dataset_bytes), what),
		rate_format(cache, rate), now > 0 ? 100 * (cache / now - 1) : 0);
	field("with more origin", "%s more: %s (%+.0f %%)",
		rate_format(MORE * remote, (char[RATE_TEXT_BYTES]){0}),
		rate_format(bandwidth, rate), now > 0 ? 100 * (bandwidth / now - 1) : 0);
}

static void print_waits(const char *name, const Granary__V1__ReadWaits *w)
{
	double all;

	if (!w)
		return;
	all = (double)(w->share_us + w->origin_us + w->peer_us + w->disk_us + w->queue_us);
	field(name,
		"%.1f s: origin share %.1f, origin %.1f, peers %.1f, disk %.1f, queue of the mount "
		"%.1f",
		all / 1e6, (double)w->share_us / 1e6, (double)w->origin_us / 1e6,
		(double)w->peer_us / 1e6, (double)w->disk_us / 1e6, (double)w->queue_us / 1e6);
}

static void print_measured(const Granary__V1__Job *j)
{
	char a[RATE_TEXT_BYTES], b[RATE_TEXT_BYTES];
	uint64_t read = j->hit_bytes + j->miss_bytes;

	if (j->measured_s > 0)
		field("measured", "%s read of the mounts, %s from origins, over %.0f s",
			rate_format(j->read_bytes_per_s, a), rate_format(j->origin_bytes_per_s, b),
			j->measured_s);
	else
		field("measured", "too early to say");
	field("read", "%s of the mounts, %.1f %% of it without the origin", size_format(read, a),
		read ? 100.0 * (double)j->hit_bytes / (double)read : 0.0);
	if (j->consumed_bytes > 0)
		field("consumed", "about %s with what the page cache answered, %.1f epochs; %s now",
			size_format(j->consumed_bytes, a),
			j->dataset_bytes ? (double)j->consumed_bytes / (double)j->dataset_bytes : 0,
			rate_format(j->consumed_bytes_per_s, b));
	print_waits("reads waited", j->read_waits);
	if (j->measured_s > 0)
		print_waits("of that, lately", j->read_waits_measured);
	field("waited for share", "%.1f s, summed over the workers' requests to origins",
		(double)j->waited_us / 1e6);
}

/* What a platform engineer would say of it. */
static const char *advice(const Granary__V1__Job *j)
{
	bool io_bound =
		j->ideal_bytes_per_s > 0 && j->predicted_bytes_per_s < 0.95 * j->ideal_bytes_per_s;

	if (j->data_wait_ratio < DATA_WAIT_FINE)
		return "the loader keeps up";
	if (io_bound)
		return "it waits because cache and origin give no more";
	if (j->hit_ratio >= 0.95 && j->miss_bytes > j->hit_bytes)
		return "its cache is still being filled: a pre-warm before the start would help";
	return "cache and origin would give more: more loader processes would help, or an "
	       "announced order (docs/order.md)";
}

static void print_loader(const Granary__V1__Job *j)
{
	char rate[RATE_TEXT_BYTES];

	if (j->loaders == 0) {
		field("loader", "not measured: granary_order.timed(loader, MOUNTPOINT) in the job "
				"tells how long it waits and computes");
		return;
	}
	field("loader",
		"%" PRIu32 ", %" PRIu32 " processes read for it; waits for data %.0f %% of its "
		"time; would read %s",
		j->loaders, j->loader_workers, 100 * j->data_wait_ratio,
		rate_format(j->measured_ideal_bytes_per_s, rate));
	field("", "%s", advice(j));
}

static void print_sampled(const Granary__V1__Job *j)
{
	char rate[RATE_TEXT_BYTES];

	if (j->sampled_ideal_bytes_per_s > 0)
		field("sampled", "would read %s, +-%.0f %%: so much it reads while it hardly waits",
			rate_format(j->sampled_ideal_bytes_per_s, rate),
			ceil(100 * j->sampled_ideal_error));
	else if (j->consumed_bytes > 0)
		field("sampled",
			"not enough yet to say how fast it could read, or its readers wait");
}

static void print_share(const Granary__V1__Job *j)
{
	char share[RATE_TEXT_BYTES], limit[RATE_TEXT_BYTES];

	if (!j->origin_limited)
		field("origin share b", "not limited");
	else if (own_limit(j))
		field("origin share b", "%s, of the %s of %s",
			rate_format(j->remote_bytes_per_s, share),
			rate_format(j->limited_origin_bytes_per_s, limit), j->limited_origin);
	else
		field("origin share b", "%s", rate_format(j->remote_bytes_per_s, share));
}

static void print_job(const Granary__V1__Job *j)
{
	bool ideal = j->ideal_source[0] != '\0', limited = j->origin_limited;
	char a[RATE_TEXT_BYTES], b[SIZE_TEXT_BYTES], source[SOURCE_TEXT_BYTES];

	field("job", "%s%s", j->name, j->implicit ? " (started by its mount)" : "");
	field("dataset", "%s, %s", j->dataset, size_format(j->dataset_bytes, b));
	field("gpus", "%" PRIu64 "%s", j->gpus, j->irregular ? ", irregular" : "");
	field("mounts", "%" PRIu64, j->mounts);
	if (ideal)
		field("ideal rate f*", "%s (%s)", rate_format(j->ideal_bytes_per_s, a),
			source_text(j, source));
	else
		field("ideal rate f*", "unknown: `granary job start %s --ideal-rate RATE` tells it",
			j->name);
	field("cache c", "%s, %.1f %% of d", size_format(j->cache_bytes, a), 100 * j->hit_ratio);
	print_share(j);
	if (ideal)
		field("predicted", "%s = min(f*, b / (1 - c/d))",
			rate_format(j->predicted_bytes_per_s, a));
	print_measured(j);
	print_loader(j);
	print_sampled(j);
	field("so", "%s", j->reason);
	if (ideal && limited && j->predicted_bytes_per_s < 0.999 * j->ideal_bytes_per_s)
		print_what_if(j);
}

/* ---- the commands ---------------------------------------------------------------------------- */

static int list(struct client *c, Granary__V1__ListJobsReply **ret, struct error *err)
{
	Granary__V1__ListJobsRequest request = GRANARY__V1__LIST_JOBS_REQUEST__INIT;

	return job_call(c, JOB_SERVICE "List", &request.base,
		&granary__v1__list_jobs_reply__descriptor, ret, err);
}

static void show_list(const struct invocation *inv, const Granary__V1__ListJobsReply *reply)
{
	json_t *jobs;

	if (!inv_json(inv)) {
		print_list(reply);
		return;
	}
	jobs = json_array();
	for (size_t i = 0; i < reply->n_jobs; i++)
		json_array_append_new(jobs, job_to_json(reply->jobs[i]));
	output_json(json_pack("{s:o, s:o}", "jobs", jobs, "cluster",
		reply->cluster ? cluster_to_json(reply->cluster) : json_null()));
}

static void show_job(const struct invocation *inv, const Granary__V1__Job *j)
{
	if (inv_json(inv))
		output_json(job_to_json(j));
	else
		print_job(j);
}

int command_job_start(struct invocation *inv)
{
	Granary__V1__StartJobRequest request;
	Granary__V1__Job *j = NULL;
	struct error err = ERROR_INIT;
	struct client c = {0};
	int r = job_request_read(inv, inv_argument(inv, 0), &request, &err);

	if (r == 0)
		r = client_connect(inv, &c, &err);
	if (r == 0)
		r = job_call(&c, JOB_SERVICE "Start", &request.base, &granary__v1__job__descriptor,
			&j, &err);
	if (r == 0)
		show_job(inv, j);
	granary__v1__job__free_unpacked(j, NULL);
	client_close(&c);
	return r < 0 ? inv_fail(inv, r, &err) : EXIT_OK;
}

int command_job_end(struct invocation *inv)
{
	Granary__V1__EndJobRequest request = GRANARY__V1__END_JOB_REQUEST__INIT;
	Granary__V1__EndJobReply *reply = NULL;
	struct error err = ERROR_INIT;
	struct client c = {0};
	int r = client_connect(inv, &c, &err);

	request.name = (char *)inv_argument(inv, 0);
	if (r == 0)
		r = job_call(&c, JOB_SERVICE "End", &request.base,
			&granary__v1__end_job_reply__descriptor, &reply, &err);
	granary__v1__end_job_reply__free_unpacked(reply, NULL);
	client_close(&c);
	return r < 0 ? inv_fail(inv, r, &err) : EXIT_OK;
}

int command_job_ls(struct invocation *inv)
{
	Granary__V1__ListJobsReply *reply = NULL;
	struct error err = ERROR_INIT;
	struct client c = {0};
	int r = client_connect(inv, &c, &err);

	if (r == 0)
		r = list(&c, &reply, &err);
	if (r == 0)
		show_list(inv, reply);
	granary__v1__list_jobs_reply__free_unpacked(reply, NULL);
	client_close(&c);
	return r < 0 ? inv_fail(inv, r, &err) : EXIT_OK;
}

int command_job_explain(struct invocation *inv)
{
	Granary__V1__GetJobRequest request = GRANARY__V1__GET_JOB_REQUEST__INIT;
	Granary__V1__Job *j = NULL;
	struct error err = ERROR_INIT;
	struct client c = {0};
	int r = client_connect(inv, &c, &err);

	request.name = (char *)inv_argument(inv, 0);
	if (r == 0)
		r = job_call(&c, JOB_SERVICE "Get", &request.base, &granary__v1__job__descriptor,
			&j, &err);
	if (r == 0)
		show_job(inv, j);
	granary__v1__job__free_unpacked(j, NULL);
	client_close(&c);
	return r < 0 ? inv_fail(inv, r, &err) : EXIT_OK;
}

static int top_once(struct invocation *inv, struct client *c, struct error *err)
{
	Granary__V1__ListJobsReply *reply = NULL;
	int r = list(c, &reply, err);

	if (r < 0)
		return r;
	if (!inv_json(inv) && isatty(STDOUT_FILENO))
		fputs("\033[H\033[2J", stdout);
	show_list(inv, reply);
	fflush(stdout);
	granary__v1__list_jobs_reply__free_unpacked(reply, NULL);
	return 0;
}

int command_job_top(struct invocation *inv)
{
	uint64_t interval_s = inv_number(inv, "interval", 2), count = inv_number(inv, "count", 0);
	struct error err = ERROR_INIT;
	struct client c = {0};
	int r;

	if (interval_s < 1 || interval_s > 3600)
		r = error_set(&err, -EINVAL, "--interval is 1 to 3600 seconds");
	else
		r = client_connect(inv, &c, &err);
	if (r == 0)
		signals_block();
	for (uint64_t i = 1; r == 0; i++) {
		r = top_once(inv, &c, &err);
		if (r < 0 || i == count || signals_wait((int64_t)interval_s * 1000))
			break;
	}
	client_close(&c);
	return r < 0 ? inv_fail(inv, r, &err) : EXIT_OK;
}
