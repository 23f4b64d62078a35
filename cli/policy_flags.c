#include "cli/policy_flags.h"

#include <string.h>

#include "scheduler/allocation.h"

enum gpu_policy policy_flag(const struct invocation *inv)
{
	const char *name = inv_text(inv, "policy");
	enum gpu_policy policy = 0;

	while (gpu_policy_name(policy) && strcmp(gpu_policy_name(policy), name) != 0)
		policy++;
	return policy;
}

enum storage_policy storage_flag(const struct invocation *inv)
{
	const char *name = inv_text(inv, "storage");
	enum storage_policy policy = 0;

	while (storage_policy_name(policy) && strcmp(storage_policy_name(policy), name) != 0)
		policy++;
	return policy;
}

struct sharing sharing_flags(const struct invocation *inv)
{
	return (struct sharing){
		.origin_bytes_per_s = inv_rate(inv, "origin-limit", 0),
		.policy = policy_flag(inv),
		.storage = storage_flag(inv),
	};
}
