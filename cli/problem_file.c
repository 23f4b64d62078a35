#include "cli/problem_file.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

#define WHERE_BYTES 96

enum field_kind {
	FIELD_NAME,
	FIELD_WHOLE, /* uint64_t */
	FIELD_REAL,  /* double */
	FIELD_TRUTH, /* bool */
	FIELD_DATASET,
};

struct field {
	const char *name;
	enum field_kind kind;
	bool required;
	size_t offset;
};

#define OF(type, member) offsetof(struct type, member)

static const struct field capacity_fields[] = {
	{"gpus", FIELD_WHOLE, true, OF(problem, gpus)},
	{"cache_bytes", FIELD_WHOLE, true, OF(problem, cache_bytes)},
	{"remote_bytes_per_s", FIELD_REAL, true, OF(problem, remote_bytes_per_s)},
	{0},
};

static const struct field dataset_fields[] = {
	{"name", FIELD_NAME, true, 0},
	{"bytes", FIELD_WHOLE, true, OF(problem_dataset, bytes)},
	{"min_cache_bytes", FIELD_WHOLE, false, OF(problem_dataset, min_cache_bytes)},
	{"max_cache_bytes", FIELD_WHOLE, false, OF(problem_dataset, max_cache_bytes)},
	{0},
};

static const struct field job_fields[] = {
	{"name", FIELD_NAME, true, 0},
	{"dataset", FIELD_DATASET, true, OF(problem_job, dataset)},
	{"gpus", FIELD_WHOLE, true, OF(problem_job, gpus)},
	{"ideal_bytes_per_s", FIELD_REAL, true, OF(problem_job, ideal_bytes_per_s)},
	{"remaining_bytes", FIELD_WHOLE, true, OF(problem_job, remaining_bytes)},
	{"arrival_s", FIELD_REAL, true, OF(problem_job, arrival_s)},
	{"min_remote_bytes_per_s", FIELD_REAL, false, OF(problem_job, min_remote_bytes_per_s)},
	{"weight", FIELD_REAL, false, OF(problem_job, weight)},
	{"irregular", FIELD_TRUTH, false, OF(problem_job, irregular)},
	{0},
};

struct reader {
	json_t *datasets; /* name -> index */
	json_t *jobs;	  /* name -> true */
	struct error *err;
};

static int wrong(struct reader *r, const char *where, const char *field, const char *rule)
{
	return error_set(
		r->err, -EINVAL, "%s%s%s %s", where, field ? "." : "", field ? field : "", rule);
}

/* ---- values ---------------------------------------------------------------------------------- */

/* Integers, and reals that are one: people write 28e12. */
static int read_whole(const json_t *value, uint64_t *ret)
{
	double real = json_number_value(value);

	if (!json_is_number(value) || real < 0 || real >= 0x1p63 || real != floor(real))
		return -EINVAL;
	*ret = json_is_integer(value) ? (uint64_t)json_integer_value(value) : (uint64_t)real;
	return 0;
}

static int read_value(struct reader *r, const struct field *f, const json_t *value, void *target,
	const char *where)
{
	void *member = (char *)target + f->offset;
	const json_t *index;

	switch (f->kind) {
	case FIELD_NAME:
		break; /* read_name's */
	case FIELD_WHOLE:
		if (read_whole(value, member) < 0)
			return wrong(r, where, f->name, "is not a whole number from 0 to 2^63 - 1");
		break;
	case FIELD_REAL:
		if (!json_is_number(value))
			return wrong(r, where, f->name, "is not a number");
		*(double *)member = json_number_value(value);
		break;
	case FIELD_TRUTH:
		if (!json_is_boolean(value))
			return wrong(r, where, f->name, "is neither true nor false");
		*(bool *)member = json_is_true(value);
		break;
	case FIELD_DATASET:
		index = json_is_string(value)
				? json_object_get(r->datasets, json_string_value(value))
				: NULL;
		if (!index)
			return wrong(r, where, f->name, "names none of the datasets");
		*(size_t *)member = (size_t)json_integer_value(index);
		break;
	}
	return 0;
}

static int check_known(
	struct reader *r, const struct field *fields, json_t *object, const char *where)
{
	const char *key;
	json_t *value;

	json_object_foreach (object, key, value) {
		const struct field *f = fields;

		while (f->name && strcmp(f->name, key) != 0)
			f++;
		if (!f->name)
			return error_set(
				r->err, -EINVAL, "%s has an unknown field '%.100s'", where, key);
	}
	return 0;
}

static int read_object(struct reader *r, const struct field *fields, json_t *object, void *target,
	const char *where)
{
	int res;

	if (!json_is_object(object))
		return wrong(r, where, NULL, object ? "is not an object" : "is missing");
	res = check_known(r, fields, object, where);
	for (const struct field *f = fields; res == 0 && f->name; f++) {
		const json_t *value = json_object_get(object, f->name);

		if (value)
			res = read_value(r, f, value, target, where);
		else if (f->required)
			res = wrong(r, where, f->name, "is missing");
	}
	return res;
}

/* The name of an item, its index kept in `names` to find it again and to refuse another of it. */
static int read_name(struct reader *r, const json_t *object, json_t *names, size_t index,
	const char *where, char **ret_name)
{
	const char *name = json_string_value(json_object_get(object, "name"));

	if (!name || !*name)
		return wrong(r, where, "name", "is not a name");
	if (json_object_get(names, name))
		return wrong(r, where, "name", "is used twice");
	*ret_name = strdup(name);
	if (!*ret_name || json_object_set_new(names, name, json_integer((json_int_t)index)) < 0)
		return error_set(r->err, -ENOMEM, "out of memory");
	return 0;
}

