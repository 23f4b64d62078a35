#include "cli/job_client.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

int job_call(struct client *c, const char *path, const ProtobufCMessage *request,
	const ProtobufCMessageDescriptor *type, void *ret, struct error *err)
{
	return rpc_unary(
		c->channel, path, request, type, ret, clock_deadline_ms(CLIENT_TIMEOUT_MS), err);
}

static int read_weight(const struct invocation *inv, double *ret, struct error *err)
{
	const char *text = inv_text(inv, "weight");
	char *end;

	*ret = 0;
	if (!text)
		return 0;
	*ret = strtod(text, &end);
	if (end == text || *end || !(*ret > 0) || !isfinite(*ret))
		return error_set(err, -EINVAL, "--weight: '%s' is not a number above 0", text);
	return 0;
}

int job_request_read(const struct invocation *inv, const char *name,
	Granary__V1__StartJobRequest *ret, struct error *err)
{
	uint64_t epochs = inv_number(inv, "epochs", 0);
	const char *dataset = inv_text(inv, "dataset");

	if (epochs > UINT32_MAX)
		return error_set(err, -EINVAL, "--epochs is at most %u", UINT32_MAX);
	granary__v1__start_job_request__init(ret);
	ret->name = (char *)name;
	ret->dataset = (char *)(dataset ? dataset : "");
	ret->gpus = inv_number(inv, "gpus", 0);
	ret->ideal_bytes_per_s = (double)inv_rate(inv, "ideal-rate", 0);
	ret->epochs = (uint32_t)epochs;
	ret->min_remote_bytes_per_s = (double)inv_rate(inv, "min-rate", 0);
	ret->irregular = inv_switch(inv, "irregular");
	return read_weight(inv, &ret->weight, err);
}
