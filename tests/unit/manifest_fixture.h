/*
 * Manifests for tests: written into a directory of the test's own, from entries in any order.
 */
#pragma once

#include <assert.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "manifest/manifest_builder.h"

#define FIXTURE_PATH_BYTES 256

struct fixture {
	char dir[FIXTURE_PATH_BYTES];
	char path[FIXTURE_PATH_BYTES + 64]; /* of the manifest built last */
};

static inline void fixture_init(struct fixture *f)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(f->dir, sizeof(f->dir), "%s/granary-manifest-XXXXXX", tmp ? tmp : "/tmp");
	assert(mkdtemp(f->dir));
	f->path[0] = '\0';
}

/* Number of files left in the directory; removes them and it. */
static inline int fixture_deinit(struct fixture *f)
{
	DIR *d = opendir(f->dir);
	struct dirent *e;
	int files = 0;

	assert(d);
	while ((e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		files++;
		assert(unlinkat(dirfd(d), e->d_name, 0) == 0);
	}
	closedir(d);
	assert(rmdir(f->dir) == 0);
	return files;
}

static const struct manifest_builder_entry fixture_root = {
	.type = MANIFEST_DIR,
	.mode = 0755,
	.uid = 1,
	.gid = 2,
	.mtime_ns = 3,
};

static inline struct manifest_builder_entry fixture_file(const char *path, uint64_t size)
{
	return (struct manifest_builder_entry){
		.path = path,
		.path_len = strlen(path),
		.type = MANIFEST_FILE,
		.size = size,
		.mtime_ns = 1700000000123456789,
		.validator = "\"etag\"",
		.mode = 0444,
		.uid = UINT32_MAX,
		.gid = UINT32_MAX,
	};
}

static inline struct manifest_builder_entry fixture_dir(const char *path)
{
	return (struct manifest_builder_entry){
		.path = path, .path_len = strlen(path), .type = MANIFEST_DIR, .mode = 0555};
}

static inline struct manifest_builder_entry fixture_symlink(const char *path, const char *target)
{
	return (struct manifest_builder_entry){
		.path = path,
		.path_len = strlen(path),
		.type = MANIFEST_SYMLINK,
		.mode = 0777,
		.target = target,
		.target_len = strlen(target),
	};
}

static inline int fixture_compare(const void *a, const void *b)
{
	const struct manifest_builder_entry *x = a, *y = b;

	return manifest_path_compare(x->path, x->path_len, y->path, y->path_len);
}

/* Sorts the entries and writes them; a failure prints its text and ends the test. */
static inline void fixture_build(
	struct fixture *f, struct manifest_builder_entry *entries, size_t count)
{
	char digest[MANIFEST_DIGEST_TEXT_BYTES];
	struct error err = ERROR_INIT;
	struct manifest_builder *b;
	int r;

	if (count)
		qsort(entries, count, sizeof(entries[0]), fixture_compare);
	r = manifest_builder_new(f->dir, 42, 7, 1700000000, &fixture_root, &b, &err);
	for (size_t i = 0; r == 0 && i < count; i++)
		r = manifest_builder_add(b, &entries[i], &err);
	if (r == 0)
		r = manifest_builder_finish(b, digest, &err);
	if (r < 0)
		fprintf(stderr, "%s\n", err.text);
	assert(r == 0);
	manifest_builder_free(b);
	snprintf(f->path, sizeof(f->path), "%s/%s.manifest", f->dir, digest);
}

static inline struct manifest *fixture_open(struct fixture *f)
{
	struct error err = ERROR_INIT;
	struct manifest *m = NULL;
	int r = manifest_open(f->path, &m, &err);

	if (r < 0)
		fprintf(stderr, "%s\n", err.text);
	assert(r == 0);
	return m;
}
