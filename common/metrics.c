#include "common/metrics.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "common/metrics_text.h"
#include "common/sync.h"

#define METRICS_MAX 512
#define COLLECTIONS_MAX 64

const struct metric_buckets metric_seconds_buckets = {
	.n = 17,
	.upper = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
		1, 2.5, 5, 10, 60},
};

/* A histogram's counts are of one bucket each, not cumulative: one addition an observation. */
struct metric_series {
	UT_hash_handle hh;
	const struct metric *metric;
	char *labels; /* as rendered, `a="x",b="y"`: also the key */
	atomic_bool present;
	_Atomic uint64_t total; /* of a counter */
	_Atomic uint64_t bits;	/* a double: a gauge's value, a histogram's sum */
	_Atomic uint64_t buckets[];
};

struct metric_state {
	struct mutex mu;
	/* guarded by mu */
	struct metric_series *series;
	struct metric_series *other; /* shared by what is beyond the bound; also in series */
};

struct metrics_collection {
	metrics_collector *fn;
	void *arg;
};

static struct {
	struct mutex mu;
	/* guarded by mu */
	struct metric *metrics[METRICS_MAX];
	size_t n_metrics;

	/* Held while collectors run and until what they set has been rendered: a collector clears
	 * before it sets, which another page must not see. */
	struct mutex collect_mu;
	/* guarded by collect_mu */
	struct metrics_collection *collections[COLLECTIONS_MAX];
	size_t n_collections;
} registry = {.mu = MUTEX_INIT, .collect_mu = MUTEX_INIT};

/* ---- declaration ----------------------------------------------------------------------------- */

static size_t label_count(const struct metric *m)
{
	size_t n = 0;

	while (n < METRIC_LABELS_MAX && m->labels[n])
		n++;
	return n;
}

static void check_declaration(const struct metric *m)
{
	assert(metrics_text_name_ok(m->name, true));
	assert(m->help && m->help[0]);
	assert((m->type == METRIC_TYPE_HISTOGRAM) == (m->buckets != NULL));
	assert(!m->fractional || m->type == METRIC_TYPE_COUNTER);
	for (size_t i = 0; m->labels[i]; i++) {
		assert(i < METRIC_LABELS_MAX);
		assert(metrics_text_name_ok(m->labels[i], false) &&
			strcmp(m->labels[i], "le") != 0);
	}
	for (unsigned i = 1; m->buckets && i < m->buckets->n; i++)
		assert(m->buckets->upper[i - 1] < m->buckets->upper[i]);
	for (size_t i = 0; i < registry.n_metrics; i++)
		assert(strcmp(registry.metrics[i]->name, m->name) != 0);
}

void metrics_register(struct metric *table, size_t n)
{
	mutex_guard(&registry.mu);
	for (size_t i = 0; i < n; i++) {
		struct metric *m = &table[i];

		if (m->state)
			continue;
		check_declaration(m);
		assert(registry.n_metrics < METRICS_MAX);
		m->state = calloc(1, sizeof(*m->state));
		assert(m->state);
		mutex_init(&m->state->mu);
		registry.metrics[registry.n_metrics++] = m;
	}
}

/* ---- series ---------------------------------------------------------------------------------- */

static struct metric_series *series_new(struct metric *m, struct buf *labels)
{
	unsigned buckets = m->buckets ? m->buckets->n + 1 : 0;
	struct metric_series *s = calloc(1, sizeof(*s) + buckets * sizeof(s->buckets[0]));

	/* A few hundred bytes at the first use of a label set: without them nothing else works. */
	assert(s);
	s->metric = m;
	s->labels = buf_take(labels);
	/* What is counted starts at 0 and is shown; a gauge is unknown until it is set. */
	atomic_init(&s->present, m->type != METRIC_TYPE_GAUGE);
	return s;
}

static void format_labels(const struct metric *m, const char *const *values, struct buf *out)
{
	int r = 0;

	buf_clear(out);
	for (size_t i = 0; r == 0 && i < label_count(m); i++)
		r = metrics_text_label(out, m->labels[i], values ? values[i] : "other");
	assert(r == 0);
}

static struct metric_series *find_or_add_locked(struct metric *m, struct buf *labels)
{
	struct metric_series *s;
	const char *key = labels->data ? labels->data : "";

	assert(mutex_held(&m->state->mu));
	HASH_FIND_STR(m->state->series, key, s);
	if (s)
		return s;
	s = series_new(m, labels);
	HASH_ADD_KEYPTR(hh, m->state->series, s->labels, strlen(s->labels), s);
	return s;
}

struct metric_series *metric_series(struct metric *m, const char *const *values, size_t n)
{
	unsigned max = m->series_max ? m->series_max : METRIC_SERIES_MAX;
	cleanup_buf struct buf labels = BUF_INIT;
	struct metric_series *s;

	assert(m->state && n == label_count(m));
	format_labels(m, values, &labels);
	mutex_guard(&m->state->mu);
	HASH_FIND_STR(m->state->series, labels.data ? labels.data : "", s);
	if (s)
		return s;
	if (HASH_COUNT(m->state->series) < max)
		return find_or_add_locked(m, &labels);
	if (!m->state->other) {
		format_labels(m, NULL, &labels);
		m->state->other = find_or_add_locked(m, &labels);
	}
	return m->state->other;
}

static void show(struct metric_series *s)
{
	if (!atomic_load_explicit(&s->present, memory_order_relaxed))
		atomic_store_explicit(&s->present, true, memory_order_relaxed);
}

void metric_add(struct metric_series *s, uint64_t n)
{
	assert(s->metric->type == METRIC_TYPE_COUNTER && !s->metric->fractional);
	atomic_fetch_add_explicit(&s->total, n, memory_order_relaxed);
	show(s);
}

