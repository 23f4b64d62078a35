/*
 * Announces a list of paths or record ranges to a mount.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/order_client.h"
#include "cli/output.h"
#include "common/cleanup.h"

#define NUMBER_DIGITS 20

/* The path below the mount point; absolute ones have to lie in it. */
static int below(const char *mountpoint, const char **path, size_t *len, struct error *err)
{
	size_t n = strlen(mountpoint);

	while (n > 1 && mountpoint[n - 1] == '/')
		n--;
	if ((*path)[0] != '/')
		return 0;
	if (*len <= n || strncmp(*path, mountpoint, n) != 0 || (n > 1 && (*path)[n] != '/'))
		return error_set(err, -EINVAL, "%.200s does not lie below %s", *path, mountpoint);
	*path += n;
	*len -= n;
	return 0;
}

/* A decimal number and one blank; moves *text behind them. */
static bool number(const char **text, uint64_t *ret)
{
	char *end;

	if (**text < '0' || **text > '9' || strcspn(*text, " \t") > NUMBER_DIGITS)
		return false;
	errno = 0;
	*ret = strtoull(*text, &end, 10);
	if (errno || (*end != ' ' && *end != '\t'))
		return false;
	*text = end + 1;
	return true;
}

static int send_line(struct order_client *c, bool records, const char *mountpoint, const char *line,
	size_t len, struct error *err)
{
	const char *path = line;
	uint64_t offset, bytes;
	int r;

	if (records && (!number(&path, &offset) || !number(&path, &bytes) || bytes == 0))
		return error_set(err, -EINVAL, "'%.200s' is not OFFSET BYTES PATH", line);
	len -= (size_t)(path - line);
	r = below(mountpoint, &path, &len, err);
	if (r < 0)
		return r;
	return records ? order_client_record(c, offset, bytes, path, len, err)
		       : order_client_path(c, path, len, err);
}

static int send_lines(struct invocation *inv, struct order_client *c, FILE *in, struct error *err)
{
	int delimiter = inv_switch(inv, "null") ? '\0' : '\n';
	bool records = inv_switch(inv, "records");
	char mountpoint[PATH_MAX];
	cleanup_free char *line = NULL;
	size_t room = 0;
	ssize_t n;
	int r = 0;

	if (!realpath(inv_argument(inv, 0), mountpoint))
		return error_set_errno(err, -errno, "cannot look at %s", inv_argument(inv, 0));
	while (r == 0 && (n = getdelim(&line, &room, delimiter, in)) > 0) {
		if (line[n - 1] == delimiter)
			line[--n] = '\0';
		if (n > 0)
			r = send_line(c, records, mountpoint, line, (size_t)n, err);
	}
	if (r == 0 && ferror(in))
		r = error_set_errno(err, -errno, "cannot read the list");
	return r;
}

static void report(struct invocation *inv, const struct order_result *result)
{
	if (inv_json(inv))
		output_json(json_pack("{s:I, s:I, s:o}", "announced", (json_int_t)result->accepted,
			"unknown", (json_int_t)result->unknown, "first_unknown",
			result->unknown ? output_text(result->first_unknown) : json_null()));
	else
		printf("%" PRIu64 " announced\n", result->accepted);
	if (result->unknown)
		fprintf(stderr,
			"granary: %" PRIu64 " are no files of the snapshot, the first: %s\n",
			result->unknown, result->first_unknown);
}

int command_hint(struct invocation *inv)
{
	const char *file = inv_argument(inv, 1);
	bool named = file && strcmp(file, "-") != 0;
	cleanup_file FILE *opened = named ? fopen(file, "re") : NULL;
	struct order_result result = {0};
	struct error err = ERROR_INIT;
	struct order_client *c = malloc(sizeof(*c));
	int r;

	if (!c)
		return inv_fail(inv, -ENOMEM, &err);
	if (named && !opened)
		r = error_set_errno(&err, -errno, "cannot read %s", file);
	else
		r = order_client_open(c, inv_argument(inv, 0), &err);
	if (r == 0) {
		r = send_lines(inv, c, named ? opened : stdin, &err);
		if (r == 0)
			r = order_client_end(c, &result, &err);
		order_client_close(c);
	}
	free(c);
	if (r < 0)
		return inv_fail(inv, r, &err);
	report(inv, &result);
	return result.accepted || !result.unknown ? EXIT_OK : EXIT_FAILED;
}
