/*
 * The datasets of the last plan, by id. Readers take references; a dataset that leaves the plan
 * lives until the last one is gone.
 *
 * Threading: any thread; only the heartbeat thread applies plans.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "worker/dataset.h"

#define DATASET_TABLE_MAX 65536 /* further ones of a plan are left out, with a word in the log */

struct dataset_table;

struct dataset_table *dataset_table_new(void); /* NULL when memory is out */
void dataset_table_free(struct dataset_table *t);

struct dataset *dataset_table_get(struct dataset_table *t, uint64_t id); /* a reference, or NULL */
/* References to all of them: *ret is freed with dataset_list_free. 0 or -ENOMEM. */
int dataset_table_list(struct dataset_table *t, struct dataset ***ret, size_t *ret_count);
void dataset_list_free(struct dataset **list, size_t count);

/* Makes the table what the plan says. */
void dataset_table_apply(
	struct dataset_table *t, Granary__V1__DatasetPlan *const *plans, size_t count);
