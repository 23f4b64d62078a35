/*
 * From re-reads of a sample (sample.h) to how fast a job reads, and how fast it could.
 *
 * Time is cut into windows. One begins and ends with a read of the sample that was seen, and lasts
 * SAMPLE_WINDOW_MS and SAMPLE_LEAST such reads at least. So silence ends no window and is no
 * estimate; of a job that reads in bursts each window has whole gaps between them; and every
 * estimate rests on enough reads to be one.
 *
 * What was consumed in a window, by its time, is the ideal rate f* where reads waited for less than
 * SAMPLE_WAITS_LITTLE of the time of those who read: then f* lies between that and 1/(1 - 0.1) of it.
 * Where they waited more it is a lower bound only, and so is bytes by the time in which nothing
 * waited an upper one: a loader that reads ahead hides its waits behind computing. Neither is told
 * as f*.
 *
 * The estimate is the median of the last SAMPLE_WINDOWS windows, without those that waited: a pause
 * in less than half of them changes nothing. It is unknown again once all of them waited: a job
 * that is held back cannot show that it has become faster.
 *
 * No clock and no lock: times are passed in, and the caller's lock guards it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SAMPLE_WINDOW_MS 10000
#define SAMPLE_LEAST 16
#define SAMPLE_WINDOWS 16
#define SAMPLE_WAITS_LITTLE 0.1

/* What was seen until now, cumulative but for `readers` and `blind`. */
struct sample_reading {
	int64_t seen_ms;  /* when the sample was read last */
	uint64_t reads;	  /* of the sample */
	double bytes;	  /* of all that was read, as the sample says */
	double waited_ms; /* that reads were under way, summed over them, of the sample or not */
	unsigned readers; /* of this window */
	bool blind;	  /* the kernel read by itself in this window what no sample shows */
};

struct sample_window {
	double bytes_per_s;
	double wait_ratio; /* of its readers' time */
	uint64_t reads;
};

struct sample_pace {
	bool begun;
	struct sample_reading begin;
	struct sample_window windows[SAMPLE_WINDOWS]; /* a ring */
	unsigned count, next;
};

struct sample_estimate {
	unsigned windows;	  /* 0: too early to say anything */
	double ideal_bytes_per_s; /* 0: not known */
	double error;		  /* of it, relative, one standard deviation */
};

/* To be called again and again. True when a window has ended (and another begun) with this reading. */
bool sample_pace_tick(struct sample_pace *p, const struct sample_reading *now);
void sample_pace_estimate(const struct sample_pace *p, struct sample_estimate *ret);
