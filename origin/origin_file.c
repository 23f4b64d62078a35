/*
 * file:///dir: a directory of a shared (or local) file system.
 *
 * The root is opened anew by every operation, so that nothing keeps it from being unmounted and a
 * remount is found by itself; its device number tells an unmounted root (an empty mount point of
 * another file system, where everything would look deleted) from a deleted file.
 *
 * The validator is "inode:ctime_ns". It is compared before and after every read, and bytes count as
 * arrived only after the second look: what changed while it was read is never handed on.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include <curl/curl.h>

#include "common/buf.h"
#include "common/cleanup.h"
#include "origin/beneath.h"
#include "origin/origin_ops.h"
#include "origin/walk.h"

#define FILE_CHUNK_BYTES (1u << 20)

struct file_origin {
	char *root;
	/* Device of the root when it was first seen; 0 before. */
	atomic_uint_fast64_t root_dev;
};

static void file_free(void *impl)
{
	struct file_origin *o = impl;

	free(o->root);
	free(o);
}

/* The path of a file URL, decoded: malloc'ed, or NULL with *ret set. */
static char *path_of_url(const char *url, int *ret, struct error *err)
{
	const char *path = url + strlen("file://");
	cleanup_free char *copy = NULL;
	char *decoded;
	int len;

	if (strncasecmp(path, "localhost/", 10) == 0)
		path += strlen("localhost");
	if (path[0] != '/') {
		*ret = error_set(err, -EINVAL,
			"%s: give an absolute directory, as in file:///data/set", url);
		return NULL;
	}
	decoded = curl_easy_unescape(NULL, path, 0, &len);
	if (decoded)
		copy = strdup(decoded);
	curl_free(decoded);
	if (!copy) {
		*ret = error_set(err, -ENOMEM, "%s: out of memory", url);
		return NULL;
	}
	if (strlen(copy) != (size_t)len || len >= PATH_MAX) {
		*ret = error_set(err, -EINVAL, "%s: not the name of a directory", url);
		return NULL;
	}
	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = '\0';
	return steal(&copy);
}

static int file_open(const char *url, const struct origin_options *opts, void **ret_impl,
	char **ret_shown, struct error *err)
{
	struct file_origin *o;
	int r = 0;

	(void)opts;
	o = calloc(1, sizeof(*o));
	if (!o)
		return error_set(err, -ENOMEM, "%s: out of memory", url);
	o->root = path_of_url(url, &r, err);
	if (o->root) {
		*ret_shown = strdup(url);
		if (*ret_shown) {
			*ret_impl = o;
			return 0;
		}
		r = error_set(err, -ENOMEM, "%s: out of memory", url);
	}
	file_free(o);
	return r;
}

static const char *file_guarantee(void *impl)
{
	(void)impl;
	return "inode+ctime";
}

/* A descriptor of the root, or -errno. */
static int open_root(struct file_origin *o)
{
	int fd = open(o->root, O_PATH | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* Remembers the root's file system; false when it is not the one seen first. */
static bool same_file_system(struct file_origin *o, int root_fd)
{
	uint_fast64_t none = 0;
	struct stat st;

	if (fstat(root_fd, &st) < 0)
		return false;
	/* Device 0 does not occur for real file systems; 1 more keeps it apart all the same. */
	atomic_compare_exchange_strong(&o->root_dev, &none, (uint_fast64_t)st.st_dev + 1);
	return atomic_load(&o->root_dev) == (uint_fast64_t)st.st_dev + 1;
}

static void write_validator(const struct stat *st, char text[static 256])
{
	snprintf(text, 256, "%" PRIu64 ":%" PRId64, (uint64_t)st->st_ino,
		(int64_t)st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec);
}

static enum origin_entry_type type_of(mode_t mode, const char **ret_reason)
{
	*ret_reason = NULL;
	if (S_ISREG(mode))
		return ORIGIN_FILE;
	if (S_ISDIR(mode))
		return ORIGIN_DIR;
	if (S_ISLNK(mode))
		return ORIGIN_SYMLINK;
	*ret_reason = S_ISFIFO(mode) ? "a pipe" : S_ISSOCK(mode) ? "a socket" : "a device";
	return ORIGIN_OTHER;
}

/* `validator` stays in use by *ret. */
static void describe(const struct stat *st, const char *path, size_t len,
	char validator[static 256], struct origin_entry *ret)
{
	*ret = (struct origin_entry){
		.path = path,
		.path_len = len,
		.size = (uint64_t)st->st_size,
		.mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec,
		.validator = validator,
		.mode = st->st_mode & 07777,
		.uid = st->st_uid,
		.gid = st->st_gid,
	};
	ret->type = type_of(st->st_mode, &ret->reason);
	if (ret->type == ORIGIN_FILE)
		write_validator(st, validator);
	else
		validator[0] = '\0';
}

/* ---- list ------------------------------------------------------------------------------------ */

struct file_visit {
	struct file_origin *o;
	struct walk *walk;
	int root_fd;
	struct buf path; /* of the directory, with a '/' behind unless it is the root */
	size_t dir_len;
};

static int emit_symlink(struct file_visit *v, int dir_fd, const char *name, struct origin_entry *e,
	struct error *err)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(dir_fd, name, target, sizeof(target) - 1);

	if (n < 0)
		return errno == ENOENT || errno == EINVAL
			       ? 0
			       : error_set_errno(err, -errno, "list %s/%s: read the symlink",
					 v->o->root, e->path);
	target[n] = '\0';
	e->target = target;
	e->target_len = (size_t)n;
	e->size = (uint64_t)n;
	if (!beneath_symlink_stays(v->root_fd, e->path, e->path_len, target)) {
		e->type = ORIGIN_OTHER;
		e->reason = target[0] == '/' ? "a symlink with an absolute target"
					     : "a symlink that leaves the directory";
	}
	return walk_emit(v->walk, e, err);
}

static int visit_entry(struct file_visit *v, int dir_fd, const char *name, struct error *err)
{
	char validator[256];
	struct origin_entry e;
	struct stat st;
	int r;

	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return 0;
	v->path.len = v->dir_len;
	if (buf_append_str(&v->path, name) < 0)
		return error_set(err, -ENOMEM, "list %s: out of memory", v->o->root);
	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		/* Deleted since it was read from the directory. */
		if (errno == ENOENT)
			return 0;
		return error_set_errno(err, -errno, "list %s/%s", v->o->root, v->path.data);
	}
	describe(&st, v->path.data, v->path.len, validator, &e);
	if (e.type == ORIGIN_SYMLINK)
		return emit_symlink(v, dir_fd, name, &e, err);
	r = walk_emit(v->walk, &e, err);
	if (r == 0 && e.type == ORIGIN_DIR)
		r = walk_push(v->walk, v->path.data, v->path.len, err);
	return r;
}

