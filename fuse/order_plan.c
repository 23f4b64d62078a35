#include "fuse/order_plan.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#define EVIDENCE_MIN 32u
/* Of a record's first and last page the kernel often has one from its neighbour, and asks for less. */
#define KERNEL_HAS_BYTES 8192u

/* ---- pieces by file and offset --------------------------------------------------------------- */

static struct order_piece **bucket_of(struct order_plan *p, uint32_t index, uint64_t offset)
{
	uint64_t key = (offset / ORDER_PIECE_MAX_BYTES) * UINT64_C(0x9e3779b97f4a7c15) ^
		       index * UINT64_C(0xbf58476d1ce4e5b9);

	return &p->buckets[key >> 32 & (ORDER_BUCKETS - 1)];
}

static uint64_t end_of(const struct order_piece *piece)
{
	return piece->offset + piece->len;
}

static bool is_held(const struct order_piece *piece)
{
	return piece->state == ORDER_FETCHING || piece->state == ORDER_READY;
}

static uint32_t room_of(const struct order_piece *piece)
{
	return order_buffers_room(piece->len);
}

static void free_if_unused(struct order_plan *p, struct order_piece *piece)
{
	if (piece->refs > 0 || piece->state != ORDER_GONE)
		return;
	if (piece->bytes)
		order_buffers_put(&p->buffers, piece->bytes, piece->len);
	free(piece);
}

/* Takes a piece out of list and table; it and its bytes stay as long as it is referenced. */
static void let_go(struct order_plan *p, struct order_piece *piece)
{
	struct order_job *job = piece->job;
	struct order_piece **bucket = bucket_of(p, piece->index, piece->offset);

	if (job->next == piece)
		job->next = piece->next;
	DL_DELETE(job->pieces, piece);
	DL_DELETE2(*bucket, piece, bucket_prev, bucket_next);
	if (piece->bytes)
		job->used_bytes -= room_of(piece);
	job->piece_count--;
	p->piece_count--;
	piece->state = ORDER_GONE;
	piece->job = NULL;
	free_if_unused(p, piece);
}

static void note_evidence(struct order_job *job, bool asked)
{
	job->evidence = job->evidence << 1 | asked;
	if (job->evidence_count < ORDER_EVIDENCE)
		job->evidence_count++;
}

/* Fewer than half of what went was asked for. */
static bool in_doubt(const struct order_job *job)
{
	return job->evidence_count >= EVIDENCE_MIN &&
	       (unsigned)__builtin_popcountll(job->evidence) * 2 < job->evidence_count;
}

static void skip(struct order_plan *p, struct order_piece *piece)
{
	note_evidence(piece->job, piece->asked);
	if (piece->state == ORDER_READY && piece->served_bytes < piece->len)
		p->tally.dropped_bytes += piece->len - piece->served_bytes;
	let_go(p, piece);
}

/* ---- lists ----------------------------------------------------------------------------------- */

void order_plan_init(struct order_plan *p, uint64_t memory_bytes)
{
	memset(p, 0, sizeof(*p));
	order_buffers_init(&p->buffers, memory_bytes);
}

void order_plan_deinit(struct order_plan *p)
{
	order_plan_drop_all(p);
	order_buffers_deinit(&p->buffers);
	free(p->buckets);
}

struct order_job *order_plan_find(struct order_plan *p, uint64_t id)
{
	for (unsigned i = 0; i < ORDER_LISTS_MAX; i++) {
		if (id && p->jobs[i].id == id)
			return &p->jobs[i];
	}
	return NULL;
}

int order_plan_begin(struct order_plan *p, int64_t now_ms, uint64_t *ret_id)
{
	struct order_job *job = p->jobs;

	while (job < p->jobs + ORDER_LISTS_MAX && job->id)
		job++;
	if (job == p->jobs + ORDER_LISTS_MAX)
		return -EBUSY;
	if (!p->buckets)
		p->buckets = calloc(ORDER_BUCKETS, sizeof(struct order_piece *));
	if (!p->buckets)
		return -ENOMEM;
	memset(job, 0, sizeof(*job));
	order_list_init(&job->waiting);
	job->id = ++p->last_id;
	job->held = true;
	job->sign_ms = now_ms;
	*ret_id = job->id;
	return 0;
}

