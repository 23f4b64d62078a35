#include "master/manifest_store.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "manifest/manifest_temp.h"

#define LOG_SUBSYSTEM "master"
#include "common/log.h"

struct manifest_store {
	char *dir;
};

bool manifest_store_is_digest(const char *text)
{
	return strspn(text, "0123456789abcdef") == MANIFEST_DIGEST_TEXT_BYTES - 1 &&
	       text[MANIFEST_DIGEST_TEXT_BYTES - 1] == '\0';
}

int manifest_store_new(const char *dir, struct manifest_store **ret, struct error *err)
{
	struct manifest_store *s;
	int r;

	if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
		r = -errno; /* before anything else touches it */
		return error_set_errno(err, r, "cannot make the manifest directory %s", dir);
	}
	s = calloc(1, sizeof(*s));
	if (!s || !(s->dir = strdup(dir))) {
		free(s);
		return error_set(err, -ENOMEM, "no memory for the manifests");
	}
	*ret = s;
	return 0;
}

void manifest_store_free(struct manifest_store *s)
{
	if (!s)
		return;
	free(s->dir);
	free(s);
}

const char *manifest_store_dir(const struct manifest_store *s)
{
	return s->dir;
}

static int path_of(struct manifest_store *s, const char *digest, char **ret, struct error *err)
{
	if (!manifest_store_is_digest(digest))
		return error_set(err, -EINVAL,
			"a manifest's digest has 32 hex digits, '%.40s' is none", digest);
	if (asprintf(ret, "%s/%s" MANIFEST_STORE_SUFFIX, s->dir, digest) < 0) {
		*ret = NULL;
		return error_set(err, -ENOMEM, "no memory to open the manifest %s", digest);
	}
	return 0;
}

int manifest_store_open(
	struct manifest_store *s, const char *digest, struct manifest **ret, struct error *err)
{
	cleanup_free char *path = NULL;
	int r = path_of(s, digest, &path, err);

	return r < 0 ? r : manifest_open(path, ret, err);
}

int manifest_store_open_fd(
	struct manifest_store *s, const char *digest, int *ret_fd, struct error *err)
{
	cleanup_free char *path = NULL;
	int r = path_of(s, digest, &path, err);

	if (r < 0)
		return r;
	*ret_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (*ret_fd >= 0)
		return 0;
	r = -errno;
	return error_set_errno(err, r, "cannot open the manifest %s", path);
}

void manifest_store_remove(struct manifest_store *s, const char *digest)
{
	cleanup_free char *path = NULL;

	if (path_of(s, digest, &path, NULL) < 0)
		return;
	if (unlink(path) < 0 && errno != ENOENT)
		log_warn("cannot remove the manifest %s: %m; it takes room until the next start",
			path);
}

/* DIGEST.manifest and nothing else. */
static bool is_ours(const char *name, char digest[static MANIFEST_DIGEST_TEXT_BYTES])
{
	size_t len = strlen(name), suffix = strlen(MANIFEST_STORE_SUFFIX);

	if (len != MANIFEST_DIGEST_TEXT_BYTES - 1 + suffix ||
		strcmp(name + len - suffix, MANIFEST_STORE_SUFFIX) != 0)
		return false;
	memcpy(digest, name, MANIFEST_DIGEST_TEXT_BYTES - 1);
	digest[MANIFEST_DIGEST_TEXT_BYTES - 1] = '\0';
	return manifest_store_is_digest(digest);
}

void manifest_store_sweep(struct manifest_store *s, manifest_store_used *used, void *arg)
{
	cleanup_dir DIR *dir = opendir(s->dir);
	char digest[MANIFEST_DIGEST_TEXT_BYTES];
	struct dirent *entry;

	manifest_temp_sweep(s->dir);
	while (dir && (entry = readdir(dir))) {
		if (!is_ours(entry->d_name, digest) || used(arg, digest))
			continue;
		if (unlinkat(dirfd(dir), entry->d_name, 0) < 0)
			log_warn("cannot remove %s/%s: %m", s->dir, entry->d_name);
		else
			log_info("removed %s/%s, which no snapshot uses", s->dir, entry->d_name);
	}
}
