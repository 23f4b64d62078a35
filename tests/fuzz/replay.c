/*
 * The main function of a fuzz target in builds without libFuzzer: feeds it each file of the folders
 * that are its arguments.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"

#define INPUT_MAX_BYTES ((size_t)4 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int replay_file(const char *dir, const char *name)
{
	cleanup_free uint8_t *data = malloc(INPUT_MAX_BYTES);
	cleanup_file FILE *file = NULL;
	char path[4096];
	size_t len;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "r");
	if (!file || !data)
		return -1;
	len = fread(data, 1, INPUT_MAX_BYTES, file);
	/* Said before, so that a crash leaves the name of what crashed it. */
	printf("%s\n", path);
	fflush(stdout);
	LLVMFuzzerTestOneInput(data, len);
	return 0;
}

static int replay_dir(const char *path)
{
	cleanup_dir DIR *dir = opendir(path);
	struct dirent *e;
	int files = 0;

	while (dir && (e = readdir(dir))) {
		if (e->d_name[0] == '.')
			continue;
		if (replay_file(path, e->d_name) < 0)
			return -1;
		files++;
	}
	return files;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (replay_dir(argv[i]) <= 0) {
			fprintf(stderr, "%s: no input could be read there\n", argv[i]);
			return 1;
		}
	}
	return argc > 1 ? 0 : 2;
}