static void drop_job(struct order_plan *p, struct order_job *job)
{
	p->waiting -= job->waiting.count;
	order_list_deinit(&job->waiting);
	while (job->pieces)
		skip(p, job->pieces);
	job->id = 0;
}

void order_plan_seal(struct order_plan *p, uint64_t id)
{
	struct order_job *job = order_plan_find(p, id);

	if (job)
		job->held = false;
}

void order_plan_drop(struct order_plan *p, uint64_t id)
{
	struct order_job *job = order_plan_find(p, id);

	if (job)
		drop_job(p, job);
}

void order_plan_drop_all(struct order_plan *p)
{
	for (unsigned i = 0; i < ORDER_LISTS_MAX; i++) {
		if (p->jobs[i].id)
			drop_job(p, &p->jobs[i]);
	}
}

static void note_sign(struct order_job *job, int64_t now_ms)
{
	job->sign_ms = now_ms;
	job->resting = false;
}

static void skip_before(struct order_plan *p, struct order_job *job, uint64_t position)
{
	while (job->pieces && job->pieces->position < position)
		skip(p, job->pieces);
}

/* ---- pieces ---------------------------------------------------------------------------------- */

static bool is_active(const struct order_job *job)
{
	return job->id && (job->pieces || job->waiting.count > 0);
}

static unsigned active_jobs(const struct order_plan *p)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ORDER_LISTS_MAX; i++)
		n += is_active(&p->jobs[i]);
	return n > 0 ? n : 1;
}

static int add_piece(
	struct order_plan *p, struct order_job *job, const struct order_range *range, uint32_t len)
{
	struct order_piece *piece = calloc(1, sizeof(*piece));
	struct order_piece **bucket;

	if (!piece)
		return -ENOMEM;
	piece->index = range->index;
	piece->offset = range->offset;
	piece->len = len;
	piece->position = job->positions;
	piece->job = job;
	bucket = bucket_of(p, piece->index, piece->offset);
	DL_APPEND(job->pieces, piece);
	DL_APPEND2(*bucket, piece, bucket_prev, bucket_next);
	if (!job->next)
		job->next = piece;
	job->piece_count++;
	p->piece_count++;
	return 0;
}

/* Cuts the next piece off the ranges that wait. */
static int cut_piece(struct order_plan *p, struct order_job *job)
{
	struct order_range *range = order_list_first(&job->waiting);
	bool wanted = range->index != ORDER_NOTHING && job->positions >= job->passed;
	uint64_t left = ORDER_PIECE_MAX_BYTES - range->offset % ORDER_PIECE_MAX_BYTES;
	uint32_t len = range->len < left ? range->len : (uint32_t)left;

	if (wanted && add_piece(p, job, range, len) < 0)
		return -ENOMEM;
	range->offset += len;
	range->len -= len;
	if (wanted && range->len > 0)
		return 0;
	job->positions += range->ends;
	order_list_pop(&job->waiting);
	p->waiting--;
	return 0;
}

static void refill(struct order_plan *p, struct order_job *job, unsigned active)
{
	while (job->waiting.count > 0 && job->piece_count < ORDER_PIECES_MAX / active &&
		p->piece_count < ORDER_PIECES_MAX && cut_piece(p, job) == 0)
		;
}

int order_plan_step(
	struct order_plan *p, uint64_t id, uint64_t step, uint64_t passed, int64_t now_ms)
{
	struct order_job *job = order_plan_find(p, id);

	if (!job)
		return -ENOENT;
	note_sign(job, now_ms);
	job->step = step;
	if (passed > job->passed)
		job->passed = passed;
	skip_before(p, job, job->passed);
	refill(p, job, active_jobs(p));
	return 0;
}

