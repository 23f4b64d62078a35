/*
 * A large snapshot like the usual ones: `train/CLASS/IMAGE`, 1,000 images a class, an etag each.
 */
#pragma once

#include <stdio.h>
#include <string.h>

#include "manifest/manifest_builder.h"

#define GENERATE_IMAGES 1000

static inline int generate_dir(struct manifest_builder *b, const char *path, struct error *err)
{
	struct manifest_builder_entry e = {.path = path,
		.path_len = strlen(path),
		.type = MANIFEST_DIR,
		.mode = 0555,
		.uid = UINT32_MAX,
		.gid = UINT32_MAX};

	return manifest_builder_add(b, &e, err);
}

static inline int generate_image(
	struct manifest_builder *b, unsigned class, unsigned image, struct error *err)
{
	char path[64], etag[64];
	struct manifest_builder_entry e = {.path = path,
		.type = MANIFEST_FILE,
		.validator = etag,
		.size = 60000 + (uint64_t)image * 100,
		.mtime_ns = 1700000000000000000 + (int64_t)image,
		.mode = 0444,
		.uid = UINT32_MAX,
		.gid = UINT32_MAX};

	e.path_len = (size_t)snprintf(
		path, sizeof(path), "train/n%08u/n%08u_%05u.JPEG", class, class, image);
	snprintf(etag, sizeof(etag), "\"%016x%016x\"", class, image);
	return manifest_builder_add(b, &e, err);
}

static inline int generate_all(struct manifest_builder *b, unsigned classes, struct error *err)
{
	int r = generate_dir(b, "train", err);

	for (unsigned class = 0; r == 0 && class < classes; class ++) {
		char path[64];

		snprintf(path, sizeof(path), "train/n%08u", class);
		r = generate_dir(b, path, err);
	}
	for (unsigned class = 0; r == 0 && class < classes; class ++) {
		for (unsigned image = 0; r == 0 && image < GENERATE_IMAGES; image++)
			r = generate_image(b, class, image, err);
	}
	return r;
}

/* classes * 1,001 + 2 entries; the file's path is DIR/ret_digest.manifest. */
static inline int generate_manifest(const char *dir, unsigned classes,
	char ret_digest[MANIFEST_DIGEST_TEXT_BYTES], struct error *err)
{
	static const struct manifest_builder_entry root = {.type = MANIFEST_DIR, .mode = 0555};
	struct manifest_builder *b;
	int r = manifest_builder_new(dir, 1, 1, 1700000000, &root, &b, err);

	if (r < 0)
		return r;
	r = generate_all(b, classes, err);
	if (r == 0)
		r = manifest_builder_finish(b, ret_digest, err);
	manifest_builder_free(b);
	return r;
}
