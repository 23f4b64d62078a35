/*
 * The threshold is the lowest hash that does not fit any more. It is found by narrowing: a
 * histogram of bytes over the hashes' next 16 bits says in which slice the budget runs out; once
 * that slice holds few enough blocks they are gathered, sorted and summed. Hashes are uniform, so
 * two passes are the rule; equal hashes, which stand or fall together, end it after five at the
 * latest.
 */
#include "placement/pin.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

#define SLICE_BITS 16
#define SLICES ((size_t)1 << SLICE_BITS)
#define GATHER_MAX ((size_t)1 << 16)

struct slice {
	uint64_t bytes, blocks;
};

struct pinned_block {
	uint64_t hash, bytes;
};

struct search {
	struct manifest *m;
	uint64_t left;	 /* budget after all hashes below the prefix */
	uint64_t prefix; /* the top prefix_bits of the hashes in question */
	unsigned prefix_bits;
	uint64_t blocks;	       /* that have the prefix */
	struct slice *slices;	       /* SLICES, or */
	struct pinned_block *gathered; /* room for GATHER_MAX */
	size_t count;
};

static bool has_prefix(const struct search *s, uint64_t hash)
{
	return s->prefix_bits == 0 || hash >> (64 - s->prefix_bits) == s->prefix;
}

typedef void search_block_fn(struct search *s, uint64_t hash, uint64_t bytes);

static void count_block(struct search *s, uint64_t hash, uint64_t bytes)
{
	size_t i = (hash >> (64 - SLICE_BITS - s->prefix_bits)) & (SLICES - 1);

	s->slices[i].bytes += bytes;
	s->slices[i].blocks++;
}

static void gather_block(struct search *s, uint64_t hash, uint64_t bytes)
{
	if (s->count < GATHER_MAX)
		s->gathered[s->count++] = (struct pinned_block){.hash = hash, .bytes = bytes};
}

static int pass(struct search *s, search_block_fn *fn, struct error *err)
{
	const struct manifest_info *info = manifest_info(s->m);
	uint64_t blocks = 0;

	for (uint32_t i = 0; i < info->entries; i++) {
		struct object_id object;
		uint64_t size;
		int r = manifest_file(s->m, i, &object, &size);

		if (r == MANIFEST_NOT_A_FILE)
			continue;
		if (r < 0)
			return error_set_errno(err, r, "cannot read manifest %s", info->digest);
		/* Keeps a file whose sizes are lies from holding us for hours. */
		blocks += block_count(size);
		if (blocks > info->blocks)
			return error_set(err, -EIO, "manifest %s has more blocks than it says",
				info->digest);
		for (uint64_t b = 0, n = block_count(size); b < n; b++) {
			struct block_id id = block_id_make(&object, b);
			uint64_t hash = block_pin_hash(&id);

			if (has_prefix(s, hash))
				fn(s, hash, block_len(size, b));
		}
	}
	return 0;
}

#define SEARCH_ALL_FIT 1
/* Narrows to the slice in which the budget runs out. */
static int narrow(struct search *s, struct error *err)
{
	int r;

	memset(s->slices, 0, SLICES * sizeof(*s->slices));
	r = pass(s, count_block, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < SLICES; i++) {
		if (s->slices[i].bytes <= s->left) {
			s->left -= s->slices[i].bytes;
			continue;
		}
		s->prefix = s->prefix << SLICE_BITS | i;
		s->prefix_bits += SLICE_BITS;
		s->blocks = s->slices[i].blocks;
		return 0;
	}
	return SEARCH_ALL_FIT;
}

static int compare_hash(const void *a, const void *b)
{
	const struct pinned_block *x = a, *y = b;

	return (x->hash > y->hash) - (x->hash < y->hash);
}

/* Among the gathered blocks, which are too many bytes together: the first hash that does not fit.
 */
static int first_left_out(struct search *s, uint64_t *ret_hash)
{
	qsort(s->gathered, s->count, sizeof(*s->gathered), compare_hash);
	for (size_t i = 0; i < s->count;) {
		uint64_t hash = s->gathered[i].hash, bytes = 0;

		for (; i < s->count && s->gathered[i].hash == hash; i++)
			bytes += s->gathered[i].bytes;
		if (bytes > s->left) {
			*ret_hash = hash;
			return 0;
		}
		s->left -= bytes;
	}
	return -EIO;
}

static int gather(struct search *s, uint64_t *ret_threshold, struct error *err)
{
	int r;

	s->count = 0;
	r = pass(s, gather_block, err);
	if (r < 0)
		return r;
	/* The file cannot have changed since it was counted, unless somebody wrote into it. */
	r = s->count == s->blocks ? first_left_out(s, ret_threshold) : -EIO;
	if (r < 0)
		return error_set(err, r, "manifest %s changed while it was read",
			manifest_info(s->m)->digest);
	return 0;
}

static int search(struct search *s, uint64_t *ret_threshold, struct error *err)
{
	int r;

	do {
		r = narrow(s, err);
		if (r == SEARCH_ALL_FIT) {
			*ret_threshold = PIN_ALL;
			return 0;
		}
		if (r < 0)
			return r;
	} while (s->blocks > GATHER_MAX && s->prefix_bits < 64);
	if (s->prefix_bits == 64) {
		*ret_threshold = s->prefix;
		return 0;
	}
	return gather(s, ret_threshold, err);
}

int pin_threshold(struct manifest *m, uint64_t cache_bytes, uint64_t *ret_threshold,
	uint64_t *ret_pinned_bytes, struct error *err)
{
	cleanup_free struct slice *slices = NULL;
	cleanup_free struct pinned_block *gathered = NULL;
	struct search s = {.m = m, .left = cache_bytes};
	int r;

	if (cache_bytes == 0 || cache_bytes >= manifest_info(m)->bytes) {
		*ret_threshold = cache_bytes == 0 ? PIN_NONE : PIN_ALL;
		*ret_pinned_bytes = cache_bytes == 0 ? 0 : manifest_info(m)->bytes;
		return 0;
	}
	s.slices = slices = malloc(SLICES * sizeof(*slices));
	s.gathered = gathered = malloc(GATHER_MAX * sizeof(*gathered));
	if (!slices || !gathered)
		return error_set_errno(err, -ENOMEM, "cannot compute which blocks to pin");
	r = search(&s, ret_threshold, err);
	if (r == 0)
		*ret_pinned_bytes = cache_bytes - s.left;
	return r;
}
