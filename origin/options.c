#include "origin/options.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum kind { TEXT, SWITCH, NUMBER, DURATION, ADDRESSING };

#define OPTION_VALUE_BYTES_MAX 16384

struct key {
	struct origin_option_info info;
	enum kind kind;
	uint64_t min, max;  /* of numbers; of durations in ms */
	const char *env[4]; /* first that is set wins */
};

#define PUBLIC(k, kd, dflt, d) .info = {.key = k, .doc = d, .fallback = dflt}, .kind = kd
#define OFF(k, d) .info = {.key = k, .doc = d, .fallback = "no", .off = true}, .kind = SWITCH
#define SECRET(k, d) .info = {.key = k, .doc = d, .secret = true}, .kind = TEXT

/* Every key, once. Order is the order of --help. */
static const struct key keys[] = {
	{PUBLIC("endpoint", TEXT, NULL, "S3: address of the server, for those that are not AWS"),
		.env = {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"}},
	{PUBLIC("region", TEXT, NULL, "S3: region; found from the server's answer when not given"),
		.env = {"AWS_REGION", "AWS_DEFAULT_REGION"}},
	{PUBLIC("profile", TEXT, NULL, "S3: profile of the shared credentials and config files"),
		.env = {"AWS_PROFILE"}},
	{PUBLIC("addressing", ADDRESSING, "auto",
		"S3: bucket in the path, in the host name (virtual), or auto")},
	{PUBLIC("sign", SWITCH, "yes", "S3: sign requests; no for public buckets")},
	{OFF("requester-pays", "S3: accept the charges of a requester-pays bucket")},
	{PUBLIC("index", TEXT, NULL,
		"HTTP: URL of a listing file, where the server has no JSON index pages")},
	{PUBLIC("ca-file", TEXT, NULL, "certificate authorities to trust instead of the system's")},
	{OFF("insecure", "do not verify the server's certificate")},
	{PUBLIC("connect-timeout", DURATION, "10s", "time limit for making a connection"),
		.min = 100, .max = 600000},
	{PUBLIC("timeout", DURATION, "60s", "time limit of one attempt; failed ones are retried"),
		.min = 100, .max = 3600000},
	{PUBLIC("stall-timeout", DURATION, "10s",
		 "an attempt that brings nothing for so long is given up and retried"),
		.min = 1000, .max = 3600000},
	{PUBLIC("attempts", NUMBER, "20", "attempts in a row without a byte before giving up"),
		.min = 1, .max = 1000000},
	{PUBLIC("max-connections", NUMBER, "64", "connections at once, kept open between requests"),
		.min = 1, .max = 4096},
	{PUBLIC("list-parallel", NUMBER, "16", "requests at once while listing"), .min = 1,
		.max = 64},
	{PUBLIC("credentials-file", TEXT, NULL, "S3: shared credentials file"),
		.env = {"AWS_SHARED_CREDENTIALS_FILE"}},
	{PUBLIC("config-file", TEXT, NULL, "S3: shared config file"), .env = {"AWS_CONFIG_FILE"}},
	{PUBLIC("role-arn", TEXT, NULL, "S3: role to assume with a web identity"),
		.env = {"AWS_ROLE_ARN"}},
	{PUBLIC("role-session-name", TEXT, NULL, "S3: name of the session of that role"),
		.env = {"AWS_ROLE_SESSION_NAME"}},
	{PUBLIC("web-identity-token-file", TEXT, NULL, "S3: file with the web identity's token"),
		.env = {"AWS_WEB_IDENTITY_TOKEN_FILE"}},
	{PUBLIC("sts-endpoint", TEXT, NULL, "S3: address of the security token service"),
		.env = {"AWS_ENDPOINT_URL_STS"}},
	{PUBLIC("container-credentials-path", TEXT, NULL,
		 "S3: path of the container's credentials at 169.254.170.2"),
		.env = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"}},
	{PUBLIC("container-credentials-url", TEXT, NULL, "S3: URL of the container's credentials"),
		.env = {"AWS_CONTAINER_CREDENTIALS_FULL_URI"}},
	{PUBLIC("container-token-file", TEXT, NULL, "S3: file with the token for that URL"),
		.env = {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"}},
	{PUBLIC("metadata-endpoint", TEXT, "http://169.254.169.254",
		 "S3: address of the instance metadata service"),
		.env = {"AWS_EC2_METADATA_SERVICE_ENDPOINT"}},
	{OFF("metadata-disabled", "S3: do not ask the instance metadata service"),
		.env = {"AWS_EC2_METADATA_DISABLED"}},
	{PUBLIC("aws-ca-file", TEXT, NULL,
		 "S3: certificate authorities, when ca-file is not given"),
		.env = {"AWS_CA_BUNDLE"}},
	{PUBLIC("no-proxy", TEXT, NULL, "hosts that are reached without a proxy"),
		.env = {"no_proxy", "NO_PROXY"}},

	/* Proxy addresses may hold a password. */
	{SECRET("http-proxy", "proxy for http"), .env = {"http_proxy", "all_proxy", "ALL_PROXY"}},
	{SECRET("https-proxy", "proxy for https"),
		.env = {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"}},
	{SECRET("access-key-id", "S3: access key"), .env = {"AWS_ACCESS_KEY_ID"}},
	{SECRET("secret-access-key", "S3: its secret"), .env = {"AWS_SECRET_ACCESS_KEY"}},
	{SECRET("session-token", "S3: session token of temporary credentials"),
		.env = {"AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"}},
	{SECRET("container-token", "S3: token for the container's credentials"),
		.env = {"AWS_CONTAINER_AUTHORIZATION_TOKEN"}},
	{SECRET("http-user", "HTTP: user name"), .env = {"GRANARY_HTTP_USER"}},
	{SECRET("http-password", "HTTP: password"), .env = {"GRANARY_HTTP_PASSWORD"}},
	{SECRET("http-token", "HTTP: bearer token"), .env = {"GRANARY_HTTP_TOKEN"}},
};

#define KEYS (sizeof(keys) / sizeof(keys[0]))

struct origin_options {
	char *values[KEYS];
};

static const struct key *find(const char *key)
{
	for (size_t i = 0; i < KEYS; i++) {
		if (strcmp(keys[i].info.key, key) == 0)
			return &keys[i];
	}
	return NULL;
}

static struct origin_option_info table[KEYS + 1];

static void fill_table(void)
{
	for (size_t i = 0; i < KEYS; i++)
		table[i] = keys[i].info;
}

const struct origin_option_info *origin_option_table(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, fill_table);
	return table;
}

void origin_secret_free(char *secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

struct origin_options *origin_options_new(void)
{
	return calloc(1, sizeof(struct origin_options));
}

void origin_options_free(struct origin_options *o)
{
	if (!o)
		return;
	for (size_t i = 0; i < KEYS; i++)
		origin_secret_free(o->values[i]);
	free(o);
}

struct origin_options *origin_options_copy(const struct origin_options *o)
{
	struct origin_options *copy = origin_options_new();

	for (size_t i = 0; copy && o && i < KEYS; i++) {
		if (!o->values[i])
			continue;
		copy->values[i] = strdup(o->values[i]);
		if (!copy->values[i]) {
			origin_options_free(copy);
			return NULL;
		}
	}
	return copy;
}

static bool is_yes(const char *v)
{
	return strcasecmp(v, "yes") == 0 || strcasecmp(v, "true") == 0 || strcmp(v, "1") == 0;
}

static bool is_no(const char *v)
{
	return strcasecmp(v, "no") == 0 || strcasecmp(v, "false") == 0 || strcmp(v, "0") == 0;
}

static int parse_number(const struct key *k, const char *value, uint64_t *ret)
{
	char *end;
	uint64_t scale = 1;

	if (!isdigit((unsigned char)value[0]))
		return -EINVAL;
	errno = 0;
	*ret = strtoull(value, &end, 10);
	if (k->kind == DURATION) {
		if (strcmp(end, "ms") == 0)
			scale = 1;
		else if (strcmp(end, "s") == 0 || *end == '\0')
			scale = 1000;
		else if (strcmp(end, "m") == 0)
			scale = 60000;
		else
			return -EINVAL;
	} else if (*end) {
		return -EINVAL;
	}
	if (errno || *ret > k->max / scale)
		return -ERANGE;
	*ret *= scale;
	return *ret < k->min ? -ERANGE : 0;
}

static int check_value(const struct key *k, const char *value, struct error *err)
{
	const char *key = k->info.key;
	uint64_t number;
	int r;

	/* A line break in a value would become a header of its own in a request. */
	if (strlen(value) > OPTION_VALUE_BYTES_MAX || strpbrk(value, "\r\n"))
		return error_set(err, -EINVAL, "option %s: too long, or holds a line break", key);
	switch (k->kind) {
	case TEXT:
		return 0;
	case SWITCH:
		if (is_yes(value) || is_no(value))
			return 0;
		return error_set(err, -EINVAL, "option %s: '%s' is neither yes nor no", key, value);
	case ADDRESSING:
		if (strcmp(value, "auto") == 0 || strcmp(value, "path") == 0 ||
			strcmp(value, "virtual") == 0)
			return 0;
		return error_set(
			err, -EINVAL, "option %s: '%s' is not auto, path or virtual", key, value);
	case NUMBER:
	case DURATION:
		r = parse_number(k, value, &number);
		if (r == -ERANGE)
			return error_set(err, -EINVAL,
				"option %s: '%s' is not within %llu and %llu%s", key, value,
				(unsigned long long)k->min, (unsigned long long)k->max,
				k->kind == DURATION ? " ms" : "");
		if (r < 0)
			return error_set(err, -EINVAL, "option %s: '%s' is not a %s", key, value,
				k->kind == DURATION ? "duration (10s, 500ms)" : "number");
		return 0;
	}
	assert(false);
	return -EINVAL;
}

static int set(struct origin_options *o, const struct key *k, const char *value, struct error *err)
{
	char *copy = strdup(value);
	char **slot = &o->values[k - keys];

	if (!copy)
		return error_set(err, -ENOMEM, "option %s: out of memory", k->info.key);
	origin_secret_free(*slot);
	*slot = copy;
	return 0;
}

int origin_options_set(
	struct origin_options *o, const char *key, const char *value, struct error *err)
{
	const struct key *k = find(key);
	int r;

	if (!k)
		return error_set(err, -EINVAL, "there is no origin option '%s'", key);
	r = check_value(k, value, err);
	return r < 0 ? r : set(o, k, value, err);
}

const char *origin_options_get(const struct origin_options *o, const char *key)
{
	const struct key *k = find(key);

	return o && k ? o->values[k - keys] : NULL;
}

/* Access key, secret and token belong together: a mix of two sources is never right. */
static bool is_aws_key(const char *key)
{
	return strcmp(key, "access-key-id") == 0 || strcmp(key, "secret-access-key") == 0 ||
	       strcmp(key, "session-token") == 0;
}

void origin_options_from_environment(struct origin_options *o)
{
	bool own_keys = origin_options_get(o, "access-key-id") || origin_options_get(o, "profile");

	for (size_t i = 0; i < KEYS; i++) {
		const struct key *k = &keys[i];

		if (o->values[i] || (own_keys && is_aws_key(k->info.key)))
			continue;
		for (size_t e = 0; e < sizeof(k->env) / sizeof(k->env[0]) && k->env[e]; e++) {
			const char *value = getenv(k->env[e]);

			/* What makes no sense there is somebody else's mistake: the default holds.
			 */
			if (value && *value && check_value(k, value, NULL) == 0) {
				set(o, k, value, NULL);
				break;
			}
		}
	}
}

const char *origin_options_text(const struct origin_options *o, const char *key)
{
	const struct key *k = find(key);
	const char *value;

	assert(k);
	value = o ? o->values[k - keys] : NULL;
	return value ? value : k->info.fallback;
}

bool origin_options_yes(const struct origin_options *o, const char *key)
{
	return is_yes(origin_options_text(o, key));
}

uint64_t origin_options_number(const struct origin_options *o, const char *key)
{
	const struct key *k = find(key);
	uint64_t number = 0;
	int r;

	assert(k && (k->kind == NUMBER || k->kind == DURATION));
	r = parse_number(k, origin_options_text(o, key), &number);
	assert(r == 0); /* checked when it was set */
	return number;
}

int64_t origin_options_ms(const struct origin_options *o, const char *key)
{
	return (int64_t)origin_options_number(o, key);
}
