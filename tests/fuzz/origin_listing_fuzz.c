/* Listing files and index pages of web servers: entries that can be used, or a text. */
#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "origin/http_listing.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct input {
	const uint8_t *data;
	size_t len;
	struct http_origin o;
};

static int check(void *arg, const struct origin_entry *e, struct error *err)
{
	(void)arg;
	(void)err;
	assert(e->path && memchr(e->path, '\0', e->path_len) == NULL);
	assert(e->validator && strlen(e->validator) < HTTP_ETAG_BYTES);
	assert(!strpbrk(e->validator, "\r\n"));
	assert(e->type != ORIGIN_FILE || e->size <= INT64_MAX);
	return 0;
}

static int visit(void *arg, struct walk *w, const char *item, size_t len, struct error *err)
{
	struct input *in = arg;
	struct http_listing doc = {
		.o = &in->o,
		.walk = w,
		.url = "fuzz",
		.folder = "folder/",
		.folder_len = 7,
	};
	int r;

	/* Folders that a page names are items, too: none is visited. */
	if (len > 0)
		return 0;
	(void)item;
	doc.file = fmemopen((void *)(in->data + 1), in->len - 1, "r");
	assert(doc.file);
	r = in->data[0] & 1 ? http_listing_read_page(&doc, err) : http_listing_read_file(&doc, err);
	fclose(doc.file);
	assert(r == 0 || err->text[0]);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = {.data = data, .len = len, .o.base = (char *)"fuzz"};
	const struct retry retry = {.env = retry_env_real, .attempt_ms = 1000, .attempts_max = 1};
	const struct origin_listing l = {
		.retry = &retry,
		.url = "fuzz",
		.threads = 1,
		.deadline_ms = CLOCK_NEVER,
		.fn = check,
	};
	struct error err = ERROR_INIT;
	int r;

	if (len < 2)
		return 0;
	r = walk_run(&l, "", 0, visit, &in, &err);
	assert(r == 0 || r == -EIO || r == -ENOMEM);
	return 0;
}
