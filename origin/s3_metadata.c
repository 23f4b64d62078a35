#include "origin/s3_metadata.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curl/curl.h>
#include <jansson.h>
#include <libxml/parser.h>

#include "common/buf.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "origin/options.h"
#include "origin/origin_ops.h"

#define ANSWER_BYTES_MAX (256 * 1024)
/* The metadata service is a hop away, or not there at all. */
#define INSTANCE_TIMEOUT_MS 2000
#define CONTAINER_HOST "http://169.254.170.2"

/* A document that may hold secrets. */
static void wipe(struct buf *b)
{
	if (b->data)
		explicit_bzero(b->data, b->room);
	buf_deinit(b);
}

#define secret_buf __attribute__((cleanup(wipe)))

static int on_body(
	void *arg, const void *data, size_t len, struct origin_attempt *at, struct error *err)
{
	struct buf *answer = arg;

	(void)at;
	if (answer->len + len > ANSWER_BYTES_MAX)
		return error_set(err, -EIO, "the answer is too long");
	return buf_append(answer, data, len) < 0 ? error_set(err, -ENOMEM, "out of memory") : 0;
}

/* Asks one of the services; its refusal is a refusal of our credentials. What it said is in the
 * answer in any case. */
static int ask(struct http_client *c, const char *method, const char *url,
	const char *const *headers, const char *body, bool foreign, struct buf *answer,
	struct origin_attempt *at, struct error *err)
{
	const struct http_request req = {
		.method = method,
		.url = url,
		.headers = headers,
		.body = body,
		.foreign = foreign,
		.on_body = on_body,
		.refusal = answer,
		.arg = answer,
	};
	struct http_reply reply;

	/* All of it is reserved at once: a growing buffer would leave secrets in freed memory. */
	buf_clear(answer);
	if (buf_reserve(answer, ANSWER_BYTES_MAX) < 0)
		return error_set(err, -ENOMEM, "out of memory");
	return http_client_run(c, &req, &reply, at, err);
}

static int read_token_file(const char *path, struct buf *ret, struct error *err)
{
	cleanup_file FILE *f = fopen(path, "re");
	int c;

	if (!f)
		return error_set_errno(err, -errno, "credentials: read the token %s", path);
	if (buf_reserve(ret, ANSWER_BYTES_MAX) < 0)
		return error_set(err, -ENOMEM, "credentials: out of memory");
	while ((c = getc_unlocked(f)) != EOF && ret->len < ANSWER_BYTES_MAX)
		buf_append(ret, &(char){(char)c}, 1);
	while (ret->len && strchr("\r\n \t", ret->data[ret->len - 1]))
		ret->data[--ret->len] = '\0';
	if (ret->len == 0 || strpbrk(ret->data, "\r\n"))
		return error_set(
			err, -EACCES, "credentials: the token %s is empty or malformed", path);
	return 0;
}

/* ---- web identity ---------------------------------------------------------------------------- */

static const char *find_text(const xmlNode *node, const char *name)
{
	for (; node; node = node->next) {
		const char *found;

		if (node->type != XML_ELEMENT_NODE)
			continue;
		if (strcmp((const char *)node->name, name) == 0 && node->children)
			return (const char *)node->children->content;
		found = find_text(node->children, name);
		if (found)
			return found;
	}
	return NULL;
}

