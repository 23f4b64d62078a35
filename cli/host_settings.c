#include "cli/host_settings.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/client.h"
#include "cli/policy_flags.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "granary/v1/host.pb-c.h"

static const struct {
	const char *flag;
	enum { AS_IT_IS, PATH, BYTES, RATE, LIMITS } form;
	const char *otherwise; /* what it is without the flag; NULL: nothing */
} table[HOST_SETTINGS] = {
	{"cache-dir", PATH, NULL},
	{"cache-size", BYTES, NULL},
	{"free-floor", BYTES, NULL},
	{"listen", AS_IT_IS, NULL},
	{"advertise", AS_IT_IS, NULL},
	{"token-file", PATH, NULL},
	{"group", AS_IT_IS, NULL},
	{"metrics", AS_IT_IS, NULL},
	{"log-level", AS_IT_IS, NULL},
	{"scrub-rate", RATE, "once a week"},
	{"origin-limit", LIMITS, NULL},
	{"policy", AS_IT_IS, NULL},
	{"storage", AS_IT_IS, NULL},
};

static int read_limits(const struct invocation *inv, char ret[static PATH_MAX], struct error *err)
{
	struct origin_limits limits;
	int r = origin_limits_flag(inv, &limits, err);

	static_assert(ORIGIN_LIMITS_TEXT_BYTES <= PATH_MAX, "the value of a flag holds all limits");
	if (r == 0)
		origin_limits_text(&limits, ret);
	return r;
}

int host_settings_read(const struct invocation *inv, const struct paths *paths,
	const struct cache_limits *limits, struct host_settings *ret, struct error *err)
{
	int r = 0;

	memset(ret, 0, sizeof(*ret));
	for (int i = 0; r == 0 && i < HOST_SETTINGS; i++) {
		const char *flag = table[i].flag, *text = inv_text(inv, flag);
		char *value = ret->all[i].value;

		ret->all[i].flag = flag;
		if (table[i].form == LIMITS)
			r = read_limits(inv, value, err);
		else if (text && table[i].form == PATH)
			r = paths_absolute(text, value, err);
		else if (text && table[i].form == BYTES)
			snprintf(value, PATH_MAX, "%" PRIu64, inv_size(inv, flag, 0));
		else if (text && table[i].form == RATE)
			snprintf(value, PATH_MAX, "%" PRIu64, inv_rate(inv, flag, 0));
		else if (text)
			snprintf(value, PATH_MAX, "%s", text);
		else if (table[i].otherwise)
			strcpy(value, table[i].otherwise);
	}
	/* What the defaults came to. */
	snprintf(ret->all[0].value, PATH_MAX, "%s", paths->cache_dir);
	if (limits) {
		snprintf(ret->all[1].value, PATH_MAX, "%" PRIu64, limits->capacity_bytes);
		snprintf(ret->all[2].value, PATH_MAX, "%" PRIu64, limits->free_floor_bytes);
	}
	return r;
}

static const char *value_there(const Granary__V1__HostSettingsReply *there, const char *flag)
{
	for (size_t i = 0; i < there->n_settings; i++) {
		if (strcmp(there->settings[i]->flag, flag) == 0)
			return there->settings[i]->value;
	}
	return "";
}

static bool same(int i, const char *a, const char *b)
{
	struct stat here, there;

	if (strcmp(a, b) == 0)
		return true;
	/* One file may have many names. */
	return table[i].form == PATH && stat(a, &here) == 0 && stat(b, &there) == 0 &&
	       here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

static int compare(const struct invocation *inv, const struct host_settings *wanted,
	const Granary__V1__HostSettingsReply *there, struct error *err)
{
	char names[ERROR_TEXT_BYTES / 2] = "";
	size_t n = 0;

	for (int i = 0; i < HOST_SETTINGS; i++) {
		const char *flag = wanted->all[i].flag, *value = wanted->all[i].value;
		const char *has = value_there(there, flag);

		if (!inv_given(inv, flag) || same(i, value, has))
			continue;
		if (strcmp(flag, "log-level") == 0) {
			/* Of use to a command that ends, too. */
			fprintf(stderr,
				"granary: --log-level %s is for this command; the running process "
				"%" PRIu64 " keeps %s\n",
				value, there->pid, has);
			continue;
		}
		if (n < sizeof(names))
			n += (size_t)snprintf(names + n, sizeof(names) - n, "%s--%s (there: %.60s)",
				n ? ", " : "", flag, *has ? has : "none");
	}
	if (!n)
		return 0;
	return error_set(err, -EEXIST,
		"the running process %" PRIu64 " has other values of %s: leave these flags away, "
		"unmount what it serves first, or give another --state-dir and --cache-dir",
		there->pid, names);
}

int host_settings_agree(const struct invocation *inv, const struct paths *paths,
	struct client *running, struct error *err)
{
	Granary__V1__HostSettingsRequest q = GRANARY__V1__HOST_SETTINGS_REQUEST__INIT;
	cleanup_free struct host_settings *wanted = malloc(sizeof(*wanted));
	Granary__V1__HostSettingsReply *there;
	int r = wanted ? host_settings_read(inv, paths, NULL, wanted, err)
		       : error_set(err, -ENOMEM, "out of memory");

	if (r < 0)
		return r;
	r = rpc_unary(running->channel, "/granary.v1.HostService/Settings", &q.base,
		&granary__v1__host_settings_reply__descriptor, (ProtobufCMessage **)&there,
		clock_deadline_ms(CLIENT_TIMEOUT_MS), err);
	if (r == -EOPNOTSUPP)
		return error_set(err, r,
			"a `granary master` runs with %s: use `granary dataset add` and `granary "
			"mount` there, or give another --state-dir and --cache-dir",
			paths->state_dir);
	if (r < 0)
		return r;
	r = compare(inv, wanted, there, err);
	granary__v1__host_settings_reply__free_unpacked(there, NULL);
	return r;
}
