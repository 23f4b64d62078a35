/*
 * Where an S3 origin's credentials come from, and the ones it has.
 *
 * The chain, first that has some: the options (the AWS environment variables among them), web
 * identity, the shared files, the container's endpoint, the instance's metadata. A profile that was
 * asked for by name is taken from the shared files alone.
 *
 * Credentials that expire are renewed when less than S3_RENEW_BEFORE_S are left; when that fails
 * and they still hold, they are used on. Many threads may ask; one reads, the others wait for it.
 */
#pragma once

#include "origin/origin.h"
#include "origin/retry.h"
#include "origin/s3_keys.h"

#define S3_RENEW_BEFORE_S 300

struct s3_credentials;

/* Reads nothing yet. */
int s3_credentials_new(
	const struct origin_options *opts, struct s3_credentials **ret, struct error *err);
void s3_credentials_free(struct s3_credentials *c);

/* 0, ORIGIN_RETRY, or negative: -EACCES when no source has any. *ret is the caller's. */
int s3_credentials_get(struct s3_credentials *c, struct s3_keys *ret, struct origin_attempt *at,
	struct error *err);
/* Forgets what it has, as it was refused, and reads anew. */
int s3_credentials_reread(struct s3_credentials *c, struct origin_attempt *at, struct error *err);
/* From now on the chain of these options. */
int s3_credentials_renew(
	struct s3_credentials *c, const struct origin_options *opts, struct error *err);
