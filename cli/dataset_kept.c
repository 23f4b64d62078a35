#include <stdio.h>
#include <string.h>

#include "cli/dataset_client.h"

static bool same_list(char **a, size_t a_count, char **b, size_t b_count)
{
	bool same = a_count == b_count;

	for (size_t i = 0; same && i < a_count; i++)
		same = strcmp(a[i], b[i]) == 0;
	return same;
}

static const char *option_of(const Granary__V1__Dataset *d, const char *key)
{
	for (size_t i = 0; i < d->n_options; i++) {
		if (strcmp(d->options[i]->key, key) == 0)
			return d->options[i]->value;
	}
	return "";
}

static void note(char *names, size_t room, const char *flag)
{
	size_t n = strlen(names);

	snprintf(names + n, room - n, "%s--%s", n ? ", " : "", flag);
}

void dataset_print_kept(const struct invocation *inv, const struct dataset_spec *spec,
	const Granary__V1__Dataset *d)
{
	bool quota = inv_given(inv, "quota") &&
		     ((bool)d->quota_limited != spec->quota_limited ||
			     (spec->quota_limited && d->quota_bytes != spec->quota_bytes));
	char names[1024] = "";

	if (spec->includes && !same_list(spec->include, spec->includes, d->include, d->n_include))
		note(names, sizeof(names), "include");
	if (spec->excludes && !same_list(spec->exclude, spec->excludes, d->exclude, d->n_exclude))
		note(names, sizeof(names), "exclude");
	for (const struct origin_option_info *o = origin_option_table(); o->key; o++) {
		if (!o->secret && inv_given(inv, o->key) &&
			strcmp(inv_text(inv, o->key), option_of(d, o->key)) != 0)
			note(names, sizeof(names), o->key);
	}
	if (inv_switch(inv, "no-sign-request") && strcmp(option_of(d, "sign"), "no") != 0)
		note(names, sizeof(names), "no-sign-request");
	if (quota)
		fprintf(stderr,
			"granary: dataset %s keeps its quota: `granary quota set %s %s` changes "
			"it\n",
			d->name, d->name, inv_text(inv, "quota"));
	if (names[0])
		fprintf(stderr,
			"granary: dataset %s keeps what it was added with; for other values of %s "
			"add it under another --name, or `granary dataset rm %s` it first\n",
			d->name, names, d->name);
}
