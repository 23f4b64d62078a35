#include <errno.h>
#include <stdio.h>

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/paths.h"

/* What was removed is added to the list `removed`. */
static int remove_dir(const char *dir, const char *marker, json_t *removed, struct error *err)
{
	struct paths_removed gone;
	int r = paths_remove(dir, marker, false, &gone, err);

	if (r == 0)
		json_array_append_new(
			removed, json_pack("{s:o, s:I, s:I}", "path", output_text(dir), "files",
					 (json_int_t)gone.files, "bytes", (json_int_t)gone.bytes));
	return r;
}

/* Both or none: the other one is looked at before the first is removed. */
static int purge(const struct paths *p, bool yes, json_t *removed, struct error *err)
{
	struct paths_removed none;
	int state = paths_remove(p->state_dir, PATHS_STATE_MARKER, true, &none, err), cache, r;

	if (state < 0)
		return state;
	cache = paths_remove(p->cache_dir, PATHS_CACHE_MARKER, true, &none, err);
	if (cache < 0)
		return cache;
	if (state && cache) {
		fprintf(stderr, "nothing to remove: neither %s nor %s is there\n", p->state_dir,
			p->cache_dir);
		return 0;
	}
	if (!yes)
		return error_set(err, -EINVAL,
			"this removes%s%s%s%s and all that is in it: say --yes", state ? "" : " ",
			state ? "" : p->state_dir, cache ? "" : (state ? " " : " and "),
			cache ? "" : p->cache_dir);
	r = remove_dir(p->cache_dir, PATHS_CACHE_MARKER, removed, err);
	return r < 0 ? r : remove_dir(p->state_dir, PATHS_STATE_MARKER, removed, err);
}

int command_purge(struct invocation *inv)
{
	json_t *removed = json_array();
	struct error err = ERROR_INIT;
	struct paths paths;
	int r = paths_find(inv, &paths, &err);

	if (r == 0)
		r = purge(&paths, inv_switch(inv, "yes"), removed, &err);
	if (r == 0 && inv_json(inv))
		output_json(json_pack("{s:O}", "removed", removed));
	json_decref(removed);
	return r < 0 ? inv_fail(inv, r, &err) : EXIT_OK;
}
