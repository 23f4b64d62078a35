/*
 * Counters, gauges and histograms of the process, shown in the Prometheus text format (version
 * 0.0.4 of its exposition formats).
 *
 * A module declares its metrics once, in a table, and registers it:
 *
 *	enum { READ_BYTES, READ_SECONDS };
 *	static struct metric metrics[] = {
 *		[READ_BYTES] = METRIC_COUNTER("granary_client_read_bytes_total",
 *			"Bytes that clients read.", "dataset", "job", "source"),
 *		[READ_SECONDS] = METRIC_HISTOGRAM("granary_client_read_seconds",
 *			"Time of a read.", metric_seconds_buckets, "dataset"),
 *	};
 *	metrics_register(metrics, ARRAY_SIZE(metrics));
 *	series = metric_with(&metrics[READ_BYTES], dataset, job, "local");
 *	metric_add(series, n);
 *
 * A series, once made, lives as long as the process: keep the pointer, so that the hot path is one
 * atomic addition. The number of series of a metric is bounded; past the bound every new
 * combination of label values shares one series whose values are all "other".
 *
 * Numbers that are kept elsewhere are set by a collector, which runs before each rendering.
 *
 * Thread-safe. Names and labels are checked by assertion: they are literals.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

#define METRIC_LABELS_MAX 4
#define METRIC_LABEL_VALUE_BYTES 256 /* longer values are cut */
#define METRIC_SERIES_MAX 512	     /* of one metric, unless its table says otherwise */
#define METRIC_BUCKETS_MAX 32

enum metric_type { METRIC_TYPE_COUNTER, METRIC_TYPE_GAUGE, METRIC_TYPE_HISTOGRAM };

struct metric_buckets {
	unsigned n;
	double upper[METRIC_BUCKETS_MAX]; /* ascending, without +Inf */
};

/* 100 us to 60 s. */
extern const struct metric_buckets metric_seconds_buckets;

struct metric_state;
struct metric_series;

struct metric {
	const char *name;
	const char *help;
	enum metric_type type;
	const struct metric_buckets *buckets;
	const char *labels[METRIC_LABELS_MAX + 1]; /* their names; NULL ends them */
	unsigned series_max;			   /* 0 is METRIC_SERIES_MAX */
	bool fractional;	    /* a counter of seconds, which a collector sets */
	struct metric_state *state; /* owned by metrics.c */
};

#define METRIC_COUNTER(n, h, ...)                                                                \
	{                                                                                        \
		.name = (n), .help = (h), .type = METRIC_TYPE_COUNTER, .labels = { __VA_ARGS__ } \
	}
#define METRIC_SECONDS_COUNTER(n, h, ...)                                                  \
	{                                                                                  \
		.name = (n), .help = (h), .type = METRIC_TYPE_COUNTER, .fractional = true, \
		.labels = {                                                                \
			__VA_ARGS__                                                        \
		}                                                                          \
	}
#define METRIC_GAUGE(n, h, ...)                                                                \
	{                                                                                      \
		.name = (n), .help = (h), .type = METRIC_TYPE_GAUGE, .labels = { __VA_ARGS__ } \
	}
#define METRIC_HISTOGRAM(n, h, b, ...)                                                    \
	{                                                                                 \
		.name = (n), .help = (h), .type = METRIC_TYPE_HISTOGRAM, .buckets = &(b), \
		.labels = {                                                               \
			__VA_ARGS__                                                       \
		}                                                                         \
	}

/* The table stays where it is for the life of the process. A second time does nothing, so every
 * user of a module may call its registration. */
void metrics_register(struct metric *table, size_t n);

/* The series with these label values, made at the first call; never NULL. Any bytes are fine. */
struct metric_series *metric_series(struct metric *m, const char *const *values, size_t n);
#define metric_with(m, ...)                                    \
	metric_series((m), (const char *const[]){__VA_ARGS__}, \
		sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))
#define metric_only(m) metric_series((m), NULL, 0) /* of a metric without labels */

/* Counters. _set_total is for collectors whose source counts already. */
void metric_add(struct metric_series *s, uint64_t n);
void metric_set_total(struct metric_series *s, uint64_t total);
/* Gauges, and fractional counters. */
void metric_set(struct metric_series *s, double value);
/* Fractional counters of which several share a series. */
void metric_add_fraction(struct metric_series *s, double more);
/* Histograms. */
void metric_observe(struct metric_series *s, double value);

/* Hides every series of the metric until it is written again: a collector of things that come and
 * go (datasets, workers) clears before it sets. */
void metric_clear(struct metric *m);

/* fn(arg) runs before each rendering, one at a time, and sets what it knows. Renderings are one at a
 * time, too, so what one collects no other clears before it is on the page. When _remove has
 * returned, fn does not run any more. Not from within a collector. */
typedef void metrics_collector(void *arg);
struct metrics_collection;
struct metrics_collection *metrics_collect(metrics_collector *fn, void *arg);
void metrics_collect_remove(struct metrics_collection *c); /* NULL is fine */

/* Appends everything; 0 or -ENOMEM. */
int metrics_render(struct buf *out);
