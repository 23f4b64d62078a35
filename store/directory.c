#include "store/directory.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"

#define DIRECTORY_MAGIC 0x3130726944617247ull /* "GraDir01" */
#define DIRECTORY_VERSION 1u
#define HEADER_BYTES 4096u
#define BUCKET_SLOTS 8u
#define BUCKETS_MIN 128u
#define SLOTS_MIN ((uint64_t)1 << 15)
#define SLOTS_MAX ((uint64_t)1 << 26)
#define FLAG_BITS 8u
#define LOOKUP_TRIES 4
#define FULL_MARGIN 64

struct header {
	uint64_t magic;
	uint32_t version;
	uint32_t header_bytes;
	uint64_t store_id;
	uint64_t epoch;
	uint64_t slots_max;
	_Atomic uint32_t buckets; /* power of two */
	_Atomic uint32_t closed;
};

struct slot {
	_Atomic uint32_t seq;
	_Atomic uint32_t file;
	_Atomic uint32_t page;
	_Atomic uint32_t len_flags; /* len << FLAG_BITS | flags; 0: empty */
	_Atomic uint64_t hi, lo;
};

static_assert(sizeof(struct header) <= HEADER_BYTES, "the header fits its page");
static_assert(sizeof(struct slot) == 32, "two slots a cache line");
static_assert(BLOCK_BYTES < (uint64_t)1 << (32 - FLAG_BITS), "a length fits beside the flags");
static_assert(FLAGS_MASK < 1u << FLAG_BITS, "the flags fit their bits");

struct directory {
	struct header *header;
	struct slot *slots;
	size_t map_bytes;
	uint32_t slots_max;
	int fd; /* owner only, else -1 */
	uint64_t blocks;
};

uint64_t directory_slots_max(uint64_t capacity_bytes)
{
	uint64_t slots = SLOTS_MIN;

	while (slots < capacity_bytes / 3072 && slots < SLOTS_MAX)
		slots *= 2;
	return slots;
}

static size_t map_bytes(uint64_t slots_max)
{
	return HEADER_BYTES + (size_t)slots_max * sizeof(struct slot);
}

static int map_into(struct directory *d, int fd, int prot, struct error *err)
{
	void *at = mmap(NULL, d->map_bytes, prot, MAP_SHARED | MAP_NORESERVE, fd, 0);

	if (at == MAP_FAILED)
		return error_set_errno(err, -errno, "cannot map the store's directory");
	d->header = at;
	d->slots = (struct slot *)((char *)at + HEADER_BYTES);
	return 0;
}

int directory_create(uint64_t slots_max, uint64_t epoch, struct directory **ret, struct error *err)
{
	cleanup_fd int fd = memfd_create("granary-directory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct directory *d;
	int r;

	assert(slots_max >= BUCKETS_MIN * BUCKET_SLOTS && slots_max <= SLOTS_MAX);
	if (fd < 0)
		return error_set_errno(err, -errno, "cannot make the store's directory");
	if (ftruncate(fd, (off_t)map_bytes(slots_max)) < 0)
		return error_set_errno(err, -errno, "cannot size the store's directory");
	d = calloc(1, sizeof(*d));
	if (!d)
		return error_set(err, -ENOMEM, "out of memory");
	d->fd = -1;
	d->slots_max = (uint32_t)slots_max;
	d->map_bytes = map_bytes(slots_max);
	r = map_into(d, fd, PROT_READ | PROT_WRITE, err);
	if (r < 0) {
		free(d);
		return r;
	}
	d->fd = steal_fd(&fd);
	/* From here on only this map can write: whoever gets the descriptor cannot. */
	if (fcntl(d->fd, F_ADD_SEALS,
		    F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0) {
		r = error_set_errno(err, -errno, "cannot seal the store's directory");
		directory_free(d);
		return r;
	}
	d->header->magic = DIRECTORY_MAGIC;
	d->header->version = DIRECTORY_VERSION;
	d->header->header_bytes = HEADER_BYTES;
	d->header->epoch = epoch;
	d->header->slots_max = slots_max;
	atomic_store(&d->header->buckets, BUCKETS_MIN);
	*ret = d;
	return 0;
}

int directory_map(int fd, struct directory **ret, struct error *err)
{
	struct header header;
	struct directory *d;
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);
	int r;

	/* Without the seal a shrunk file would raise SIGBUS under a reader. */
	if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) < 0 ||
		pread(fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header) ||
		header.magic != DIRECTORY_MAGIC || header.version != DIRECTORY_VERSION ||
		header.header_bytes != HEADER_BYTES || header.slots_max > SLOTS_MAX ||
		header.slots_max < BUCKETS_MIN * BUCKET_SLOTS ||
		(size_t)st.st_size != map_bytes(header.slots_max))
		return error_set(err, -EPROTO, "what the worker sent is not a store's directory");
	d = calloc(1, sizeof(*d));
	if (!d)
		return error_set(err, -ENOMEM, "out of memory");
	d->fd = -1;
	d->slots_max = (uint32_t)header.slots_max;
	d->map_bytes = map_bytes(header.slots_max);
	r = map_into(d, fd, PROT_READ, err);
	if (r < 0) {
		free(d);
		return r;
	}
	*ret = d;
	return 0;
}

