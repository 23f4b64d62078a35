#include "sim/trace.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/cleanup.h"
#include "sim/random.h"

#define COLUMNS_MAX 32
#define MEAN_GAP_S 100 /* between arrivals; workloads scale it to the load */
/* Of the Philly trace. */
#define MEDIAN_S 1144.0
#define MEAN_S 13136.0

static int trace_add(struct trace *t, const struct trace_job *j, struct error *err)
{
	if (t->count == TRACE_JOBS_MAX)
		return error_set(err, -EINVAL, "the trace has over 1,000,000 jobs");
	if (t->count == t->room) {
		size_t room = t->room ? t->room * 2 : 1024;
		struct trace_job *jobs = reallocarray(t->jobs, room, sizeof(*jobs));

		if (!jobs)
			return error_set(err, -ENOMEM, "out of memory");
		t->jobs = jobs;
		t->room = room;
	}
	t->jobs[t->count++] = *j;
	return 0;
}

void trace_deinit(struct trace *t)
{
	free(t->jobs);
	*t = (struct trace){0};
}

/* ---- files ----------------------------------------------------------------------------------- */

struct columns {
	size_t timestamp, duration, gpus; /* their numbers */
};

/* Splits in place, at most COLUMNS_MAX. The format has no quotes. */
static size_t split(char *line, char **ret)
{
	size_t count = 0;

	line[strcspn(line, "\r\n")] = '\0';
	for (char *cell = line; cell && count < COLUMNS_MAX; count++) {
		ret[count] = cell;
		cell = strchr(cell, ',');
		if (cell)
			*cell++ = '\0';
	}
	return count;
}

static size_t find_column(char **cells, size_t count, const char *name)
{
	size_t i = 0;

	while (i < count && strcmp(cells[i], name) != 0)
		i++;
	return i;
}

static int read_heading(char *line, struct columns *ret, struct error *err)
{
	char *cells[COLUMNS_MAX];
	size_t count = split(line, cells);

	ret->timestamp = find_column(cells, count, "timestamp");
	ret->duration = find_column(cells, count, "duration");
	ret->gpus = find_column(cells, count, "num_gpus");
	if (ret->timestamp == count || ret->duration == count || ret->gpus == count)
		return error_set(err, -EINVAL,
			"line 1: no columns timestamp, duration and num_gpus; docs/silod.md says "
			"where traces come from");
	return 0;
}

static int read_number(const char *text, double least, double most, double *ret)
{
	char *end;

	*ret = strtod(text, &end);
	return end == text || *end || !(*ret >= least && *ret <= most) ? -EINVAL : 0;
}

static int read_job(char *line, const struct columns *c, struct trace_job *ret)
{
	char *cells[COLUMNS_MAX], *end;
	size_t count = split(line, cells);
	struct tm tm = {0};
	double gpus;

	if (c->timestamp >= count || c->duration >= count || c->gpus >= count)
		return -EINVAL;
	end = strptime(cells[c->timestamp], "%Y-%m-%d %H:%M:%S", &tm);
	if (!end || *end || read_number(cells[c->duration], 0, 1e9, &ret->duration_s) < 0 ||
		read_number(cells[c->gpus], 0, 1e6, &gpus) < 0 || gpus != floor(gpus))
		return -EINVAL;
	ret->arrival_s = (double)timegm(&tm);
	ret->gpus = (uint64_t)gpus;
	return 0;
}

static int read_lines(FILE *file, struct trace *ret, struct error *err)
{
	cleanup_free char *line = NULL;
	struct columns columns = {0};
	size_t room = 0;
	int r = getline(&line, &room, file) > 0 ? read_heading(line, &columns, err)
						: error_set(err, -EINVAL, "is empty");

	for (size_t number = 2; r == 0 && getline(&line, &room, file) > 0; number++) {
		struct trace_job job;

		if (line[strspn(line, "\r\n")] == '\0')
			continue;
		if (read_job(line, &columns, &job) < 0)
			return error_set(err, -EINVAL,
				"line %zu: not 2017-10-09 07:01:55 or the like, seconds, GPUs",
				number);
		r = trace_add(ret, &job, err);
	}
	if (r == 0 && ferror(file))
		r = error_set_errno(err, -EIO, "cannot be read");
	return r;
}

int trace_read(const char *path, struct trace *ret, struct error *err)
{
	cleanup_file FILE *file = fopen(path, "re");
	int r;

	*ret = (struct trace){0};
	if (!file)
		return error_set_errno(err, -errno, "cannot read %s", path);
	r = read_lines(file, ret, err);
	return r < 0 ? error_prefix(err, r, "%s", path) : 0;
}

/* ---- made up --------------------------------------------------------------------------------- */

static double random_normal(uint64_t *state)
{
	double radius = sqrt(-2 * log(random_unit(state)));

	return radius * cos(2 * M_PI * random_unit(state));
}

static uint64_t random_gpus(uint64_t *state)
{
	static const struct {
		uint64_t gpus, jobs;
	} philly[] = {{1, 76627}, {2, 1818}, {4, 1870}, {8, 1643}, {16, 199}, {32, 67}};
	uint64_t total = 0, drawn;
	size_t i = 0;

	for (size_t k = 0; k < sizeof(philly) / sizeof(philly[0]); k++)
		total += philly[k].jobs;
	drawn = random_below(state, total);
	while (drawn >= philly[i].jobs)
		drawn -= philly[i++].jobs;
	return philly[i].gpus;
}

int trace_generate(size_t jobs, uint64_t seed, struct trace *ret, struct error *err)
{
	/* Of a log-normal the mean is median * exp(sigma^2 / 2). */
	double sigma = sqrt(2 * log(MEAN_S / MEDIAN_S)), now = 0;
	int r = 0;

	*ret = (struct trace){0};
	for (size_t i = 0; r == 0 && i < jobs; i++) {
		struct trace_job job = {.arrival_s = now};

		job.duration_s = fmax(1, MEDIAN_S * exp(sigma * random_normal(&seed)));
		job.gpus = random_gpus(&seed);
		now -= MEAN_GAP_S * log(random_unit(&seed));
		r = trace_add(ret, &job, err);
	}
	return r;
}
