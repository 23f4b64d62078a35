#include "master/allocate_limits.h"

#define OTHERS_SHARE 0.01
#define HALVINGS 200

static double most(double a, double b)
{
	return a > b ? a : b;
}

static double least(double a, double b)
{
	return a < b ? a : b;
}

/* ---- readers without a job -------------------------------------------------------------------- */

static double part_of(size_t others, size_t jobs)
{
	return jobs ? (double)others / (double)(others + jobs) : 1;
}

static size_t jobs_of(const struct allocate_limit *limit, const struct plan_item *items,
	const struct allocate_job *jobs, size_t count)
{
	size_t n = 0;

	for (size_t i = 0; i < count; i++)
		n += items[jobs[i].item].limit == limit;
	return n;
}

/* Of `all`, what is for so many of all the mounts without a job. */
static double of_mounts(const struct allocate_cluster *c, double all, size_t mounts)
{
	return c->others ? all * (double)mounts / (double)c->others : 0;
}

double allocate_others(const struct plan_item *items, const struct allocate_job *jobs,
	size_t job_count, struct allocate_cluster *c)
{
	double all = c->origin_limited ? c->origin_bytes_per_s : 0;
	double kept = all * most(part_of(c->others, job_count), OTHERS_SHARE), sum;
	size_t elsewhere = c->others;

	for (size_t i = 0; i < c->limit_count; i++)
		elsewhere -= c->limits[i].others;
	sum = c->other_bytes_per_s = most(of_mounts(c, kept, elsewhere), all * OTHERS_SHARE);
	for (size_t i = 0; i < c->limit_count; i++) {
		struct allocate_limit *l = &c->limits[i];

		l->jobs = jobs_of(l, items, jobs, job_count);
		l->other_bytes_per_s = l->bytes_per_s * part_of(l->others, l->jobs);
		if (c->origin_limited)
			l->other_bytes_per_s =
				least(l->other_bytes_per_s, of_mounts(c, kept, l->others));
		sum += l->other_bytes_per_s;
		l->other_bytes_per_s = most(l->other_bytes_per_s, l->bytes_per_s * OTHERS_SHARE);
	}
	return least(sum, kept);
}

/* ---- jobs ------------------------------------------------------------------------------------- */

static double part_at(const struct allocate_part *p, double level)
{
	return least(p->want, most(p->least, level * p->weight));
}

static double sum_at(const struct allocate_part *parts, size_t count, double level)
{
	double sum = 0;

	for (size_t i = 0; i < count; i++)
		sum += part_at(&parts[i], level);
	return sum;
}

/* The largest that is found at which their sum is no more than bytes_per_s. */
static double find_level(const struct allocate_part *parts, size_t count, double bytes_per_s)
{
	double low = 0, high = 0;

	for (size_t i = 0; i < count; i++)
		high = most(high, parts[i].want / parts[i].weight);
	if (sum_at(parts, count, high) <= bytes_per_s)
		return high;
	for (int i = 0; i < HALVINGS; i++) {
		double middle = low + (high - low) / 2;

		if (sum_at(parts, count, middle) <= bytes_per_s)
			low = middle;
		else
			high = middle;
	}
	return low;
}

void allocate_parts(struct allocate_part *parts, size_t count, double bytes_per_s)
{
	double level = find_level(parts, count, bytes_per_s);
	double sum = sum_at(parts, count, level);
	double scale = sum > bytes_per_s ? bytes_per_s / sum : 1;

	for (size_t i = 0; i < count; i++)
		parts[i].got = part_at(&parts[i], level) * scale;
}