void directory_free(struct directory *d)
{
	if (!d)
		return;
	munmap(d->header, d->map_bytes);
	if (d->fd >= 0)
		close(d->fd);
	free(d);
}

int directory_fd(const struct directory *d)
{
	return d->fd;
}

void directory_set_closed(struct directory *d)
{
	atomic_store(&d->header->closed, 1);
}

bool directory_is_closed(const struct directory *d)
{
	return atomic_load(&d->header->closed);
}

uint64_t directory_store_id(const struct directory *d)
{
	return d->header->store_id;
}

void directory_set_store_id(struct directory *d, uint64_t store_id)
{
	d->header->store_id = store_id;
}

uint64_t directory_epoch(const struct directory *d)
{
	return d->header->epoch;
}

uint64_t directory_blocks(const struct directory *d)
{
	return d->blocks;
}

/* So full that a block finds a slot in whatever order they come, after a restart too. */
static uint64_t directory_blocks_max(const struct directory *d)
{
	return (uint64_t)d->slots_max / 8 * 7;
}

bool directory_full(const struct directory *d)
{
	/* As many puts may be on their way. */
	return d->blocks + FULL_MARGIN >= directory_blocks_max(d);
}

static uint32_t buckets_now(const struct directory *d)
{
	uint32_t buckets = atomic_load_explicit(&d->header->buckets, memory_order_acquire);

	/* The header is another process's memory: never index past the map. */
	return buckets <= d->slots_max / BUCKET_SLOTS ? buckets : d->slots_max / BUCKET_SLOTS;
}

uint32_t directory_slots(const struct directory *d)
{
	return buckets_now(d) * BUCKET_SLOTS;
}

struct homes {
	uint32_t first, second; /* unmasked bucket numbers */
};

static struct homes homes_of(const struct block_id *id)
{
	uint64_t h = id->lo ^ (id->hi * 0x9e3779b97f4a7c15ull);

	h ^= h >> 33;
	h *= 0xff51afd7ed558ccdull;
	h ^= h >> 33;
	h *= 0xc4ceb9fe1a85ec53ull;
	h ^= h >> 33;
	return (struct homes){.first = (uint32_t)h, .second = (uint32_t)(h >> 32)};
}

/* A consistent copy of a slot; false when it is empty or being written. The loads are acquiring so
 * that the second load of seq cannot come before them. */