static int keys_of_sts(const struct buf *answer, struct s3_keys *ret, struct error *err)
{
	xmlDoc *doc = xmlReadMemory(answer->data, (int)answer->len, NULL, NULL,
		XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
	const xmlNode *root = doc ? xmlDocGetRootElement(doc) : NULL;
	const char *id = root ? find_text(root, "AccessKeyId") : NULL;
	const char *secret = root ? find_text(root, "SecretAccessKey") : NULL;
	int r;

	if (!id || !secret)
		r = error_set(
			err, -EIO, "credentials: the answer of the token service makes no sense");
	else if (s3_keys_init(ret, id, secret, find_text(root, "SessionToken"),
			 s3_keys_parse_expiration(find_text(root, "Expiration"))) < 0)
		r = error_set(err, -ENOMEM, "credentials: out of memory");
	else
		r = 0;
	xmlFreeDoc(doc);
	return r;
}

#define SAID_BYTES 200
/* So much of a token in a text gives it away. */
#define TELLING_BYTES 16

static bool tells(const char *said, const struct buf *token)
{
	size_t len = token->len < TELLING_BYTES ? token->len : TELLING_BYTES;

	for (size_t i = 0; i + len <= token->len; i++) {
		if (memmem(said, strlen(said), token->data + i, len))
			return true;
	}
	return false;
}

/* ": CODE: MESSAGE" of a refusal; a message that repeats our token is left out. */
static void refusal_of_sts(const struct buf *answer, const struct buf *token, char ret[SAID_BYTES])
{
	xmlDoc *doc = xmlReadMemory(answer->data, (int)answer->len, NULL, NULL,
		XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
	const xmlNode *root = doc ? xmlDocGetRootElement(doc) : NULL;
	const char *code = root ? find_text(root, "Code") : NULL;
	const char *message = root ? find_text(root, "Message") : NULL;

	snprintf(ret, SAID_BYTES, "%s%s%s%s", code ? ": " : "", code ? code : "",
		message ? ": " : "", message ? message : "");
	if (tells(ret, token))
		snprintf(ret, SAID_BYTES, ": it repeats the token");
	for (char *p = ret; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
	}
	xmlFreeDoc(doc);
}

static int append_escaped(struct buf *b, const char *name, const char *value)
{
	char *escaped = curl_easy_escape(NULL, value, 0);
	int r = escaped ? buf_printf(b, "&%s=%s", name, escaped) : -ENOMEM;

	if (escaped)
		explicit_bzero(escaped, strlen(escaped));
	curl_free(escaped);
	return r;
}

static int refused_by_sts(const struct s3_web_identity *w, int code, const struct buf *answer,
	const struct buf *token, struct origin_attempt *at, struct error *err)
{
	static const char busy[] = ": IDPCommunicationError";
	char said[SAID_BYTES];

	refusal_of_sts(answer, token, said);
	if (strncmp(said, busy, strlen(busy)) == 0)
		return attempt_retry(at, "credentials: the token service %s%s", w->endpoint, said);
	if (code > 0)
		return error_set(err, -EACCES,
			"credentials: the token service %s refused the web identity for %s%s",
			w->endpoint, w->role_arn, said);
	/* It says what is wrong with a token by status 400. */
	if (code == -EIO)
		return error_set(err, -EACCES,
			"credentials: the token service %s did not take the web identity: %s%s",
			w->endpoint, err ? err->text : "", said);
	return code;
}

int s3_keys_from_web_identity(struct http_client *c, const struct s3_web_identity *w,
	struct s3_keys *ret, struct origin_attempt *at, struct error *err)
{
	secret_buf struct buf token = BUF_INIT;
	secret_buf struct buf body = BUF_INIT;
	secret_buf struct buf answer = BUF_INIT;
	char session[64];
	int r = read_token_file(w->token_file, &token, err);

	if (r < 0)
		return r == -ENOMEM ? r : -EACCES;
	snprintf(session, sizeof(session), "granary-%ld", (long)getpid());
	if (buf_reserve(&body, 3 * token.len + 4096) < 0 ||
		buf_append_str(&body, "Action=AssumeRoleWithWebIdentity&Version=2011-06-15") < 0 ||
		append_escaped(&body, "RoleArn", w->role_arn) < 0 ||
		append_escaped(&body, "RoleSessionName",
			w->session_name ? w->session_name : session) < 0 ||
		append_escaped(&body, "WebIdentityToken", token.data) < 0)
		return error_set(err, -ENOMEM, "credentials: out of memory");
	r = ask(c, "POST", w->endpoint, NULL, body.data, false, &answer, at, err);
	if (r == 0)
		return keys_of_sts(&answer, ret, err);
	return r == ORIGIN_RETRY ? r : refused_by_sts(w, r, &answer, &token, at, err);
}

/* ---- container and instance ------------------------------------------------------------------ */

static int keys_of_json(
	const struct buf *answer, const char *who, struct s3_keys *ret, struct error *err)
{
	json_t *root = json_loadb(answer->data, answer->len, JSON_REJECT_DUPLICATES, NULL);
	const char *id = json_string_value(json_object_get(root, "AccessKeyId"));
	const char *secret = json_string_value(json_object_get(root, "SecretAccessKey"));
	const char *expires = json_string_value(json_object_get(root, "Expiration"));
	int r;

	if (!id || !secret)
		r = error_set(err, -EIO, "credentials: the answer of %s makes no sense", who);
	else if (s3_keys_init(ret, id, secret, json_string_value(json_object_get(root, "Token")),
			 s3_keys_parse_expiration(expires)) < 0)
		r = error_set(err, -ENOMEM, "credentials: out of memory");
	else
		r = 0;
	json_decref(root);
	return r;
}

/* Tokens travel to https, to loopback, and to the addresses that AWS reserved, nowhere else. */
static bool may_be_asked(const char *url)
{
	static const char *const hosts[] = {
		"169.254.170.2", "169.254.170.23", "[fd00:ec2::23]", "localhost", "[::1]"};
	CURLU *u = curl_url();
	char *scheme = NULL, *host = NULL;
	bool may = false;

	if (u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
		curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
		curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK) {
		struct in_addr a;

		may = strcmp(scheme, "https") == 0;
		may |= inet_pton(AF_INET, host, &a) == 1 && ntohl(a.s_addr) >> 24 == 127;
		for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++)
			may |= strcmp(host, hosts[i]) == 0;
	}
	curl_free(scheme);
	curl_free(host);
	curl_url_cleanup(u);
	return may;
}

int s3_keys_from_container(struct http_client *c, const struct origin_options *opts,
	struct s3_keys *ret, struct origin_attempt *at, struct error *err)
{
	const char *path = origin_options_get(opts, "container-credentials-path");
	const char *url = origin_options_get(opts, "container-credentials-url");
	const char *token_file = origin_options_get(opts, "container-token-file");
	const char *token = origin_options_get(opts, "container-token");
	secret_buf struct buf header = BUF_INIT;
	secret_buf struct buf file_token = BUF_INIT;
	secret_buf struct buf answer = BUF_INIT;
	cleanup_buf struct buf whole = BUF_INIT;
	const char *headers[2] = {NULL, NULL};
	int r;

	if (!path && !url)
		return ORIGIN_GONE;
	if (path && buf_printf(&whole, CONTAINER_HOST "%s", path) < 0)
		return error_set(err, -ENOMEM, "credentials: out of memory");
	if (path)
		url = whole.data;
	if (!may_be_asked(url))
		return error_set(err, -EACCES,
			"credentials: the container's URL %s is neither https nor local", url);
	if (token_file) {
		r = read_token_file(token_file, &file_token, err);
		if (r < 0)
			return r == -ENOMEM ? r : -EACCES;
		token = file_token.data;
	}
	if (token) {
		if (buf_printf(&header, "Authorization: %s", token) < 0)
			return error_set(err, -ENOMEM, "credentials: out of memory");
		headers[0] = header.data;
	}
	r = ask(c, NULL, url, headers, NULL, true, &answer, at, err);
	if (r == ORIGIN_GONE || r == ORIGIN_CHANGED || r == ORIGIN_CREDENTIALS)
		return error_set(err, -EACCES, "credentials: %s gave none", url);
	return r != 0 ? r : keys_of_json(&answer, url, ret, err);
}

/* http://169.254.169.254/latest/..., asked with the session's token. */
static int ask_instance(struct http_client *c, const char *endpoint, const char *path,
	const char *header, struct buf *answer, struct origin_attempt *at, struct error *err)
{
	static const char where[] = "/latest/meta-data/iam/security-credentials/";
	const char *headers[] = {header, NULL};
	cleanup_buf struct buf url = BUF_INIT;

	if (buf_printf(&url, "%s%s%s", endpoint, where, path) < 0)
		return error_set(err, -ENOMEM, "credentials: out of memory");
	return ask(c, NULL, url.data, headers, NULL, true, answer, at, err);
}

static int instance_role(struct http_client *c, const char *endpoint, struct s3_keys *ret,
	struct origin_attempt *at, struct error *err)
{
	static const char *const ttl[] = {"X-aws-ec2-metadata-token-ttl-seconds: 300", NULL};
	secret_buf struct buf token = BUF_INIT;
	secret_buf struct buf header = BUF_INIT;
	secret_buf struct buf answer = BUF_INIT;
	cleanup_buf struct buf url = BUF_INIT;
	char role[256];
	int r;

	if (buf_printf(&url, "%s/latest/api/token", endpoint) < 0)
		return error_set(err, -ENOMEM, "credentials: out of memory");
	r = ask(c, "PUT", url.data, ttl, NULL, true, &token, at, err);
	if (r != 0)
		return r;
	if (!token.len || strpbrk(token.data, "\r\n") ||
		buf_printf(&header, "X-aws-ec2-metadata-token: %s", token.data) < 0)
		return attempt_retry(at, "credentials: the metadata service gave no token");
	r = ask_instance(c, endpoint, "", header.data, &answer, at, err);
	if (r != 0)
		return r;
	answer.data[strcspn(answer.data, "\r\n")] = '\0';
	if (!answer.data[0] || strlen(answer.data) >= sizeof(role) || strpbrk(answer.data, "/?#% "))
		return ORIGIN_GONE;
	strcpy(role, answer.data);
	r = ask_instance(c, endpoint, role, header.data, &answer, at, err);
	return r != 0 ? r : keys_of_json(&answer, "the metadata service", ret, err);
}

int s3_keys_from_instance(struct http_client *c, const struct origin_options *opts, bool known,
	struct s3_keys *ret, struct origin_attempt *at, struct error *err)
{
	int64_t deadline_ms = at->deadline_ms;
	cleanup_buf struct buf endpoint = BUF_INIT;
	int r;

	if (origin_options_yes(opts, "metadata-disabled"))
		return ORIGIN_GONE;
	if (buf_append_str(&endpoint, origin_options_text(opts, "metadata-endpoint")) < 0)
		return error_set(err, -ENOMEM, "credentials: out of memory");
	while (endpoint.len && endpoint.data[endpoint.len - 1] == '/')
		endpoint.data[--endpoint.len] = '\0';
	if (clock_deadline_ms(INSTANCE_TIMEOUT_MS) < deadline_ms)
		at->deadline_ms = clock_deadline_ms(INSTANCE_TIMEOUT_MS);
	r = instance_role(c, endpoint.data, ret, at, err);
	at->deadline_ms = deadline_ms;
	/* Away from a cloud's instance nobody answers there: that is no failure. */
	if (r == ORIGIN_RETRY && known)
		return attempt_retry(
			at, "credentials: the metadata service %s does not answer", endpoint.data);
	return r == ORIGIN_RETRY || r == ORIGIN_CREDENTIALS || r == ORIGIN_CHANGED ? ORIGIN_GONE
										   : r;
}