void metric_set_total(struct metric_series *s, uint64_t total)
{
	assert(s->metric->type == METRIC_TYPE_COUNTER && !s->metric->fractional);
	atomic_store_explicit(&s->total, total, memory_order_relaxed);
	show(s);
}

static uint64_t to_bits(double value)
{
	uint64_t bits;

	memcpy(&bits, &value, sizeof(bits));
	return bits;
}

static double from_bits(uint64_t bits)
{
	double value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

void metric_set(struct metric_series *s, double value)
{
	assert(s->metric->type == METRIC_TYPE_GAUGE || s->metric->fractional);
	atomic_store_explicit(&s->bits, to_bits(value), memory_order_relaxed);
	show(s);
}

static void add_bits(struct metric_series *s, double more)
{
	uint64_t old = atomic_load_explicit(&s->bits, memory_order_relaxed);

	while (!atomic_compare_exchange_weak_explicit(&s->bits, &old,
		to_bits(from_bits(old) + more), memory_order_relaxed, memory_order_relaxed))
		;
}

void metric_add_fraction(struct metric_series *s, double more)
{
	assert(s->metric->fractional);
	add_bits(s, more);
	show(s);
}

void metric_observe(struct metric_series *s, double value)
{
	const struct metric_buckets *b = s->metric->buckets;
	unsigned i = 0;

	assert(s->metric->type == METRIC_TYPE_HISTOGRAM);
	/* Not a number, too, ends up in the last one. */
	while (i < b->n && !(value <= b->upper[i]))
		i++;
	atomic_fetch_add_explicit(&s->buckets[i], 1, memory_order_relaxed);
	add_bits(s, value);
	show(s);
}

void metric_clear(struct metric *m)
{
	struct metric_series *s, *next;

	assert(m->state);
	mutex_guard(&m->state->mu);
	HASH_ITER (hh, m->state->series, s, next)
		atomic_store_explicit(&s->present, false, memory_order_relaxed);
}

/* ---- collectors ------------------------------------------------------------------------------ */

struct metrics_collection *metrics_collect(metrics_collector *fn, void *arg)
{
	struct metrics_collection *c = malloc(sizeof(*c));

	assert(c);
	*c = (struct metrics_collection){.fn = fn, .arg = arg};
	mutex_guard(&registry.collect_mu);
	assert(registry.n_collections < COLLECTIONS_MAX);
	registry.collections[registry.n_collections++] = c;
	return c;
}

void metrics_collect_remove(struct metrics_collection *c)
{
	if (!c)
		return;
	{
		mutex_guard(&registry.collect_mu);
		for (size_t i = 0; i < registry.n_collections; i++) {
			if (registry.collections[i] != c)
				continue;
			registry.n_collections--;
			memmove(&registry.collections[i], &registry.collections[i + 1],
				(registry.n_collections - i) * sizeof(c));
			break;
		}
	}
	free(c);
}

/* ---- rendering ------------------------------------------------------------------------------- */

static int render_histogram(const struct metric_series *s, struct buf *out)
{
	const struct metric *m = s->metric;
	uint64_t count = 0;
	int r = 0;

	/* The count is the sum of what was read, so that it always equals the last bucket. */
	for (unsigned i = 0; r == 0 && i < m->buckets->n; i++) {
		count += atomic_load_explicit(&s->buckets[i], memory_order_relaxed);
		r = metrics_text_bucket(out, m->name, s->labels, m->buckets->upper[i], count);
	}
	count += atomic_load_explicit(&s->buckets[m->buckets->n], memory_order_relaxed);
	if (r == 0)
		r = metrics_text_last_bucket(out, m->name, s->labels, count);
	if (r == 0)
		r = metrics_text_double(out, m->name, "_sum", s->labels,
			from_bits(atomic_load_explicit(&s->bits, memory_order_relaxed)));
	if (r == 0)
		r = metrics_text_count(out, m->name, "_count", s->labels, count);
	return r;
}

static int render_series(const struct metric_series *s, struct buf *out)
{
	const struct metric *m = s->metric;

	if (m->type == METRIC_TYPE_HISTOGRAM)
		return render_histogram(s, out);
	if (m->type == METRIC_TYPE_COUNTER && !m->fractional)
		return metrics_text_count(out, m->name, "", s->labels,
			atomic_load_explicit(&s->total, memory_order_relaxed));
	return metrics_text_double(out, m->name, "", s->labels,
		from_bits(atomic_load_explicit(&s->bits, memory_order_relaxed)));
}

static int render_metric(struct metric *m, struct buf *out)
{
	static const char *const types[] = {"counter", "gauge", "histogram"};
	struct metric_series *s, *next;
	bool head = false;
	int r = 0;

	mutex_guard(&m->state->mu);
	HASH_ITER (hh, m->state->series, s, next) {
		if (!atomic_load_explicit(&s->present, memory_order_relaxed))
			continue;
		if (!head)
			r = metrics_text_head(out, m->name, m->help, types[m->type]);
		head = true;
		if (r == 0)
			r = render_series(s, out);
		if (r < 0)
			break;
	}
	return r;
}

int metrics_render(struct buf *out)
{
	struct metric *metrics[METRICS_MAX];
	size_t n;
	int r = 0;

	mutex_guard(&registry.collect_mu);
	for (size_t i = 0; i < registry.n_collections; i++)
		registry.collections[i]->fn(registry.collections[i]->arg);
	{
		mutex_guard(&registry.mu);
		n = registry.n_metrics;
		memcpy(metrics, registry.metrics, n * sizeof(metrics[0]));
	}
	for (size_t i = 0; r == 0 && i < n; i++)
		r = render_metric(metrics[i], out);
	return r;
}