static bool slot_read(const struct slot *s, struct directory_entry *ret)
{
	uint32_t seq = atomic_load_explicit(&s->seq, memory_order_acquire);
	uint32_t len_flags;

	if (seq & 1)
		return false;
	ret->file = atomic_load_explicit(&s->file, memory_order_acquire);
	ret->page = atomic_load_explicit(&s->page, memory_order_acquire);
	len_flags = atomic_load_explicit(&s->len_flags, memory_order_acquire);
	ret->id.hi = atomic_load_explicit(&s->hi, memory_order_acquire);
	ret->id.lo = atomic_load_explicit(&s->lo, memory_order_acquire);
	if (atomic_load_explicit(&s->seq, memory_order_relaxed) != seq || !len_flags)
		return false;
	ret->len = len_flags >> FLAG_BITS;
	ret->flags = len_flags & FLAGS_MASK;
	ret->seq = seq;
	return true;
}

static bool bucket_find(const struct directory *d, uint32_t bucket, const struct block_id *id,
	struct directory_entry *ret)
{
	for (uint32_t i = 0; i < BUCKET_SLOTS; i++) {
		uint32_t slot = bucket * BUCKET_SLOTS + i;
		const struct slot *s = &d->slots[slot];

		if (atomic_load_explicit(&s->lo, memory_order_relaxed) != id->lo)
			continue;
		if (slot_read(s, ret) && block_id_equal(&ret->id, id)) {
			ret->slot = slot;
			return true;
		}
	}
	return false;
}

bool directory_lookup(
	const struct directory *d, const struct block_id *id, struct directory_entry *ret)
{
	struct homes homes = homes_of(id);

	for (int i = 0; i < LOOKUP_TRIES; i++) {
		uint32_t buckets = buckets_now(d);

		if (bucket_find(d, homes.first & (buckets - 1), id, ret) ||
			bucket_find(d, homes.second & (buckets - 1), id, ret))
			return true;
		if (buckets_now(d) == buckets)
			return false;
	}
	return false;
}

bool directory_holds(const struct directory *d, const struct directory_entry *e)
{
	return atomic_load_explicit(&d->slots[e->slot].seq, memory_order_acquire) == e->seq;
}

bool directory_at(const struct directory *d, uint32_t slot, struct directory_entry *ret)
{
	ret->slot = slot;
	return slot_read(&d->slots[slot], ret);
}

static void slot_write(struct directory *d, uint32_t slot, const struct directory_entry *e)
{
	struct slot *s = &d->slots[slot];
	uint32_t seq = atomic_load_explicit(&s->seq, memory_order_relaxed);

	assert(!(seq & 1));
	atomic_store_explicit(&s->seq, seq + 1, memory_order_relaxed);
	/* Releasing, so that none of them is seen before the odd seq. */
	atomic_store_explicit(&s->hi, e ? e->id.hi : 0, memory_order_release);
	atomic_store_explicit(&s->lo, e ? e->id.lo : 0, memory_order_release);
	atomic_store_explicit(&s->file, e ? e->file : 0, memory_order_release);
	atomic_store_explicit(&s->page, e ? e->page : 0, memory_order_release);
	atomic_store_explicit(
		&s->len_flags, e ? e->len << FLAG_BITS | e->flags : 0, memory_order_release);
	atomic_store_explicit(&s->seq, seq + 2, memory_order_release);
}

static bool slot_empty(const struct directory *d, uint32_t slot)
{
	return !atomic_load_explicit(&d->slots[slot].len_flags, memory_order_relaxed);
}

/* A free slot of the emptier of the two buckets; -1 when both are full. */
static int64_t free_slot(const struct directory *d, const struct homes *homes)
{
	uint32_t mask = buckets_now(d) - 1;
	uint32_t bucket[2] = {homes->first & mask, homes->second & mask};
	uint32_t used[2] = {0, 0};
	int64_t found[2] = {-1, -1};

	for (int b = 0; b < 2; b++) {
		for (uint32_t i = 0; i < BUCKET_SLOTS; i++) {
			uint32_t slot = bucket[b] * BUCKET_SLOTS + i;

			if (!slot_empty(d, slot))
				used[b]++;
			else if (found[b] < 0)
				found[b] = slot;
		}
	}
	return used[0] <= used[1] ? found[0] : found[1];
}

