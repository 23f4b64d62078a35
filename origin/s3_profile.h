/*
 * A profile of the shared files that all AWS tools read: ~/.aws/credentials ("[name]") and
 * ~/.aws/config
 * ("[profile name]", "[default]"). Read anew on every call: other programs renew these files.
 */
#pragma once

#include "common/error.h"
#include "origin/origin.h"

struct s3_profile {
	bool found; /* in either file */
	/* malloc'ed, NULL where not given; secrets are overwritten by s3_profile_deinit */
	char *access_key_id, *secret_access_key, *session_token;
	char *region, *endpoint;
	char *role_arn, *role_session_name, *web_identity_token_file;
	/* Kinds of credentials that we do not speak: named in the error. */
	char *credential_process, *source_profile, *sso;
};

/* Profile and files come from the options. -ENOMEM, or -EINVAL for a file that is no INI file;
 * files that are not there are no error. */
int s3_profile_read(const struct origin_options *opts, struct s3_profile *ret, struct error *err);
void s3_profile_deinit(struct s3_profile *p);
