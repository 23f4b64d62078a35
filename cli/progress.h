/*
 * A progress line on stderr: bar, bytes, items, rates and ETA. Redrawn in place on a terminal; one
 * line every few seconds elsewhere. Not thread-safe.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct progress {
	const char *label;
	const char *unit;		   /* of the items: "files", "entries" */
	uint64_t total_items, total_bytes; /* 0: unknown, then neither bar nor ETA */
	int64_t started_ms, drawn_ms;
	uint64_t base_items, base_bytes;
	bool terminal, shown;
};

void progress_start(struct progress *p, const char *label, const char *unit, uint64_t total_items,
	uint64_t total_bytes);
void progress_update(struct progress *p, uint64_t items, uint64_t bytes);
/* The last line stays. */
void progress_finish(struct progress *p, uint64_t items, uint64_t bytes);
