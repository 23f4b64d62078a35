#include "master/dataset_add.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "master/filter.h"

DEFINE_CLEANUP(struct origin *, origin_free)
DEFINE_CLEANUP(struct filter *, filter_free)

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "the master is out of memory");
}

/* What would end up in the database, and in every reply. */
static int url_check(const char *url, struct error *err)
{
	if (strlen(url) > DATASET_ORIGIN_MAX_BYTES)
		return error_set(err, -EINVAL, "the origin's URL is over %d bytes",
			DATASET_ORIGIN_MAX_BYTES);
	if (strncmp(url, "file:", 5) != 0 && dataset_url_has_credentials(url))
		return error_set(err, -EINVAL,
			"a URL with a user or password in it would be stored and shown: give "
			"them as the secrets http-user and http-password");
	return 0; /* origin_open says what else is wrong */
}

static int strings_set(char ***to, size_t *to_count, char *const *from, size_t count)
{
	*to = calloc(count + 1, sizeof(**to));
	for (size_t i = 0; *to && i < count; i++) {
		(*to)[i] = strdup(from[i]);
		if (!(*to)[i])
			return -ENOMEM;
		(*to_count)++;
	}
	return *to ? 0 : -ENOMEM;
}

static int options_set(
	Granary__State__V1__DatasetConfig *to, const Granary__V1__AddDatasetRequest *from)
{
	to->options = calloc(from->n_options + 1, sizeof(*to->options));
	for (size_t i = 0; to->options && i < from->n_options; i++) {
		Granary__V1__Option *o = malloc(sizeof(*o));

		if (!o)
			return -ENOMEM;
		granary__v1__option__init(o);
		o->key = strdup(from->options[i]->key);
		o->value = strdup(from->options[i]->value);
		to->options[to->n_options++] = o;
		if (!o->key || !o->value)
			return -ENOMEM;
	}
	return to->options ? 0 : -ENOMEM;
}

static int config_new(const Granary__V1__AddDatasetRequest *request, struct dataset_config **ret,
	struct error *err)
{
	Granary__State__V1__DatasetConfig *c = malloc(sizeof(*c));

	if (!c)
		return no_memory(err);
	granary__state__v1__dataset_config__init(c);
	c->created_s = clock_wall_s();
	c->name = strdup(request->name);
	c->origin = strdup(request->origin);
	if (!c->name || !c->origin ||
		strings_set(&c->include, &c->n_include, request->include, request->n_include) < 0 ||
		strings_set(&c->exclude, &c->n_exclude, request->exclude, request->n_exclude) < 0 ||
		options_set(c, request) < 0) {
		granary__state__v1__dataset_config__free_unpacked(c, NULL);
		return no_memory(err);
	}
	*ret = dataset_config_new(c);
	return *ret ? 0 : no_memory(err);
}

/* Tries everything that can be judged without talking to the origin. */
static int check_opens(
	struct dataset_config *config, const struct dataset_secrets *secrets, struct error *err)
{
	CLEANUP(origin_free_ptr) struct origin *origin = NULL;
	CLEANUP(filter_free_ptr) struct filter *filter = NULL;
	Granary__State__V1__DatasetConfig *c = config->msg;
	char *url;
	int r;

	r = filter_new(c->include, c->n_include, c->exclude, c->n_exclude, &filter, err);
	if (r == 0)
		r = dataset_origin_open(config, secrets, &origin, err);
	if (r < 0)
		return r;
	url = strdup(origin_url(origin));
	if (!url)
		return no_memory(err);
	free(c->origin);
	c->origin = url;
	return 0;
}

int dataset_add_check(struct rpc_call *call, const Granary__V1__AddDatasetRequest *request,
	struct dataset_config **ret_config, struct dataset_secrets **ret_secrets, struct error *err)
{
	int r = dataset_name_check(request->name, err);

	if (r == 0)
		r = url_check(request->origin, err);
	if (r == 0)
		r = dataset_options_check(request->options, request->n_options, err);
	if (r == 0 && request->n_secrets > 0 && !rpc_call_is_local(call))
		r = error_set(err, -EPERM,
			"credentials are accepted over the master's unix socket only: run this "
			"on the master's host");
	if (r == 0 && request->n_secrets > 0)
		r = dataset_secrets_new(request->secrets, request->n_secrets, ret_secrets, err);
	if (r == 0)
		r = config_new(request, ret_config, err);
	return r < 0 ? r : check_opens(*ret_config, *ret_secrets, err);
}

int dataset_add_existing(struct master *m, const struct dataset_config *config,
	struct dataset_secrets **secrets, struct error *err)
{
	const char *name = config->msg->name, *origin = config->msg->origin;
	struct dataset *d;
	int r = 0;

	mutex_guard(&m->mu);
	d = dataset_registry_find(&m->datasets, name);
	if (!d || !d->in_database)
		return 0;
	if (strcmp(d->config->msg->origin, origin) != 0)
		return error_set(err, -EEXIST,
			"there is a dataset %s already, of %.160s and not of %.160s: choose "
			"another name",
			name, d->config->msg->origin, origin);
	if (*secrets) {
		r = dataset_registry_set_secrets(&m->datasets, d, *secrets, err);
		if (r < 0)
			return r;
		*secrets = NULL;
		master_tell_locked(m);
	}
	return DATASET_ADD_THERE;
}
