#include "store/format.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "store/hash.h"
#include "store/store.h"

#define LOG_SUBSYSTEM "store"
#include "common/log.h"

size_t format_line(unsigned version, char ret[static FORMAT_LINE_BYTES])
{
	int len = snprintf(ret, FORMAT_LINE_BYTES, "granary store %u", version);

	len += snprintf(ret + len, (size_t)(FORMAT_LINE_BYTES - len), " %016llx\n",
		(unsigned long long)XXH3_64bits(ret, (size_t)len));
	return (size_t)len;
}

static int write_line(const struct store_disk *d, const char *dir, const char *path)
{
	char line[FORMAT_LINE_BYTES];
	struct iovec iov = {.iov_base = line};
	int fd, r;

	iov.iov_len = format_line(STORE_FORMAT_VERSION, line);
	fd = d->open(d->ctx, path, O_RDWR | O_CREAT);
	if (fd < 0)
		return fd;
	r = d->truncate(d->ctx, fd, 0);
	if (r == 0)
		r = disk_write_all(d, fd, &iov, 1, 0);
	if (r == 0)
		r = d->datasync(d->ctx, fd);
	d->close(d->ctx, fd);
	return r == 0 ? d->syncdir(d->ctx, dir) : r;
}

/* The version that the line names, 0 when it is none. */
static unsigned parse_line(const char *line)
{
	char right[FORMAT_LINE_BYTES];
	unsigned version;

	if (sscanf(line, "granary store %9u", &version) != 1)
		return 0;
	format_line(version, right);
	return strcmp(line, right) == 0 ? version : 0;
}

static unsigned read_version(const struct store_disk *d, const char *path, bool *ret_there)
{
	char line[FORMAT_LINE_BYTES] = "";
	struct iovec iov = {.iov_base = line, .iov_len = sizeof(line) - 1};
	int fd = d->open(d->ctx, path, O_RDONLY);

	*ret_there = fd >= 0;
	if (fd < 0)
		return 0;
	if (d->preadv(d->ctx, fd, &iov, 1, 0) < 0)
		line[0] = '\0';
	d->close(d->ctx, fd);
	return parse_line(line);
}

int format_check(const struct store_disk *d, const char *dir, struct error *err)
{
	char path[PATH_MAX];
	unsigned version;
	bool there;
	int r;

	snprintf(path, sizeof(path), "%s/format", dir);
	version = read_version(d, path, &there);
	if (version == STORE_FORMAT_VERSION)
		return 0;
	if (version > STORE_FORMAT_VERSION)
		return error_set(err, -EINVAL,
			"%s was written by a newer version (format %u, this one knows %d): "
			"update granary or use another cache directory",
			dir, version, STORE_FORMAT_VERSION);
	if (there)
		log_warn("%s is damaged: written anew", path);
	r = write_line(d, dir, path);
	return r < 0 ? error_set_errno(err, r, "cannot write %s", path) : 0;
}
