#include "fuse/read_ahead.h"

#include <stddef.h>
#include <string.h>

#include "manifest/block.h"

#define SWAPPED_MIN_BYTES ((uint32_t)256 << 10) /* smaller requests come one at a time */
#define SWAPPED_DISTANCE 3			/* requests that may overtake each other */
#define NEARLY_ALL 16				/* all but such a part */
#define GROWTH 1.05				/* what a larger window has to bring */

void read_ahead_init(struct read_ahead *r)
{
	memset(r, 0, sizeof(*r));
	whole_files_init(&r->whole);
	for (int i = 0; i < READ_AHEAD_LOCKS; i++)
		mutex_init(&r->mu[i]);
}

void read_ahead_deinit(struct read_ahead *r)
{
	whole_files_deinit(&r->whole);
	for (int i = 0; i < READ_AHEAD_LOCKS; i++)
		mutex_deinit(&r->mu[i]);
}

static bool continues(const struct read_ahead_stream *s, uint64_t offset, uint32_t len)
{
	uint64_t slack;

	if (offset == s->next)
		return true;
	if (len < SWAPPED_MIN_BYTES || s->next == 0)
		return false;
	slack = (uint64_t)len * SWAPPED_DISTANCE;
	return offset <= s->next + slack && offset + slack >= s->next;
}

static unsigned set_of(uint64_t ino)
{
	return (unsigned)((ino * UINT64_C(0x9e3779b97f4a7c15)) >> 32) % READ_AHEAD_SETS;
}

static struct read_ahead_stream *find_stream(
	struct read_ahead_stream *set, uint64_t ino, uint64_t offset, uint32_t len, bool *ret_known)
{
	struct read_ahead_stream *oldest = &set[0];

	for (int i = 0; i < READ_AHEAD_WAYS; i++) {
		if (set[i].ino == ino && continues(&set[i], offset, len)) {
			*ret_known = true;
			return &set[i];
		}
		if (set[i].used < oldest->used)
			oldest = &set[i];
	}
	*ret_known = false;
	return oldest;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Whole blocks of the window, behind that of the last byte read. */
static void name_blocks(
	struct read_ahead_stream *s, uint64_t end, uint64_t size, struct read_ahead_advice *ret)
{
	uint64_t run = s->from_start ? READ_AHEAD_RAMP * s->run_bytes : s->run_bytes;
	uint64_t until = end + min_u64(run, s->window);

	ret->block = s->named > block_count(end) ? s->named : block_count(end);
	ret->end = until >= size ? block_count(size) : until / BLOCK_BYTES;
	if (ret->end <= ret->block)
		ret->block = ret->end = 0;
	else
		s->named = ret->end;
}

static void begin_stream(struct read_ahead_stream *s, uint64_t ino, uint64_t offset, int64_t now_ns)
{
	*s = (struct read_ahead_stream){
		.ino = ino,
		.used = s->used,
		.from_start = offset == 0,
		.window = READ_AHEAD_WINDOW_BYTES,
		.round_ns = now_ns,
	};
}

/* A larger window, or the one that is enough. */
static void end_round(struct read_ahead_stream *s, int64_t now_ns)
{
	double ns = now_ns > s->round_ns ? (double)(now_ns - s->round_ns) : 1;
	double rate = (double)s->round_bytes / ns;
	bool waited = s->waited_bytes >= s->round_bytes / 2;

	if (s->rate > 0 && rate < s->rate * GROWTH)
		s->settled = true;
	if (waited && !s->settled) {
		s->window = (uint32_t)min_u64(2 * (uint64_t)s->window, READ_AHEAD_WINDOW_MAX_BYTES);
		s->settled = s->window == READ_AHEAD_WINDOW_MAX_BYTES;
		s->rate = rate;
	}
	s->round_ns = now_ns;
	s->round_bytes = s->waited_bytes = 0;
}

struct read_ahead_advice read_ahead_note(struct read_ahead *r, uint64_t ino, uint64_t offset,
	uint32_t len, uint64_t size, int64_t now_ns)
{
	unsigned i = set_of(ino);
	struct read_ahead_advice advice = {0};
	uint64_t end = offset + len, left = end < size ? size - end : 0;
	struct read_ahead_stream *s;
	bool known;

	mutex_guard(&r->mu[i % READ_AHEAD_LOCKS]);
	s = find_stream(r->streams[i], ino, offset, len, &known);
	s->used = ++r->clock[i];
	if (!known) {
		begin_stream(s, ino, offset, now_ns);
		s->next = end;
		advice.begun = offset == 0 && size > BLOCK_BYTES;
		advice.whole = advice.begun && whole_files_begin(&r->whole, ino);
		if (advice.whole) {
			s->run_bytes = s->window;
			name_blocks(s, end, size, &advice);
		}
		return advice;
	}
	s->run_bytes += len;
	s->round_bytes += len;
	if (s->round_bytes >= s->window)
		end_round(s, now_ns);
	if (end > s->next)
		s->next = end;
	/* An archive's directory at its end is read before. */
	if (s->from_start && size > BLOCK_BYTES && left <= size / NEARLY_ALL)
		whole_files_end(&r->whole, ino);
	advice.bytes = (uint32_t)min_u64(min_u64(s->run_bytes, READ_AHEAD_MAX_BYTES), left);
	name_blocks(s, end, size, &advice);
	return advice;
}

void read_ahead_waits(struct read_ahead *r, uint64_t ino, uint64_t offset, uint32_t len)
{
	unsigned i = set_of(ino);

	mutex_guard(&r->mu[i % READ_AHEAD_LOCKS]);
	for (int way = 0; way < READ_AHEAD_WAYS; way++) {
		struct read_ahead_stream *s = &r->streams[i][way];

		if (s->ino != ino || s->next < offset + len ||
			s->next > offset + (1 + SWAPPED_DISTANCE) * (uint64_t)len)
			continue;
		s->waited_bytes += len;
		return;
	}
}