static bool has_room(const struct order_plan *p, const struct order_job *job, unsigned count)
{
	return p->waiting + count <= ORDER_RANGES_MAX ||
	       job->waiting.count + count <= ORDER_RANGES_LEAST;
}

int order_plan_add(
	struct order_plan *p, uint64_t id, const struct order_range *ranges, unsigned count)
{
	struct order_job *job = order_plan_find(p, id);

	if (!job)
		return -ENOENT;
	if (!has_room(p, job, count))
		refill(p, job, active_jobs(p));
	if (!has_room(p, job, count))
		return -EAGAIN;
	for (unsigned i = 0; i < count; i++) {
		if (order_list_add(&job->waiting, &ranges[i]) < 0)
			return -ENOMEM;
		p->waiting++;
		job->announced += ranges[i].ends;
		p->tally.announced += ranges[i].ends;
	}
	refill(p, job, active_jobs(p));
	return 0;
}

/* Bytes that are brought for an earlier place in some list: the kernel has them by then. */
static bool is_brought_already(struct order_plan *p, const struct order_piece *piece)
{
	const struct order_piece *other;

	DL_FOREACH2 (*bucket_of(p, piece->index, piece->offset), other, bucket_next)
		if (is_held(other) && other->index == piece->index &&
			other->offset <= piece->offset && end_of(piece) <= end_of(other))
			return true;
	return false;
}

/* The first piece that is worth bringing now, or NULL. */
static struct order_piece *choose(struct order_plan *p, struct order_job *job)
{
	while (job->next && !in_doubt(job)) {
		struct order_piece *piece = job->next;

		if (piece->state != ORDER_AHEAD) {
			job->next = piece->next;
		} else if (is_brought_already(p, piece)) {
			let_go(p, piece);
		} else {
			return piece;
		}
	}
	return NULL;
}

static bool fits(const struct order_plan *p, const struct order_job *job,
	const struct order_piece *piece, unsigned active)
{
	return job->used_bytes + room_of(piece) <= p->buffers.budget_bytes / active &&
	       p->buffers.used_bytes + room_of(piece) <= p->buffers.budget_bytes;
}

/* Lets go of what its reader skipped, until the next piece fits. */
static bool make_room(struct order_plan *p, struct order_job *job, const struct order_piece *piece,
	unsigned active)
{
	uint64_t window = p->buffers.budget_bytes / active / room_of(piece);
	uint32_t reads = window * 2 < ORDER_FLOOR_READS_LEAST  ? ORDER_FLOOR_READS_LEAST
			 : window * 2 > ORDER_FLOOR_READS_MOST ? ORDER_FLOOR_READS_MOST
							       : (uint32_t)window * 2;
	uint64_t floor = UINT64_MAX;

	if (job->recent_count < reads)
		return false;
	for (uint32_t i = 1; i <= reads; i++) {
		uint64_t position = job->recent[(job->recent_at - i) % ORDER_FLOOR_READS_MOST];

		floor = position < floor ? position : floor;
	}
	while (job->pieces != piece && job->pieces->position < floor &&
		!fits(p, job, piece, active))
		skip(p, job->pieces);
	return fits(p, job, piece, active);
}

struct order_piece *order_plan_next(struct order_plan *p)
{
	unsigned active = active_jobs(p);

	for (unsigned i = 0; i < ORDER_LISTS_MAX; i++) {
		struct order_job *job = &p->jobs[(p->turn + i) % ORDER_LISTS_MAX];
		struct order_piece *piece;

		if (!is_active(job) || job->resting)
			continue;
		refill(p, job, active);
		piece = choose(p, job);
		if (!piece || (!fits(p, job, piece, active) && !make_room(p, job, piece, active)))
			continue;
		piece->bytes = order_buffers_get(&p->buffers, piece->len);
		if (!piece->bytes)
			continue;
		job->used_bytes += room_of(piece);
		job->next = piece->next;
		piece->state = ORDER_FETCHING;
		piece->arrived = piece->failed = false;
		piece->refs++;
		p->turn = (p->turn + i + 1) % ORDER_LISTS_MAX;
		return piece;
	}
	return NULL;
}

