#include "fuse/loader_pace.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

void loader_pace_init(struct loader_pace *p)
{
	memset(p, 0, sizeof(*p));
	mutex_init(&p->mu);
}

void loader_pace_deinit(struct loader_pace *p)
{
	mutex_deinit(&p->mu);
}

static bool goes_back(const struct loader_report *from, const struct loader_report *to)
{
	return to->steps < from->steps || to->samples < from->samples || to->bytes < from->bytes ||
	       to->waited_us < from->waited_us || to->computed_us < from->computed_us;
}

int loader_pace_report(
	struct loader_pace *p, unsigned number, const struct loader_report *report, int64_t now_ms)
{
	struct loader *l = &p->loaders[number];

	assert(number < LOADERS_MAX);
	mutex_guard(&p->mu);
	if (l->known && goes_back(&l->last, report))
		return -EPROTO;
	/* The first steps wait for what is only being started. */
	if (!l->known && report->steps < LOADER_WARM_STEPS)
		return 0;
	if (!l->known) {
		l->known = true;
		l->older = l->newer = *report;
		l->newer_ms = now_ms;
	} else if (now_ms - l->newer_ms > LOADER_WINDOW_MS) {
		l->older = l->newer;
		l->newer = l->last;
		l->newer_ms = now_ms;
	}
	l->last = *report;
	l->last_ms = now_ms;
	return 0;
}

void loader_pace_forget(struct loader_pace *p, unsigned number)
{
	assert(number < LOADERS_MAX);
	mutex_guard(&p->mu);
	p->loaders[number].known = false;
}

static double ideal(const struct loader *l, double sample_bytes)
{
	double seconds = (double)(l->last.computed_us - l->older.computed_us) / 1e6;
	double bytes = (double)(l->last.bytes - l->older.bytes);

	if (l->last.bytes == 0)
		bytes = (double)(l->last.samples - l->older.samples) * sample_bytes;
	return seconds > 0 ? bytes / seconds : 0;
}

void loader_pace_stat(
	struct loader_pace *p, double sample_bytes, int64_t now_ms, struct loader_pace_stat *ret)
{
	double waited = 0, computed = 0;

	*ret = (struct loader_pace_stat){0};
	mutex_guard(&p->mu);
	for (unsigned i = 0; i < LOADERS_MAX; i++) {
		const struct loader *l = &p->loaders[i];

		if (!l->known || now_ms - l->last_ms > LOADER_SILENT_MS ||
			l->last.computed_us == l->older.computed_us)
			continue;
		ret->loaders++;
		ret->workers += l->last.workers;
		ret->ideal_bytes_per_s += ideal(l, sample_bytes);
		waited += (double)(l->last.waited_us - l->older.waited_us);
		computed += (double)(l->last.computed_us - l->older.computed_us);
	}
	if (waited + computed > 0)
		ret->wait_ratio = waited / (waited + computed);
}