/* A directory that we may not read is reported like a device: lost+found of a file system's root
 * must not keep the rest from being a dataset. */
static int emit_unreadable(struct file_visit *v, const char *item, size_t len, struct error *err)
{
	const struct origin_entry e = {
		.path = item,
		.path_len = len,
		.type = ORIGIN_OTHER,
		.validator = "",
		.mode = ORIGIN_UNKNOWN_MODE,
		.uid = ORIGIN_UNKNOWN_ID,
		.gid = ORIGIN_UNKNOWN_ID,
		.reason = "a directory that may not be read",
	};

	return walk_emit(v->walk, &e, err);
}

static int open_item(
	struct file_visit *v, const char *item, size_t len, DIR **ret, struct error *err)
{
	cleanup_fd int fd = beneath_open(v->root_fd, item, len, O_RDONLY | O_DIRECTORY);

	if (fd == -EACCES && len > 0)
		return emit_unreadable(v, item, len, err);
	/* Deleted, or replaced by something else, since its parent was read. */
	if (len > 0 && (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP))
		return 0;
	if (fd < 0)
		return error_set_errno(err, fd, "list %s/%.*s", v->o->root, (int)len, item);
	*ret = fdopendir(fd);
	if (!*ret)
		return error_set_errno(err, -errno, "list %s/%.*s", v->o->root, (int)len, item);
	fd = -1; /* the directory stream's */
	return 0;
}

static int visit_stream(struct file_visit *v, DIR *dir, struct error *err)
{
	for (unsigned seen = 0;; seen++) {
		struct dirent *d;
		int r;

		if (seen % 256 == 255) {
			r = walk_check(v->walk, err);
			if (r < 0)
				return r;
		}
		errno = 0;
		d = readdir(dir);
		if (!d && errno)
			return error_set_errno(err, -errno, "list %s/%s", v->o->root,
				v->path.data ? v->path.data : "");
		if (!d)
			return 0;
		r = visit_entry(v, dirfd(dir), d->d_name, err);
		if (r < 0)
			return r;
	}
}

static int visit(void *arg, struct walk *w, const char *item, size_t len, struct error *err)
{
	struct file_visit v = {.o = arg, .walk = w, .root_fd = -1};
	cleanup_fd int root_fd = open_root(v.o);
	cleanup_dir DIR *dir = NULL;
	int r;

	if (root_fd == -EACCES)
		return error_set_errno(err, root_fd, "list %s", v.o->root);
	if (root_fd < 0)
		return error_set_errno(err, -EIO, "list %s: no such directory, or not mounted (%s)",
			v.o->root, strerror(-root_fd));
	if (!same_file_system(v.o, root_fd))
		return error_set(err, -EIO,
			"list %s: it is another file system than before: was it unmounted?",
			v.o->root);
	v.root_fd = root_fd;
	r = open_item(&v, item, len, &dir, err);
	if (r < 0 || !dir)
		return r;
	if (buf_append(&v.path, item, len) < 0 || (len > 0 && buf_append_str(&v.path, "/") < 0))
		r = error_set(err, -ENOMEM, "list %s: out of memory", v.o->root);
	v.dir_len = v.path.len;
	if (r == 0)
		r = visit_stream(&v, dir, err);
	buf_deinit(&v.path);
	return r;
}

