#include "fuse/record_stride.h"

#include <string.h>

#include "manifest/block.h"

#define PAGE_BYTES 4096u
#define SLACK_BYTES (2 * PAGE_BYTES) /* a record and the mean distance may each be a page off */
#define AWAKE_READS 64		     /* of others, and a stream beside them is still read */
#define ALIKE 64		     /* distances that differ by such a part are the same */

void record_stride_init(struct record_stride *r)
{
	memset(r, 0, sizeof(*r));
	for (int i = 0; i < RECORD_STRIDE_SETS; i++)
		mutex_init(&r->sets[i].mu);
}

void record_stride_deinit(struct record_stride *r)
{
	for (int i = 0; i < RECORD_STRIDE_SETS; i++)
		mutex_deinit(&r->sets[i].mu);
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static struct record_stream_set *set_of(struct record_stride *r, uint64_t ino)
{
	return &r->sets[(unsigned)((ino * UINT64_C(0x9e3779b97f4a7c15)) >> 32) %
			RECORD_STRIDE_SETS];
}

/* The reader's stream, else the one to replace. */
static struct record_stream *find(
	struct record_stream_set *set, uint64_t ino, uint32_t reader, bool *ret_known)
{
	struct record_stream *oldest = &set->streams[0];

	*ret_known = true;
	for (int i = 0; i < RECORD_STRIDE_WAYS; i++) {
		struct record_stream *s = &set->streams[i];

		if (s->ino == ino && s->reader == reader)
			return s;
		if (s->used < oldest->used)
			oldest = s;
	}
	*ret_known = false;
	return oldest;
}

/* ---- one stream ------------------------------------------------------------------------------ */

static uint64_t distance(const struct record_stream *s)
{
	return (s->last - s->first) / s->steps;
}

/* Where the record that comes so many steps behind the last one should begin. */
static uint64_t expected(const struct record_stream *s, uint32_t steps)
{
	uint64_t rest = (s->last - s->first) % s->steps;

	return s->last + distance(s) * steps + rest * steps / s->steps;
}

static bool goes_on(const struct record_stream *s, uint64_t offset)
{
	uint64_t next;

	if (offset <= s->end)
		return false;
	if (s->steps == 0)
		return true;
	next = expected(s, 1);
	return offset <= next + SLACK_BYTES && offset + SLACK_BYTES >= next;
}

static void step(struct record_stream *s, uint64_t offset)
{
	s->uneven |= s->steps > 0 && offset != expected(s, 1);
	s->last = offset;
	s->steps++;
	s->lens[s->steps % RECORD_FEW] = 0;
	s->credit -= s->credit > 0;
	s->was_named = s->named >= s->steps;
	if (s->was_named)
		s->named_at = s->at[s->steps % RECORD_AHEAD];
	else
		s->named = s->steps;
}

static uint64_t longest(const struct record_stream *s)
{
	uint64_t len = 0;

	for (int i = 0; i < RECORD_FEW; i++)
		len = s->lens[i] > len ? s->lens[i] : len;
	return len;
}

/* ---- what is named --------------------------------------------------------------------------- */

/* How much of what lies between two records of the stream it and its like read. */
static uint64_t read_together(const struct record_stream_set *set, const struct record_stream *s)
{
	uint64_t way = distance(s), bytes = 0;

	for (int i = 0; i < RECORD_STRIDE_WAYS; i++) {
		const struct record_stream *other = &set->streams[i];

		if (other->ino == s->ino && other->steps >= RECORD_FEW &&
			other->used + AWAKE_READS > set->clock &&
			distance(other) <= way + way / ALIKE &&
			distance(other) + way / ALIKE >= way)
			bytes += longest(other);
	}
	return bytes;
}

static void name_blocks(struct record_stream *s, uint64_t size, struct record_advice *ret)
{
	uint64_t ahead = min_u64(s->last - s->first, RECORD_BLOCKS_BYTES);
	uint64_t block = s->last / BLOCK_BYTES + 1, until = min_u64(s->last + ahead, size);

	ret->block = s->named_blocks > block ? s->named_blocks : block;
	ret->end = until == size ? block_count(size) : until / BLOCK_BYTES;
	if (ret->end <= ret->block)
		ret->block = ret->end = 0;
	else
		s->named_blocks = ret->end;
}

static void name_records(struct record_stream *s, uint64_t size, struct record_advice *ret)
{
	uint64_t margin = s->uneven ? PAGE_BYTES : 0, ahead, at;
	uint64_t middle = margin / 2; /* of the page in which the last one began */

	ret->len = longest(s) + 2 * margin;
	if (distance(s) < ret->len)
		return; /* hardly anything is left out */
	ahead = min_u64(min_u64(s->steps / 2, RECORD_AHEAD), RECORD_AHEAD_BYTES / ret->len);
	while (s->named < s->steps + ahead) {
		at = expected(s, s->named + 1 - s->steps) + middle;
		if (at >= size)
			break;
		at = at / PAGE_BYTES * PAGE_BYTES - margin;
		s->named++;
		s->at[s->named % RECORD_AHEAD] = at;
		ret->at[ret->count++] = at;
	}
}

struct record_advice record_stride_note(struct record_stride *r, uint64_t ino, uint32_t reader,
	uint64_t offset, uint32_t len, uint64_t size)
{
	struct record_stream_set *set = set_of(r, ino);
	struct record_advice advice = {0};
	struct record_stream *s;
	bool known, begins;

	mutex_guard(&set->mu);
	s = find(set, ino, reader, &known);
	begins = known && offset != s->end;
	if (begins && goes_on(s, offset))
		step(s, offset);
	else if (!known || begins)
		*s = (struct record_stream){
			.ino = ino, .reader = reader, .first = offset, .last = offset};
	s->end = offset + len;
	s->lens[s->steps % RECORD_FEW] = s->end - s->last;
	s->used = ++set->clock;
	advice.was_named = s->was_named;
	advice.named_at = s->named_at;
	if (!begins || s->steps < RECORD_FEW || s->credit == 0)
		return advice;
	if (read_together(set, s) >= distance(s) / 4 * 3)
		name_blocks(s, size, &advice);
	else
		name_records(s, size, &advice);
	return advice;
}

void record_stride_missed(struct record_stride *r, uint64_t ino, uint32_t reader)
{
	struct record_stream_set *set = set_of(r, ino);
	struct record_stream *s;
	bool known;

	mutex_guard(&set->mu);
	s = find(set, ino, reader, &known);
	if (known)
		s->credit = RECORD_CREDIT;
}
