#include "fuse/file_sequence.h"

#include <string.h>

void file_sequence_init(struct file_sequence *s)
{
	memset(s, 0, sizeof(*s));
	mutex_init(&s->mu);
}

void file_sequence_deinit(struct file_sequence *s)
{
	mutex_deinit(&s->mu);
}

static bool goes_on(const struct file_stream *f, uint32_t slot, uint32_t index)
{
	uint32_t step = index - f->index;

	if (!f->used || f->slot != slot || index <= f->index)
		return false;
	return f->step ? step == f->step : step <= FILE_SEQUENCE_STEP_MAX;
}

/* The stream that the file belongs to; else the one to replace. */
static struct file_stream *find(
	struct file_sequence *s, uint32_t slot, uint32_t index, bool *ret_known)
{
	struct file_stream *oldest = &s->streams[0];

	*ret_known = true;
	for (int i = 0; i < FILE_SEQUENCE_STREAMS; i++) {
		struct file_stream *f = &s->streams[i];

		if (goes_on(f, slot, index))
			return f;
		if (f->used < oldest->used)
			oldest = f;
	}
	*ret_known = false;
	return oldest;
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static struct file_sequence_advice name_files(struct file_stream *f)
{
	struct file_sequence_advice advice = {.step = f->step};
	uint32_t ahead = min_u32(f->run, FILE_SEQUENCE_AHEAD), last;

	if (f->run < FILE_SEQUENCE_FEW || f->credit == 0 ||
		f->index > UINT32_MAX - FILE_SEQUENCE_AHEAD * FILE_SEQUENCE_STEP_MAX)
		return advice;
	last = f->index + ahead * f->step;
	if (f->named < f->index)
		f->named = f->index;
	advice.first = f->named + f->step;
	advice.count = (last - f->named) / f->step;
	f->named = last;
	return advice;
}

struct file_sequence_advice file_sequence_note(
	struct file_sequence *s, uint32_t slot, uint32_t index, bool miss)
{
	struct file_stream *f;
	bool known;

	mutex_guard(&s->mu);
	f = find(s, slot, index, &known);
	if (known) {
		f->step = index - f->index;
		f->run++;
		f->credit -= f->credit > 0;
	} else {
		*f = (struct file_stream){.slot = slot};
	}
	f->index = index;
	f->used = ++s->clock;
	if (miss)
		f->credit = FILE_SEQUENCE_CREDIT;
	return name_files(f);
}
