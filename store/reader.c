#include "store/reader.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "store/checks.h"
#include "store/hash.h"

#define CHUNK ((uint32_t)BLOCK_CHECK_BYTES)

/* The part of a block that has to be read so that [offset, offset+len) can be verified:
 *
 *	start ... offset ... offset+len ... end		whole chunks, but for the block's end
 *	  head      the caller's memory   tail
 */
struct range {
	uint32_t start, end;
	uint32_t offset, len;
	char *dst;
	size_t room;	   /* at dst */
	char *head, *tail; /* the thread's buffer */
};

static pthread_key_t bounce_key;
static pthread_once_t bounce_once = PTHREAD_ONCE_INIT;

static void bounce_key_create(void)
{
	if (pthread_key_create(&bounce_key, free) != 0)
		abort();
}

static char *bounce_buffer(void)
{
	char *buffer;

	pthread_once(&bounce_once, bounce_key_create);
	buffer = pthread_getspecific(bounce_key);
	if (!buffer) {
		buffer = malloc(2 * (size_t)CHUNK);
		if (buffer && pthread_setspecific(bounce_key, buffer) != 0) {
			free(buffer);
			buffer = NULL;
		}
	}
	return buffer;
}

static int range_init(struct range *g, uint32_t block_bytes, uint32_t offset, uint32_t len,
	const struct reader_target *target)
{
	uint32_t end = (uint32_t)(((uint64_t)offset + len + CHUNK - 1) / CHUNK * CHUNK);

	*g = (struct range){.offset = offset, .len = len, .dst = target->dst, .room = target->room};
	g->start = offset / CHUNK * CHUNK;
	g->end = end < block_bytes ? end : block_bytes;
	if (g->start == offset && g->end == offset + len)
		return 0;
	g->head = bounce_buffer();
	if (!g->head)
		return -ENOMEM;
	g->tail = g->head + CHUNK;
	return 0;
}

/* The memory that byte `at` of the block was read into, and how much follows there. */
static char *range_piece(const struct range *g, uint32_t at, uint32_t *ret_len)
{
	if (at < g->offset) {
		*ret_len = g->offset - at;
		return g->head + (at - g->start);
	}
	if (at < g->offset + g->len) {
		*ret_len = g->offset + g->len - at;
		return g->dst + (at - g->offset);
	}
	*ret_len = g->end - at;
	return g->tail + (at - g->offset - g->len);
}

static uint64_t chunk_hash(const struct range *g, uint32_t at, uint32_t len)
{
	XXH3_state_t state;
	uint32_t have;
	char *piece = range_piece(g, at, &have);

	if (have >= len)
		return XXH3_64bits(piece, len);
	XXH3_64bits_reset(&state);
	while (len > 0) {
		piece = range_piece(g, at, &have);
		have = have < len ? have : len;
		XXH3_64bits_update(&state, piece, have);
		at += have;
		len -= have;
	}
	return XXH3_64bits_digest(&state);
}

static bool range_verify(const struct range *g, const uint8_t *checks)
{
	for (uint32_t at = g->start; at < g->end; at += CHUNK) {
		uint32_t left = g->end - at;

		if (chunk_hash(g, at, left < CHUNK ? left : CHUNK) !=
			checks_sum(checks, at / CHUNK))
			return false;
	}
	return true;
}

static int read_all(const struct reader *r, int fd, struct iovec *iov, int count, uint64_t offset)
{
	while (count > 0) {
		ssize_t n = r->preadv(r->ctx, fd, iov, count, offset);

		if (n <= 0)
			return n < 0 ? (int)n : -ENODATA;
		offset += (uint64_t)n;
		while (count > 0 && (size_t)n >= iov->iov_len) {
			n -= (ssize_t)iov->iov_len;
			iov++;
			count--;
		}
		if (count > 0) {
			iov->iov_base = (char *)iov->iov_base + n;
			iov->iov_len -= (size_t)n;
		}
	}
	return 0;
}

