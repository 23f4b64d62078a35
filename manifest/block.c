#include "manifest/block.h"

#include <endian.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

/* The lengths stand before the bytes, so no two different objects share an encoding. */
struct object_head {
	uint64_t dataset_id, path_len, size, validator_len, mtime_ns;
};

#define ONE_PIECE_BYTES 1024

struct object_id object_id_make(uint64_t dataset_id, const char *path, size_t path_len,
	uint64_t size, const char *validator, int64_t mtime_ns)
{
	size_t validator_len = strlen(validator);
	struct object_head head = {
		.dataset_id = htole64(dataset_id),
		.path_len = htole64(path_len),
		.size = htole64(size),
		.validator_len = htole64(validator_len),
		.mtime_ns = htole64(validator_len ? 0 : (uint64_t)mtime_ns),
	};
	XXH128_hash_t h;

	if (path_len <= ONE_PIECE_BYTES && validator_len <= ONE_PIECE_BYTES) {
		char text[sizeof(head) + 2 * ONE_PIECE_BYTES];

		memcpy(text, &head, sizeof(head));
		memcpy(text + sizeof(head), path, path_len);
		memcpy(text + sizeof(head) + path_len, validator, validator_len);
		h = XXH3_128bits(text, sizeof(head) + path_len + validator_len);
	} else {
		XXH3_state_t state;

		XXH3_128bits_reset(&state);
		XXH3_128bits_update(&state, &head, sizeof(head));
		XXH3_128bits_update(&state, path, path_len);
		XXH3_128bits_update(&state, validator, validator_len);
		h = XXH3_128bits_digest(&state);
	}
	return (struct object_id){.hi = h.high64, .lo = h.low64};
}

struct block_id block_id_make(const struct object_id *object, uint64_t index)
{
	uint64_t words[3] = {htole64(object->hi), htole64(object->lo), htole64(index)};
	XXH128_hash_t h = XXH3_128bits(words, sizeof(words));

	return (struct block_id){.hi = h.high64, .lo = h.low64};
}

/* The finalizer of splitmix64 (Steele, Lea, Flood 2014, variant 13 of Stafford): a bijection, so it
 * adds no collisions to the 64 bits it gets. */
static uint64_t finish(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

/* The two hashes take different halves of the id, which are independent outputs of XXH3-128. */
uint64_t block_pin_hash(const struct block_id *id)
{
	uint64_t h = finish(id->hi + 0x9e3779b97f4a7c15u);

	return h == UINT64_MAX ? UINT64_MAX - 1 : h;
}

uint64_t block_home_hash(const struct block_id *id)
{
	return finish(id->lo + 0xd1b54a32d192ed03u);
}

/* Of the object's id: a read has that at hand. */
uint64_t block_sample_hash(const struct object_id *object, uint64_t index)
{
	return finish(object->lo ^ finish(index + 0x8cb92ba72f3d8dd7u));
}
