/*
 * Each node draws an exponential variate with the rate of its weight from hash(block, node); the
 * smallest draw wins, which happens with probability weight / sum of weights, and nobody's draw
 * depends on who else is there (Schindelhauer, Schomaker 2005; Resch, logarithmic method).
 *
 * All nodes must come to the same order, so the logarithm is our own, of operations that IEEE 754
 * rounds exactly one way; libm's may differ in the last bit from one machine to the next.
 */
#include "placement/rendezvous.h"

#include <endian.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#define BATCH 16 /* ranks found in one pass */

struct draw {
	double key;
	uint64_t node_id;
	int index;
};

/* -ln(u) for 0 < u < 1: u = m 2^e with m in [sqrt 1/2, sqrt 2), ln m = 2 artanh((m-1)/(m+1)) by its
 * series, whose terms past z^21 are below a double's precision as |z| < 0.172. */
static double minus_ln(double u)
{
	static const double ln2 = 0.69314718055994530942, sqrt_half = 0.70710678118654752440;
	static const double terms[] = {1.0 / 21, 1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13, 1.0 / 11,
		1.0 / 9, 1.0 / 7, 1.0 / 5, 1.0 / 3, 1.0};
	double m, z, zz, sum = 0;
	int e;

	m = frexp(u, &e);
	if (m < sqrt_half) {
		m *= 2;
		e--;
	}
	z = (m - 1) / (m + 1);
	zz = z * z;
	for (size_t i = 0; i < sizeof(terms) / sizeof(terms[0]); i++)
		sum = sum * zz + terms[i];
	return -(2 * z * sum + e * ln2);
}

static bool is_eligible(const struct rendezvous_node *node)
{
	return node->weight > 0 && node->weight <= DBL_MAX;
}

static struct draw draw_of(const struct rendezvous_node *nodes, size_t index, uint64_t block_hash)
{
	uint64_t words[2] = {htole64(block_hash), htole64(nodes[index].id)};
	uint64_t h = XXH3_64bits(words, sizeof(words));
	double u = ((double)(h >> 12) + 0.5) * 0x1p-52; /* never 0, never 1, exact */

	return (struct draw){
		.key = minus_ln(u) / nodes[index].weight,
		.node_id = nodes[index].id,
		.index = (int)index,
	};
}

/* A total order that the position in the array decides only between two nodes of one id. */
static bool stands_before(const struct draw *a, const struct draw *b)
{
	if (a->key != b->key)
		return a->key < b->key;
	if (a->node_id != b->node_id)
		return a->node_id < b->node_id;
	return a->index < b->index;
}

int rendezvous_home(const struct rendezvous_node *nodes, size_t count, const struct block_id *id)
{
	int home;

	return rendezvous_rank(nodes, count, id, &home, 1) == 1 ? home : -1;
}

/* Keeps `best` sorted and at most `room` long. */
static size_t insert(struct draw *best, size_t have, size_t room, const struct draw *d)
{
	size_t at = have;

	if (have == room && !stands_before(d, &best[have - 1]))
		return have;
	if (have < room)
		have++;
	else
		at = room - 1;
	for (; at > 0 && stands_before(d, &best[at - 1]); at--)
		best[at] = best[at - 1];
	best[at] = *d;
	return have;
}

size_t rendezvous_rank(const struct rendezvous_node *nodes, size_t count, const struct block_id *id,
	int *ret_order, size_t want)
{
	uint64_t block_hash = block_home_hash(id);
	struct draw best[BATCH], last = {0};
	size_t done = 0;

	while (done < want) {
		size_t room = want - done < BATCH ? want - done : BATCH, have = 0;

		for (size_t i = 0; i < count; i++) {
			struct draw d;

			if (!is_eligible(&nodes[i]))
				continue;
			d = draw_of(nodes, i, block_hash);
			if (done == 0 || stands_before(&last, &d))
				have = insert(best, have, room, &d);
		}
		for (size_t i = 0; i < have; i++)
			ret_order[done++] = best[i].index;
		if (have < room)
			break;
		last = best[have - 1];
	}
	return done;
}
