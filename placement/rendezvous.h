/*
 * Weighted rendezvous hashing: which worker is a block's home. A worker that joins or leaves moves
 * only its own share; the order of the workers in the array does not matter.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "manifest/block.h"

struct rendezvous_node {
	uint64_t id;
	double weight; /* > 0, capacity in any one unit */
};

/* Index of the home in `nodes`, or -1 when there are none. */
int rendezvous_home(const struct rendezvous_node *nodes, size_t count, const struct block_id *id);
/* The `want` best ones in order; returns how many there were. */
size_t rendezvous_rank(const struct rendezvous_node *nodes, size_t count, const struct block_id *id,
	int *ret_order, size_t want);
