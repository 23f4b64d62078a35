#include "origin/http_spool.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

struct fetch {
	struct http_spool *s;
	struct http_client *client;
	const char *url;
};

static int start_over(struct http_spool *s, struct error *err)
{
	rewind(s->file);
	s->bytes = 0;
	s->etag[0] = '\0';
	if (ftruncate(fileno(s->file), 0) < 0)
		return error_set_errno(err, -errno, "the temporary file");
	return 0;
}

static int on_head(
	void *arg, const struct http_reply *reply, struct origin_attempt *at, struct error *err)
{
	struct http_spool *s = ((struct fetch *)arg)->s;
	int r;

	if (reply->encoded)
		return error_set(err, -EIO, "the server compresses what should come as it is");
	if (reply->status == 206 && reply->has_range && reply->range_first == s->bytes &&
		strcmp(reply->etag, s->etag) == 0)
		return 0;
	r = start_over(s, err);
	if (r < 0)
		return r;
	if (reply->status != 200)
		return attempt_retry(at, "HTTP %d to a request for the rest", reply->status);
	strcpy(s->etag, reply->etag);
	strcpy(s->content_type, reply->content_type);
	return 0;
}

static int on_body(
	void *arg, const void *data, size_t len, struct origin_attempt *at, struct error *err)
{
	struct http_spool *s = ((struct fetch *)arg)->s;

	if (s->bytes + len > HTTP_SPOOL_BYTES_MAX)
		return error_set(err, -EFBIG, "the listing is larger than %llu GiB",
			(unsigned long long)HTTP_SPOOL_BYTES_MAX >> 30);
	if (fwrite(data, 1, len, s->file) != len)
		return error_set_errno(err, -errno, "write a temporary file");
	s->bytes += len;
	attempt_arrived(at, len);
	return 0;
}

static int attempt(void *arg, struct origin_attempt *at, struct error *err)
{
	struct fetch *f = arg;
	struct http_spool *s = f->s;
	/* Only a strong etag says that the rest belongs to what is there. */
	bool rest = s->bytes > 0 && s->etag[0] == '"';
	char condition[HTTP_ETAG_BYTES + 16];
	const char *headers[] = {condition, NULL};
	struct http_request req = {
		.url = f->url,
		.headers = rest ? headers : NULL,
		.ranged = rest,
		.first = s->bytes,
		.last = UINT64_MAX,
		.on_head = on_head,
		.on_body = on_body,
		.arg = f,
	};
	struct http_reply reply;
	int r;

	snprintf(condition, sizeof(condition), "If-Match: %s", s->etag);
	r = http_client_run(f->client, &req, &reply, at, err);
	if (r == ORIGIN_CHANGED && rest) {
		r = start_over(s, err);
		return r < 0 ? r : attempt_retry(at, "it changed while it was read");
	}
	if (r == ORIGIN_CHANGED)
		return error_set(err, -EIO, "HTTP %d", reply.status);
	return r;
}

int http_spool_fetch(struct http_spool *s, struct http_client *c, const char *url,
	const struct origin_listing *l, bool first_contact, struct error *err)
{
	struct fetch f = {.s = s, .client = c, .url = url};
	struct retry_work work = {
		.attempt = attempt,
		.arg = &f,
		.subject = {"list", url, "", 0},
		.first_contact = first_contact,
		.cancel = l->cancel,
		.deadline_ms = l->deadline_ms,
	};
	int r;

	if (!s->file)
		s->file = tmpfile();
	if (!s->file)
		return error_set_errno(err, -errno, "list %s: make a temporary file", url);
	r = start_over(s, err);
	if (r == 0)
		r = retry_run(l->retry, &work, err);
	if (r == 0 && fflush(s->file) != 0)
		return error_set_errno(err, -errno, "list %s: write a temporary file", url);
	rewind(s->file);
	return r;
}

void http_spool_deinit(struct http_spool *s)
{
	if (s->file)
		fclose(s->file);
	s->file = NULL;
}