static int file_list(void *impl, const struct origin_listing *l, struct error *err)
{
	return walk_run(l, "", 0, visit, impl, err);
}

/* ---- stat and get ---------------------------------------------------------------------------- */

/* Is the file missing, or is the root? */
static int classify_missing(struct file_origin *o, int root_fd, struct origin_attempt *at)
{
	if (same_file_system(o, root_fd))
		return ORIGIN_GONE;
	return attempt_retry(at, "the directory is on another file system than before: was it "
				 "unmounted?");
}

static int classify(
	struct file_origin *o, int root_fd, int code, struct origin_attempt *at, struct error *err)
{
	switch (code) {
	case -ENOENT:
	case -ENOTDIR:
		return classify_missing(o, root_fd, at);
	case -ELOOP: /* a component became a symlink */
	case -EINVAL:
	case -ENAMETOOLONG:
	case -ENXIO: /* became a pipe or a socket */
		return ORIGIN_GONE;
	case -EACCES:
	case -EPERM:
		return error_set_errno(err, -EACCES, "open");
	case -ENOMEM:
		return error_set_errno(err, code, "open");
	default:
		return attempt_retry(at, "%s", strerror(-code));
	}
}

/* The file's descriptor, or an outcome of an attempt in *ret and -1. */
static int open_file(struct file_origin *o, const char *path, size_t len, int flags, int *ret,
	struct origin_attempt *at, struct error *err)
{
	cleanup_fd int root_fd = open_root(o);
	int fd;

	if (root_fd < 0) {
		*ret = attempt_retry(at, "the directory cannot be opened: %s: is it mounted?",
			strerror(-root_fd));
		return -1;
	}
	fd = beneath_open(root_fd, path, len, flags);
	if (fd >= 0) {
		same_file_system(o, root_fd);
		return fd;
	}
	*ret = classify(o, root_fd, fd, at, err);
	return -1;
}

static int file_stat(void *impl, const char *path, size_t path_len, struct origin_entry *ret,
	char ret_validator[static 256], struct origin_attempt *at, struct error *err)
{
	struct stat st;
	int r = 0;
	cleanup_fd int fd = open_file(impl, path, path_len, O_PATH, &r, at, err);

	if (fd < 0)
		return r;
	if (fstat(fd, &st) < 0)
		return attempt_retry(at, "%s", strerror(errno));
	describe(&st, path, path_len, ret_validator, ret);
	return 0;
}

/* 0 when the descriptor is still the snapshot's object. */
static int check_unchanged(int fd, const struct origin_range *range, struct origin_attempt *at)
{
	char validator[256];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return attempt_retry(at, "%s", strerror(errno));
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != range->object_bytes)
		return ORIGIN_CHANGED;
	write_validator(&st, validator);
	return range->validator[0] && strcmp(validator, range->validator) != 0 ? ORIGIN_CHANGED : 0;
}

static int read_chunk(int fd, const struct origin_range *range, uint64_t done, size_t n,
	struct origin_attempt *at)
{
	for (size_t got = 0; got < n;) {
		ssize_t k = pread(
			fd, range->dst + done + got, n - got, (off_t)(range->offset + done + got));

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return attempt_retry(at, "%s", strerror(errno));
		if (k == 0)
			return ORIGIN_CHANGED; /* shorter than listed */
		got += (size_t)k;
	}
	return 0;
}

static int file_get(
	void *impl, const struct origin_range *range, struct origin_attempt *at, struct error *err)
{
	int r = 0;
	/* O_NONBLOCK: what became a pipe must not hang the open. */
	cleanup_fd int fd = open_file(
		impl, range->path, range->path_len, O_RDONLY | O_NONBLOCK | O_NOCTTY, &r, at, err);

	if (fd < 0)
		return r;
	r = check_unchanged(fd, range, at);
	for (uint64_t done = 0; r == 0 && done < range->len;) {
		size_t n =
			range->len - done < FILE_CHUNK_BYTES ? range->len - done : FILE_CHUNK_BYTES;

		if (attempt_stopped(at))
			return attempt_retry(at, "the time for one attempt is over");
		r = read_chunk(fd, range, done, n, at);
		if (r == 0)
			r = check_unchanged(fd, range, at);
		if (r == 0)
			attempt_arrived(at, n);
		done += n;
	}
	return r;
}

const struct origin_ops origin_file_ops = {
	.scheme = "file",
	.open = file_open,
	.free = file_free,
	.guarantee = file_guarantee,
	.list = file_list,
	.stat = file_stat,
	.get = file_get,
};
