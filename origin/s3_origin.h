/* What the parts of the S3 origin share: origin_s3.c (open, stat, get), s3_call.c, s3_list.c. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <libs3.h>

#include "common/sync.h"
#include "origin/http_client.h"
#include "origin/origin_ops.h"
#include "origin/proxies.h"
#include "origin/s3_credentials.h"

#define S3_REGION_BYTES 64

struct s3_origin {
	/* constant */
	char *bucket;
	char *prefix; /* "" or with '/' at its end */
	char *host;   /* of the endpoint, with its port; NULL: AWS */
	char *ca_file;
	S3Protocol protocol;
	S3UriStyle style;
	bool sign, requester_pays, insecure;
	int64_t stall_ms;
	unsigned requests_max;
	struct s3_credentials *credentials;
	struct http_client *client; /* for the bucket's region */

	struct mutex mu;
	struct cond freed;
	/* guarded by mu */
	char region[S3_REGION_BYTES]; /* "": not known yet */
	unsigned requests;
	struct proxies *proxies;
};

/*
 * One request through libs3: s3_call_begin, one S3_* function with the call as callback data and
 * s3_call_properties/s3_call_complete (or callbacks that forward to them), s3_call_end.
 */
struct s3_call {
	struct s3_origin *o;
	struct origin_attempt *at;
	struct error *err;
	/* An outcome of our own callbacks, which ended the request; 0 for none. */
	int outcome;
	/* Checks the head of a good answer; may be NULL. */
	int (*on_head)(struct s3_call *call, const S3ResponseProperties *head);
	uint64_t bytes; /* moves when something arrives: keeps the stall timer quiet */

	/* for libs3, valid between begin and end */
	S3BucketContext bucket;
	int timeout_ms;

	/* internal */
	S3RequestExtras extras;
	S3NameValue headers[1];
	struct s3_keys keys;
	struct proxies *proxies;
	char region[S3_REGION_BYTES];
	char host[256];
	uint64_t seen_bytes;
	int64_t seen_ms;
	bool stalled;
	S3Status status;
	int http_status;
	int proxy_status;      /* of the proxy's answer to CONNECT; 0: none */
	int64_t retry_after_s; /* 0: the server did not say */
	char code[64], message[128], told_region[S3_REGION_BYTES];
};

/* 0, ORIGIN_RETRY, or negative: then there is nothing to end. */
int s3_call_begin(
	struct s3_call *call, struct s3_origin *o, struct origin_attempt *at, struct error *err);
S3Status s3_call_properties(const S3ResponseProperties *head, void *call);
void s3_call_complete(S3Status status, const S3ErrorDetails *details, void *call);
/* The outcome of the attempt; follows the bucket to its region by itself. */
int s3_call_end(struct s3_call *call);

int s3_list(struct s3_origin *o, const struct origin_listing *l, struct error *err);
