#include "cli/policy_flags.h"

#include <errno.h>
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

int origin_limits_flag(const struct invocation *inv, struct origin_limits *ret, struct error *err)
{
	struct error why = ERROR_INIT;
	char **list;
	size_t n = inv_list(inv, "origin-limit", &list);

	*ret = (struct origin_limits)ORIGIN_LIMITS_INIT;
	for (size_t i = 0; i < n; i++)
		if (origin_limits_add(ret, list[i], &why) < 0)
			return error_set(err, -EINVAL, "--origin-limit: %s", why.text);
	return 0;
}

int sharing_flags(const struct invocation *inv, struct sharing *ret, struct error *err)
{
	ret->policy = policy_flag(inv);
	ret->storage = storage_flag(inv);
	return origin_limits_flag(inv, &ret->origins, err);
}
