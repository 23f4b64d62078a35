/*
 * Temporary credentials from services: web identity (STS), the container's endpoint, the instance's
 * metadata service (IMDSv2). One attempt each; outcomes as in origin_ops.h, ORIGIN_GONE where the
 * service is not configured or has no credentials for us.
 */
#pragma once

#include "origin/http_client.h"
#include "origin/s3_keys.h"

struct s3_web_identity {
	const char *token_file, *role_arn, *session_name; /* session_name may be NULL */
	const char *endpoint;				  /* of STS */
};

int s3_keys_from_web_identity(struct http_client *c, const struct s3_web_identity *w,
	struct s3_keys *ret, struct origin_attempt *at, struct error *err);
int s3_keys_from_container(struct http_client *c, const struct origin_options *opts,
	struct s3_keys *ret, struct origin_attempt *at, struct error *err);
/* known: it gave keys before. What never answered is not there: ORIGIN_GONE. */
int s3_keys_from_instance(struct http_client *c, const struct origin_options *opts, bool known,
	struct s3_keys *ret, struct origin_attempt *at, struct error *err);
