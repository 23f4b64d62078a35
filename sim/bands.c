#include "sim/bands.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NOTHING 1e-9 /* of the dataset */

void bands_init(struct bands *b, double dataset_bytes)
{
	*b = (struct bands){.dataset_bytes = dataset_bytes};
}

void bands_deinit(struct bands *b)
{
	free(b->readers);
}

static double unread_share(const struct bands *b, const struct bands_reader *r)
{
	return b->dataset_bytes > 0 ? r->unread / b->dataset_bytes : 0;
}

static double missing(const struct band *band)
{
	return band->bytes - band->cached;
}

/* As of a reader whose past says nothing about this band. */
static void spread(const struct bands *b, struct bands_reader *r, size_t i)
{
	double share = unread_share(b, r);

	r->unread_cached[i] = b->bands[i].cached * share;
	r->unread_missing[i] = missing(&b->bands[i]) * share;
}

int bands_join(struct bands *b, struct bands_reader *r)
{
	if (b->reader_count == b->reader_room) {
		size_t room = b->reader_room ? b->reader_room * 2 : 4;
		struct bands_reader **readers = reallocarray(b->readers, room, sizeof(*readers));

		if (!readers)
			return -ENOMEM;
		b->readers = readers;
		b->reader_room = room;
	}
	b->readers[b->reader_count++] = r;
	for (size_t i = 0; i < b->count; i++)
		spread(b, r, i);
	return 0;
}

void bands_leave(struct bands *b, struct bands_reader *r)
{
	size_t i = 0;

	while (i < b->reader_count && b->readers[i] != r)
		i++;
	if (i == b->reader_count)
		return;
	memmove(&b->readers[i], &b->readers[i + 1],
		(b->reader_count - i - 1) * sizeof(*b->readers));
	b->reader_count--;
}

/* ---- the stack ------------------------------------------------------------------------------- */

static void drop_band(struct bands *b, size_t i)
{
	size_t after = b->count - i - 1;

	memmove(&b->bands[i], &b->bands[i + 1], after * sizeof(b->bands[0]));
	for (size_t k = 0; k < b->reader_count; k++) {
		struct bands_reader *r = b->readers[k];

		memmove(&r->unread_cached[i], &r->unread_cached[i + 1], after * sizeof(double));
		memmove(&r->unread_missing[i], &r->unread_missing[i + 1], after * sizeof(double));
	}
	b->count--;
}

static void join_with_next(struct bands *b, size_t i)
{
	b->bands[i].bytes += b->bands[i + 1].bytes;
	b->bands[i].cached += b->bands[i + 1].cached;
	for (size_t k = 0; k < b->reader_count; k++) {
		struct bands_reader *r = b->readers[k];

		r->unread_cached[i] += r->unread_cached[i + 1];
		r->unread_missing[i] += r->unread_missing[i + 1];
	}
	drop_band(b, i + 1);
}

static void make_room(struct bands *b)
{
	size_t best = 0;

	if (b->count < BANDS_MAX)
		return;
	for (size_t i = 1; i + 1 < b->count; i++) {
		if (b->bands[i].bytes + b->bands[i + 1].bytes <
			b->bands[best].bytes + b->bands[best + 1].bytes)
			best = i;
	}
	join_with_next(b, best);
}

static bool even(const struct bands *b, const struct bands_reader *r, size_t i)
{
	double wanted = b->bands[i].cached * unread_share(b, r);

	return fabs(r->unread_cached[i] - wanted) <= NOTHING * b->dataset_bytes;
}

static bool full(const struct bands *b, size_t i)
{
	return missing(&b->bands[i]) <= NOTHING * b->dataset_bytes;
}

static void settle(struct bands *b)
{
	while (b->count > 0 && full(b, 0)) {
		for (size_t k = 0; k < b->reader_count; k++) {
			if (!even(b, b->readers[k], 0))
				return;
		}
		b->settled += b->bands[0].bytes;
		drop_band(b, 0);
	}
}

