#include "cli/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/size.h"

#define DRAW_INTERVAL_MS 200
#define LINE_INTERVAL_MS 5000
#define BAR_CELLS 24

void progress_start(struct progress *p, const char *label, const char *unit, uint64_t total_items,
	uint64_t total_bytes)
{
	*p = (struct progress){
		.label = label,
		.unit = unit,
		.total_items = total_items,
		.total_bytes = total_bytes,
		.started_ms = clock_mono_ms(),
		.drawn_ms = clock_mono_ms(),
		.terminal = isatty(STDERR_FILENO),
	};
}

static double fraction_done(const struct progress *p, uint64_t items, uint64_t bytes)
{
	if (p->total_bytes)
		return (double)bytes / (double)p->total_bytes;
	return p->total_items ? (double)items / (double)p->total_items : 0;
}

static void draw(struct progress *p, uint64_t items, uint64_t bytes, bool last)
{
	double seconds = (double)(clock_mono_ms() - p->started_ms) / 1000, done;
	char size[SIZE_TEXT_BYTES], rate[SIZE_TEXT_BYTES], bar[BAR_CELLS + 1];

	if (seconds < 0.001)
		seconds = 0.001;
	fprintf(stderr, "%s%-10s ", p->terminal ? "\r\033[K" : "", p->label);
	if (p->total_items || p->total_bytes) {
		done = fraction_done(p, items, bytes);
		done = done > 1 ? 1 : done;
		memset(bar, '.', BAR_CELLS);
		memset(bar, '#', (size_t)(done * BAR_CELLS));
		bar[BAR_CELLS] = '\0';
		fprintf(stderr, "[%s] %3.0f %%  ", bar, done * 100);
	}
	fprintf(stderr, "%" PRIu64 " %s  %.0f %s/s", items, p->unit, (double)items / seconds,
		p->unit);
	if (bytes)
		fprintf(stderr, "  %s  %s/s", size_format(bytes, size),
			size_format((uint64_t)((double)bytes / seconds), rate));
	if (!last && (p->total_items || p->total_bytes) && fraction_done(p, items, bytes) > 0) {
		done = fraction_done(p, items, bytes);
		fprintf(stderr, "  ETA %.0f s", done < 1 ? seconds / done - seconds : 0);
	}
	if (last)
		fprintf(stderr, "  in %.1f s", seconds);
	if (last || !p->terminal)
		fputc('\n', stderr);
	fflush(stderr);
	p->drawn_ms = clock_mono_ms();
	p->shown = true;
}

void progress_update(struct progress *p, uint64_t items, uint64_t bytes)
{
	if (clock_mono_ms() - p->drawn_ms >= (p->terminal ? DRAW_INTERVAL_MS : LINE_INTERVAL_MS))
		draw(p, items, bytes, false);
}

void progress_finish(struct progress *p, uint64_t items, uint64_t bytes)
{
	draw(p, items, bytes, true);
}
