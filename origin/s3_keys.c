#include "origin/s3_keys.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "origin/options.h"

static int copy_text(char **slot, const char *text)
{
	*slot = text && *text ? strdup(text) : NULL;
	return text && *text && !*slot ? -ENOMEM : 0;
}

int s3_keys_init(struct s3_keys *ret, const char *id, const char *secret, const char *token,
	int64_t expires_s)
{
	*ret = (struct s3_keys){.expires_s = expires_s};
	if (copy_text(&ret->access_key_id, id) == 0 &&
		copy_text(&ret->secret_access_key, secret) == 0 &&
		copy_text(&ret->session_token, token) == 0)
		return 0;
	s3_keys_deinit(ret);
	return -ENOMEM;
}

int s3_keys_copy(struct s3_keys *ret, const struct s3_keys *keys)
{
	return s3_keys_init(ret, keys->access_key_id, keys->secret_access_key, keys->session_token,
		keys->expires_s);
}

void s3_keys_deinit(struct s3_keys *keys)
{
	origin_secret_free(keys->access_key_id);
	origin_secret_free(keys->secret_access_key);
	origin_secret_free(keys->session_token);
	memset(keys, 0, sizeof(*keys));
}

int64_t s3_keys_parse_expiration(const char *text)
{
	struct tm tm = {0};
	const char *end = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
	time_t t;

	if (!end || (*end != 'Z' && *end != '.' && strncmp(end, "+00:00", 6) != 0))
		return 0;
	t = timegm(&tm);
	return t > 0 ? (int64_t)t : 0;
}
