/* A set of S3 credentials, held in memory that is overwritten before it is freed. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct s3_keys {
	char *access_key_id;
	char *secret_access_key;
	char *session_token; /* NULL: permanent credentials */
	int64_t expires_s;   /* seconds of the wall clock; 0: never */
};

/* Copies; 0 or -ENOMEM with *ret empty. token may be NULL or "". */
int s3_keys_init(struct s3_keys *ret, const char *id, const char *secret, const char *token,
	int64_t expires_s);
int s3_keys_copy(struct s3_keys *ret, const struct s3_keys *keys);
void s3_keys_deinit(struct s3_keys *keys);
/* "2026-11-22T20:15:00Z", with or without a fraction; 0 for anything else. */
int64_t s3_keys_parse_expiration(const char *text);