/* The oldest piece lies well behind what was read last: its room may be had. */
static bool may_make_room(const struct order_job *job)
{
	return job->pieces && job->recent_count >= ORDER_FLOOR_READS_LEAST &&
	       job->pieces->position + ORDER_FLOOR_READS_LEAST <
		       job->recent[(job->recent_at - 1) % ORDER_FLOOR_READS_MOST];
}

/* What is known of the next pieces runs out, also where they are not brought. */
static bool wants_refill(const struct order_job *job, unsigned active)
{
	return job->waiting.count > 0 && job->piece_count < ORDER_PIECES_MAX / active / 2;
}

bool order_plan_has_next(const struct order_plan *p)
{
	unsigned active = active_jobs(p);

	for (unsigned i = 0; i < ORDER_LISTS_MAX; i++) {
		const struct order_job *job = &p->jobs[i];

		if (!is_active(job) || job->resting)
			continue;
		if (wants_refill(job, active))
			return true;
		if (job->next && !in_doubt(job) &&
			(fits(p, job, job->next, active) || may_make_room(job)))
			return true;
	}
	return false;
}

void order_plan_arrived(
	struct order_plan *p, struct order_piece *piece, bool ok, enum block_from from)
{
	assert(piece->refs > 0 && !piece->arrived && !piece->failed);
	piece->arrived = ok;
	piece->failed = !ok;
	piece->from = from;
	piece->refs--;
	if (ok)
		p->tally.fetched_bytes += piece->len;
	if (piece->state == ORDER_GONE) {
		if (ok)
			p->tally.dropped_bytes += piece->len;
		free_if_unused(p, piece);
	} else if (ok) {
		piece->state = ORDER_READY;
	} else {
		let_go(p, piece);
	}
}

/* ---- readers --------------------------------------------------------------------------------- */

static uint64_t overlap(const struct order_piece *piece, uint64_t offset, uint64_t end)
{
	uint64_t from = piece->offset > offset ? piece->offset : offset;
	uint64_t to = end_of(piece) < end ? end_of(piece) : end;

	return from < to ? to - from : 0;
}

/* Records next to each other share a page, which says nothing about the other one. */
static bool is_asked(const struct order_piece *piece, uint64_t offset, uint64_t end)
{
	return overlap(piece, offset, end) * 2 >= piece->len;
}

static bool same_place(const struct order_piece *a, const struct order_piece *b)
{
	return a->index == b->index && a->offset == b->offset;
}

static void note_position(struct order_piece *piece, int64_t now_ms)
{
	struct order_job *job = piece->job;

	note_sign(job, now_ms);
	if (piece->asked)
		return;
	piece->asked = true;
	job->recent[job->recent_at++ % ORDER_FLOOR_READS_MOST] = piece->position;
	if (job->recent_count < ORDER_FLOOR_READS_MOST)
		job->recent_count++;
}

/* The first place in the lists, of several of the same bytes, is the one that is read now. */
static struct order_piece *first_of_place(struct order_piece *bucket, struct order_piece *piece)
{
	struct order_piece *other;

	DL_FOREACH2 (bucket, other, bucket_next)
		if (same_place(other, piece) && is_held(other))
			return other;
	DL_FOREACH2 (bucket, other, bucket_next)
		if (same_place(other, piece))
			return other;
	return piece;
}

/* One of the bucket that is asked for and was not noted in this read. */
static struct order_piece *unnoted(
	struct order_piece *bucket, uint32_t index, uint64_t offset, uint64_t end, uint64_t *above)
{
	struct order_piece *piece, *best = NULL;

	DL_FOREACH2 (bucket, piece, bucket_next)
		if (piece->index == index && piece->offset >= *above &&
			is_asked(piece, offset, end) && (!best || piece->offset < best->offset))
			best = piece;
	if (best)
		*above = best->offset + 1;
	return best ? first_of_place(bucket, best) : NULL;
}

