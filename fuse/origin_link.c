#include "fuse/origin_link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"

#define NS_PER_MS ((int64_t)1000000)

struct origin_holder {
	atomic_uint refs;
	struct origin *origin;
};

static void holder_unref(struct origin_holder *h)
{
	if (!h || atomic_fetch_sub(&h->refs, 1) != 1)
		return;
	origin_free(h->origin);
	free(h);
}

void origin_link_init(struct origin_link *l)
{
	memset(l, 0, sizeof(*l));
	mutex_init(&l->mu);
	direct_pace_init(&l->pace);
}

void origin_link_deinit(struct origin_link *l)
{
	holder_unref(l->holder);
	origin_options_free(l->options);
	free(l->said);
	free(l->url);
	direct_pace_deinit(&l->pace);
	mutex_deinit(&l->mu);
}

/* ---- configuration -----------------------------------------------------------------------------
 */

static int describe(struct buf *b, Granary__V1__Option *const *options, size_t count)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < count; i++)
		r = buf_printf(b, "\n%s=%s", options[i]->key, options[i]->value);
	return r;
}

static int set_all(struct origin_options *o, Granary__V1__Option *const *options, size_t count,
	struct error *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < count; i++)
		r = origin_options_set(o, options[i]->key, options[i]->value, err);
	return r;
}

static bool is_said(struct origin_link *l, const char *text)
{
	mutex_guard(&l->mu);

	return l->said && !strcmp(l->said, text);
}

int origin_link_configure(struct origin_link *l, const char *url,
	Granary__V1__Option *const *options, size_t options_count,
	Granary__V1__Option *const *secrets, size_t secrets_count, struct error *err)
{
	cleanup_buf struct buf said = BUF_INIT;
	struct origin_options *made, *old_options;
	struct origin_holder *old_holder;
	char *copy, *old_url, *old_said;
	int r;

	if (buf_append_str(&said, url) < 0 || describe(&said, options, options_count) < 0 ||
		describe(&said, secrets, secrets_count) < 0)
		return error_set(err, -ENOMEM, "out of memory");
	if (is_said(l, said.data))
		return 0;
	made = origin_options_new();
	copy = strdup(url);
	r = made && copy ? 0 : error_set(err, -ENOMEM, "out of memory");
	if (r == 0)
		r = set_all(made, options, options_count, err);
	if (r == 0)
		r = set_all(made, secrets, secrets_count, err);
	if (r < 0) {
		origin_options_free(made);
		free(copy);
		return r;
	}
	origin_options_from_environment(made);
	mutex_lock(&l->mu);
	old_url = l->url;
	old_options = l->options;
	old_said = l->said;
	old_holder = l->holder;
	l->url = copy;
	l->options = made;
	l->said = buf_take(&said);
	l->holder = NULL;
	mutex_unlock(&l->mu);
	holder_unref(old_holder);
	origin_options_free(old_options);
	free(old_said);
	free(old_url);
	return 0;
}

/* ---- reading -----------------------------------------------------------------------------------
 */

static struct origin_holder *open_locked(struct origin_link *l, struct error *err)
{
	struct origin_holder *h = calloc(1, sizeof(*h));

	assert(mutex_held(&l->mu));
	if (!h) {
		error_set(err, -ENOMEM, "out of memory");
		return NULL;
	}
	atomic_init(&h->refs, 1);
	/* Checks URL and options; talks to nobody. */
	if (origin_open(l->url, l->options, &h->origin, err) < 0) {
		free(h);
		return NULL;
	}
	return h;
}

static struct origin_holder *hold(struct origin_link *l, struct error *err)
{
	mutex_guard(&l->mu);

	if (!l->url) {
		error_set(err, -EIO, "the master has not told where the origin is");
		return NULL;
	}
	if (!l->holder)
		l->holder = open_locked(l, err);
	if (l->holder)
		atomic_fetch_add(&l->holder->refs, 1);
	return l->holder;
}

/* Of the range the bytes [from, from + len). */
struct piece {
	const struct block_range *range;
	uint32_t from, len;
	uint64_t received;
};

static int get(struct origin *o, struct piece *p, int64_t deadline_ms, struct read_cancel *cancel,
	struct error *err)
{
	const struct block_range *range = p->range;
	const struct manifest_entry *e = range->file->entry;
	cleanup_buf struct buf path = BUF_INIT;
	struct origin_get request = {
		.validator = e->validator,
		.object_bytes = e->size,
		.offset = range->block * BLOCK_BYTES + range->offset + p->from,
		.len = p->len,
		.dst = range->dst + p->from,
		.cancel = &cancel->fired,
		.deadline_ms = deadline_ms,
		.received = &p->received,
	};
	int r;

	r = manifest_path(range->file->manifest, range->file->index, &path);
	if (r < 0)
		return error_set_errno(err, r, "the manifest cannot be read");
	request.path = path.data;
	request.path_len = path.len;
	r = origin_get(o, &request, err);
	if (r == ORIGIN_CHANGED)
		return error_set(err, -ESTALE,
			"%s: the object has changed since the snapshot: refresh the dataset",
			origin_url(o));
	if (r == ORIGIN_GONE)
		return error_set(err, -ESTALE,
			"%s: the object is gone since the snapshot: refresh the dataset",
			origin_url(o));
	return r;
}

/* One after the other, each at its turn. */
static int get_pieces(struct origin_link *l, struct origin *o, const struct block_range *range,
	int64_t deadline_ms, struct read_cancel *cancel, struct error *err)
{
	struct piece p = {.range = range};
	struct origin_pass pass;
	bool whole = false; /* its origin sends all from the beginning whatever is asked */
	int r = 0;

	for (; r == 0 && p.from < range->len; p.from += p.len) {
		p.len = direct_pace_begin(&l->pace, &pass, range->len - p.from, whole, cancel);
		if (p.len == 0)
			return error_set(err, -ECANCELED, "called off");
		p.received = 0;
		r = get(o, &p, read_cancel_deadline_ms(cancel, deadline_ms), cancel, err);
		direct_pace_end(&l->pace, &pass, p.received);
		whole |= origin_ignores_ranges(p.received, p.len);
		/* One whole get need not have taken longer than one piece's. */
		if (p.from + p.len < range->len)
			read_cancel_waited(cancel, (clock_mono_ns() - pass.begun_ns) / NS_PER_MS);
	}
	return r;
}

int origin_link_read(struct origin_link *l, const struct block_range *range, int64_t deadline_ms,
	struct read_cancel *cancel, struct error *err)
{
	struct origin_holder *h = hold(l, err);
	int r;

	if (!h)
		return -EIO;
	r = get_pieces(l, h->origin, range, deadline_ms, cancel, err);
	holder_unref(h);
	return r;
}
