/*
 * What a dataset has cached and which of it can hit for whom: the delayed effectiveness of a uniform
 * cache, as a fluid. An item that a job missed and so had admitted cannot hit for it before
 * its next epoch, but helps another job at once that has not read it yet in its own.
 *
 * A quota pins the hashes below a threshold, so what it covers is a stack of bands, one for each time
 * that it grew; it shrinks from the top. A band has bytes, of which some are cached, and of these
 * and of the others a part is still unread by each reader in its epoch. Orders are random and
 * independent, so that is all there is to know: reading the share q of what is unread takes the same
 * share of every part, what was not cached becomes cached, and is unread by another reader with the
 * probability of what was not cached before. At the end of an epoch everything is unread again.
 *
 * The bottom that is cached and read evenly by everybody needs no account and is one number. Exact
 * up to BANDS_MAX bands; beyond that the two smallest neighbours become one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define BANDS_MAX 48

struct band {
	double bytes, cached;
};

struct bands_reader {
	double unread; /* bytes of the dataset in this epoch */
	double unread_cached[BANDS_MAX], unread_missing[BANDS_MAX];
};

struct bands {
	double dataset_bytes;
	double settled; /* bytes at the bottom */
	struct band bands[BANDS_MAX];
	size_t count;
	struct bands_reader **readers; /* borrowed */
	size_t reader_count, reader_room;
};

void bands_init(struct bands *b, double dataset_bytes);
void bands_deinit(struct bands *b);

/* `unread` of the reader is set: what it has read before is any of the dataset. -ENOMEM. */
int bands_join(struct bands *b, struct bands_reader *r);
void bands_leave(struct bands *b, struct bands_reader *r);

/* The quota is now so large. */
void bands_resize(struct bands *b, double bytes);
double bands_cached(const struct bands *b);

/* Hits among what is read next. */
double bands_hit(const struct bands *b, const struct bands_reader *r);
/* How fast that changes by what others read at these rates (of b->readers), per second. */
double bands_drift(const struct bands *b, const struct bands_reader *r, const double *rates);

/* Neither what it reads nor the end of its epoch changes anything: it may read on over any number of
 * epochs. */
bool bands_calm(const struct bands *b, const struct bands_reader *r);
/* At most what is unread, unless the reader is calm. */
void bands_read(struct bands *b, struct bands_reader *r, double bytes);
/* The next epoch begins. */
void bands_wrap(struct bands *b, struct bands_reader *r);