/* ---- arrays ---------------------------------------------------------------------------------- */

static int array_size(struct reader *r, const json_t *array, const char *name, size_t *ret)
{
	if (!json_is_array(array))
		return wrong(r, name, NULL, array ? "is not an array" : "is missing");
	*ret = json_array_size(array);
	return *ret <= PROBLEM_ITEMS_MAX ? 0 : wrong(r, name, NULL, "has over 1,000,000 items");
}

static int read_datasets(struct reader *r, const json_t *array, struct problem_file *f)
{
	size_t count = 0;
	int res = array_size(r, array, "datasets", &count);

	if (res < 0)
		return res;
	f->datasets = calloc(count + 1, sizeof(*f->datasets));
	f->dataset_names = calloc(count + 1, sizeof(char *));
	if (!f->datasets || !f->dataset_names)
		return error_set(r->err, -ENOMEM, "out of memory");
	f->problem.datasets = f->datasets;
	f->problem.dataset_count = count;
	for (size_t i = 0; res == 0 && i < count; i++) {
		json_t *object = json_array_get(array, i);
		char where[WHERE_BYTES];

		snprintf(where, sizeof(where), "datasets[%zu]", i);
		f->datasets[i] = (struct problem_dataset)PROBLEM_DATASET_INIT;
		res = read_object(r, dataset_fields, object, &f->datasets[i], where);
		if (res == 0)
			res = read_name(r, object, r->datasets, i, where, &f->dataset_names[i]);
	}
	return res;
}

static int read_jobs(struct reader *r, const json_t *array, struct problem_file *f)
{
	size_t count = 0;
	int res = array_size(r, array, "jobs", &count);

	if (res < 0)
		return res;
	f->jobs = calloc(count + 1, sizeof(*f->jobs));
	f->job_names = calloc(count + 1, sizeof(char *));
	if (!f->jobs || !f->job_names)
		return error_set(r->err, -ENOMEM, "out of memory");
	f->problem.jobs = f->jobs;
	f->problem.job_count = count;
	for (size_t i = 0; res == 0 && i < count; i++) {
		json_t *object = json_array_get(array, i);
		char where[WHERE_BYTES];

		snprintf(where, sizeof(where), "jobs[%zu]", i);
		f->jobs[i] = (struct problem_job)PROBLEM_JOB_INIT;
		res = read_object(r, job_fields, object, &f->jobs[i], where);
		if (res == 0)
			res = read_name(r, object, r->jobs, i, where, &f->job_names[i]);
	}
	return res;
}

static int check_limits(struct reader *r, const struct problem *p)
{
	struct problem_fault fault;
	char where[WHERE_BYTES];

	if (problem_check(p, &fault) == 0)
		return 0;
	if (strcmp(fault.array, "capacity") == 0)
		snprintf(where, sizeof(where), "capacity");
	else
		snprintf(where, sizeof(where), "%s[%zu]", fault.array, fault.index);
	return wrong(r, where, fault.field, fault.rule);
}

static int read_problem(struct reader *r, json_t *root, struct problem_file *f)
{
	static const struct field parts[] = {{"capacity"}, {"datasets"}, {"jobs"}, {0}};
	int res;

	if (!r->datasets || !r->jobs)
		return error_set(r->err, -ENOMEM, "out of memory");
	if (!json_is_object(root))
		return wrong(r, "the problem", NULL, "is not an object");
	res = check_known(r, parts, root, "the problem");
	if (res == 0)
		res = read_object(r, capacity_fields, json_object_get(root, "capacity"),
			&f->problem, "capacity");
	if (res == 0)
		res = read_datasets(r, json_object_get(root, "datasets"), f);
	if (res == 0)
		res = read_jobs(r, json_object_get(root, "jobs"), f);
	return res < 0 ? res : check_limits(r, &f->problem);
}

int problem_file_read(const char *path, struct problem_file *ret, struct error *err)
{
	bool named = strcmp(path, "-") != 0;
	cleanup_file FILE *opened = named ? fopen(path, "re") : NULL;
	struct reader r = {.err = err};
	json_error_t why;
	json_t *root;
	int res;

	*ret = (struct problem_file){0};
	if (named && !opened)
		return error_set_errno(err, -errno, "cannot read %s", path);
	root = json_loadf(named ? opened : stdin, JSON_REJECT_DUPLICATES, &why);
	if (!root)
		return error_set(err, -EINVAL, "%s, line %d: %s", path, why.line, why.text);
	r.datasets = json_object();
	r.jobs = json_object();
	res = read_problem(&r, root, ret);
	json_decref(r.datasets);
	json_decref(r.jobs);
	json_decref(root);
	return res < 0 ? error_prefix(err, res, "%s", path) : 0;
}

void problem_file_deinit(struct problem_file *f)
{
	for (size_t i = 0; f->dataset_names && i < f->problem.dataset_count; i++)
		free(f->dataset_names[i]);
	for (size_t i = 0; f->job_names && i < f->problem.job_count; i++)
		free(f->job_names[i]);
	free(f->dataset_names);
	free(f->job_names);
	free(f->datasets);
	free(f->jobs);
}
