#include "fuse/preload_plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_HOT 2
#define FACTOR_MAX 4
#define AGAIN_MAX (PRELOAD_RECENT / 2)
#define SAMPLED_MIN 32
#define REST_PASSES 8

static uint32_t chunks(const struct preload_plan *p)
{
	return (p->entries + PRELOAD_CHUNK - 1) / PRELOAD_CHUNK;
}

static bool bit(const uint64_t *words, uint32_t i)
{
	return words[i / 64] >> (i % 64) & 1;
}

static void set(uint64_t *words, uint32_t i)
{
	words[i / 64] |= UINT64_C(1) << (i % 64);
}

static void clear(uint64_t *words, uint32_t i)
{
	words[i / 64] &= ~(UINT64_C(1) << (i % 64));
}

/* Zeros that take memory only where they are used. */
static int tables_new(struct preload_plan *p)
{
	size_t words = p->entries / 64 + 1;

	p->seen = calloc(words, sizeof(*p->seen));
	p->sample = calloc(words, sizeof(*p->sample));
	p->chunk_reads = calloc(chunks(p), sizeof(*p->chunk_reads));
	p->hot = calloc(chunks(p), sizeof(*p->hot));
	return p->seen && p->sample && p->chunk_reads && p->hot ? 0 : -ENOMEM;
}

static void tables_free(struct preload_plan *p)
{
	free(p->seen);
	free(p->sample);
	free(p->chunk_reads);
	free(p->hot);
	p->seen = p->sample = NULL;
	p->chunk_reads = NULL;
	p->hot = NULL;
}

int preload_plan_init(struct preload_plan *p, uint64_t entries, uint64_t window_bytes)
{
	int r;

	memset(p, 0, sizeof(*p));
	if (entries > PRELOAD_ENTRIES_MAX)
		return -E2BIG;
	p->entries = (uint32_t)entries;
	p->window_bytes = window_bytes;
	p->factor = FACTOR_MAX;
	r = tables_new(p);
	if (r < 0)
		preload_plan_deinit(p);
	return r;
}

void preload_plan_deinit(struct preload_plan *p)
{
	tables_free(p);
	p->entries = 0;
}

/* ---- passes ---------------------------------------------------------------------------------- */

static void judge_pass(struct preload_plan *p)
{
	if (p->rest_passes > 0 && --p->rest_passes == 0)
		p->factor = 1;
	if (p->sampled < SAMPLED_MIN)
		return;
	if (p->sample_reads * 2 >= p->sampled)
		p->factor = FACTOR_MAX;
	else
		p->factor /= 2;
	if (p->factor == 0)
		p->rest_passes = REST_PASSES;
}

static void begin_pass(struct preload_plan *p)
{
	judge_pass(p);
	tables_free(p);
	if (tables_new(p) < 0)
		preload_plan_deinit(p);
	p->hot_count = p->hot_next = p->at = p->end = 0;
	p->again = 0;
	p->credit_bytes = 0;
	p->pushed_bytes = p->sampled = p->sample_reads = 0;
}

static bool pass_is_over(struct preload_plan *p, int64_t now_ms)
{
	bool idle = p->read_ms && now_ms - p->read_ms >= PRELOAD_IDLE_MS;

	p->read_ms = now_ms;
	return idle || (unsigned)__builtin_popcount(p->again) >= AGAIN_MAX;
}

/* True where it is the first time in this pass. */
static bool see(struct preload_plan *p, uint32_t index)
{
	uint32_t chunk = index / PRELOAD_CHUNK;

	if (bit(p->seen, index))
		return false;
	set(p->seen, index);
	if (p->chunk_reads[chunk] < CHUNK_HOT && ++p->chunk_reads[chunk] == CHUNK_HOT)
		p->hot[p->hot_count++] = chunk;
	return true;
}

/* What was read again before the pass was known to be another one was its first. */
static void next_pass(struct preload_plan *p)
{
	uint32_t again = p->again;

	begin_pass(p);
	for (uint32_t i = 0; p->entries > 0 && i < PRELOAD_RECENT; i++) {
		if (again >> i & 1)
			see(p, p->recent[i]);
	}
}

static void note_recent(struct preload_plan *p, uint32_t index, bool again)
{
	uint32_t at = p->recent_at++ % PRELOAD_RECENT;

	p->recent[at] = index;
	p->again &= ~(UINT32_C(1) << at);
	p->again |= (uint32_t)again << at;
}

void preload_plan_read(struct preload_plan *p, uint32_t index, uint64_t bytes, int64_t now_ms)
{
	if (index >= p->entries)
		return;
	if (pass_is_over(p, now_ms))
		next_pass(p);
	if (p->entries == 0)
		return;
	note_recent(p, index, bit(p->seen, index));
	if (!see(p, index))
		return;
	if (bit(p->sample, index)) {
		clear(p->sample, index);
		p->sample_reads++;
	}
	p->credit_bytes += (int64_t)(bytes * p->factor);
}

/* ---- what comes next ------------------------------------------------------------------------- */

static bool in_window(const struct preload_plan *p)
{
	double used =
		p->sampled >= PRELOAD_SAMPLE ? (double)p->sample_reads / (double)p->sampled : 0.0;

	return (double)p->pushed_bytes * (1.0 - used) < (double)p->window_bytes;
}

static bool is_sample(uint32_t index)
{
	return (index * UINT32_C(2654435761)) >> 16 & (PRELOAD_SAMPLE - 1) ? false : true;
}

/* The entry at the cursor, which moves on; false when the chunk at hand is done. */
static bool take_at(struct preload_plan *p, uint32_t *ret_index)
{
	while (p->at < p->end) {
		uint32_t index = p->at++;

		if (bit(p->seen, index))
			continue;
		if (is_sample(index)) {
			set(p->sample, index);
			p->sampled++;
			continue;
		}
		set(p->seen, index);
		*ret_index = index;
		return true;
	}
	return false;
}

bool preload_plan_next(struct preload_plan *p, uint32_t *ret_index)
{
	while (p->credit_bytes > 0 && in_window(p)) {
		if (take_at(p, ret_index))
			return true;
		if (p->hot_next == p->hot_count)
			return false;
		p->at = p->hot[p->hot_next++] * PRELOAD_CHUNK;
		p->end = p->at + PRELOAD_CHUNK < p->entries ? p->at + PRELOAD_CHUNK : p->entries;
	}
	return false;
}

void preload_plan_pushed(struct preload_plan *p, uint64_t bytes)
{
	p->credit_bytes -= (int64_t)bytes;
	p->pushed_bytes += bytes;
}

void preload_plan_left(struct preload_plan *p, uint32_t index)
{
	if (index < p->entries)
		clear(p->seen, index);
}