/* Copies what belongs there into the new half, shows it, then clears what was copied: a reader
 * finds every block at any moment, at worst by looking twice. */
static void directory_double(struct directory *d, directory_moved_fn *moved, void *arg)
{
	uint32_t old = buckets_now(d);

	for (uint32_t slot = 0; slot < old * BUCKET_SLOTS; slot++) {
		struct directory_entry e;
		struct homes homes;
		uint32_t bucket = slot / BUCKET_SLOTS;

		if (!directory_at(d, slot, &e))
			continue;
		homes = homes_of(&e.id);
		/* It is here because of the first or the second home; either may lead on. */
		if ((homes.first & (old - 1)) == bucket ? (homes.first & (2 * old - 1)) == bucket
							: (homes.second & (2 * old - 1)) == bucket)
			continue;
		slot_write(d, slot + old * BUCKET_SLOTS, &e);
	}
	atomic_store_explicit(&d->header->buckets, 2 * old, memory_order_release);
	for (uint32_t slot = 0; slot < old * BUCKET_SLOTS; slot++) {
		if (slot_empty(d, slot + old * BUCKET_SLOTS))
			continue;
		slot_write(d, slot, NULL);
		moved(arg, slot, slot + old * BUCKET_SLOTS);
	}
}

static uint32_t other_bucket(const struct directory *d, const struct directory_entry *e)
{
	struct homes homes = homes_of(&e->id);
	uint32_t mask = buckets_now(d) - 1;

	return (homes.first & mask) == e->slot / BUCKET_SLOTS ? homes.second & mask
							      : homes.first & mask;
}

/* Moves a block of a full bucket to its other one; its slot, or -1 when all of those are full too.
 */
static int64_t displace(struct directory *d, uint32_t bucket, directory_moved_fn *moved, void *arg)
{
	for (uint32_t i = 0; i < BUCKET_SLOTS; i++) {
		struct directory_entry e;
		uint32_t to;

		if (!directory_at(d, bucket * BUCKET_SLOTS + i, &e))
			continue;
		to = other_bucket(d, &e) * BUCKET_SLOTS;
		for (uint32_t k = 0; k < BUCKET_SLOTS; k++) {
			if (!slot_empty(d, to + k))
				continue;
			slot_write(d, to + k, &e);
			slot_write(d, e.slot, NULL);
			moved(arg, e.slot, to + k);
			return e.slot;
		}
	}
	return -1;
}

int directory_insert(
	struct directory *d, struct directory_entry *e, directory_moved_fn *moved, void *arg)
{
	struct homes homes = homes_of(&e->id);
	int64_t slot;

	assert(e->len > 0 && e->len <= BLOCK_BYTES);
	if (d->blocks >= directory_blocks_max(d))
		return -ENOSPC;
	if (d->blocks >= (uint64_t)directory_slots(d) / 4 * 3 && directory_slots(d) < d->slots_max)
		directory_double(d, moved, arg);
	slot = free_slot(d, &homes);
	if (slot < 0)
		slot = displace(d, homes.first & (buckets_now(d) - 1), moved, arg);
	if (slot < 0)
		slot = displace(d, homes.second & (buckets_now(d) - 1), moved, arg);
	if (slot < 0)
		return -ENOSPC;
	e->slot = (uint32_t)slot;
	e->seq = atomic_load_explicit(&d->slots[slot].seq, memory_order_relaxed) + 2;
	slot_write(d, (uint32_t)slot, e);
	d->blocks++;
	return 0;
}

void directory_remove(struct directory *d, uint32_t slot)
{
	assert(!slot_empty(d, slot));
	slot_write(d, slot, NULL);
	d->blocks--;
}

void directory_set_flags(struct directory *d, uint32_t slot, uint32_t flags)
{
	struct slot *s = &d->slots[slot];
	uint32_t len_flags = atomic_load_explicit(&s->len_flags, memory_order_relaxed);

	assert(len_flags);
	atomic_store_explicit(
		&s->len_flags, (len_flags & ~FLAGS_MASK) | flags, memory_order_release);
}
