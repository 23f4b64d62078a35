/*
 * Lines of the Prometheus text format. `labels` is a run of metrics_text_label pieces, "" for none.
 * All return 0 or -ENOMEM.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"

/* The name of a metric, or of a label (no colons). */
bool metrics_text_name_ok(const char *name, bool colons);

/* Appends `name="value"`, with a comma before it unless it is the first. The value is escaped, cut
 * at METRIC_LABEL_VALUE_BYTES, and made valid UTF-8. */
int metrics_text_label(struct buf *out, const char *name, const char *value);

int metrics_text_head(struct buf *out, const char *name, const char *help, const char *type);
int metrics_text_count(
	struct buf *out, const char *name, const char *suffix, const char *labels, uint64_t value);
int metrics_text_double(
	struct buf *out, const char *name, const char *suffix, const char *labels, double value);
int metrics_text_bucket(
	struct buf *out, const char *name, const char *labels, double upper, uint64_t count);
int metrics_text_last_bucket(struct buf *out, const char *name, const char *labels, uint64_t count);
