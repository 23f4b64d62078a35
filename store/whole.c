#include "store/whole.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "store/checks.h"
#include "store/hash.h"

#define CHUNK ((uint32_t)BLOCK_CHECK_BYTES)

/* At least `need` of `room` bytes; -EBADMSG where the file ends before. */
static int read_full(int fd, void *dst, size_t room, size_t need, uint64_t offset)
{
	size_t got = 0;

	while (got < need) {
		ssize_t n = pread(fd, (char *)dst + got, room - got, (off_t)(offset + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EBADMSG;
		got += (size_t)n;
	}
	return 0;
}

/* The descriptor is ours alone, and so are its flags. */
static void set_direct(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags >= 0)
		fcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT);
}

static int read_piece(int fd, const struct store_whole_check *c, uint32_t len, uint64_t offset)
{
	size_t pages = pages_of(len) * (size_t)STORE_PAGE_BYTES;
	int r = read_full(fd, c->buffer, pages, len, offset);

	if (r != -EINVAL || !c->past_page_cache)
		return r;
	set_direct(fd, false);
	return read_full(fd, c->buffer, pages, len, offset);
}

static bool piece_sound(const char *bytes, uint32_t len, const uint8_t *checks, uint32_t chunk)
{
	for (; len > 0; chunk++) {
		uint32_t n = len < CHUNK ? len : CHUNK;

		if (XXH3_64bits(bytes, n) != checks_sum(checks, chunk))
			return false;
		bytes += n;
		len -= n;
	}
	return true;
}

static int verify_block(const int fds[2], const struct store_whole_check *c, uint64_t index)
{
	struct block_id id = block_id_make(&c->object, index);
	uint32_t len = (uint32_t)block_len(c->object_bytes, index), piece;
	uint8_t checks[CHECKS_BYTES_MAX];
	int r = read_full(
		fds[1], checks, checks_bytes(len), checks_bytes(len), index * CHECKS_STRIDE);

	if (r == 0 && !checks_match(checks, &id, len))
		r = -EBADMSG;
	for (uint32_t at = 0; r == 0 && at < len; at += piece) {
		piece = len - at < c->buffer_bytes ? len - at : (uint32_t)c->buffer_bytes;
		if (c->goes_on && !c->goes_on(c->arg))
			return -ECANCELED;
		r = read_piece(fds[0], c, piece, index * BLOCK_BYTES + at);
		if (r == 0 && !piece_sound(c->buffer, piece, checks, at / CHUNK))
			r = -EBADMSG;
	}
	return r;
}

int whole_verify(const int fds[2], const struct store_whole_check *c, uint64_t *ret_block)
{
	int r = 0;

	set_direct(fds[0], c->past_page_cache);
	for (uint64_t i = 0; r == 0 && i < block_count(c->object_bytes); i++) {
		r = verify_block(fds, c, i);
		*ret_block = i;
	}
	set_direct(fds[0], false);
	return r;
}
