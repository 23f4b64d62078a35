/* What the program says of itself. */
#include <errno.h>
#include <stdio.h>

#include "cli/commands.h"
#include "cli/generate.h"
#include "cli/output.h"
#include "cli/version.h"
#include "common/cleanup.h"

int command_version(struct invocation *inv)
{
	if (inv_json(inv))
		output_json(json_pack(
			"{s:s, s:s}", "version", GRANARY_VERSION, "commit", GRANARY_COMMIT));
	else
		printf("granary %s (%s)\n", GRANARY_VERSION, GRANARY_COMMIT);
	return EXIT_OK;
}

static int print_completion_json(void)
{
	cleanup_free char *script = NULL;
	size_t len;
	FILE *out = open_memstream(&script, &len);
	int r = out ? generate_completion(out) : -ENOMEM;

	if (out && fclose(out) != 0)
		r = -ENOMEM;
	if (r == 0)
		output_json(
			json_pack("{s:s, s:o}", "shell", "bash", "script", output_text(script)));
	return r;
}

int command_completion(struct invocation *inv)
{
	int r = inv_json(inv) ? print_completion_json() : generate_completion(stdout);

	return r == 0 ? EXIT_OK : EXIT_FAILED;
}

int command_man(struct invocation *inv)
{
	struct error err = ERROR_INIT;
	int r = generate_man_pages(inv_text(inv, "dir"), &err);

	if (r == 0 && inv_json(inv))
		output_json(json_pack("{s:o}", "dir", output_text(inv_text(inv, "dir"))));
	return r < 0 ? inv_fail(inv, r, &err) : EXIT_OK;
}
