/*
 * What the commands about jobs share.
 */
#pragma once

#include "cli/client.h"
#include "granary/v1/job.pb-c.h"

#define JOB_SERVICE "/granary.v1.JobService/"

/* A job as the flags describe it; borrows from inv and name. */
int job_request_read(const struct invocation *inv, const char *name,
	Granary__V1__StartJobRequest *ret, struct error *err);

/* One method of the service. ret: where the unpacked reply goes. */
int job_call(struct client *c, const char *path, const ProtobufCMessage *request,
	const ProtobufCMessageDescriptor *type, void *ret, struct error *err);

/* `granary plan --live`: what one more job would do to the running cluster. */
int job_plan_live(const struct invocation *inv, struct error *err);
