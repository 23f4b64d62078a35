/* `granary plan --live`: the master says what would become of each job, the reader is told whether it
 * matters. */
#include <errno.h>
#include <stdio.h>

#include "cli/job_client.h"
#include "cli/output.h"
#include "cli/table.h"
#include "common/size.h"

#define SLOWER 0.99 /* less than this of a rate is slower */

static bool slower(double then, double now)
{
	return then < SLOWER * now;
}

static bool slows_others(const Granary__V1__PlanJobReply *reply, bool first)
{
	for (size_t i = 0; i < reply->n_others; i++) {
		const Granary__V1__PlannedJob *p = reply->others[i];

		if (slower(first ? p->first_bytes_per_s : p->later_bytes_per_s, p->now_bytes_per_s))
			return true;
	}
	return false;
}

static const char *verdict(const Granary__V1__PlanJobReply *reply)
{
	if (slows_others(reply, false))
		return "it would slow others for as long as it runs";
	if (slows_others(reply, true))
		return "it would slow others during its first epoch, and nobody after that";
	return "it can start without slowing others";
}

/* ---- as JSON --------------------------------------------------------------------------------- */

static json_t *rate_json(const Granary__V1__PlannedJob *p, double rate)
{
	return p->ideal_bytes_per_s > 0 ? json_real(rate) : json_null();
}

static json_t *planned_json(const Granary__V1__PlannedJob *p)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o}", "name", output_text(p->name),
		"ideal_bytes_per_s", rate_json(p, p->ideal_bytes_per_s), "now_bytes_per_s",
		rate_json(p, p->now_bytes_per_s), "first_epoch_bytes_per_s",
		rate_json(p, p->first_bytes_per_s), "later_bytes_per_s",
		rate_json(p, p->later_bytes_per_s));
}

static void print_json(const Granary__V1__PlanJobReply *reply)
{
	json_t *others = json_array();

	for (size_t i = 0; i < reply->n_others; i++)
		json_array_append_new(others, planned_json(reply->others[i]));
	output_json(json_pack("{s:o, s:I, s:o, s:b, s:b}", "job", planned_json(reply->job),
		"cache_bytes", (json_int_t)reply->cache_bytes, "others", others,
		"slows_others_in_first_epoch", (int)slows_others(reply, true), "slows_others_later",
		(int)slows_others(reply, false)));
}

/* ---- for people ------------------------------------------------------------------------------ */

static void rate_cell(struct table *t, const Granary__V1__PlannedJob *p, double rate)
{
	char text[RATE_TEXT_BYTES];

	table_cell(t, "%s", p->ideal_bytes_per_s > 0 ? rate_format(rate, text) : "unknown");
}

static void print_table(const Granary__V1__PlanJobReply *reply)
{
	struct table *t = table_new("JOB\t>IDEAL\t>NOW\t>FIRST EPOCH\t>LATER");
	char cache[SIZE_TEXT_BYTES];

	for (size_t i = 0; i <= reply->n_others; i++) {
		const Granary__V1__PlannedJob *p = i ? reply->others[i - 1] : reply->job;

		table_cell(t, "%s", p->name);
		rate_cell(t, p, p->ideal_bytes_per_s);
		if (i == 0)
			table_cell(t, "-");
		else
			rate_cell(t, p, p->now_bytes_per_s);
		rate_cell(t, p, p->first_bytes_per_s);
		rate_cell(t, p, p->later_bytes_per_s);
	}
	table_print(t, stdout);
	table_free(t);
	printf("%s; its dataset would have %s of cache\n", verdict(reply),
		size_format(reply->cache_bytes, cache));
}

int job_plan_live(const struct invocation *inv, struct error *err)
{
	Granary__V1__PlanJobRequest request = GRANARY__V1__PLAN_JOB_REQUEST__INIT;
	Granary__V1__StartJobRequest job;
	Granary__V1__PlanJobReply *reply = NULL;
	struct client c = {0};
	int r = job_request_read(inv, "new", &job, err);

	if (r == 0 && !job.dataset[0])
		r = error_set(err, -EINVAL, "--live wants --dataset: what would the job read?");
	if (r == 0)
		r = client_connect(inv, &c, err);
	if (r < 0)
		return r;
	request.job = &job;
	r = job_call(&c, JOB_SERVICE "Plan", &request.base,
		&granary__v1__plan_job_reply__descriptor, &reply, err);
	if (r == 0 && inv_json(inv))
		print_json(reply);
	else if (r == 0)
		print_table(reply);
	granary__v1__plan_job_reply__free_unpacked(reply, NULL);
	client_close(&c);
	return r;
}
