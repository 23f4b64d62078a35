/*
 * A scheduling problem as JSON, as `granary plan` and `granary sim` read it; docs/silod.md has the
 * fields. Strict: an unknown field, a name used twice or a number out of range is refused, and the
 * text says where ("jobs[3].weight").
 */
#pragma once

#include "common/error.h"
#include "scheduler/problem.h"

struct problem_file {
	struct problem problem; /* borrows the arrays below */
	struct problem_dataset *datasets;
	struct problem_job *jobs;
	char **dataset_names, **job_names;
};

/* "-" is stdin. -ENOENT or another errno of opening, -EINVAL for what is in it. *ret is released
 * with problem_file_deinit, whatever this returned. */
int problem_file_read(const char *path, struct problem_file *ret, struct error *err);
void problem_file_deinit(struct problem_file *f);