static void shrink(struct bands *b, double bytes)
{
	while (bytes > 0 && b->count > 0) {
		size_t top = b->count - 1;
		double kept = 1 - bytes / b->bands[top].bytes;

		if (kept <= 0) {
			bytes -= b->bands[top].bytes;
			b->count--;
			continue;
		}
		b->bands[top].bytes *= kept;
		b->bands[top].cached *= kept;
		for (size_t k = 0; k < b->reader_count; k++) {
			b->readers[k]->unread_cached[top] *= kept;
			b->readers[k]->unread_missing[top] *= kept;
		}
		return;
	}
	b->settled = fmax(b->settled - bytes, 0);
}

void bands_resize(struct bands *b, double bytes)
{
	double total = b->settled;

	for (size_t i = 0; i < b->count; i++)
		total += b->bands[i].bytes;
	if (bytes < total)
		shrink(b, total - bytes);
	if (bytes - total <= NOTHING * b->dataset_bytes)
		return;
	make_room(b);
	b->bands[b->count] = (struct band){.bytes = bytes - total};
	for (size_t k = 0; k < b->reader_count; k++)
		spread(b, b->readers[k], b->count);
	b->count++;
}

double bands_cached(const struct bands *b)
{
	double cached = b->settled;

	for (size_t i = 0; i < b->count; i++)
		cached += b->bands[i].cached;
	return cached;
}

/* ---- reading --------------------------------------------------------------------------------- */

double bands_hit(const struct bands *b, const struct bands_reader *r)
{
	double hit = b->dataset_bytes > 0 ? b->settled / b->dataset_bytes : 1;
	double cached = 0;

	for (size_t i = 0; i < b->count; i++)
		cached += r->unread_cached[i];
	if (r->unread > 0)
		hit += cached / r->unread;
	return fmin(hit, 1);
}

double bands_drift(const struct bands *b, const struct bands_reader *r, const double *rates)
{
	double gain = 0;

	for (size_t k = 0; k < b->reader_count; k++) {
		const struct bands_reader *other = b->readers[k];

		if (other == r || !(other->unread > 0))
			continue;
		for (size_t i = 0; i < b->count; i++) {
			if (!full(b, i))
				gain += rates[k] / other->unread * other->unread_missing[i] *
					r->unread_missing[i] / missing(&b->bands[i]);
		}
	}
	return r->unread > 0 ? gain / r->unread : 0;
}

bool bands_calm(const struct bands *b, const struct bands_reader *r)
{
	/* Where nothing is unread everything looks even. */
	if (b->count > 0 && r->unread <= 2 * NOTHING * b->dataset_bytes)
		return false;
	for (size_t i = 0; i < b->count; i++) {
		if (!full(b, i) || !even(b, r, i))
			return false;
	}
	return true;
}

static void admit(struct bands *b, struct bands_reader *reader, size_t i, double bytes)
{
	double before = missing(&b->bands[i]);

	for (size_t k = 0; k < b->reader_count && before > 0; k++) {
		struct bands_reader *r = b->readers[k];
		double unread = fmin(bytes * r->unread_missing[i] / before, r->unread_missing[i]);

		if (r == reader)
			continue;
		r->unread_cached[i] += unread;
		r->unread_missing[i] -= unread;
	}
	b->bands[i].cached = fmin(b->bands[i].cached + bytes, b->bands[i].bytes);
}

static void read_calmly(struct bands *b, struct bands_reader *r, double bytes)
{
	r->unread = fmod(r->unread - bytes, b->dataset_bytes);
	if (r->unread <= 0)
		r->unread += b->dataset_bytes;
	for (size_t i = 0; i < b->count; i++)
		spread(b, r, i);
}

void bands_read(struct bands *b, struct bands_reader *r, double bytes)
{
	double share;

	if (!(bytes > 0) || !(b->dataset_bytes > 0))
		return;
	if (bands_calm(b, r)) {
		read_calmly(b, r, bytes);
		return;
	}
	share = r->unread > 0 ? fmin(bytes / r->unread, 1) : 1;
	for (size_t i = 0; i < b->count; i++) {
		double admitted = share * r->unread_missing[i];

		r->unread_cached[i] *= 1 - share;
		r->unread_missing[i] -= admitted;
		admit(b, r, i, admitted);
	}
	r->unread = fmax(r->unread - bytes, 0);
}

void bands_wrap(struct bands *b, struct bands_reader *r)
{
	r->unread = b->dataset_bytes;
	for (size_t i = 0; i < b->count; i++)
		spread(b, r, i);
	settle(b);
}