static int read_checks(const struct reader *r, const struct fd_entry *f,
	const struct directory_entry *e, uint8_t *checks)
{
	struct iovec iov = {.iov_base = checks, .iov_len = checks_bytes(e->len)};
	uint64_t start = (uint64_t)e->page * STORE_PAGE_BYTES;

	if (e->flags & FLAG_SPARSE)
		return read_all(
			r, fd_entry_checks(f), &iov, 1, start / BLOCK_BYTES * CHECKS_STRIDE);
	return read_all(r, fd_entry_data(f), &iov, 1, start + checks_offset(e->len));
}

/* The whole slot past the page cache; false when that is not to be had. */
static bool read_slot(const struct reader *r, const struct fd_entry *f,
	const struct directory_entry *e, const struct range *g, uint8_t *checks)
{
	size_t slot_bytes = (size_t)slot_pages(e->len) * STORE_PAGE_BYTES;
	uint32_t end = checks_offset(e->len) + checks_bytes(e->len);
	struct iovec iov = {g->dst, slot_bytes};

	if (fd_entry_direct(f) < 0 || g->len != e->len || g->room < slot_bytes ||
		(uintptr_t)g->dst % STORE_PAGE_BYTES != 0)
		return false;
	/* The file may end within the slot's last page. */
	if (r->preadv(r->ctx, fd_entry_direct(f), &iov, 1, (uint64_t)e->page * STORE_PAGE_BYTES) <
		(ssize_t)end)
		return false;
	memcpy(checks, g->dst + checks_offset(e->len), checks_bytes(e->len));
	return true;
}

/* Fills range and checks, in one pread where the trailer follows at once. */
static int read_range(const struct reader *r, const struct fd_entry *f,
	const struct directory_entry *e, const struct range *g, uint8_t *checks)
{
	bool trailer = !(e->flags & FLAG_SPARSE) && g->end == e->len;
	char padding[8];
	struct iovec iov[5];
	int count = 0, ret;

	if (read_slot(r, f, e, g, checks))
		return 0;
	if (g->start < g->offset)
		iov[count++] = (struct iovec){g->head, g->offset - g->start};
	iov[count++] = (struct iovec){g->dst, g->len};
	if (g->offset + g->len < g->end)
		iov[count++] = (struct iovec){g->tail, g->end - g->offset - g->len};
	if (trailer) {
		if (checks_offset(e->len) != e->len)
			iov[count++] = (struct iovec){padding, checks_offset(e->len) - e->len};
		iov[count++] = (struct iovec){checks, checks_bytes(e->len)};
	}
	ret = read_all(
		r, fd_entry_data(f), iov, count, (uint64_t)e->page * STORE_PAGE_BYTES + g->start);
	if (ret < 0 || trailer)
		return ret;
	return read_checks(r, f, e, checks);
}

static int read_entry(
	const struct reader *r, const struct directory_entry *e, const struct range *g)
{
	uint8_t checks[CHECKS_BYTES_MAX];
	struct fd_entry *f;
	int ret;

	ret = fd_cache_get(r->files, e->file, e->flags & FLAG_SPARSE, &f);
	/* A file that is not there cannot hold the block; any other failure says nothing of it. */
	if (ret < 0)
		return ret == -ENOENT ? READER_DAMAGED : STORE_MISS;
	ret = read_range(r, f, e, g, checks);
	if (ret == 0 && (!checks_match(checks, &e->id, e->len) || !range_verify(g, checks)))
		ret = -EBADMSG;
	fd_cache_put(r->files, f);
	return ret == 0 ? 0 : READER_DAMAGED;
}

int reader_read(const struct reader *r, const struct store_block *b, uint32_t offset, uint32_t len,
	const struct reader_target *target, struct directory_entry *ret_entry)
{
	struct range g;
	int ret;

	/* A place that was given to another block meanwhile gets one more look. */
	for (int i = 0; i < 2; i++) {
		if (!directory_lookup(r->directory, &b->id, ret_entry))
			return STORE_MISS;
		if (ret_entry->len != b->len || len == 0 || offset >= b->len ||
			len > b->len - offset)
			return STORE_MISS;
		if (range_init(&g, ret_entry->len, offset, len, target) < 0)
			return STORE_MISS;
		ret = read_entry(r, ret_entry, &g);
		if (directory_holds(r->directory, ret_entry))
			return ret;
	}
	return STORE_MISS;
}