void order_plan_read(
	struct order_plan *p, uint32_t index, uint64_t offset, uint32_t len, int64_t now_ms)
{
	uint64_t end = offset + len;
	uint64_t stretch = offset - offset % ORDER_PIECE_MAX_BYTES;

	for (; p->buckets && stretch < end; stretch += ORDER_PIECE_MAX_BYTES) {
		struct order_piece *piece;
		uint64_t above = 0;

		while ((piece = unnoted(
				*bucket_of(p, index, stretch), index, offset, end, &above))) {
			note_position(piece, now_ms);
			if (!is_held(piece)) {
				note_evidence(piece->job, true);
				let_go(p, piece);
			}
		}
	}
}

struct order_piece *order_plan_at(struct order_plan *p, uint32_t index, uint64_t offset)
{
	struct order_piece *piece, *best = NULL;

	if (!p->buckets)
		return NULL;
	DL_FOREACH2 (*bucket_of(p, index, offset), piece, bucket_next) {
		if (!is_held(piece) || piece->index != index || offset < piece->offset ||
			offset >= end_of(piece))
			continue;
		if (piece->state == ORDER_READY)
			return piece;
		if (!best)
			best = piece;
	}
	return best;
}

uint64_t order_plan_gap(struct order_plan *p, uint32_t index, uint64_t offset, uint32_t len)
{
	uint64_t end = offset + len;
	uint64_t stretch = offset - offset % ORDER_PIECE_MAX_BYTES;
	struct order_piece *piece;

	for (; p->buckets && stretch < end; stretch += ORDER_PIECE_MAX_BYTES) {
		DL_FOREACH2 (*bucket_of(p, index, stretch), piece, bucket_next)
			if (is_held(piece) && piece->index == index && piece->offset > offset &&
				piece->offset < end)
				end = piece->offset;
	}
	return end;
}

void order_plan_ref(struct order_piece *piece)
{
	piece->refs++;
}

void order_plan_unref(struct order_plan *p, struct order_piece *piece)
{
	assert(piece->refs > 0);
	piece->refs--;
	free_if_unused(p, piece);
}

void order_plan_used(struct order_plan *p, struct order_piece *piece, uint32_t len)
{
	p->tally.used_bytes += len;
	piece->served_bytes += len;
	if (piece->state == ORDER_READY && piece->served_bytes + KERNEL_HAS_BYTES >= piece->len) {
		note_evidence(piece->job, true);
		let_go(p, piece);
	}
	order_plan_unref(p, piece);
}

/* ---- once a second --------------------------------------------------------------------------- */

static void rest(struct order_plan *p, struct order_job *job)
{
	struct order_piece *piece;

	job->resting = true;
	DL_FOREACH (job->pieces, piece) {
		if (piece->state != ORDER_READY || piece->refs > 0)
			continue;
		order_buffers_put(&p->buffers, piece->bytes, piece->len);
		job->used_bytes -= room_of(piece);
		p->tally.dropped_bytes += piece->len - piece->served_bytes;
		piece->bytes = NULL;
		piece->served_bytes = 0;
		piece->state = ORDER_AHEAD;
	}
	job->next = job->pieces;
}

void order_plan_tick(struct order_plan *p, int64_t now_ms)
{
	for (unsigned i = 0; i < ORDER_LISTS_MAX; i++) {
		struct order_job *job = &p->jobs[i];
		int64_t idle_ms = now_ms - job->sign_ms;

		if (!job->id)
			continue;
		if (!job->resting && idle_ms >= ORDER_REST_MS)
			rest(p, job);
		if (!job->held && (!is_active(job) || idle_ms >= ORDER_FORGET_MS))
			drop_job(p, job);
	}
	if (order_plan_empty(p))
		order_buffers_trim(&p->buffers);
}

bool order_plan_empty(const struct order_plan *p)
{
	for (unsigned i = 0; i < ORDER_LISTS_MAX; i++) {
		if (is_active(&p->jobs[i]))
			return false;
	}
	return true;
}
