/*
 * Inside the scheduler: the running jobs that share one cache and one bandwidth, and what each has
 * been given so far. Regular jobs are one partition, irregular ones another.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A running job, in the order of the GPU policy. */
struct demand {
	size_t job;	/* index in the problem */
	size_t dataset; /* index in the partition's shares */
	uint64_t gpus;
	double ideal;	     /* bytes/s */
	double least_remote; /* what it is promised, bytes/s */
	double pace;	     /* bytes/s at level 1 of max-min fairness: weight * perf_equal */
	double least_miss;   /* what is not effective yet misses, whatever is allocated */
	/* what it is given */
	uint64_t cache_bytes; /* its dataset's, or of its own copy */
	double miss;
	double remote; /* bytes/s */
};

/* What a demand takes while a level of bandwidth is sought, apart from all else for the cache's
 * sake. */
struct asking {
	double need, promised, speed; /* bytes/s; speed is its bandwidth at level 1 */
};

/* Cache of one dataset. */
struct share {
	uint64_t bytes;
	uint64_t least, most; /* of one copy: least <= most <= bytes */
	uint64_t limit;	      /* of all copies together: the user's, >= most */
	uint64_t granted;
	double worth; /* by which cache is divided; 0: nobody has a use for it */
};

struct partition {
	struct demand *demands;
	struct asking *asking; /* scratch, one a demand */
	size_t demand_count;
	struct share *shares; /* all datasets of the problem */
	size_t share_count;
	uint64_t cache_bytes;
	double remote; /* bytes/s */
	double level;  /* that bandwidth filled to last: where the next search begins */
};

/* Each divides the cache: shares' `granted` (at most cache_bytes in all) and the demands'
 * `cache_bytes` and `miss`. 0 or -ENOMEM. */
typedef int cache_divide_fn(struct partition *p);

/* Joint, for FIFO and SJF: the most efficient datasets first, which needs the least bandwidth. */
cache_divide_fn cache_greedy_divide;
/* Joint, for max-min fairness: for the highest common level of what each would have alone. */
cache_divide_fn cache_level_divide;
cache_divide_fn cache_lru_divide, cache_private_divide, cache_whole_divide;

/* Least cache of every dataset, in their order, as far as it reaches. Returns what is left. */
uint64_t partition_grant_least(struct partition *p);
/* Sets cache_bytes and the uniform cache's miss ratio of every demand from its dataset's grant. */
void partition_apply_uniform(struct partition *p);
uint64_t partition_cache_used(const struct partition *p);
double partition_remote_used(const struct partition *p);

/* Least caches, then the datasets by the bandwidth that a byte of cache saves (sum f* / d), the
 * largest first: `grant` takes from what is left, until it says that nobody else gets any. 0 or
 * -ENOMEM. */
int partition_grant_by_worth(struct partition *p, bool (*grant)(struct share *s, uint64_t *left));
/* Datasets with a worth, the largest first; ties by index. Freed by the caller; NULL: no memory. */
struct ranked {
	double worth;
	size_t share;
};
struct ranked *partition_rank(const struct partition *p, size_t *ret_count);
void partition_sort(struct ranked *ranked, size_t count);
