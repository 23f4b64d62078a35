/*
 * What loaders tell of their steps (the order socket's pace frames): how long each waited for data
 * and how long it computed. From that follows the rate at which a job would read if nothing waited,
 * which no counter of reads can show while the kernel answers them.
 *
 * A loader's numbers are cumulative; what counts is its last minute, the first steps of it left out.
 * One that is silent for LOADER_SILENT_MS has no say.
 *
 * Threading: any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/sync.h"

#define LOADERS_MAX 64
#define LOADER_WINDOW_MS 30000 /* the window is one to two of them */
#define LOADER_SILENT_MS 120000
#define LOADER_WARM_STEPS 3

struct loader_report {
	uint64_t steps, samples;
	uint64_t bytes; /* of the samples; 0: as large as files are on average */
	uint64_t waited_us, computed_us;
	uint32_t workers; /* processes that read for it; 0: not known */
};

struct loader_pace {
	struct mutex mu;
	/* guarded by mu */
	struct loader {
		bool known;
		struct loader_report last, newer, older;
		int64_t last_ms, newer_ms;
	} loaders[LOADERS_MAX];
};

void loader_pace_init(struct loader_pace *p);
void loader_pace_deinit(struct loader_pace *p);

/* `number` names the loader, below LOADERS_MAX. -EPROTO: a number went back. */
int loader_pace_report(
	struct loader_pace *p, unsigned number, const struct loader_report *report, int64_t now_ms);
void loader_pace_forget(struct loader_pace *p, unsigned number);

struct loader_pace_stat {
	unsigned loaders;	  /* that had something to say; 0: the rest is 0 */
	double ideal_bytes_per_s; /* of all of them together */
	double wait_ratio;	  /* of their time, waited for data */
	uint32_t workers;
};
/* sample_bytes: what a sample is taken for whose loader does not know its bytes. */
void loader_pace_stat(
	struct loader_pace *p, double sample_bytes, int64_t now_ms, struct loader_pace_stat *ret);
